"""Hostile data-set folders: names that lead elsewhere, widths and offsets that lie."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_sets import make
from traps import Trap

from ray_xml.data_copy import receive
from ray_xml.errors import DataSetError, RayXmlError
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_meta import FILTER_SCHEMA, SCHEMA, DataSetMeta


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "set")
    return tmp_path / "set"


def sign(folder: Path, tree: Any) -> None:
    """Writes meta.json with the checksum that an attacker can work out as well."""
    content = {k: v for k, v in tree.items() if k not in ("name", "checksum")}
    tree["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(tree))


def meta_of(folder: Path) -> Any:
    return json.loads((folder / "meta.json").read_text())


def put(folder: Path, split: str, content: bytes, **counts: int) -> None:
    """Another file for a split, with everything in meta.json to match."""
    (folder / f"{split}.arrow").write_bytes(content)
    tree = meta_of(folder)
    tree["splits"][split] |= {"bytes": len(content), **counts}
    tree["splits"][split]["sha256"] = hashlib.sha256(content).hexdigest()
    sign(folder, tree)


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "", ".", "a.b", "a\n", "a\0", "é", "x" * 9999]
)
def test_a_split_cannot_be_named_out_of_the_folder(folder: Path, name: str) -> None:
    shutil.copy(folder / "train.arrow", folder.parent / "x.arrow")
    tree = meta_of(folder)
    tree["splits"][name] = tree["splits"]["train"]
    sign(folder, tree)
    with pytest.raises(DataSetError, match=r"meta\.json is damaged") as caught:
        DataSet.open(folder)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".x", "train.arrow", "meta.json"])
def test_nor_can_a_file(folder: Path, name: str) -> None:
    tree = meta_of(folder)
    tree["files"][name] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(ValueError, match="no plain file name"):
        DataSetMeta.model_validate(tree)  # so no machine is told to copy such a file, either
    sign(folder, tree)
    with pytest.raises(DataSetError, match=r"meta\.json is damaged"):
        DataSet.open(folder)


@pytest.mark.parametrize(
    "rows", [[[2, 1], []], [[1, 1], []], [[3], []], [[-1], []], [[1]], [[1], [], [2]]]
)
def test_a_filter_that_lies_is_refused(folder: Path, rows: list[list[int]]) -> None:
    """Beside test's four documents of three labels."""
    rows = [*rows, [], []]
    column = pa.array(rows, pa.large_list(pa.int32()))
    with pa.ipc.new_file(folder / "test.filter", FILTER_SCHEMA) as writer:
        writer.write_batch(pa.record_batch([column], schema=FILTER_SCHEMA))
    content, tree = (folder / "test.filter").read_bytes(), meta_of(folder)
    sha256 = hashlib.sha256(content).hexdigest()
    tree["files"]["test.filter"] = {"bytes": len(content), "sha256": sha256}
    sign(folder, tree)
    split = DataSet.open(folder).split("test")
    with pytest.raises(DataSetError, match=r"test\.filter is damaged"):
        split.filtered  # noqa: B018


def test_a_copy_stays_in_its_cache(folder: Path, tmp_path: Path) -> None:
    meta = DataSet.open(folder).meta

    def read(name: str, size: int) -> list[np.ndarray]:
        return [np.frombuffer((folder / name).read_bytes(), np.uint8)[:size]]

    assert receive(tmp_path / "cache", meta, read)
    assert {path.name for path in tmp_path.iterdir()} == {"set", "cache"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_labels", -1),
        ("num_labels", 2**31),
        ("num_features", 10**400),
        ("num_features", 10**12),
        ("num_features", 2**30),
        ("num_labels", 2**31 - 1),
        ("num_labels", float("inf")),
        ("splits", []),
        ("files", "x"),
        ("format_version", {"a": 1}),
        ("name", "\ud800"),
        ("embedding", {"columns": 99, "weight": 1.0}),
        ("embedding", {"columns": 0, "weight": 1.0}),
        ("embedding", {"columns": 1, "weight": 0.0}),
        ("embedding", {"columns": 1, "weight": float("nan")}),
    ],
    ids=range(15),
)
def test_counts_that_lie_are_refused(folder: Path, key: str, value: Any) -> None:
    sign(folder, meta_of(folder) | {key: value})
    with pytest.raises(DataSetError, match=r"meta\.json"):
        DataSet.open(folder)


