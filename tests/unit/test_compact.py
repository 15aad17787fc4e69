"""Compact arrays: near enough or exact, as small as said, and damage of any kind is named."""

from __future__ import annotations

import json
import re
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file
from xc_files import quick

from ray_xml import compact, compact_file
from ray_xml.compact import pack_csr, pack_rows, unpack_blocks, unpack_csr, unpack_rows
from ray_xml.errors import CheckpointError, ExportError
from ray_xml.quantise import Dtype
from ray_xml.sparse import Csr

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_normal)
SHAPES = [(0, 0), (0, 4), (3, 0), (1, 1), (5, 7)]
both = pytest.mark.parametrize("dtype", ["fp16", "int8"])
floats = st.floats(-LARGEST, LARGEST, width=32)
matrices = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=floats)


def gaussian(n: int = 20, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def sparse(
    rows: int = 30, columns: int = 400, *, binary: bool = False, signed: bool = False
) -> Csr:
    matrix = scipy.sparse.random(rows, columns, 0.1, "csr", np.float32, rng=rows)
    if signed:
        matrix.data -= np.float32(0.5)
    return Csr.from_scipy(matrix, binary=binary)


def assert_same_entries(got: Csr, want: Csr) -> None:
    want = want.packed()
    assert (got.offsets.dtype, got.ids.dtype) == (np.int64, np.int32)
    np.testing.assert_array_equal(got.offsets, want.offsets)
    np.testing.assert_array_equal(got.ids, want.ids)
    assert got.num_columns == want.num_columns
    assert (got.values is None) == (want.values is None)
    assert got.values is None or got.values.dtype == np.float32


# Dense rows


@quick
@given(matrices)
def test_int8_rows_are_within_half_a_stored_step(rows: np.ndarray) -> None:
    packed = pack_rows("w", rows, "int8")
    got = unpack_rows("w", packed)
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    step = packed["w.scale"].astype(np.float64)[:, None]
    off = np.abs(got.astype(np.float64) - rows)
    assert (off <= step * 0.5001 + np.abs(rows) * 2e-7).all()
    ideal = np.abs(rows).max(1, keepdims=True).astype(np.float64) / 127
    assert (step <= np.maximum(ideal * 1.001, SMALLEST)).all()
    assert not got[(rows == 0).all(1)].any()


@quick
@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-65504, 65504, width=32)))
def test_fp16_rows_are_rounded_to_nearest(rows: np.ndarray) -> None:
    got = unpack_rows("w", pack_rows("w", rows, "fp16"))
    np.testing.assert_array_equal(got, rows.astype(np.float16).astype(np.float32))


def test_int8_rows_can_be_of_any_size() -> None:
    peaks = [0.0, 1e-45, 1e-30, 7e-3, 1.0, 65504.0, 1e30, LARGEST]
    rows = gaussian(len(peaks), 50)
    rows *= np.array(peaks, np.float32)[:, None] / np.abs(rows).max(1, keepdims=True)
    rows[-1, :2] = LARGEST, -LARGEST
    for row in range(len(peaks)):
        got = unpack_rows("w", pack_rows("w", rows[row : row + 1], "int8"))[0]
        assert np.isfinite(got).all()
        assert np.abs(got - rows[row]).max() <= max(peaks[row] / 253, SMALLEST)
    together = unpack_rows("w", pack_rows("w", rows, "int8"))
    assert np.isfinite(together).all()
    assert not together[0].any()


def test_scales_are_float16_unless_a_row_needs_more() -> None:
    assert pack_rows("w", gaussian(), "int8")["w.scale"].dtype == np.float16
    assert pack_rows("w", gaussian() * 1e-6, "int8")["w.scale"].dtype == np.float32
    assert pack_rows("w", gaussian() * 1e9, "int8")["w.scale"].dtype == np.float32


@both
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_any_shape(dtype: Dtype, shape: tuple[int, int]) -> None:
    packed = pack_rows("w", np.ones(shape, np.float32), dtype)
    assert set(packed) == ({"w.fp16"} if dtype == "fp16" else {"w.int8", "w.scale"})
    assert compact.shape_of_rows("w", packed) == shape
    np.testing.assert_allclose(unpack_rows("w", packed), np.ones(shape), rtol=1e-3)


