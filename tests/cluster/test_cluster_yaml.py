"""cluster.yaml and its on-premise sibling, held against the cluster launcher's own rules without a
network."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
AWS, ON_PREMISE = "cluster.yaml", "examples/cluster-on-premise.yaml"
Tree = dict[str, Any]


def read(name: str) -> Tree:
    found = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture
def aws() -> Tree:
    return read(AWS)


@pytest.fixture
def on_premise() -> Tree:
    return read(ON_PREMISE)


@pytest.fixture(params=[AWS, ON_PREMISE])
def tree(request: pytest.FixtureRequest) -> Tree:
    return read(request.param)


def check(tree: Tree) -> Tree:
    """The launcher's own checks; what it fills in comes back."""
    whole: Tree = prepare_config(copy.deepcopy(tree))
    validate_config(whole)
    return whole


def test_the_launcher_accepts_it(aws: Tree) -> None:
    types = check(aws)["available_node_types"]
    workers = {name: one for name, one in types.items() if name != aws["head_node_type"]}
    assert [(one["min_workers"], one["max_workers"]) for one in workers.values()] == [(0, 8)]
    assert aws["max_workers"] == 8


def test_the_launcher_wants_every_machine_there_is(on_premise: Tree) -> None:
    whole = check(on_premise)
    (kind,) = whole["available_node_types"].values()
    machines = len(on_premise["provider"]["worker_ips"])
    assert (kind["min_workers"], kind["max_workers"]) == (machines, machines) == (2, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.update(max_worker=8),
        lambda t: t.pop("head_node_type"),
        lambda t: t["available_node_types"]["gpu_worker"]["resources"].update(GPU=0.5),
        lambda t: t["available_node_types"]["gpu_worker"].update(max_workers="8"),
    ],
)
def test_the_check_finds_mistakes(aws: Tree, spoil: Callable[[Tree], object]) -> None:
    """Or the tests above would say nothing."""
    spoil(aws)
    with pytest.raises(Exception, match=r".+"):
        check(aws)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.update(max_worker=8),
        lambda t: t["auth"].update(ssh_key="~/.ssh/id"),
        lambda t: t["provider"].update(worker_ips="worker-1"),
        lambda t: t.update(head_start_ray_commands="ray start --head"),
    ],
)
def test_the_check_finds_mistakes_on_premise(
    on_premise: Tree, spoil: Callable[[Tree], object]
) -> None:
    spoil(on_premise)
    with pytest.raises(Exception, match=r".+"):
        check(on_premise)


def test_no_work_lands_on_the_head(aws: Tree, on_premise: Tree) -> None:
    types = aws["available_node_types"]
    assert types[aws["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["gpu_worker"]["resources"]["GPU"] >= 1
    assert types["gpu_worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert "--num-cpus=0 --num-gpus=0" in on_premise["head_start_ray_commands"][-1]
    assert "--num-" not in on_premise["worker_start_ray_commands"][-1]


def test_every_ray_process_asks_for_the_token(tree: Tree) -> None:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        started = [line for line in tree[key] if re.search(r"\bray (start|stop)\b", line)]
        assert len(started) == 2
        assert all("RAY_AUTH_MODE=token" in line for line in started)
    assert "~/.ray/auth_token" in tree["file_mounts"]
    assert "chmod 600 ~/.ray/auth_token" in tree["setup_commands"]
    # What is run on a node by hand, and by `ray down`, asks for it too.
    assert any("RAY_AUTH_MODE=token' ~/.bashrc" in line for line in tree["setup_commands"])


def test_the_dashboard_is_not_open_to_the_world(tree: Tree) -> None:
    assert "--dashboard-host=127.0.0.1" in tree["head_start_ray_commands"][-1]
    text = yaml.safe_dump(tree)
    assert not re.search(r"0\.0\.0\.0|IpPermissions|--ray-client-server-port", text)


def test_every_node_has_the_shared_folder_before_ray_starts(aws: Tree, on_premise: Tree) -> None:
    (mount,) = [line for line in aws["setup_commands"] if "sudo mount" in line]
    assert mount.startswith("mountpoint -q /mnt/shared || ")
    (owned,) = [line for line in aws["setup_commands"] if "install -d" in line]
    assert aws["setup_commands"].index(mount) < aws["setup_commands"].index(owned)
    for tree in (aws, on_premise):
        assert any("/mnt/shared/data /mnt/shared/runs" in line for line in tree["setup_commands"])


def test_it_installs_what_the_tests_ran_with(tree: Tree) -> None:
    (install,) = [line for line in tree["setup_commands"] if "ray_xml[gpu]" in line]
    assert "--constraint ~/ray_xml/constraints.txt" in install
    assert any("uv venv --allow-existing --python 3.11" in line for line in tree["setup_commands"])
    assert tree["file_mounts"]["~/ray_xml"] == "."
    for file in ("constraints.txt", "pyproject.toml"):
        assert (ROOT / file).is_file()


@pytest.mark.parametrize(("name", "places"), [(AWS, 3), (ON_PREMISE, 4)])
def test_what_a_user_must_fill_in_is_easy_to_find(name: str, places: int) -> None:
    lines = (ROOT / name).read_text().splitlines()
    code = [line for line in lines if not line.startswith("#")]
    assert sum("REPLACE-ME" in line for line in code) == places
    assert any(line.startswith("# Change before the first use: every REPLACE-ME") for line in lines)
