"""The commands of the cluster guide and of the cluster files: what they name exists, and fits."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from ray_xml.cli import _options
from ray_xml.cluster.placement import Node
from ray_xml.cluster.session import share_out
from ray_xml.config import load_config
from ray_xml.errors import ConfigError, ResourceError
from ray_xml.run_config import RunConfig

ROOT = Path(__file__).parents[2]
FILES = [
    "docs/cluster.md",
    "docs/nodes.md",
    "cluster.yaml",
    "examples/cluster-on-premise.yaml",
    "examples/kubernetes/raycluster.yaml",
    "examples/kubernetes/rayjob.yaml",
]
OURS = "prepare|synth|plan|train|fetch|evaluate|predict|export|serve|examples"
COMMAND = re.compile(rf"(?:python \S*?jobs/(\w+)\.py|ray-xml(?= (?:{OURS}) )) ([^`#\n]*)")


def joined(name: str) -> str:
    """The file's text with commands on one line each."""
    text = (ROOT / name).read_text()
    if name.endswith("rayjob.yaml"):
        text = str(yaml.safe_load(text)["spec"]["entrypoint"])
    return re.sub(r"\\\n#?\s*", "", text)


def commands(name: str) -> list[list[str]]:
    """Arguments of ray-xml, for every job and every ray-xml command that the file shows whole."""
    found = []
    for job, rest in COMMAND.findall(joined(name)):
        words = [*([job] if job else []), *shlex.split(rest.replace("/opt/ray_xml/", ""))]
        if words and "…" not in rest and not {"CONFIG", "..."} & set(words):
            found.append(words)
    return found


def runs(name: str) -> list[RunConfig]:
    """The configs of the file's train commands."""
    options = [_options(words) for words in commands(name) if words[0] == "train"]
    return [load_config(RunConfig, ROOT / one.config, one.overrides) for one in options]


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_one_that_we_take(name: str) -> None:
    parsed = [_options(words) for words in commands(name)]
    assert all(callable(one.command) for one in parsed)
    assert runs(name)  # each file shows one
    for job, _ in COMMAND.findall(joined(name)):
        assert not job or (ROOT / "jobs" / f"{job}.py").is_file()


def test_the_guide_shows_every_job() -> None:
    shown = {words[0] for words in commands("docs/cluster.md")}
    assert shown >= {path.stem for path in (ROOT / "jobs").glob("*.py")}


def test_the_check_finds_mistakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = tmp_path / "cluster.yaml"
    monkeypatch.setattr(f"{__name__}.joined", lambda name: wrong.read_text())
    wrong.write_text("python jobs/train.py configs/default.yaml data=a run=b resources.worker=3")
    with pytest.raises(ConfigError, match=r"resources\.worker"):
        runs("cluster.yaml")
    wrong.write_text("python jobs/train.py configs/defaults.yaml data=a run=b")
    with pytest.raises(ConfigError, match="no such config"):
        runs("cluster.yaml")
    wrong.write_text("python jobs/evaluate.py runs/mine --jsn")
    with pytest.raises(SystemExit):
        test_every_command_is_one_that_we_take("cluster.yaml")


def _nodes(count: int, cpus: float) -> list[Node]:
    return [Node(f"{one}", f"node {one}", cpus, 1.0) for one in range(count)]


def test_the_runs_that_are_shown_fit_the_nodes_that_are_asked_for() -> None:
    (aws,) = runs("cluster.yaml")
    kind = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]["gpu_worker"]
    (job,) = runs("examples/kubernetes/rayjob.yaml")
    spec = yaml.safe_load((ROOT / "examples/kubernetes/rayjob.yaml").read_text())["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    pod_cpus = float(container["resources"]["limits"]["cpu"])
    for run, nodes in (
        (aws, _nodes(4, kind["resources"]["CPU"])),
        (job, _nodes(group["replicas"], pod_cpus)),
    ):
        shares = share_out(run.resources, nodes, "the cluster")
        assert shares.cpus_per_worker == 12
        with pytest.raises(ResourceError):
            share_out(run.resources, nodes[:-1], "the cluster")
    for name in ("cluster.yaml", "examples/kubernetes/raycluster.yaml", "docs/cluster.md"):
        asked = re.search(r"ask\(bundles=\[\{'GPU': 1\}\] \* (\d+)\)", joined(name))
        assert asked
        assert int(asked[1]) == aws.resources.workers


def test_the_guide_names_files_and_headings_that_there_are() -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([\w-]+))?\)", text):
        path = ROOT / "docs" / (target or "cluster.md")
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
            assert anchor in slugs, anchor
    for path in re.findall(r"(?:examples|configs|tests|(?<!/)jobs)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