@both
@pytest.mark.parametrize("size", [1, 3, 20, 100])
def test_blocks_are_the_whole(dtype: Dtype, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_rows("w", gaussian(), dtype)
    whole = unpack_rows("w", packed)
    blocks = list(unpack_blocks("w", packed, rows=size))
    assert [low for low, _ in blocks] == list(range(0, 20, size))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), whole)
    monkeypatch.setattr(compact, "_BLOCK", size)
    again = pack_rows("w", gaussian(), dtype)
    assert all((again[name] == packed[name]).all() for name in packed)
    np.testing.assert_array_equal(unpack_rows("w", packed), whole)


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(dtype: Dtype, bad: float) -> None:
    rows = gaussian()
    rows[7, 3] = bad
    with pytest.raises(ExportError, match="table: row 7 "):
        pack_rows("table", rows, dtype)
    csr = Csr.from_lists([[], [0], [1, 4]], 9, [[], [2.0], [1.0, bad]])
    with pytest.raises(ExportError, match="docs: row 2 "):
        pack_csr("docs", csr, dtype)


def test_numbers_beyond_float16_are_refused_for_float16_alone() -> None:
    rows = gaussian()
    rows[7, 3] = -65519
    with pytest.raises(ExportError, match=r"table: row 7 .*int8"):
        pack_rows("table", rows, "fp16")
    assert np.abs(unpack_rows("t", pack_rows("t", rows, "int8"))[7, 3] - rows[7, 3]) < 65519 / 253


# Sparse rows


@quick
@given(st.data(), st.sampled_from(["fp16", "int8"]))
def test_sparse_rows_keep_their_ids(data: st.DataObject, dtype: Dtype) -> None:
    num_columns = data.draw(
        st.sampled_from([1, 255, 1 << 16, (1 << 16) + 1, 1 << 24, (1 << 24) + 1, 2**31 - 1])
    )
    numbers = st.integers(0, num_columns - 1) | st.just(num_columns - 1)
    lists = data.draw(st.lists(st.sets(numbers, max_size=6).map(sorted), max_size=8))
    value = st.floats(-60000, 60000, width=32) if data.draw(st.booleans()) else st.floats(0, 1)
    values = None
    if data.draw(st.booleans()):
        values = [data.draw(st.lists(value, min_size=len(r), max_size=len(r))) for r in lists]
    rows = Csr.from_lists(lists, num_columns, values)
    packed = pack_csr("d", rows, dtype)
    assert packed["d.steps"].dtype == (np.uint16 if num_columns <= 1 << 24 else np.uint32)
    assert ("d.steps_high" in packed) == (1 << 16 < num_columns <= 1 << 24)
    got = unpack_csr("d", packed)
    assert_same_entries(got, rows)
    for row in range(rows.num_rows if values else 0):
        low, high = rows.offsets[row : row + 2]
        want, have = rows.values[low:high], got.values[low:high]  # type: ignore[index]
        peak = np.abs(want).max(initial=0)
        bound = (peak / 253 + SMALLEST) if dtype == "int8" else peak * 2**-11 + 1e-7
        assert (np.abs(have - want) <= bound).all()


@both
@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_slices_and_blocks_of_sparse_rows(
    dtype: Dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "_BLOCK", block)
    rows = sparse().slice(4, 21)
    assert_same_entries(unpack_csr("d", pack_csr("d", rows, dtype)), rows)


def test_eight_bits_without_a_sign_have_half_the_step() -> None:
    for signed, kind, levels in ((False, np.uint8, 255), (True, np.int8, 127)):
        rows = sparse(signed=signed)
        packed = pack_csr("d", rows, "int8")
        assert packed["d.values"].dtype == kind
        got = unpack_csr("d", packed)
        assert np.abs(got.values - rows.values).max() <= 0.501 / levels  # type: ignore[operator]