def test_a_deep_meta_is_no_data_set(folder: Path) -> None:
    (folder / "meta.json").write_text("[" * 100_000)
    with pytest.raises(DataSetError, match="no usable meta"):
        DataSet.open(folder)


TEST = {"documents": 2, "feature_nnz": 3, "label_pairs": 2}
GOOD = ([0, 2, 3], [0, 4, 1], [1.0, 2.0, 3.0], [0, 1, 2], [2, 0])


def arrow(
    offsets: list[int], ids: list[int], values: list[float], cuts: list[int], labels: list[int],
    **options: Any,
) -> bytes:  # fmt: skip
    """A split's file with these numbers, whatever they are."""
    columns = [
        raw_list(offsets, np.array(ids, np.int32), pa.int32()),
        raw_list(offsets, np.array(values, np.float32), pa.float32()),
        raw_list(cuts, np.array(labels, np.int32), pa.int32()),
    ]
    sink = pa.BufferOutputStream()
    batch = pa.record_batch(columns, schema=SCHEMA)
    with pa.ipc.new_file(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def raw_list(offsets: list[int], items: np.ndarray, kind: pa.DataType) -> pa.Array:
    # Offsets are put in behind pyarrow's back: written as given, the file would be sound.
    entries = pa.Array.from_buffers(kind, len(items), [None, pa.py_buffer(items)])
    starts = pa.py_buffer(np.array(offsets, np.int64))
    return pa.Array.from_buffers(
        pa.large_list(kind), len(offsets) - 1, [None, starts], children=[entries]
    )


def test_a_sound_file_is_read(folder: Path) -> None:
    put(folder, "test", arrow(*GOOD), **TEST)
    split = DataSet.open(folder).split("test")
    assert split.num_documents == 2
    assert split.features.ids.tolist() == [0, 4, 1]
    assert split.labels.offsets.tolist() == [0, 1, 2]


FIRST = b"".join(np.int64(n).tobytes() for n in GOOD[0])
LIES = [2**63 - 1, -(2**63), -1, 4, 2**40, 2**31]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("column", [0, 1])
def test_offsets_that_lie_are_refused(folder: Path, lie: int, place: int, column: int) -> None:
    raw = bytearray(arrow(*GOOD))
    start = raw.index(FIRST)
    if column:
        start = raw.index(FIRST, start + 1)
    raw[start + 8 * place : start + 8 * place + 8] = np.int64(lie).tobytes()
    put(folder, "test", bytes(raw), **TEST)
    with pytest.raises(DataSetError, match=r"test\.arrow is damaged"):
        DataSet.open(folder).split("test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({1: [0, 5, 1]}, "ids of features"),
        ({1: [0, -1, 1]}, "ids of features"),
        ({1: [0, 2**31 - 1, 1]}, "ids of features"),
        ({2: [1.0, float("nan"), 3.0]}, "values of features"),
        ({2: [1.0, float("inf"), 3.0]}, "values of features"),
        ({4: [3, 0]}, "ids of labels"),
        ({4: [-(2**31), 0]}, "ids of labels"),
    ],
    ids=range(7),
)
def test_entries_that_lie_are_refused_on_first_use(
    folder: Path, change: dict[int, Any], said: str
) -> None:
    put(folder, "test", arrow(*[change.get(i, part) for i, part in enumerate(GOOD)]), **TEST)
    split = DataSet.open(folder).split("test")
    with pytest.raises(DataSetError, match=rf"test\.arrow is damaged: {said}"):
        assert split.features.nnz + split.labels.nnz == 5


