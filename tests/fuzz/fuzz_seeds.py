"""Valid inputs of every target, and how each is best mutated."""

from __future__ import annotations

import gzip
import io
import json
import lzma
from pathlib import Path
from random import Random

import mutations
import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from fuzz_targets import DATA_TEXTS, EXPORT_FILES, RUN_FILES, TEXT_ENDINGS
from tiny import DIM, FEATURES, XC, Artefacts

from ray_xml.added_labels import AddedLabels
from ray_xml.blend import DEFAULT
from ray_xml.checkpoint import folder_of
from ray_xml.probability import UNFITTED
from ray_xml.store_meta import FILTER_SCHEMA

NAMES = b"a\nb\xc3\xbc\nc\nd\ne\nf\n"
MUTATIONS = {
    ".json": mutations.json_text,
    ".jsonl": mutations.json_text,
    ".yaml": mutations.yaml_text,
    ".safetensors": mutations.safetensors,
    ".arrow": mutations.numbers,
    ".npy": mutations.noise,
    ".txt": mutations.lines,
    ".csv": mutations.lines,
    ".tsv": mutations.lines,
    ".parquet": mutations.noise,
}
# Those whose first byte does not choose a file.
_ONE_KIND = {
    "xc": mutations.lines,
    "packed": mutations.packed,
    "prepare": mutations.lines,
    "config": mutations.yaml_text,
    "documents": mutations.lines,
    "rows": mutations.numbers,
    "meta": mutations.json_text,
    "arrow": mutations.numbers,
    "filter_file": mutations.lines,
    "filter_rows": mutations.numbers,
    "embeddings": mutations.noise,
    "vectorizer": mutations.json_text,
    "request": mutations.json_text,
    "token_table": mutations.noise,
    "manifest": mutations.json_text,
    "part": mutations.safetensors,
    "lexical": mutations.safetensors,
    "storage": mutations.json_text,
    "compact": mutations.safetensors,
}
_BY_FILE = {
    "data_texts": DATA_TEXTS,
    "run_files": RUN_FILES,
    "export": EXPORT_FILES,
    "text_files": TEXT_ENDINGS,
}
NAMES_OF_TARGETS = tuple(sorted([*_ONE_KIND, *_BY_FILE]))


def mutated(target: str, data: bytes, random: Random) -> bytes:
    """An input of ``target`` like ``data``, with something hostile in it."""
    choice, content = data[:1] or b"\0", data[1:]
    if random.random() < 0.02:
        choice = bytes([random.randrange(256)])
    if target in _BY_FILE:
        files = _BY_FILE[target]
        change = MUTATIONS[Path("x" + files[choice[0] % len(files)]).suffix]
    else:
        change = _ONE_KIND[target]
    return choice + change(content, random)