@pytest.mark.parametrize(
    ("longest", "kind"), [(255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")]
)
def test_counts_are_as_small_as_they_can_be(longest: int, kind: str) -> None:
    offsets = np.array([0, 0, longest, longest + 2], np.int64)
    ids = np.concatenate([np.arange(longest), [0, 99]]).astype(np.int32)
    rows = Csr(offsets, ids, None, 70_000)
    packed = pack_csr("d", rows, "int8")
    assert packed["d.counts"].dtype == kind
    assert set(packed) == {"d.counts", "d.steps", "d.steps_high", "d.num_columns"}
    assert_same_entries(unpack_csr("d", packed), rows)


@both
@pytest.mark.parametrize("lists", [[], [[]], [[], [], []], [[], [3], []], [[0]]])
def test_empty_rows_and_matrices(dtype: Dtype, lists: list[list[int]]) -> None:
    for values in (None, [[1.0] * len(row) for row in lists]):
        rows = Csr.from_lists(lists, 4 if any(lists) else 0, values)
        got = unpack_csr("d", pack_csr("d", rows, dtype))
        assert_same_entries(got, rows)
        assert values is None or np.allclose(got.values, rows.values, rtol=1e-3)  # type: ignore[arg-type]


def test_repeated_ids_and_values_of_zero_stay() -> None:
    rows = Csr.from_lists([[2, 2, 5], [1]], 6, [[0.0, 1.0, 0.0], [0.0]])
    got = unpack_csr("d", pack_csr("d", rows, "int8"))
    assert_same_entries(got, rows)
    np.testing.assert_allclose(got.values, rows.values, rtol=1e-3)  # type: ignore[arg-type]


def test_ids_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(ExportError, match="docs: the ids of row 2 do not ascend"):
        pack_csr("docs", Csr.from_lists([[5], [], [1, 3, 2], [9]], 10), "int8")
    for ids in ([10], [-1]):
        with pytest.raises(ExportError, match=r"docs: ids outside of 0\.\.9"):
            pack_csr("docs", Csr.from_lists([ids], 10), "int8")


# Arrays that do not fit each other


def damaged(tensors: dict[str, np.ndarray], name: str, value: Any) -> dict[str, np.ndarray]:
    changed = dict(tensors)
    if value is None:
        del changed[name]
    else:
        changed[name] = value
    return changed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w.int8", np.zeros((20, 8), np.int16)),
        ("w.int8", np.zeros(20, np.int8)),
        ("w.int8", np.full((20, 8), -128, np.int8)),
        ("w.scale", None),
        ("w.scale", np.zeros(19, np.float16)),
        ("w.scale", np.zeros((20, 1), np.float16)),
        ("w.scale", np.zeros(20, np.float64)),
        ("w.scale", np.full(20, np.nan, np.float16)),
        ("w.scale", np.full(20, np.inf, np.float32)),
        ("w.scale", np.full(20, -1, np.float32)),
        ("w.scale", np.full(20, LARGEST / 100, np.float32)),
    ],
)
def test_damaged_int8_rows_are_named(name: str, value: np.ndarray | None) -> None:
    tensors = damaged(pack_rows("w", gaussian(), "int8"), name, value)
    with pytest.raises(CheckpointError, match=f"some.file: damaged, {re.escape(name)} "):
        unpack_rows("w", tensors, "some.file")


@pytest.mark.parametrize(
    "value",
    [
        None,
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2, 2), np.float16),
        np.full((2, 2), np.nan, np.float16),
        np.zeros((2**60, 0), np.float16),
    ],
)
def test_damaged_fp16_rows_are_named(value: np.ndarray | None) -> None:
    tensors = damaged(pack_rows("w", gaussian(), "fp16"), "w.fp16", value)
    with pytest.raises(CheckpointError, match=r"some.file: damaged, w"):
        unpack_rows("w", tensors, "some.file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("d.num_columns", None),
        ("d.num_columns", np.array([-1])),
        ("d.num_columns", np.array([2**31])),
        ("d.num_columns", np.array([400, 400])),
        ("d.num_columns", np.array([400.0])),
        ("d.counts", None),
        ("d.counts", np.zeros(30, np.int8)),
        ("d.steps", None),
        ("d.steps", np.zeros(5, np.uint16)),
        ("d.steps", np.zeros(1200, np.int32)),
        ("d.steps", np.full(1200, 200, np.uint16)),
        ("d.steps_high", np.zeros(1199, np.uint8)),
        ("d.steps_high", np.zeros(1200, np.uint16)),
        ("d.values", np.zeros(1199, np.uint8)),
        ("d.values", np.zeros(1200, np.float32)),
        ("d.values", np.full(1200, np.nan, np.float16)),
        ("d.values", np.full(1200, -128, np.int8)),
        ("d.scale", None),
        ("d.scale", np.zeros(31, np.float16)),
        ("d.scale", np.full(30, np.nan, np.float16)),
        ("d.scale", np.full(30, LARGEST / 200, np.float32)),
    ],
)
def test_damaged_sparse_rows_are_named(name: str, value: np.ndarray | None) -> None:
    tensors = damaged(pack_csr("d", sparse(), "int8"), name, value)
    assert len(tensors["d.values"]) in (1199, 1200)
    with pytest.raises(CheckpointError, match=f"some.file: damaged, {re.escape(name)} "):
        unpack_csr("d", tensors, "some.file")


