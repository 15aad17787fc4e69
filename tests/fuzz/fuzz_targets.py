"""What the fuzzers call: one method a target, ``(bytes) -> None``.

Each writes the bytes where an artefact of ours would lie, and calls the public entry points that
read it. Errors of ``ray_xml.errors`` are right answers. Anything else that comes out is a finding:
another exception, a wrong result, a file outside of where it belongs, much time or memory.

The first byte of an input chooses (a file of the artefact, or options); the rest is the content.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny import DIM, FEATURES, LABELS, Artefacts, put_right, small_config, training

from ray_xml import compact_file, lexical_file
from ray_xml.checkpoint import folder_of, sealed
from ray_xml.config import dump_config, load_config
from ray_xml.data_copy import receive
from ray_xml.embedding import Embedding, EmbeddingFile
from ray_xml.errors import RayXmlError
from ray_xml.evaluation import evaluate
from ray_xml.examples import examples
from ray_xml.exchange import Exchange
from ray_xml.export import label_names
from ray_xml.filter_file import FilterPairs
from ray_xml.label_examples import read_examples
from ray_xml.label_texts import LabelTexts
from ray_xml.neighbors import Neighbors
from ray_xml.predict_io import documents, predict_to, sink
from ray_xml.predictor import Predictions, Predictor
from ray_xml.prepare import prepare_xc
from ray_xml.prepare_text import prepare_text
from ray_xml.row_files import Columns
from ray_xml.run_config import RunConfig, check_data
from ray_xml.run_folder import RunFolder
from ray_xml.run_records import read_event
from ray_xml.run_state import load_state
from ray_xml.run_storage import RunStorage
from ray_xml.run_text import describe_epoch, describe_event
from ray_xml.serve_request import LIMITS, RefusedError, parse
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_meta import DataSetMeta
from ray_xml.text import TextSettings, Vectorizer
from ray_xml.token_table import token_table
from ray_xml.xc_io import open_xc

RUN_FILES = (
    "config.yaml", "metrics.jsonl", "losses/epoch-0002.npy", "progress.json", "probability.json",
)  # fmt: skip
EXPORT_FILES = ("model.safetensors", "manifest.json", "config.yaml", "labels.txt")
DATA_TEXTS = ("labels.txt", "test_documents.jsonl")


class FindingError(Exception):
    """An entry point returned, but not what it may return."""


TEXT_ENDINGS = (".csv", ".jsonl", ".tsv", ".parquet")


class Targets:
    """The targets over one set of artefacts.

    Args:
        made: never changed.
        scratch: an empty folder to work in, best in memory.
    """

    def __init__(self, made: Artefacts, scratch: Path) -> None:
        self._scratch = scratch
        self.made = Artefacts(*(scratch / name for name in ("data", "run", "exported")))
        for name in ("data", "run", "exported"):
            shutil.copytree(getattr(made, name), getattr(self.made, name))
        config = small_config(self.made.data, self.made.run)
        text = dump_config(config)
        (self.made.exported / "config.yaml").write_text(text, encoding="utf-8")
        resolved = config.resolved(DataSet.open(self.made.data))
        text = dump_config(resolved)
        (self.made.run / "config.yaml").write_text(text, encoding="utf-8")
        (self.made.exported / "config.yaml").write_text(text, encoding="utf-8")
        # Before anything is spoilt.
        data = DataSet.open(self.made.data)
        self._predictor = Predictor.load(self.made.run)
        assert self._predictor.vectorizer  # read now, and kept
        self._test = data.split("test").features
        self._begun = training(config, data, self.made.run)

    @property
    def _checkpoint(self) -> Path:
        return folder_of(self.made.run / "checkpoints", 2)

    # ---- files that users hand over ----------------------------------------------------------

    def xc(self, data: bytes) -> None:
        """One XC file, or two of the split format with a NUL in between; small blocks."""
        choice, text = data[:1] or b"\0", data[1:]
        first, nul, second = text.partition(b"\0")
        paths = self._scratch / "a.txt", self._scratch / "b.txt"
        paths[0].write_bytes(first)
        paths[1].write_bytes(second)
        block = (16, 64, 1 << 20)[choice[0] // 2 % 3]
        _read_xc(paths[0], paths[1] if nul else None, bool(choice[0] & 1), block)

    def packed(self, data: bytes) -> None:
        """A compressed XC file, and the same bytes as a compressed file of names."""
        suffix = (".gz", ".xz")[(data[:1] or b"\0")[0] % 2]
        path = self._scratch / f"packed{suffix}"
        path.write_bytes(data[1:])
        _read_xc(path, None, False, 1 << 16)
        plain = self._scratch / "plain.txt"
        plain.write_bytes(b"1 2 3\n0 1:1\n")
        _prepare(plain, plain, self._scratch / "prepared", path)

    def prepare(self, data: bytes) -> None:
        """train, test and names, with NULs in between, through to an opened data set."""
        parts = [*data[1:].split(b"\0", 2), b"", b""][:3]
        paths = [self._scratch / name for name in ("train.txt", "test.txt", "names.txt")]
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        out = self._scratch / "prepared"
        if _prepare(*paths[:2], out, paths[2]):
            self._use_data_set(out)

    def text_files(self, data: bytes) -> None:
        """A file of texts of some kind, of labels' texts and of new labels, through to an opened
        data set with a vectoriser."""
        ending = TEXT_ENDINGS[(data[:1] or b"\0")[0] % len(TEXT_ENDINGS)]
        path, out = self._scratch / f"texts{ending}", self._scratch / "prepared"
        path.write_bytes(data[1:])
        columns = Columns(("title", "body"), "tags", ";", id="key")
        settings = TextSettings(min_df=1, ngrams=(1, 2))
        try:
            prepare_text(
                [path],
                out,
                columns=columns,
                test=0.5,
                settings=settings,
                label_texts=LabelTexts([str(path)], replace(columns, text=("title",)), names=True),
                allow_empty=len(data) % 2 == 0,
                overwrite=True,
                processes=1,
            )
            vectorizer = Vectorizer.load(out)
            rows = vectorizer.transform(["red blue", "ﬁne"])
        except RayXmlError:
            return
        rows.check("rows")
        with suppress(RayXmlError):
            found = read_examples(str(path), columns, vectorizer, ["colour"])
            found.features.check("examples")
            found.labels.check("labels")
            if not found.labels.column_counts().all():
                raise FindingError("a new label without a document")
        self._use_data_set(out)

    def filter_file(self, data: bytes) -> None:
        """A text file of pairs, through to a matrix."""
        path = self._scratch / "names.txt"
        path.write_bytes(data[1:])
        try:
            rows = FilterPairs.read(path).rows(9, LABELS)
        except RayXmlError:
            return
        rows.check("pairs")

    def embeddings(self, data: bytes) -> None:
        """An .npy file of vectors, behind the rows of some words."""
        path = self._scratch / "tokens.npy"
        path.write_bytes(data[1:])
        try:
            file = EmbeddingFile(path)
            vectors = file.take(np.arange(min(file.rows, 9)))
            words = self._test.slice(0, 0).padded(len(vectors))
            rows = Embedding(columns=file.columns, weight=1.0).beside(words, vectors)
        except RayXmlError:
            return
        rows.check("rows")
        rows.check_finite("rows")

    def config(self, data: bytes) -> None:
        """A YAML file, with overrides behind NULs."""
        text, *overrides = data[1:].split(b"\0")
        path = self._scratch / "config.yaml"
        path.write_bytes(text)
        try:
            config = load_config(
                RunConfig, path, [part.decode("utf-8", "surrogateescape") for part in overrides]
            )
            path.write_text(dump_config(config), encoding="utf-8")
            if load_config(RunConfig, path) != config:
                raise FindingError("a config read back is another one")
            check_data(config, DataSet.open(self.made.data))
            config.resolved(DataSet.open(self.made.data)).identity()
        except RayXmlError:
            return

    def documents(self, data: bytes) -> None:
        """Predictions for a file of documents, to a file of each kind."""
        path, choice = self._scratch / "documents.txt", (data[:1] or b"\0")[0] % 3
        path.write_bytes(data[1:])
        out = str(self._scratch / ("out" + (".jsonl", ".npz", ".parquet")[choice]))
        try:
            with sink(out, [f"l{i}" for i in range(LABELS)]) as target:
                predict_to(self._predictor, documents(str(path), "test", FEATURES), target, top=3)
        except RayXmlError:
            return
        if choice == 0:
            for line in Path(out).read_text(encoding="utf-8").splitlines():
                json.loads(line, parse_constant=_refuse)

    def rows(self, data: bytes) -> None:
        """Documents as arrays: what the bytes say, be it rows or not."""
        rows = rows_of(data)
        try:
            found = self._predictor.predict(rows, 3)
        except RayXmlError:
            return
        check_predictions(found, rows.num_rows)

    # ---- a data-set folder -------------------------------------------------------------------

    def meta(self, data: bytes) -> None:
        """meta.json, its checksum made right; copied to another machine's cache, too."""
        with self._instead(self.made.data / "meta.json", _signed(data[1:])):
            self._use_data_set(self.made.data, copied=True)

    def arrow(self, data: bytes) -> None:
        """A split's file, its size and checksum made right."""
        split = ("train", "test")[(data[:1] or b"\0")[0] % 2]
        meta = json.loads((self.made.data / "meta.json").read_bytes())
        meta["splits"][split]["bytes"] = len(data) - 1
        meta["splits"][split]["sha256"] = hashlib.sha256(data[1:]).hexdigest()
        with (
            self._instead(self.made.data / f"{split}.arrow", data[1:]),
            self._instead(self.made.data / "meta.json", _signed(json.dumps(meta).encode())),
        ):
            self._use_data_set(self.made.data)

    def filter_rows(self, data: bytes) -> None:
        """The file of a split's filter, its size and checksum made right."""
        path = self.made.data / "test.filter"
        meta = json.loads((self.made.data / "meta.json").read_bytes())
        sha256 = hashlib.sha256(data[1:]).hexdigest()
        meta["files"][path.name] = {"bytes": len(data) - 1, "sha256": sha256}
        path.write_bytes(data[1:])
        try:
            signed = _signed(json.dumps(meta).encode())
            with self._instead(self.made.data / "meta.json", signed):
                found = evaluate(self._predictor, DataSet.open(self.made.data), "test")
            if not all(0 <= value <= 100 for value in found.values()):
                raise FindingError(f"metrics {found}")
        except RayXmlError:
            return
        finally:
            path.unlink()

    def data_texts(self, data: bytes) -> None:
        """The names and titles beside the splits."""
        name = DATA_TEXTS[(data[:1] or b"\0")[0] % len(DATA_TEXTS)]
        meta = json.loads((self.made.data / "meta.json").read_bytes())
        meta["files"][name]["bytes"] = len(data) - 1
        with (
            self._instead(self.made.data / name, data[1:]),
            self._instead(self.made.data / "meta.json", _signed(json.dumps(meta).encode())),
        ):
            try:
                opened = DataSet.open(self.made.data)
                opened.label_names()
                opened.feature_names()
                list(examples(str(self.made.run), "test", 3, seed=0))
            except RayXmlError:
                return

    def vectorizer(self, data: bytes) -> None:
        """A vectoriser, and a text read with it."""
        path = self._scratch / "vectorizer.json"
        path.write_bytes(data[1:])
        shutil.copyfile(self.made.data / "features.txt", self._scratch / "features.txt")
        try:
            read = Vectorizer.load(self._scratch)
            vectors = None if read.embedding is None else np.ones((2, read.embedding.columns))
            rows = read.transform(["wordwordword w01 w02 ﬁ नमस्ते", ""], vectors)
        except RayXmlError:
            return
        rows.check("rows")

    def token_table(self, data: bytes) -> None:
        """A given token table."""
        path = self._scratch / "tokens.npy"
        path.write_bytes(data[1:])
        try:
            found = token_table(str(path), self._test, DIM, Exchange(), seed=0)
        except RayXmlError:
            return
        if tuple(found.shape) != (FEATURES, DIM):
            raise FindingError(f"a table {tuple(found.shape)}")

    def request(self, data: bytes) -> None:
        """The body of a request to a served model, through to its answer."""
        try:
            asked = parse(data[1:], LIMITS)
        except RefusedError as error:
            if not 400 <= error.status < 500 or len(str(error)) > 1000:
                raise FindingError(f"{error.status}: {str(error)[:2000]}") from error
            json.dumps(str(error)).encode()
            return
        found = self._predictor.tag(asked.texts, asked.top_k)
        if len(found) != len(asked.texts):
            raise FindingError(f"{len(found)} answers to {len(asked.texts)} texts")
        told = [[tag._asdict() for tag in tags] for tags in found]
        if asked.explain and found[0]:
            labels = [tag.label for tag in found[0]]
            told += [self._predictor.reasons(asked.texts[0], labels)]
        json.dumps(told, ensure_ascii=False, allow_nan=False).encode()

    # ---- a run folder ------------------------------------------------------------------------

    def manifest(self, data: bytes) -> None:
        """The manifest of the checkpoint, sealed or as it is: predicted with, gone on from."""
        text = data[1:] if (data[:1] or b"\0")[0] & 1 else _sealed(data[1:])
        with self._instead(self._checkpoint / "manifest.json", text):
            self._use_run(resume=True)
            with self._run_kept() as run:
                run.metrics_file.unlink()  # so that its line is the manifest's
                self._begin(run)

    def part(self, data: bytes) -> None:
        """A part of the checkpoint, the manifest made to fit."""
        parts = sorted(self._checkpoint.glob("*.safetensors"))
        path = parts[(data[:1] or b"\0")[0] % len(parts)]
        manifest = self._checkpoint / "manifest.json"
        with self._instead(path, data[1:]), self._instead(manifest, manifest.read_bytes()):
            put_right(path)
            self._use_run(resume=True)

    def lexical(self, data: bytes) -> None:
        """The sparse channel's file."""
        path = self._scratch / "neighbors.safetensors"
        path.write_bytes(data[1:])
        try:
            config = RunFolder(self.made.run).config().neighbors
            found = lexical_file.load_lexical(path, config)
            # Documents of other widths are refused by the predictor.
            if found.neighbors.num_features == FEATURES:
                answer = found.ask(self._test)
                answer.fits(answer.votes.labels)
                found.ask(self._test.slice(0, 1)).fits(answer.votes.labels[:1])
        except RayXmlError:
            return
        with self._instead(self.made.run / "neighbors.safetensors", data[1:]):
            self._use_run(resume=False)

    def run_files(self, data: bytes) -> None:
        """What else lies in a run folder."""
        name = RUN_FILES[(data[:1] or b"\0")[0] % len(RUN_FILES)]
        with self._run_kept() as run:
            (run.path / name).write_bytes(data[1:])
            try:
                for line in run.lines():
                    describe_epoch(line)
                event = read_event(run.path)
                if event:
                    describe_event(event, run.lines())
                run.step_losses()
            except RayXmlError:
                pass
            with redirect_stderr(io.StringIO()):  # which names another checkpoint's
                self._use_run(resume=False)
            self._begin(run)

    def storage(self, data: bytes) -> None:
        """A run's storage: JSON {name: text or [first byte, size]} over that of a real run."""
        try:
            listed = json.loads(data[1:])
            changes = {str(name): content for name, content in listed.items()}
        except (ValueError, AttributeError, RecursionError):
            changes = {"config.yaml": data[1:].decode("latin-1")}
        run = self.made.run
        held = {
            path.relative_to(run).as_posix(): path.read_bytes()
            for path in run.rglob("*")
            if path.is_file()
        }
        for name, content in changes.items():
            text = content if isinstance(content, str) else json.dumps(content)
            raw = text.encode("utf-8", "surrogatepass")
            held[name] = _sealed(raw) if name.endswith("/manifest.json") else raw
        outer = self._scratch / "outer"
        shutil.rmtree(outer, ignore_errors=True)
        outer.mkdir()
        stored = RunStorage("memory://fuzz")
        stored.storage = _Held(held)  # type: ignore[assignment]
        folder = RunFolder(outer / "inner" / "run")
        try:
            stored.fetch(folder)
            folder.lines()
        except RayXmlError:
            pass
        beside = [path for path in outer.rglob("*") if path.is_file()]
        strange = [path for path in beside if not path.is_relative_to(folder.path)]
        if strange:
            raise FindingError(f"written outside of the run folder: {strange}")

    # ---- an exported model -------------------------------------------------------------------

    def export(self, data: bytes) -> None:
        """A file of an exported model, predicted with."""
        name = EXPORT_FILES[(data[:1] or b"\0")[0] % len(EXPORT_FILES)]
        with self._instead(self.made.exported / name, data[1:]):
            try:
                names = label_names(self.made.exported)
                predictor = Predictor.load(self.made.exported)
                if names is not None and len(names) != predictor.num_labels:
                    raise FindingError("a model with too few names")
                found = predictor.predict(self._test, 3)
            except RayXmlError:
                return
            check_predictions(found, self._test.num_rows)

    def compact(self, data: bytes) -> None:
        """The file of arrays alone."""
        path = self._scratch / "model.safetensors"
        path.write_bytes(data[1:])
        try:
            compact_file.load(path)
        except RayXmlError:
            return

    # ---- what several share ------------------------------------------------------------------

    @contextmanager
    def _instead(self, path: Path, content: bytes) -> Iterator[None]:
        """The file with other content while the block runs."""
        kept = path.read_bytes()
        path.write_bytes(content)
        try:
            yield
        finally:
            path.write_bytes(kept)

    @contextmanager
    def _run_kept(self) -> Iterator[RunFolder]:
        """The run, whose small files and checkpoint are put back after the block."""
        run = RunFolder(self.made.run)
        names = (run.config_file, run.metrics_file, *run.path.glob("losses/*"))
        kept = {path: path.read_bytes() for path in names}
        try:
            yield run
        finally:
            aside = self._checkpoint.with_name(f"{self._checkpoint.name}.damaged")
            if aside.exists():
                aside.rename(self._checkpoint)
            for path, content in kept.items():
                path.write_bytes(content)
            for made in (run.progress_file, run.probability_file):
                made.unlink(missing_ok=True)

    def _begin(self, run: RunFolder) -> None:
        """Goes on with the run; its lines are then lines."""
        config = small_config(self.made.data, run.path).resolved(DataSet.open(self.made.data))
        try:
            with redirect_stderr(io.StringIO()):  # which warns of damage
                run.begin(config)
            if run.metrics_file.exists():
                text = run.metrics_file.read_text(encoding="utf-8")
                if len(run.lines()) != text.count("\n"):
                    raise FindingError("what was made anew is not read")
        except RayXmlError:
            return

    def _use_data_set(self, path: Path, copied: bool = False) -> None:
        """Opens a data set and does with it what training and prediction begin with."""
        try:
            opened = DataSet.open(path)
            if copied:
                cache = self._scratch / "cache"
                shutil.rmtree(cache, ignore_errors=True)
                receive(cache, opened.meta, lambda name, size: _pieces(path / name, size))
                if {one.name for one in self._scratch.iterdir()} - _EXPECTED:
                    raise FindingError("a copy was written outside of its cache")
            opened.label_names()
            for name in opened.meta.splits:
                split = opened.split(name)
                split.labels.column_counts()
                Neighbors.build(small_config(path, path).neighbors, split.features, split.labels)
                if split.features.num_columns == FEATURES:
                    found = self._predictor.predict(split.features, 3)
                    check_predictions(found, split.num_documents)
        except RayXmlError:
            return

    def _use_run(self, resume: bool) -> None:
        """Predicts with the run's model, and goes on with the run."""
        try:
            found = Predictor.load(self.made.run).predict(self._test, 3)
            check_predictions(found, self._test.num_rows)
        except RayXmlError:
            pass
        if resume:
            data, begun = DataSet.open(self.made.data), self._begun
            try:
                load_state(self._checkpoint.parent, begun.encoder, begun.classifier, data)
            except RayXmlError:
                return