def seeds(target: str, made: Artefacts) -> list[bytes]:
    """Valid inputs, or nearly so."""
    checkpoint = folder_of(made.run / "checkpoints", 2)
    if target == "xc":
        split = XC[1] + b"\0" + XC[2]
        return [b"\0" + XC[0], b"\1" + XC[0], b"\4" + XC[1], b"\2" + split, b"\5" + split]
    if target == "packed":
        return [
            b"\0" + gzip.compress(XC[0], mtime=0),
            b"\1" + lzma.compress(XC[0]),
            b"\0" + gzip.compress(NAMES[:6], mtime=0),
            b"\1" + lzma.compress(NAMES[:6]),
            b"\1" + lzma.compress(b" " * 100_000),
        ]
    if target == "prepare":
        return [b"\0" + XC[0] + b"\0" + XC[0] + b"\0" + NAMES]
    if target == "config":
        text = (made.run / "config.yaml").read_bytes()
        return [b"\0" + text, b"\0encoder: {dim: 8}\n\0training.epochs=3\0shortlist={size: 2}"]
    if target == "documents":
        return [bytes([i]) + XC[i % 2] for i in range(3)]
    if target == "rows":
        offsets, ids = np.array([0, 2, 3], np.int64), np.array([1, 4, 2], np.int32)
        return [b"\2\3" + offsets.tobytes() + ids.tobytes() + np.ones(3, np.float32).tobytes()]
    if target == "meta":
        return [b"\0" + (made.data / "meta.json").read_bytes()]
    if target == "arrow":
        return [bytes([i]) + (made.data / f"{s}.arrow").read_bytes() for i, s in _SPLITS]
    if target == "filter_file":
        return [b"\0" + b"0 1\n3 5\r\n8\t0"]
    if target == "filter_rows":
        column = pa.LargeListArray.from_arrays(
            [0, 1, 1, 3, 3, 4, 6], pa.array([2, 0, 5, 1, 3, 4], pa.int32())
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, FILTER_SCHEMA) as writer:
            writer.write_batch(pa.record_batch([column], schema=FILTER_SCHEMA))
        return [b"\0" + sink.getvalue().to_pybytes()]
    if target == "embeddings":
        found = []
        for kind in (np.float16, np.float32):
            file = io.BytesIO()
            np.save(file, np.arange(1, 19, dtype=kind).reshape(6, 3))
            found.append(b"\0" + file.getvalue())
        return found
    if target == "data_texts":
        return [bytes([i]) + (made.data / name).read_bytes() for i, name in enumerate(DATA_TEXTS)]
    if target == "text_files":
        return [bytes([place]) + content for place, content in enumerate(_text_files())]
    if target == "vectorizer":
        text = (made.data / "vectorizer.json").read_bytes()
        # Two of its features as dense columns.
        tree = json.loads(text)
        tree |= {"format_version": 3, "embedding": {"columns": 2, "weight": 0.5}}
        tree["document_counts"] = tree["document_counts"][:-2]
        return [b"\0" + text, b"\0" + json.dumps(tree).encode()]
    if target == "request":
        return [
            b'\0{"text": "w01 w02"}',
            b'\0{"texts": ["w01", "\xc3\xa9 w03"], "top_k": 3, "min_probability": 0.5}',
            b'\0{"texts": ["w01 w02 w03 w04"], "top_k": 100, "explain": false}',
            b'\0{"text": "w01 w05 unheard", "top_k": 9, "explain": true}',
        ]
    if target == "token_table":
        file = io.BytesIO()
        np.save(file, np.ones((FEATURES, DIM), np.float32))
        return [b"\0" + file.getvalue()]
    if target == "manifest":
        text = (checkpoint / "manifest.json").read_bytes()
        return [b"\0" + text, b"\1" + text]
    if target == "part":
        parts = sorted(checkpoint.glob("*.safetensors"))
        return [bytes([i]) + path.read_bytes() for i, path in enumerate(parts)]
    if target == "lexical":
        return [b"\0" + (made.run / "neighbors.safetensors").read_bytes()]
    if target == "run_files":
        event = {"epoch": 1, "epochs": 2, "phase": "classifier", "done": 1, "total": 2,
                 "docs_per_second": 5.0, "loss": 1.0}  # fmt: skip
        files = [(made.run / name).read_bytes() for name in RUN_FILES[:3]]
        seal = json.loads((checkpoint / "manifest.json").read_bytes())["seal"]
        fitted = {"checkpoint": seal, **UNFITTED.as_dict()}
        files += [json.dumps(tree).encode() for tree in (event, fitted)]
        return [bytes([i]) + text for i, text in enumerate(files)]
    if target == "storage":
        manifest = json.loads((checkpoint / "manifest.json").read_bytes())
        return [
            b"\0" + json.dumps({"checkpoints/epoch-0002/manifest.json": manifest}).encode(),
            b'\0{"losses/epoch-0001.npy": "x", "shortlists/cycle-0000.i32": "abcd"}',
            b'\0{"losses/../../../x": "x", "shortlists/../../x": "x", "losses/x/../../../y": ""}',
            b'\0{"checkpoints/epoch-0002/../../x.safetensors": "x", "checkpoints/epoch-2": "x"}',
        ]
    if target == "export":
        found = [bytes([i]) + (made.exported / f).read_bytes() for i, f in enumerate(EXPORT_FILES)]
        place = EXPORT_FILES.index("manifest.json")
        manifest = json.loads(found[place][1:])
        manifest["added"] = [AddedLabels(4, 1, DEFAULT).as_dict()]
        return [*found, bytes([place]) + json.dumps(manifest).encode()]
    if target == "compact":
        return [b"\0" + (made.exported / "model.safetensors").read_bytes()]
    raise KeyError(target)


_SPLITS = ((0, "train"), (1, "test"))


def _text_files() -> list[bytes]:
    """The same texts in each of the kinds of ``TEXT_ENDINGS``."""
    rows = [
        {
            "key": f"k{i}",
            "title": f"red Größe w{i % 4}",
            "body": "blue\n",
            "tags": ["x", f"y{i % 3}"],
        }
        for i in range(9)
    ]
    table = pa.Table.from_pylist(rows)
    found = []
    for ending in TEXT_ENDINGS:
        file = io.BytesIO()
        if ending == ".jsonl":
            file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
        elif ending == ".parquet":
            pq.write_table(table, file)
        else:
            joined = pa.array([";".join(row["tags"]) for row in rows])
            flat = table.set_column(table.schema.get_field_index("tags"), "tags", joined)
            delimiter = "," if ending == ".csv" else "\t"
            pcsv.write_csv(flat, file, pcsv.WriteOptions(delimiter=delimiter))
        found.append(file.getvalue())
    return found
