"""What a storage holds is always a run that can be gone on with, whenever the sender stopped."""

from __future__ import annotations

import io
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made import make_config, train
from safetensors.numpy import load_file

from ray_xml import checkpoint, follow
from ray_xml.cli import main
from ray_xml.errors import CheckpointError, ConfigError, StorageError
from ray_xml.follow import Follower
from ray_xml.run_folder import RunFolder
from ray_xml.run_storage import RunStorage
from ray_xml.run_upload import Uploader
from ray_xml.storage import Storage
from ray_xml.store import DataSet

CONFIG = make_config(training={"epochs": 9})


def new_run(path: Path, epochs: int = 0) -> RunFolder:
    """A run folder with made-up contents."""
    folder = RunFolder(path)
    folder.begin(CONFIG)
    folder.neighbors_file.write_bytes(b"neighbours")
    for epoch in range(1, epochs + 1):
        add_epoch(folder, epoch)
    return folder


def add_epoch(folder: RunFolder, epoch: int, keep: int = 1, parts: int = 2) -> None:
    """What a run leaves after an epoch, two epochs a cycle."""
    root = folder.checkpoints
    draft = checkpoint.begin(root, epoch)
    for number in range(parts):
        held = torch.full((5,), epoch * 10.0 + number)
        checkpoint.save_part(draft, "tokens", number, (number, number + 1), {"table": held})
    checkpoint.finish(root, epoch, {"with_proxies": False})
    checkpoint.remove_others(root, set(checkpoint.epochs_in(root)[-keep:]))
    folder.save_losses(epoch, np.full(3, epoch, np.float32))
    folder.append({"epoch": epoch, "loss": 1.0 / epoch})
    lists = folder.path / "shortlists"
    lists.mkdir(exist_ok=True)
    if epoch % 2 == 0:
        for old in lists.iterdir():
            old.unlink()
        (lists / f"cycle-{epoch:04d}.i32").write_bytes(bytes([epoch]) * 40)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """pyarrow's own file system, and one of fsspec's."""
    if request.param == "file":
        return (tmp_path / "bucket" / "prefix").as_uri()
    return f"memory://bucket-{uuid.uuid4().hex}/prefix"


def test_a_fetched_run_is_the_one_that_was_pushed(uri: str, tmp_path: Path) -> None:
    ours, theirs = new_run(tmp_path / "ours", 3), RunFolder(tmp_path / "theirs")
    (ours.path / "progress.json").write_text("{}")  # of the moment, not of the run
    RunStorage(uri).push(ours)
    storage = RunStorage(uri)
    assert storage.config() == CONFIG
    assert storage.epochs() == [3]
    assert storage.fetch(theirs) == 3
    sent = contents(ours.path)
    del sent["progress.json"]
    assert contents(theirs.path) == sent
    assert "shortlists/cycle-0002.i32" in sent  # epoch 4 of a straight run would use it
    checkpoint.read_manifest(checkpoint.folder_of(theirs.checkpoints, 3))


