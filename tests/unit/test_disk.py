"""Files are written whole or not at all, and a disk that takes no more is told, not survived."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
import torch
from disks import small_disk
from safetensors.torch import save_file

from ray_xml.disk import add_line, replace_text, sha256_of, sync, writing
from ray_xml.errors import DiskError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk.path / "config.yaml"
        replace_text(path, "old")
        disk.fill()
        said = (
            r"config\.yaml: no space left .*\(0\.0 MB of 0\.1 MB free\); make room .*same command"
        )
        with pytest.raises(DiskError, match=said):
            replace_text(path, "new" * 10_000)
        assert path.read_text() == "old"
        assert sorted(one.name for one in disk.path.iterdir()) == ["config.yaml", "filler"]
        (disk.path / "filler").unlink()
        replace_text(path, "new" * 10_000)
        assert path.read_text() == "new" * 10_000


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk.path / "metrics.jsonl"
        add_line(path, "first")
        disk.fill()
        with pytest.raises(DiskError, match=r"metrics\.jsonl: no space left"):
            add_line(path, "x" * 10_000)  # the page that the first line began takes some of it
        assert path.read_text() == "first\n"
        (disk.path / "filler").unlink()
        add_line(path, "second")
        assert path.read_text() == "first\nsecond\n"


def test_a_line_behind_a_cut_one_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    add_line(path, '{"epoch": 2}')
    add_line(path, "ü")
    assert path.read_text(encoding="utf-8") == '{"epoch": 1}\n{"epo\n{"epoch": 2}\nü\n'


def test_safetensors_says_it_in_its_text(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "part"
    with small_disk(tmp_path / "disk", 64) as disk:
        with pytest.raises(DiskError, match=r"part: no space left"), writing(path):
            save_file({"x": torch.zeros(100_000)}, path)
        disk.make_read_only()
        with pytest.raises(DiskError, match=r"part cannot be .*Read-only"), writing(path):
            save_file({"x": torch.zeros(1)}, path)


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), writing(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "a peer is gone")
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        sync(tmp_path / "none")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_checksum_is_that_of_all_bytes(tmp_path: Path, size: int) -> None:
    raw = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "x").write_bytes(raw[:size])
    assert sha256_of(tmp_path / "x") == hashlib.sha256(raw[:size]).hexdigest()
