"""``ray-xml plan``: its text, its JSON and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ray_xml.cli import main
from ray_xml.store import DataSet

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["encoder.dim=24", "shortlist.size=12", "classifier.random_negatives=20"]


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["plan", *arguments])
    return status, capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status, out = planned(capsys, *arguments, "--json")
    return status, json.loads(out)


def test_a_plan_for_data_that_is_there(data: DataSet, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(CONFIGS / "default.yaml"), f"data={data.path}", *SMALL]
    status, text = planned(capsys, *given, "--memory", "16", "--cpus", "4")
    assert status == 0
    assert text.startswith("600 documents, 300 features, 80 labels (75 with documents)")
    assert text.endswith("fits\n")
    for role in ("driver", "Ray", "worker 1", "label shard 1", "evaluate"):
        assert f"\n{role}, node 0: " in text
    status, tree = as_json(capsys, *given, "--memory", "16", "--cpus", "4")
    assert status == 0
    assert tree["fits"] is True
    assert tree["remedies"] == []
    assert tree["data"]["labels"] == 80
    assert tree["nodes"][0]["peak_bytes"] >= sum(
        one["resident_bytes"] for one in tree["processes"] if one["role"] != "evaluate"
    )


def test_a_plan_without_data_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(CONFIGS / "amazontitles-3m.yaml"), "--nodes", "1", "--cpus", "8", "--memory", "12"]
    status, text = planned(capsys, *given)
    assert status == 3
    assert "\ndoes not fit\n  node 0 needs " in text
    assert "\nwould fit with " in text
    status, tree = as_json(capsys, *given)
    assert status == 3
    assert tree["data"]["documents"] == 1_712_536
    assert tree["remedies"][-1]["changes"][0] == "--nodes 2"
    roomy = [*given[:-1], "64"]
    assert planned(capsys, *roomy)[0] == 0


def test_what_is_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "default.yaml")
    for arguments, words in (
        ([config], "nothing says what data set"),
        ([config, "--like", "amazon-3"], "did you mean"),
        ([config, "--like", "bibtex", "--memory", "0"], "--memory is 0"),
        ([config, "data=/nowhere"], "no data-set folder"),
    ):
        assert main(["plan", *arguments]) == 1
        assert words in capsys.readouterr().err


def test_a_probe_gives_seconds_of_every_phase(
    data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(CONFIGS / "default.yaml"), f"data={data.path}", *SMALL, "--probe"]
    _, tree = as_json(capsys, *given)
    phases = tree["seconds"]["phases"]
    assert len(phases) == 9
    assert all(value >= 0 for value in phases.values())
    assert phases["training steps"] > 0
    assert tree["seconds"]["total"] == pytest.approx(sum(phases.values()), abs=0.1)
    status, text = planned(capsys, *given)
    assert status in (0, 3)
    assert "s in all, starting Ray left out:" in text
    assert "assumed: " in text