_EXPECTED = {
    "data", "run", "exported", "cache", "prepared", "outer", "a.txt", "b.txt", "packed.gz",
    "packed.xz", "plain.txt", "train.txt", "test.txt", "names.txt", "config.yaml", "documents.txt",
    "out.jsonl", "out.npz", "out.parquet", "vectorizer.json", "tokens.npy", "neighbors.safetensors",
    "model.safetensors", "features.txt", *(f"texts{ending}" for ending in TEXT_ENDINGS),
}  # fmt: skip


class _Held:
    """A storage that holds what it is told, under any names."""

    uri = "memory://fuzz"

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self._files.items()}

    def read(self, name: str) -> bytes:
        return self._files[name]

    def download(self, name: str, target: Path) -> None:
        target.write_bytes(self._files[name])


def rows_of(data: bytes) -> Csr:
    """Arrays out of bytes: a count, offsets int64, ids int32 and values float32."""
    count, nnz = ((data + b"\0\0")[i] % 6 for i in (0, 1))
    body = data[2:] + bytes(8 * (count + 1) + 8 * nnz)
    offsets = np.frombuffer(body, np.int64, count + 1)
    ids = np.frombuffer(body, np.int32, nnz, 8 * (count + 1))
    values = np.frombuffer(body, np.float32, nnz, 8 * (count + 1) + 4 * nnz)
    return Csr(offsets, ids, values, FEATURES)


