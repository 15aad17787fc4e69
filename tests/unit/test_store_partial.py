"""Partial folders: those of killed writers go, all others stay."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_sets import FEATURES, LABELS, begin, make

from ray_xml import store_partial
from ray_xml.store import DataSet

pytestmark = pytest.mark.skipif(
    not store_partial._machine(), reason="needs Linux's boot id: elsewhere nothing is deleted"
)

CHILD = """
import sys, time
from ray_xml.store_write import DataSetWriter

with DataSetWriter(sys.argv[1], name="x", num_features=5, num_labels=3) as writer:
    split = writer.split("train", leave_out_empty=True)
    print(writer._folder, flush=True)
    time.sleep(60)
"""


@contextmanager
def writing_child(target: Path) -> Iterator[Path]:
    """The partial folder of a process that is at work, and is killed at the end."""
    command = [sys.executable, "-c", CHILD, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            folder = Path(child.stdout.readline().strip())
            assert sorted(os.listdir(folder))[0] == store_partial.OWNER
            yield folder
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def killed_writer(target: Path) -> Path:
    """The partial folder that a killed process has left."""
    with writing_child(target) as folder:
        pass
    assert folder.is_dir()
    return folder


def test_killed_writers_folder_goes_with_the_next_writer(tmp_path: Path) -> None:
    left = [killed_writer(tmp_path / "set"), killed_writer(tmp_path / "set")]
    assert left[0] != left[1]
    make(tmp_path / "set")
    assert os.listdir(tmp_path) == ["set"]


def test_living_writers_folder_stays(tmp_path: Path) -> None:
    with writing_child(tmp_path / "set") as folder:
        before = sorted(os.listdir(folder))
        make(tmp_path / "set")
        make(tmp_path / "set", overwrite=True)
        assert sorted(os.listdir(folder)) == before
    make(tmp_path / "set", overwrite=True)
    assert os.listdir(tmp_path) == ["set"]


def test_two_writers_of_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    with begin(tmp_path / "set", overwrite=True) as writer:
        make(tmp_path / "set")
        with writer.split("train", leave_out_empty=True) as split:
            split.append(FEATURES, LABELS)
    assert os.listdir(tmp_path) == ["set"]
    assert list(DataSet.open(tmp_path / "set").meta.splits) == ["train"]


@pytest.mark.parametrize(
    "changed", [None, (b".+", b""), (b"^", b"other-"), (b"[0-9a-f]\n", b"g\n")]
)
def test_folder_that_is_not_known_to_be_dead_stays(
    tmp_path: Path, changed: tuple[bytes, bytes] | None
) -> None:
    """Of an older version, of a writer just begun, of another machine, of before a restart."""
    folder = killed_writer(tmp_path / "set")
    owner = folder / store_partial.OWNER
    if changed is None:
        owner.unlink()
    else:
        owner.write_bytes(re.sub(*changed, owner.read_bytes()))
    make(tmp_path / "set")
    assert (folder / "train.feature_ids.raw").exists()


def test_without_a_boot_id_nothing_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_partial, "_BOOT_ID", tmp_path / "none")
    left = tmp_path / ".set.partial-01234567"
    left.mkdir()
    (left / store_partial.OWNER).touch()
    make(tmp_path / "set")
    assert sorted(os.listdir(tmp_path)) == [left.name, "set"]


def test_only_this_data_sets_partial_folders_go(tmp_path: Path) -> None:
    folder = killed_writer(tmp_path / "set")
    others = [".set.old-01234567", ".set2.partial-01234567", f"{folder.name}.partial-01234567"]
    for name in others:
        shutil.copytree(folder, tmp_path / name)
    (tmp_path / ".set.partial-76543210").symlink_to(tmp_path / others[0])
    make(tmp_path / "set")
    left = sorted([*others, ".set.partial-76543210", "set"])
    assert sorted(os.listdir(tmp_path)) == left
    assert (tmp_path / others[0] / store_partial.OWNER).exists()


def test_nothing_of_the_lock_is_left_in_the_data_set(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    make(tmp_path / "set")
    with pytest.raises(ZeroDivisionError), begin(tmp_path / "other"):
        raise ZeroDivisionError
    assert store_partial.OWNER not in os.listdir(tmp_path / "set")
    assert len(os.listdir("/proc/self/fd")) == before
