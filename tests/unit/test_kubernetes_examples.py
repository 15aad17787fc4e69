"""examples/kubernetes and the image it needs, held against KubeRay's fields and our own rules."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_schema import SCHEMAS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
CLUSTERS = ["raycluster.yaml", "rayjob.yaml"]
Tree = dict[str, Any]


def read(name: str) -> Tree:
    found = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(found, dict)
    return found


def check(tree: Tree) -> None:
    schema = SCHEMAS[tree["kind"]]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(tree)


def cluster_spec(tree: Tree) -> Tree:
    spec: Tree = tree["spec"]
    found: Tree = spec.get("rayClusterSpec", spec)
    return found


def pods(tree: Tree) -> list[Tree]:
    """The head's pod, then those of the workers."""
    spec = cluster_spec(tree)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.fixture(params=CLUSTERS)
def tree(request: pytest.FixtureRequest) -> Tree:
    return read(request.param)


def test_every_manifest_is_checked() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*CLUSTERS, "shared-volume.yaml"}


@pytest.mark.parametrize("name", [*CLUSTERS, "shared-volume.yaml"])
def test_kuberay_knows_the_fields(name: str) -> None:
    check(read(name))


def _worker(tree: Tree) -> Tree:
    group: Tree = cluster_spec(tree)["workerGroupSpecs"][0]
    return group


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.update(apiVersion="ray.io/v2"),
        lambda t: t["metadata"].update(name="Ray_XML"),
        lambda t: cluster_spec(t).pop("headGroupSpec"),
        lambda t: cluster_spec(t).update(enableInTreeAutoscaling="yes"),
        lambda t: cluster_spec(t).update(authOption={"mode": "token"}),
        lambda t: cluster_spec(t)["authOptions"].update(mode="tokens"),
        lambda t: cluster_spec(t)["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda t: _worker(t).update(maxReplica=3),
        lambda t: _worker(t).update(minReplicas=-1),
        lambda t: _worker(t).pop("groupName"),
        lambda t: _worker(t)["template"]["spec"].update(containers=[]),
        lambda t: _worker(t)["template"]["spec"]["containers"][0].update(volumeMount=[]),
    ],
)
def test_the_check_finds_mistakes(tree: Tree, spoil: Callable[[Tree], object]) -> None:
    wrong = copy.deepcopy(tree)
    spoil(wrong)
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


def test_the_check_finds_mistakes_in_a_job() -> None:
    for change in ({"submissionMode": "K8SJobMode"}, {"shutdownAfterJobFinishes": False}):
        wrong = read("rayjob.yaml")
        wrong["spec"].update(change)
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)


def test_a_token_is_asked_for_and_no_port_is_open_to_the_world(tree: Tree) -> None:
    spec = cluster_spec(tree)
    assert spec["authOptions"]["mode"] == "token"
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not spec["headGroupSpec"].get("enableIngress")
    for pod in pods(tree):
        assert not pod.get("hostNetwork")
        for container in pod["containers"]:
            names = {one["name"] for one in container.get("env", [])}
            assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & names  # KubeRay sets them


def test_pods_have_no_rights_that_they_do_not_need(tree: Tree) -> None:
    for pod in pods(tree):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    # The autoscaler lives in the head's pod and talks to Kubernetes; nothing else does.
    scaled = cluster_spec(tree)["enableInTreeAutoscaling"]
    talkers = [pod.get("automountServiceAccountToken", True) for pod in pods(tree)]
    assert talkers == [scaled, False]


def test_no_work_lands_on_the_head(tree: Tree) -> None:
    head, *workers = pods(tree)
    assert cluster_spec(tree)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    for pod in workers:
        limits = pod["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "1"
        assert limits == pod["containers"][0]["resources"]["requests"]
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
            "tolerations"
        ]


def test_every_pod_sees_the_shared_folder_and_has_room_for_objects(tree: Tree) -> None:
    claim = read("shared-volume.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(tree):
        (container,) = pod["containers"]
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume.pop("name"): volume for volume in copy.deepcopy(pod["volumes"])}
        assert paths == {"shared": "/mnt/shared", "shm": "/dev/shm"}
        assert set(volumes) == set(paths)
        claimed = volumes["shared"]["persistentVolumeClaim"]["claimName"]
        assert claimed == claim["metadata"]["name"]
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_sizes_and_ends(tree: Tree) -> None:
    for group in cluster_spec(tree)["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["maxReplicas"] > 0
    for pod in pods(tree):
        assert pod["restartPolicy"] == "Never"
    if tree["kind"] == "RayCluster":
        assert cluster_spec(tree)["enableInTreeAutoscaling"] is True
        assert _worker(tree)["minReplicas"] == 0
    else:
        assert tree["spec"]["shutdownAfterJobFinishes"] is True
        assert tree["spec"]["ttlSecondsAfterFinished"] > 0
        assert tree["spec"]["backoffLimit"] > 0


def test_the_image_is_ours_and_holds_what_the_tests_ran_with(tree: Tree) -> None:
    text = (ROOT / "examples" / "Dockerfile").read_text()
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert cluster_spec(tree)["rayVersion"] == pinned
    (name,) = set(re.findall(r"REPLACE-ME/[\w:-]+", text))
    assert {container["image"] for pod in pods(tree) for container in pod["containers"]} == {name}
    user = {pod["securityContext"]["runAsUser"] for pod in pods(tree)}
    assert user == {int(one) for one in re.findall(r"^USER (\d+)$", text, re.MULTILINE)}
    assert "pip install --no-cache-dir --constraint constraints.txt" in text
    assert re.search(r"^ARG BASE=python:3\.11-slim$", text, re.MULTILINE)


def test_the_image_finds_the_files_that_it_copies() -> None:
    text = (ROOT / "examples" / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()
    }
    assert copied >= {"pyproject.toml", "constraints.txt", "ray_xml", "jobs", "configs"}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / "examples" / "Dockerfile.dockerignore").read_text().split()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


@pytest.mark.parametrize("name", [*CLUSTERS, "shared-volume.yaml"])
def test_what_a_user_must_fill_in_is_said(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    told = "\n".join(line for line in lines if line.startswith("#"))
    assert "# Change:" in told
    assert any("REPLACE-ME" in line for line in lines if not line.startswith("#"))