def test_counts_that_do_not_add_up_are_found_before_anything_is_made() -> None:
    tensors = pack_csr("d", sparse(), "int8")
    tensors["d.counts"] = np.full(30, 2**32 - 1, np.uint32)
    with pytest.raises(CheckpointError, match=r"damaged, d\.steps is uint16 \[1200\], not"):
        unpack_csr("d", tensors)


@quick
@given(st.data())
def test_any_sparse_arrays_give_a_matrix_or_an_error(data: st.DataObject) -> None:
    kinds = st.sampled_from([np.uint8, np.uint16, np.uint32, np.int8, np.int64, np.float16])
    names = ["d.counts", "d.steps", "d.steps_high", "d.values", "d.scale"]
    tensors = {"d.num_columns": np.array([data.draw(st.integers(0, 9))])}
    for name in data.draw(st.sets(st.sampled_from(names))):
        small = arrays.arrays(data.draw(kinds), st.integers(0, 4), elements={"max_value": 5})
        tensors[name] = data.draw(small)
    try:
        got = unpack_csr("d", tensors)
    except CheckpointError:
        return
    assert len(got.ids) == got.nnz
    for row in range(got.num_rows):
        ids = got.ids[got.offsets[row] : got.offsets[row + 1]]
        assert (np.diff(ids) >= 0).all()
        assert ((ids >= 0) & (ids < got.num_columns)).all()
    assert got.values is None or np.isfinite(got.values).all()


# The file


def model() -> dict[str, np.ndarray]:
    return {
        **pack_rows("rows", gaussian(300, 64), "int8"),
        **pack_rows("table", gaussian(300, 64), "fp16"),
        **pack_csr("documents", sparse(300, 4000), "int8"),
        **pack_csr("none", Csr.from_lists([], 0), "int8"),
        "number": np.array(3, np.int32),
        "cube": np.zeros((2, 3, 4), np.float32),
        "turned": gaussian().T,
    }


def write(path: Path, tensors: dict[str, np.ndarray], claims: Any, version: str = "1") -> Path:
    """A file as ``compact_file`` would never write it."""
    deflated = claims if isinstance(claims, str) else json.dumps(claims)
    save_file(tensors, path, metadata={"format_version": version, "deflated": deflated})
    return path


def deflate(raw: bytes) -> np.ndarray:
    return np.frombuffer(zlib.compress(raw), np.uint8)


@pytest.mark.parametrize("compress", [True, False])
def test_a_file_is_read_back(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "model.safetensors"
    compact_file.save(path, model(), compress=compress)
    got = compact_file.load(path)
    assert got.keys() == model().keys()
    for name, want in model().items():
        assert got[name].dtype == want.dtype
        assert got[name].shape == want.shape
        assert got[name].flags.writeable
        np.testing.assert_array_equal(got[name], want)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@quick
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int8, np.uint16, np.uint32, np.int64, np.float16]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40),
        elements={"max_value": 1},
    )
)
def test_any_array_is_read_back(tmp_path: Path, array: np.ndarray) -> None:
    compact_file.save(tmp_path / "m", {"a": array})
    got = compact_file.load(tmp_path / "m")["a"]
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert got.tobytes() == array.tobytes()


def test_only_what_becomes_smaller_is_deflated(tmp_path: Path) -> None:
    sizes = {}
    for compress in (True, False):
        compact_file.save(tmp_path / "m", model(), compress=compress)
        sizes[compress] = (tmp_path / "m").stat().st_size
    assert sizes[True] < 0.95 * sizes[False]
    assert compact_file._deflate(model()["rows.int8"]) is None
    assert compact_file._deflate(model()["documents.steps"]) is not None
    assert compact_file._deflate(gaussian(3000, 64).astype(np.float16)) is not None


def test_a_file_of_almost_nothing_is_not_deflated_into_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact_file, "_FREE", 1000)
    zeros = np.zeros((1000, 1000), np.int8)
    compact_file.save(tmp_path / "m", {"zeros": zeros})
    np.testing.assert_array_equal(compact_file.load(tmp_path / "m")["zeros"], zeros)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    compact_file.save(path, {"a": np.ones(3, np.int8)})
    with pytest.raises(AssertionError, match="b is object"):
        compact_file.save(path, {"b": np.array([None])})
    assert list(tmp_path.iterdir()) == [path]
    assert compact_file.load(path)["a"].sum() == 3