def test_offsets_that_decrease_are_refused(folder: Path) -> None:
    put(folder, "test", arrow([0, 3, 1, 3], *GOOD[1:3], [0, 1, 2, 2], GOOD[4]),
        **{**TEST, "documents": 3})  # fmt: skip
    with pytest.raises(DataSetError, match=r"damaged: .*non-monotonic"):
        DataSet.open(folder).split("test")


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_columns_are_refused_unread(folder: Path, codec: str) -> None:
    many = 1 << 20
    packed = arrow([0, many, many], [0] * many, [1.0] * many, [0, 1, 2], [2, 0], compression=codec)
    assert len(packed) < 8 * many / 50
    put(folder, "test", packed, documents=2, feature_nnz=many, label_pairs=2)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataSetError, match="compressed"):
        DataSet.open(folder).split("test")
    assert pa.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 9, 255])
def test_messages_of_other_kinds_are_refused(folder: Path, kind: int) -> None:
    raw = bytearray(arrow(*GOOD))
    # A flatbuffer table: its fields' offsets lie where the number at its beginning says.
    table = 16 + int.from_bytes(raw[16:20], "little")
    fields = table - int.from_bytes(raw[table : table + 4], "little", signed=True)
    place = table + int.from_bytes(raw[fields + 6 : fields + 8], "little")  # the second: the kind
    assert raw[place] == 1  # a schema
    raw[place] = kind
    put(folder, "test", bytes(raw), **TEST)
    with pytest.raises(DataSetError, match=r"test\.arrow is damaged"):
        DataSet.open(folder).split("test")


def test_nulls_are_refused(folder: Path) -> None:
    column = pa.array([[1], [None]], pa.large_list(pa.int32()))
    values = pa.array([[1.0], [2.0]], pa.large_list(pa.float32()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(pa.record_batch([column, values, column], schema=SCHEMA))
    counts = {"documents": 2, "feature_nnz": 2, "label_pairs": 2}
    put(folder, "test", sink.getvalue().to_pybytes(), **counts)
    with pytest.raises(DataSetError, match="nulls"):
        DataSet.open(folder).split("test")


def test_a_pickle_as_a_split_is_not_executed(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    put(folder, "test", pickle.dumps(Trap(mark)))
    with pytest.raises(DataSetError, match="no Arrow file"):
        DataSet.open(folder).split("test")
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\nb\nc", b"a\n\xff\nc\n", b"\n" * 4])
def test_wrong_names_are_told(folder: Path, content: bytes) -> None:
    (folder / "labels.txt").write_bytes(content)
    tree = meta_of(folder)
    tree["files"]["labels.txt"]["bytes"] = len(content)
    sign(folder, tree)
    with pytest.raises(DataSetError, match=r"labels\.txt is damaged"):
        DataSet.open(folder).label_names()


@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(LIES)), max_size=4),
       cut=st.none() | st.integers(1, 2000))  # fmt: skip
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_file_is_used_or_refused(
    folder: Path, changes: list[tuple[int, int]], cut: int | None
) -> None:
    raw = bytearray(arrow(*GOOD))
    for place, lie in changes:
        start = 8 * (place % (len(raw) // 8))
        raw[start : start + 8] = np.int64(lie).tobytes()
    put(folder, "test", bytes(raw[:cut]), **TEST)
    try:
        split = DataSet.open(folder).split("test")
        found = Neighbors.build(NeighborsConfig(idf="on"), split.features, split.labels)
        assert found.label_counts.sum() == split.labels.nnz
    except RayXmlError:
        return


@given(
    offsets=st.lists(st.sampled_from([*LIES, 0, 1, 2, 3, 2**62, -(2**62)]), min_size=1, max_size=5),
    ids=st.lists(st.sampled_from([0, 1, 2, 3, -1, 2**31 - 1]), max_size=4),
)
@settings(max_examples=200)
def test_a_check_finds_whatever_is_not_sound(offsets: list[int], ids: list[int]) -> None:
    rows = Csr(np.array(offsets, np.int64), np.array(ids, np.int32), None, 3)
    sound = (
        offsets[0] >= 0
        and offsets[-1] <= len(ids)
        and offsets == sorted(offsets)
        and all(0 <= one < 3 for one in ids[offsets[0] : offsets[-1]])
    )
    if sound:
        rows.check("rows")
    else:
        with pytest.raises(ValueError, match="rows"):
            rows.check("rows")
