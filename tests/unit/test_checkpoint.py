"""Checkpoint folders: whole or not there, damage is named, parts are cut anew on reading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_xml import checkpoint
from ray_xml.checkpoint import FORMAT_VERSION, load_into, load_range, pieces, read_manifest
from ray_xml.errors import CheckpointError, VersionError
from ray_xml.partition import Range, even

LABELS, DIM = 11, 4


def whole() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((LABELS, DIM)).astype(np.float32)


def write(root: Path, epoch: int = 3, parts: int = 3) -> Path:
    """A checkpoint with rows in ``parts`` parts and columns in two."""
    folder = checkpoint.begin(root, epoch)
    assert checkpoint.temporary(root, epoch) == folder
    for number, (low, high) in enumerate(even(LABELS, parts)):
        rows = torch.from_numpy(whole()[low:high])
        tensors = {"weight": rows, "bias": rows[:, 0].clone()}
        checkpoint.save_part(folder, "rows", number, (low, high), tensors)
        checkpoint.save_part(
            folder, "optimizer-rows", number, (low, high), {"weight": -tensors["weight"]}
        )
    for number, (low, high) in enumerate(even(DIM, 2)):
        columns = torch.from_numpy(whole())[:, low:high]
        checkpoint.save_part(folder, "columns", number, (low, high), {"t": columns})
    return checkpoint.finish(root, epoch, {"best": 1.5, "with_proxies": False})


def test_the_manifest_is_read_back(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert folder == checkpoint.folder_of(tmp_path, 3)
    manifest = read_manifest(folder)
    assert (manifest["epoch"], manifest["best"], manifest["with_proxies"]) == (3, 1.5, False)
    assert manifest["format_version"] == FORMAT_VERSION
    files = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert manifest["parts"] == {
        name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        for name, raw in files.items()
    }
    assert len(files) == 8
    assert {path.name for path in folder.iterdir()} == {*files, "manifest.json"}


@pytest.mark.parametrize("parts", [1, 2, 3, 11])
@pytest.mark.parametrize("wanted", [(0, 11), (0, 1), (3, 9), (10, 11), (4, 8)])
def test_any_range_is_read_from_any_parts(tmp_path: Path, parts: int, wanted: Range) -> None:
    folder = write(tmp_path, parts=parts)
    rows = slice(*wanted)
    np.testing.assert_array_equal(load_range(folder, "rows", "weight", wanted), whole()[rows])
    np.testing.assert_array_equal(load_range(folder, "rows", "bias", wanted), whole()[rows, 0])
    moments = load_range(folder, "optimizer-rows", "weight", wanted)
    np.testing.assert_array_equal(moments, -whole()[rows])


@pytest.mark.parametrize("wanted", [(0, 4), (1, 3), (3, 4)])
def test_columns_are_cut_along_their_axis(tmp_path: Path, wanted: Range) -> None:
    found = load_range(write(tmp_path), "columns", "t", wanted, axis=1)
    np.testing.assert_array_equal(found, whole()[:, slice(*wanted)])


def test_bits_survive(tmp_path: Path) -> None:
    folder = checkpoint.begin(tmp_path, 1)
    odd = np.array([[-0.0, 1e-45, np.inf], [np.nan, 3e38, 1 / 3]], np.float32)
    turned = torch.from_numpy(np.asfortranarray(odd))  # not contiguous
    checkpoint.save_part(folder, "odd", 0, (0, 2), {"x": turned})
    checkpoint.finish(tmp_path, 1, {})
    found = load_range(checkpoint.folder_of(tmp_path, 1), "odd", "x", (0, 2))
    assert found.tobytes() == odd.tobytes()


def test_an_unfinished_checkpoint_is_not_seen(tmp_path: Path) -> None:
    write(tmp_path, 2)
    folder = checkpoint.begin(tmp_path, 4)
    checkpoint.save_part(folder, "rows", 0, (0, LABELS), {"weight": torch.from_numpy(whole())})
    (tmp_path / "epoch-notes").mkdir()
    assert checkpoint.epochs_in(tmp_path) == [2]
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        read_manifest(folder)
    again = checkpoint.begin(tmp_path, 4)  # after a crash: what was half done is gone
    assert list(again.iterdir()) == []
    assert checkpoint.epochs_in(tmp_path / "none") == []


def test_a_checkpoint_made_again_replaces_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, parts=5)
    folder = write(tmp_path, parts=2)
    assert len(list(folder.glob("rows-*"))) == 2
    read_manifest(folder)


def test_only_wanted_checkpoints_stay(tmp_path: Path) -> None:
    for epoch in (1, 2, 10, 3):
        write(tmp_path, epoch)
    checkpoint.begin(tmp_path, 11)
    assert checkpoint.epochs_in(tmp_path) == [1, 2, 3, 10]
    checkpoint.remove_others(tmp_path, {2, 10, 99})
    assert checkpoint.epochs_in(tmp_path) == [2, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002", "epoch-0010"]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "rows-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"rows-00001\.safetensors: missing.*another"):
        read_manifest(folder)
    with pytest.raises(CheckpointError, match=r"rows parts do not hold 2\.\.9 of 'weight'"):
        load_range(folder, "rows", "weight", (2, 9))
    np.testing.assert_array_equal(load_range(folder, "rows", "weight", (0, 2)), whole()[:2])


def test_a_cut_part_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    path = folder / "columns-00000.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=f"columns-00000.*{size - 7} bytes.*says {size}"):
        read_manifest(folder)
    with pytest.raises(CheckpointError, match=r"columns-00000\.safetensors: damaged"):
        load_range(folder, "columns", "t", (0, 4), axis=1)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0notjson!", b"x" * 300])
def test_a_part_that_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path)
    (folder / "rows-00000.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rows-00000\.safetensors: damaged"):
        load_range(folder, "rows", "weight", (0, 4))


def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with pytest.raises(CheckpointError, match="rows-00000"):
        load_range(folder, "rows", "height", (0, 4))
    with pytest.raises(CheckpointError, match="lines parts do not hold"):
        load_range(folder, "lines", "weight", (0, 4))


@pytest.mark.parametrize("version", [1, 2, FORMAT_VERSION + 1])
def test_another_format_version_is_refused(tmp_path: Path, version: int) -> None:
    folder = write(tmp_path)
    manifest = checkpoint.sealed(read_manifest(folder) | {"format_version": version})
    if version < FORMAT_VERSION:
        del manifest["seal"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    said = f"version {version}, this ray_xml reads {FORMAT_VERSION}; use the version .* wrote it"
    with pytest.raises(VersionError, match=said):
        read_manifest(folder)


def test_a_changed_version_is_no_other_version(tmp_path: Path) -> None:
    path = write(tmp_path) / "manifest.json"
    said = f'"format_version": {FORMAT_VERSION}'
    assert said in path.read_text()
    path.write_text(path.read_text().replace(said, '"format_version": 2'))
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged .*not the one") as caught:
        read_manifest(path.parent)
    assert not isinstance(caught.value, VersionError)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 1',
        '{"format_version": 1}',
        '{"format_version": "x", "parts": {}}',
        f'{{"format_version": {FORMAT_VERSION}, "parts": {{}}}}',
        "[" * 5000,
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged"):
        read_manifest(folder)


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    checkpoint.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        checkpoint.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    checkpoint.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}


def write_bfloat16(root: Path) -> tuple[Path, torch.Tensor]:
    """A checkpoint of bfloat16 rows in three parts, and these rows."""
    odd = torch.tensor([-0.0, 1e-40, float("inf"), float("nan"), 3e38, 1 / 3, -2.0, 0.1])
    rows = torch.cat([odd.reshape(2, DIM), torch.from_numpy(whole())[2:]]).bfloat16()
    folder = checkpoint.begin(root, 1)
    for number, (low, high) in enumerate(even(LABELS, 3)):
        checkpoint.save_part(folder, "rows", number, (low, high), {"weight": rows[low:high]})
    return checkpoint.finish(root, 1, {}), rows


@pytest.mark.parametrize("wanted", [(0, 11), (1, 6), (10, 11)])
def test_bfloat16_survives(tmp_path: Path, wanted: Range) -> None:
    folder, rows = write_bfloat16(tmp_path)
    expected = rows[slice(*wanted)]
    found = torch.zeros_like(expected)
    load_into(found, folder, "rows", "weight", wanted, 0)
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))
    widened = load_range(folder, "rows", "weight", wanted)
    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened, expected.float().numpy())


@pytest.mark.parametrize("numbers", [1, 4, 9, 1 << 24])
@pytest.mark.parametrize("wanted", [(0, 11), (3, 9), (10, 11)])
def test_pieces_are_bounded_and_come_in_order(
    tmp_path: Path, numbers: int, wanted: Range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_PIECE", numbers)
    folder, reached = write(tmp_path), 0
    for first, piece in pieces(folder, "rows", "weight", wanted):
        assert first == reached
        assert piece.numel() <= max(numbers, DIM)  # a row at least
        expected = whole()[wanted[0] + first :][: len(piece)]
        np.testing.assert_array_equal(piece.numpy(), expected)
        reached += len(piece)
    assert reached == wanted[1] - wanted[0]
    biases = list(pieces(folder, "rows", "bias", wanted))
    assert all(len(piece) <= numbers for _, piece in biases)
    found = load_range(folder, "rows", "weight", wanted)
    np.testing.assert_array_equal(found, whole()[slice(*wanted)])
    into = torch.zeros(wanted[1] - wanted[0], DIM)
    load_into(into, folder, "rows", "weight", wanted, 0)
    np.testing.assert_array_equal(into.numpy(), whole()[slice(*wanted)])


@pytest.mark.parametrize("wanted", [(0, 4), (1, 3), (3, 4)])
def test_columns_are_filled_in_along_their_axis(tmp_path: Path, wanted: Range) -> None:
    into = torch.zeros(LABELS, wanted[1] - wanted[0])
    load_into(into, write(tmp_path), "columns", "t", wanted, 1)
    np.testing.assert_array_equal(into.numpy(), whole()[:, slice(*wanted)])


@pytest.mark.parametrize(
    ("into", "said"),
    [
        (torch.zeros(LABELS, DIM + 1), r"float32 \[\d, 4\].*asks for torch.float32 \[\d, 5\]"),
        (torch.zeros(LABELS, DIM - 1), r"float32 \[\d, 4\].*asks for torch.float32 \[\d, 3\]"),
        (torch.zeros(LABELS, DIM, 1), r"float32 \[\d, 4\].*asks for torch.float32 \[\d, 4, 1\]"),
        (torch.zeros(LABELS, DIM, dtype=torch.bfloat16), r"float32 .*asks for torch.bfloat16"),
        (torch.zeros(LABELS, DIM, dtype=torch.float64), r"float32 .*asks for torch.float64"),
    ],
)
def test_another_shape_or_type_is_refused(tmp_path: Path, into: torch.Tensor, said: str) -> None:
    folder = write(tmp_path)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_into(into, folder, "rows", "weight", (0, LABELS), 0)
    assert str(folder) in str(caught.value)
    assert "'weight'" in str(caught.value)
    assert not into.any()


def test_a_tensor_that_is_not_as_long_as_its_range_is_refused(tmp_path: Path) -> None:
    folder = checkpoint.begin(tmp_path, 1)
    checkpoint.save_part(folder, "rows", 0, (0, 5), {"weight": torch.zeros(4, DIM)})
    with pytest.raises(CheckpointError, match=r"rows-00000.*damaged .*range is 0\.\.5"):
        load_range(folder, "rows", "weight", (0, 5))


def test_saving_takes_tensors_as_they_are(tmp_path: Path) -> None:
    folder = checkpoint.begin(tmp_path, 1)
    rows = torch.from_numpy(whole())
    odd = {
        "with a gradient": rows.clone().requires_grad_(),
        "turned": rows.t().clone().t(),
        "part": torch.cat([rows, rows])[:LABELS],
    }
    checkpoint.save_part(folder, "rows", 0, (0, LABELS), odd)
    for name in odd:
        np.testing.assert_array_equal(load_range(folder, "rows", name, (0, LABELS)), whole())
    assert (folder / "rows-00000.safetensors").stat().st_size < 5 * whole().nbytes