def test_only_what_is_new_is_sent(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, storage, sent = new_run(tmp_path / "run", 2), RunStorage(uri), list[str]()
    upload = Storage.upload

    def spy(self: Storage, source: Path, name: str) -> None:
        sent.append(name)
        upload(self, source, name)

    monkeypatch.setattr(Storage, "upload", spy)
    storage.push(run)
    assert sent[-1] == "checkpoints/epoch-0002/manifest.json"
    assert "shortlists/cycle-0002.i32" not in sent  # perhaps not written to its end yet
    sent.clear()
    storage.push(run)
    assert sent == []
    add_epoch(run, 3, keep=2)
    storage.push(run)
    parts = [f"checkpoints/epoch-0003/tokens-0000{number}.safetensors" for number in (0, 1)]
    assert sent == [
        "metrics.jsonl", "losses/epoch-0003.npy", "shortlists/cycle-0002.i32", *parts,
        "checkpoints/epoch-0003/manifest.json",
    ]  # fmt: skip
    assert storage.epochs() == [2, 3]
    # Another process knows from the storage alone that large files are there.
    sent.clear()
    RunStorage(uri).push(run)
    assert not [name for name in sent if name.startswith(("check", "short", "neigh"))]


def test_what_the_run_drops_is_dropped(uri: str, tmp_path: Path) -> None:
    run, storage = new_run(tmp_path / "run", 3), RunStorage(uri)
    storage.push(run)
    for epoch in (4, 5):
        add_epoch(run, epoch)
    storage.push(run)
    assert set(storage.storage.sizes()) == set(contents(run.path))
    assert storage.epochs() == [5]


def test_a_stop_at_any_file_leaves_a_whole_run(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, delete = Storage.upload, Storage.delete
    cut = 0
    while True:
        storage, run = RunStorage(f"{uri}-{cut}"), new_run(tmp_path / f"run-{cut}", 3)
        storage.push(run)
        add_epoch(run, 4)
        left = cut

        def spend(name: str) -> None:
            nonlocal left
            if left == 0:
                raise StorageError(f"cut at {name}")
            left -= 1

        def cut_upload(self: Storage, source: Path, name: str) -> None:
            spend(name)
            upload(self, source, name)

        def cut_delete(self: Storage, name: str) -> None:
            spend(name)
            delete(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "upload", cut_upload)
            patch.setattr(Storage, "delete", cut_delete)
            try:
                storage.push(run)
                break
            except StorageError:  # of ``spend``: nothing else can fail here
                pass
        fetched = RunFolder(tmp_path / f"fetched-{cut}")
        done = RunStorage(f"{uri}-{cut}").fetch(fetched)
        assert done in (3, 4)
        assert [line["epoch"] for line in fetched.lines()][:done] == list(range(1, done + 1))
        newest = checkpoint.folder_of(fetched.checkpoints, done)
        assert len(checkpoint.read_manifest(newest)["parts"]) == 2
        storage.push(run)  # the next try mends it
        assert set(storage.storage.sizes()) >= {
            name for name in contents(run.path) if not name.startswith("shortlists/")
        }
        cut += 1
    assert cut > 6


def test_half_a_checkpoint_from_other_workers_is_replaced(uri: str, tmp_path: Path) -> None:
    """Its parts have other names, and must not stay among the new ones."""
    storage = RunStorage(uri)
    first = new_run(tmp_path / "three")
    add_epoch(first, 1, parts=3)
    storage.push(first)
    again = new_run(tmp_path / "two")
    add_epoch(again, 1, parts=2)
    storage.push(again)
    assert storage.fetch(RunFolder(tmp_path / "got")) == 1
    assert contents(tmp_path / "got") == contents(again.path)


def test_a_run_that_goes_on_while_it_is_sent(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, storage, upload = new_run(tmp_path / "run", 3), RunStorage(uri), Storage.upload

    def slow(self: Storage, source: Path, name: str) -> None:
        if name.endswith("0003/tokens-00001.safetensors"):
            add_epoch(run, 4)  # and checkpoint 3 goes
        upload(self, source, name)

    monkeypatch.setattr(Storage, "upload", slow)
    storage.push(run)
    assert storage.epochs() == [4]
    assert not [name for name in storage.storage.sizes() if "epoch-0003/" in name]


def test_a_stopped_fetch_goes_on(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, storage = new_run(tmp_path / "run", 3), RunStorage(uri)
    storage.push(run)
    got, download = RunFolder(tmp_path / "got"), Storage.download

    def broken(self: Storage, name: str, target: Path) -> None:
        if name.endswith("tokens-00001.safetensors"):
            raise StorageError("gone")
        download(self, name, target)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "download", broken)
        with pytest.raises(StorageError, match="gone"):
            storage.fetch(got)
    assert got.epochs_done() == 0
    storage.catch_up(got, CONFIG)
    assert got.begin(CONFIG) == 3
    assert not list(got.checkpoints.glob(".*"))


def test_a_checkpoint_that_is_damaged_where_it_is_stored(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, storage = new_run(tmp_path / "run", 2), RunStorage(uri)
    add_epoch(run, 3, keep=2)
    storage.push(run)
    name = "tokens-00001.safetensors"
    for epoch in (3, 2):
        part = run.checkpoints / f"epoch-000{epoch}" / name
        raw = bytearray(part.read_bytes())
        raw[-1] ^= 1
        part.write_bytes(raw)
        storage.storage.upload(part, f"checkpoints/epoch-000{epoch}/{name}")
        got = RunFolder(tmp_path / f"got-{epoch}")
        if epoch == 3:
            assert storage.fetch(got) == 2
            assert got.begin(CONFIG) == 2
            told = capsys.readouterr().err
            assert f"{name}: its bytes are not" in told
            assert f"fetched from {uri}, and left out" in told
        else:
            with pytest.raises(CheckpointError, match=f"{name}: its bytes are not"):
                storage.fetch(got)
        assert not list(got.checkpoints.glob(".*"))


def test_catching_up(uri: str, tmp_path: Path) -> None:
    storage = RunStorage(uri)
    behind = new_run(tmp_path / "behind", 1)
    storage.catch_up(behind, CONFIG)  # nothing is stored
    assert behind.epochs_done() == 1
    ahead = new_run(tmp_path / "ahead", 3)
    storage.push(ahead)
    storage.catch_up(behind, CONFIG)
    assert behind.epochs_done() == 3
    assert len(behind.lines()) == 3
    add_epoch(behind, 4)
    storage.catch_up(behind, CONFIG)  # what is stored is older
    assert behind.epochs_done() == 4
    other = make_config(training={"epochs": 9, "rate": 0.1})
    with pytest.raises(ConfigError, match=rf"{uri} holds a run with other .*rate: 0.005 → 0.1"):
        storage.catch_up(behind, other)


def test_the_command_fetches(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunStorage(uri).push(new_run(tmp_path / "run", 2))
    assert main(["fetch", uri, str(tmp_path / "got")]) == 0
    assert "a run of 2 epochs" in capsys.readouterr().out
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    assert main(["fetch", uri, str(tmp_path / "thesis")]) == 1
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert main(["fetch", f"{uri}-nowhere", str(tmp_path / "other")]) == 1
    assert "no run there" in capsys.readouterr().err


def test_going_on_from_a_fetched_run_is_the_straight_run(data: DataSet, tmp_path: Path) -> None:
    """Stopped inside a cycle, so that its shortlists must have come along."""

    def config_of(epochs: int) -> dict[str, object]:
        return {"epochs": epochs, "batch_size": 64, "cycle_epochs": 2}

    straight, cut = tmp_path / "straight", tmp_path / "cut"
    train(data, make_config(training=config_of(4)), straight)
    train(data, make_config(training=config_of(3)), cut)
    uri = (tmp_path / "bucket").as_uri()
    RunStorage(uri).push(RunFolder(cut))
    shutil.rmtree(cut)
    assert RunStorage(uri).fetch(RunFolder(tmp_path / "got")) == 3
    train(data, make_config(training=config_of(4)), tmp_path / "got")
    ours, theirs = (
        checkpoint.folder_of(RunFolder(path).checkpoints, 4)
        for path in (tmp_path / "got", straight)
    )
    parts = sorted(path.name for path in ours.glob("*.safetensors"))
    assert parts == sorted(path.name for path in theirs.glob("*.safetensors"))
    for part in parts:
        found, wanted = load_file(ours / part), load_file(theirs / part)
        assert found.keys() == wanted.keys()
        assert [n for n in found if found[n].tobytes() != wanted[n].tobytes()] == [], part


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("bucket/prefix", "is no URI; give one such as s3://bucket/prefix"),
        ("nosuch://bucket/prefix", "nosuch://bucket/prefix cannot be opened"),
    ],
)
def test_a_storage_that_is_none(uri: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        RunStorage(uri)


def blocked(tmp_path: Path) -> RunStorage:
    """A storage that cannot be written: a file is where its folder would be."""
    (tmp_path / "file").write_text("in the way")
    return RunStorage((tmp_path / "file" / "prefix").as_uri())


def test_an_upload_that_fails_loses_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", 1)
    with (
        pytest.raises(StorageError, match=r"config\.yaml cannot be written"),
        Uploader(run, blocked(tmp_path)),
    ):
        raise AssertionError("training began")


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_uploads_follow_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.02)
    run, storage = new_run(tmp_path / "run"), RunStorage((tmp_path / "bucket").as_uri())
    with Uploader(run, storage) as uploader, Follower(run.path, [uploader]):
        add_epoch(run, 1)
        wait_until(lambda: storage.epochs() == [1])
        add_epoch(run, 2)
    assert storage.epochs() == [2]


@pytest.mark.parametrize("error", [None, ValueError("training failed")])
def test_a_storage_that_is_lost_during_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.02)
    run, storage = new_run(tmp_path / "run"), RunStorage((tmp_path / "bucket").as_uri())
    out = io.StringIO()

    def refuse(self: Storage, source: Path, name: str) -> None:
        raise StorageError(f"{name}: the network is down")

    def run_to_the_end() -> None:
        with Uploader(run, storage, out) as uploader, Follower(run.path, [uploader]):
            monkeypatch.setattr(Storage, "upload", refuse)
            add_epoch(run, 1)
            wait_until(lambda: "Training goes on; the next epoch's" in out.getvalue())
            if error is not None:
                raise error

    lost = r"network is down\. Nothing is lost: the run is whole in .*/run"
    kind, said = (StorageError, lost) if error is None else (ValueError, "training failed")
    with pytest.raises(kind, match=said):
        run_to_the_end()
    # A failure of the run itself is what is raised; that of the upload is only told.
    assert ("Nothing is lost" in out.getvalue()) == (error is not None)
    assert run.epochs_done() == 1