def check_predictions(found: Predictions, rows: int) -> None:
    """Raises ``FindingError`` unless these are predictions of ``rows`` documents."""
    if found.labels.shape != (rows, 3) or found.scores.shape != (rows, 3):
        raise FindingError(f"predictions of shape {found.labels.shape}")
    none = found.labels < 0
    scores = found.scores[~none]
    if not ((found.labels >= -1) & (found.labels < LABELS)).all():
        raise FindingError("labels out of range")
    if not ((scores >= 0) & (scores <= 1)).all() or not (found.scores[none] == -np.inf).all():
        raise FindingError(f"scores {found.scores.tolist()}")


def _read_xc(path: Path, labels: Path | None, sort_ids: bool, block: int) -> None:
    try:
        reader = open_xc(path, labels_path=labels, sort_ids=sort_ids, block_bytes=block)
        rows = 0
        for features, truth in reader.blocks():
            features.check("features")
            truth.check("labels")
            rows += features.num_rows
            if features.values is None or not np.isfinite(features.values).all():
                raise FindingError("a value that is not finite")
            if truth.num_rows != features.num_rows:
                raise FindingError("labels of other documents")
        if rows != reader.num_documents:
            raise FindingError(f"{rows} documents of {reader.num_documents}")
    except RayXmlError:
        return


def _prepare(train: Path, test: Path, out: Path, names: Path) -> bool:
    shutil.rmtree(out, ignore_errors=True)
    try:
        prepare_xc(train, test, out, label_names=names)
    except RayXmlError:
        return False
    return True


def _signed(data: bytes) -> bytes:
    """A meta.json with the checksum that its content asks for, if it is one at all."""
    try:
        meta = DataSetMeta.model_validate(json.loads(data))
        text: str = meta.model_copy(update={"checksum": meta.computed_checksum()}).model_dump_json()
        return text.encode()
    except Exception:
        return data


def _sealed(data: bytes) -> bytes:
    """A manifest with the seal that its content asks for, if it is one at all."""
    try:
        return json.dumps(sealed(json.loads(data))).encode()
    except (ValueError, AttributeError, RecursionError):
        return data


def _pieces(path: Path, size: int) -> Iterator[np.ndarray]:
    yield np.frombuffer(path.read_bytes()[:size], np.uint8)


def _refuse(constant: str) -> Any:
    raise FindingError(f"{constant} in JSON lines")