def test_a_missing_file_or_another_kind_of_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: missing"):
        compact_file.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path}: damaged")):
        compact_file.load(tmp_path)
    for raw in (b"", b"hello", b"\x80\x04N.", b"\xff" * 64, b"PK\x03\x04" * 9):
        (tmp_path / "m").write_bytes(raw)
        with pytest.raises(CheckpointError, match=r"m: damaged, header "):
            compact_file.load(tmp_path / "m")
    save_file({"a": np.zeros(2)}, tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"m: format version None"):
        compact_file.load(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"m: format version 2, this ray_xml reads 1"):
        compact_file.load(write(tmp_path / "m", {}, {}, version="2"))


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    compact_file.save(path, model())
    raw = path.read_bytes()
    for length in [*range(40), *range(40, len(raw), len(raw) // 60), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"m: damaged"):
            compact_file.load(path)


def test_a_flipped_byte_gives_an_error_or_arrays(tmp_path: Path) -> None:
    path = tmp_path / "m"
    compact_file.save(path, pack_csr("d", sparse(100, 4000), "int8"))
    raw = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for place in [*range(0, 400, 2), *generator.integers(0, len(raw), 200)]:
        changed = bytearray(raw)
        changed[place] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        try:
            unpack_csr("d", compact_file.load(path), path)
        except CheckpointError:
            refused += 1
    assert refused > 200


BYTES = {"dtype": "uint8", "shape": [100]}


@pytest.mark.parametrize(
    "claims",
    [
        "",
        "no json",
        "[" * 100_000,
        "9" * 5000,
        [],
        {"a": 1},
        {"a": {"dtype": "uint8"}},
        {"a": {"dtype": "object", "shape": [100]}},
        {"a": {"dtype": ["uint8"], "shape": [100]}},
        {"a": {"dtype": "uint8", "shape": 100}},
        {"a": {"dtype": "uint8", "shape": [-100]}},
        {"a": {"dtype": "uint8", "shape": [100.0]}},
        {"a": {"dtype": "uint8", "shape": [True]}},
        {"a": {"dtype": "uint8", "shape": [100, 1, 1]}},
        {"a": {"dtype": "uint8", "shape": [99]}},
        {"a": {"dtype": "uint8", "shape": [101]}},
        {"a": {"dtype": "uint16", "shape": [100]}},
        {"a": {"dtype": "uint8", "shape": [2**40]}},
        {"a": {"dtype": "uint8", "shape": [2**70, 2**70]}},
        {"a": {"dtype": "uint8", "shape": [0, 2**70]}},
        {"a": BYTES, "b": BYTES},
    ],
    ids=lambda claims: str(claims)[:40],
)
def test_claims_that_do_not_fit_are_refused(tmp_path: Path, claims: Any) -> None:
    path = write(tmp_path / "m", {"a": deflate(bytes(100))}, claims)
    with pytest.raises(CheckpointError, match=r"m: damaged, (a|b|header) "):
        compact_file.load(path)
    write(path, {"a": deflate(bytes(100))}, {"a": BYTES})
    assert not compact_file.load(path)["a"].any()


@pytest.mark.parametrize(
    "stored",
    [
        np.zeros(40, np.uint8),
        np.zeros((2, 5), np.uint8),
        np.zeros(5, np.int8),
        np.zeros(0, np.uint8),
        deflate(bytes(100))[:-1],
        np.append(deflate(bytes(100)), np.uint8(0)),
        np.concatenate([deflate(bytes(100)), deflate(bytes(100))]),
    ],
)
def test_bytes_that_do_not_unfold_are_refused(tmp_path: Path, stored: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match=r"m: damaged, a "):
        compact_file.load(write(tmp_path / "m", {"a": stored}, {"a": BYTES}))


def test_an_array_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"m: damaged, a has the type F64"):
        compact_file.load(write(tmp_path / "m", {"a": np.zeros(3)}, {}))


def test_a_bomb_is_stopped_at_what_it_claims(tmp_path: Path) -> None:
    bomb = deflate(bytes(200 << 20))
    path = write(tmp_path / "m", {"a": bomb}, {"a": BYTES})
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"a unfolds to more than its shape \[100\]"):
            compact_file.load(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_claims_are_added_up(tmp_path: Path) -> None:
    claims = {f"a{i}": {"dtype": "uint8", "shape": [2**29]} for i in range(3)}
    path = write(tmp_path / "m", {name: deflate(b"") for name in claims}, claims)
    with pytest.raises(CheckpointError, match=r"damaged, a2 claims .*, too much for"):
        compact_file.load(path)
