"""cluster.yaml, held against the cluster launcher's own rules without a network."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert isinstance(found, dict)
    return found


def check(tree: dict[str, Any]) -> dict[str, Any]:
    """The launcher's own checks; what it fills in comes back."""
    whole: dict[str, Any] = prepare_config(copy.deepcopy(tree))
    validate_config(whole)
    return whole


def test_the_launcher_accepts_it(tree: dict[str, Any]) -> None:
    types = check(tree)["available_node_types"]
    workers = {name: one for name, one in types.items() if name != tree["head_node_type"]}
    assert [(one["min_workers"], one["max_workers"]) for one in workers.values()] == [(0, 8)]
    assert tree["max_workers"] == 8


def test_the_check_finds_mistakes(tree: dict[str, Any]) -> None:
    """Or the test above would say nothing."""
    for spoil in (
        lambda t: t.update(max_worker=8),
        lambda t: t.pop("head_node_type"),
        lambda t: t["available_node_types"]["gpu_worker"]["resources"].update(GPU=0.5),
        lambda t: t["available_node_types"]["gpu_worker"].update(max_workers="8"),
    ):
        wrong = copy.deepcopy(tree)
        spoil(wrong)
        with pytest.raises(Exception, match=r".+"):
            check(wrong)


def test_no_work_lands_on_the_head(tree: dict[str, Any]) -> None:
    types = tree["available_node_types"]
    assert types[tree["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["gpu_worker"]["resources"]["GPU"] >= 1
    assert types["gpu_worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]


def test_every_ray_process_asks_for_the_token(tree: dict[str, Any]) -> None:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        started = [line for line in tree[key] if re.search(r"\bray (start|stop)\b", line)]
        assert len(started) == 2
        assert all("RAY_AUTH_MODE=token" in line for line in started)
    assert "~/.ray/auth_token" in tree["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in tree["head_start_ray_commands"][-1]


def test_it_installs_what_the_tests_ran_with(tree: dict[str, Any]) -> None:
    (install,) = [line for line in tree["setup_commands"] if "ray_xml[gpu]" in line]
    assert "--constraint ~/ray_xml/constraints.txt" in install
    assert tree["file_mounts"]["~/ray_xml"] == "."
    for file in ("constraints.txt", "pyproject.toml", "jobs/train.py", "configs/amazon-670k.yaml"):
        assert (ROOT / file).is_file()


def test_what_a_user_must_fill_in_is_easy_to_find(tree: dict[str, Any]) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    code = [line for line in text.splitlines() if not line.startswith("#")]
    assert sum("REPLACE-ME" in line for line in code) == 3
