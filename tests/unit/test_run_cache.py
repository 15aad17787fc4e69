"""What runs keep for each other: the same bits as without, made once, whole or not at all."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from groups import Groups
from made import make_config, train

import ray_xml.lexical_file
import ray_xml.token_table
from ray_xml.exchange import Exchange
from ray_xml.kept_file import KeptFile, link_or_copy
from ray_xml.run_cache import kept_lexical, kept_table
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet
from ray_xml.token_table import svd_table, token_table

CPU = torch.device("cpu")


def config_of(cache: Path | None, **sections: dict[str, object]) -> RunConfig:
    made = {"encoder": {"tokens": "svd"}, **sections}
    return make_config(resources={"cache": None if cache is None else str(cache)}, **made)


def entries(cache: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in cache.iterdir() if path.is_dir())


def test_a_run_from_the_cache_is_the_run_without(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(data, config_of(None), tmp_path / "plain")
    first = train(data, config_of(tmp_path / "cache"), tmp_path / "first")
    assert entries(tmp_path / "cache") == ["neighbors", "svd"]

    def computes(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(ray_xml.token_table, "svd_table", computes)
    monkeypatch.setattr(ray_xml.lexical_file, "save_lexical", computes)
    second = train(data, config_of(tmp_path / "cache"), tmp_path / "second")
    losses = [RunFolder(tmp_path / name).step_losses() for name in ("plain", "first", "second")]
    assert losses[0].tobytes() == losses[1].tobytes() == losses[2].tobytes()
    for other in (first, second):
        assert torch.equal(plain.encoder.table, other.encoder.table)
    files = [RunFolder(tmp_path / name).neighbors_file for name in ("plain", "first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def shared_table(data: DataSet, cache: str) -> np.ndarray:
    config = config_of(Path(cache))
    table = token_table(
        "svd", data.split("train").features, 24, Exchange(), seed=0,
        kept=kept_table(config, data, CPU),
    )  # fmt: skip
    return table.numpy()


def test_a_group_shares_the_table_too(data: DataSet, groups: Groups, tmp_path: Path) -> None:
    expected = svd_table(data.split("train").features, 24, Exchange(), seed=0).numpy()
    for _ in ("computed", "kept"):
        parts = groups.run(2, shared_table, data, str(tmp_path))
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)
    assert entries(tmp_path) == ["svd"]


def test_what_decides_the_files_decides_the_entry(data: DataSet, tmp_path: Path) -> None:
    def paths(**sections: dict[str, object]) -> tuple[Path, Path]:
        config = config_of(tmp_path, **sections)
        table, lexical = kept_table(config, data, CPU), kept_lexical(config, data)
        assert table is not None
        assert lexical is not None
        return table.path, lexical.path

    table, lexical = paths()
    for sections in (
        {"training": {"seed": 1}},
        {"training": {"validation": 0.2}},
    ):
        other = paths(**sections)
        assert other[0] != table
        assert other[1] != lexical
    assert paths(encoder={"tokens": "svd", "dim": 8})[0] != table
    assert paths(neighbors={"terms": 5})[1] != lexical
    assert paths(neighbors={"size": 0})[1] != lexical
    # What changes neither is no reason to compute them again.
    assert paths(training={"rate": 0.1}, neighbors={"size": 7}) == (table, lexical)
    assert kept_table(config_of(tmp_path, encoder={"tokens": "random"}), data, CPU) is None
    assert kept_lexical(config_of(None), data) is None


def test_an_entry_is_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = KeptFile(tmp_path, "thing", {"a": 1})

    def breaks(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.keep(breaks)
    assert list(tmp_path.iterdir()) == []
    assert not kept.good()
    kept.keep(lambda path: path.write_bytes(b"whole") and None)
    assert kept.good()
    assert capsys.readouterr().err == ""
    kept.path.write_bytes(b"whale")
    assert not kept.good()
    assert "damaged" in capsys.readouterr().err
    kept.keep(lambda path: path.write_bytes(b"whole") and None)
    assert kept.good()


def test_a_link_is_not_changed_with_the_run(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"1")
    target.write_bytes(b"2")
    link_or_copy(source, target)
    assert target.read_bytes() == b"1"
    link_or_copy(source, target)
    assert target.read_bytes() == b"1"


def test_one_computes_while_the_others_wait(tmp_path: Path) -> None:
    made: list[int] = []

    def work() -> None:
        kept = KeptFile(tmp_path, "thing", {})
        with kept.alone():
            if not kept.good():
                made.append(1)
                time.sleep(0.1)
                kept.keep(lambda path: path.write_bytes(b"x") and None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
