"""Data sets and runs at URLs: fetched once, whole or not at all, and sent likewise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made import make_config
from small_sets import make
from trained import trained_run

from ray_xml.cli import main
from ray_xml.data_copy import copy_of
from ray_xml.data_url import data_out, open_data
from ray_xml.errors import ConfigError, DataSetError, StorageError
from ray_xml.export import export
from ray_xml.model import model_of_run
from ray_xml.model_place import ModelPlace
from ray_xml.predictor import Predictor
from ray_xml.run_storage import RunStorage
from ray_xml.run_url import cached_run, local_run, with_local_run
from ray_xml.storage import Storage
from ray_xml.store import DataSet

pytestmark = pytest.mark.usefixtures("cache")


def send(url: str, *, overwrite: bool = False, scale: int = 1) -> None:
    with data_out(url, overwrite=overwrite) as out:
        make(Path(out), scale=scale)


def test_what_is_sent_comes_back(url: str, cache: Path) -> None:
    send(url)
    found = open_data(url)
    found.verify()
    assert found.path == copy_of(cache / "data", found.meta.checksum)
    assert found.label_names() == ["a", "b\u2028 b", "ü"]
    assert [path.name for path in cache.iterdir()] == ["data"]  # the folder it was made in is gone
    sent = Storage(url).sizes()
    assert set(sent) == {"meta.json", "train.arrow", "test.arrow", "labels.txt", "vectoriser.json"}


def test_it_is_fetched_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    send(url)
    first = open_data(url)

    def refuse(self: Storage, name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(Storage, "pieces", refuse)
    assert open_data(url).path == first.path


def test_another_set_under_the_same_url(url: str) -> None:
    send(url)
    first = open_data(url)
    with pytest.raises(DataSetError, match="already holds a data set: choose another place"):
        send(url, scale=2)
    send(url, overwrite=True, scale=2)
    second = open_data(url)
    assert second.meta.checksum != first.meta.checksum
    assert second.path != first.path
    first.verify()


def test_half_a_set_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends is stopped over the last file but one."""
    send(url)
    put, sent = Storage.put, []

    def stop(self: Storage, source: Path, name: str) -> None:
        if len(sent) == 3:
            raise KeyboardInterrupt
        sent.append(name)
        put(self, source, name)

    monkeypatch.setattr(Storage, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        send(url, overwrite=True, scale=2)
    with pytest.raises(DataSetError, match=r"no data set there \(no meta\.json\)"):
        open_data(url)


def test_damage_on_the_way_is_told(tmp_path: Path, cache: Path) -> None:
    url = (tmp_path / "set").as_uri()
    send(url)
    file = tmp_path / "set" / "train.arrow"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(DataSetError, match=r"train\.arrow arrived with .* another checksum"):
        open_data(url)
    assert not [path for path in (cache / "data").iterdir() if path.is_dir()]
    meta = tmp_path / "set" / "meta.json"
    tree = json.loads(meta.read_text())
    meta.write_text(json.dumps({**tree, "num_labels": 4}))
    with pytest.raises(DataSetError, match=r"meta\.json is damaged: its checksum does not match"):
        open_data(url)
    meta.write_text("{}")
    with pytest.raises(DataSetError, match=r"meta\.json is damaged"):
        open_data(url)


def test_a_set_s_files_stay_in_their_folder(tmp_path: Path) -> None:
    url = (tmp_path / "set").as_uri()
    send(url)
    meta = DataSet.open(tmp_path / "set").meta
    files = {"../../outside.txt": meta.files["labels.txt"]}
    wrong = meta.model_copy(update={"files": files})
    wrong = wrong.model_copy(update={"checksum": wrong.computed_checksum()})
    (tmp_path / "set" / "meta.json").write_text(wrong.model_dump_json())
    with pytest.raises(DataSetError, match=r"'\.\./\.\./outside\.txt' is no plain file name"):
        open_data(url)


def test_prepare_takes_a_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("1 5 3\n0,2 1:2\n")
    url = (tmp_path / "sent").as_uri()
    files = [str(tmp_path / "x.txt")] * 2
    assert main(["prepare", "xc", *files, url]) == 0
    assert f"{url}: 5 features, 3 labels" in capsys.readouterr().out
    assert DataSet.open(tmp_path / "sent").meta.name == "sent"
    assert main(["prepare", "xc", *files, url]) == 1
    assert "already holds a data set" in capsys.readouterr().err
    assert main(["prepare", "xc", *files, url, "--overwrite"]) == 0


# ---- runs ----


def test_a_run_at_a_url_has_it_as_its_storage() -> None:
    config = make_config().model_copy(update={"run": "s3://bucket/runs/mine"})
    local = with_local_run(config)
    assert local.run == str(cached_run("s3://bucket/runs/mine/"))
    assert local.resources.storage == "s3://bucket/runs/mine"
    assert with_local_run(local) is local
    elsewhere = local.resources.model_copy(update={"storage": "s3://bucket/other"})
    both = config.model_copy(update={"resources": elsewhere})
    with pytest.raises(ConfigError, match="a run at a URL has that as its storage"):
        with_local_run(both)


def test_two_urls_never_share_a_folder() -> None:
    assert cached_run("s3://a/run") != cached_run("s3://b/run")
    assert cached_run("s3://a/run") == cached_run("s3://a/run/")


def test_a_model_is_used_from_its_url(
    data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_run(data, tmp_path / "runs")
    url = (tmp_path / "stored").as_uri()
    RunStorage(url).push(run)
    features = data.split("test").features
    expected = Predictor.load(run.path).predict(features)
    found = Predictor.load(local_run(url)).predict(features)
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert ModelPlace.find(url).checksum == ModelPlace.find(str(run.path)).checksum
    assert main(["evaluate", url, "--json"]) == 0
    there = capsys.readouterr().out
    assert main(["evaluate", str(run.path), "--json"]) == 0
    assert there == capsys.readouterr().out


def test_an_exported_model_is_used_from_its_url(data: DataSet, tmp_path: Path) -> None:
    run = trained_run(data, tmp_path / "runs")
    out = tmp_path / "model"
    for dtype in ("fp16", "int8"):
        shutil.rmtree(out, ignore_errors=True)
        export(model_of_run(run.path), data.path, out, dtype)  # type: ignore[arg-type]
        expected = Predictor.load(out).model
        found = Predictor.load(local_run(out.as_uri())).model
        assert found.rows.tobytes() == expected.rows.tobytes(), dtype
        place = ModelPlace.find(out.as_uri())
        assert place.epoch is None
        assert (
            place.labels(0, 2).rows.tobytes() == expected.rows[: len(expected.rows) // 2].tobytes()
        )


def test_a_place_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no run there \(no config\.yaml\)"):
        local_run((tmp_path / "nothing").as_uri())
