"""A folder of parts holds whole parts alone, and refuses to mix two predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_xml.errors import ConfigError
from ray_xml.predict_parts import MANIFEST, PartsFolder, part_name

ASKED = {"inputs": [{"name": "a", "rows": 5}], "model": {"epoch": 3}, "top_k": 5}


@pytest.fixture(params=["path", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "path" else (tmp_path / "out").as_uri()


def put(folder: PartsFolder, number: int, text: str = "whole") -> None:
    with folder.part(number) as draft:
        draft.write_text(text)


def names(tmp_path: Path) -> set[str]:
    return {one.name for one in (tmp_path / "out").iterdir()}


def test_what_is_there_is_not_asked_for_again(place: str, tmp_path: Path) -> None:
    folder = PartsFolder(place)
    with folder.held():
        assert folder.begin(ASKED, 3) == set()
        put(folder, 1)
    with folder.held():
        assert PartsFolder(place).begin(ASKED, 3) == {1}
        assert "done" not in folder.manifest()
        put(folder, 0)
        put(folder, 2)
        folder.finish({"documents": 5})
        assert folder.begin(ASKED, 3) == {0, 1, 2}
    assert folder.manifest()["done"] == {"documents": 5}
    assert names(tmp_path) == {MANIFEST, *map(part_name, range(3))}


def test_half_a_part_is_none(place: str, tmp_path: Path) -> None:
    folder = PartsFolder(place)
    with folder.held():
        folder.begin(ASKED, 3)

        def fail() -> None:
            with folder.part(1) as draft:
                draft.write_text("half")
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert folder.begin(ASKED, 3) == set()
    assert names(tmp_path) == {MANIFEST}


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    folder = PartsFolder(str(tmp_path / "out"))
    with folder.held():
        folder.begin(ASKED, 3)
        (tmp_path / "out" / ".part-000001.0123abcd").write_text("half")
        (tmp_path / "out" / ".part-of-mine").write_text("kept")
        assert folder.begin(ASKED, 3) == set()
    assert names(tmp_path) == {MANIFEST, ".part-of-mine"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 6}, r"asked\.top_k: 5 → 6"),
        ({"model": {"epoch": 4}}, r"asked\.model\.epoch: 3 → 4"),
        ({"inputs": [{"name": "a", "rows": 6}]}, r"asked\.inputs\[0\]\.rows: 5 → 6"),
        ({"inputs": []}, r"asked\.inputs: 1 → 0"),
        ({"names": True}, r"asked\.names: None → True"),
    ],
)
def test_other_predictions_are_refused(
    place: str, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = PartsFolder(place)
    with folder.held():
        folder.begin(ASKED, 3)
        put(folder, 0)
        before = (tmp_path / "out" / MANIFEST).read_bytes()
        with pytest.raises(ConfigError, match=rf"predictions of something else \(.*{said}"):
            folder.begin({**ASKED, **change}, 3)
        assert (tmp_path / "out" / MANIFEST).read_bytes() == before


def test_other_parts_and_versions_are_refused(tmp_path: Path) -> None:
    folder = PartsFolder(str(tmp_path / "out"))
    with folder.held():
        folder.begin(ASKED, 3)
        with pytest.raises(ConfigError, match="3 → 4"):
            folder.begin(ASKED, 4)
        file = tmp_path / "out" / MANIFEST
        file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 9}))
        with pytest.raises(ConfigError, match="9 → 1"):
            folder.begin(ASKED, 3)
        file.write_text("{")
        with pytest.raises(ConfigError, match="cannot be read"):
            folder.begin(ASKED, 3)


def test_a_folder_of_something_else_is_left_alone(place: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    folder = PartsFolder(place)
    with pytest.raises(ConfigError, match=r"holds mine\.txt but no manifest\.json"), folder.held():
        folder.begin(ASKED, 3)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        PartsFolder(str(tmp_path / "out")).held(),
        pytest.raises(ConfigError, match="another process is predicting into this folder"),
        PartsFolder(str(tmp_path / "out")).held(),
    ):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="file is a file; choose another folder"),
        PartsFolder(str(tmp_path / "file")).held(),
    ):
        pass
