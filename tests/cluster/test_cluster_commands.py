"""The runs that the cluster guide and the cluster files show fit the nodes that they ask for.

That their commands exist, ``tests/unit/test_documents.py`` holds for every page.
"""

from __future__ import annotations

import re

import pytest
import yaml
from documents import CLUSTER_FILES, ROOT, ours, runs, shown

from ray_xml.cluster.placement import Node
from ray_xml.cluster.session import share_out
from ray_xml.errors import ResourceError


@pytest.mark.parametrize("name", ["docs/cluster.md", "docs/nodes.md", *CLUSTER_FILES])
def test_every_file_shows_a_run(name: str) -> None:
    assert runs(name)


def test_the_guide_shows_every_job() -> None:
    commands = [one for words in shown("docs/cluster.md") if (one := ours(words))]
    assert {words[0] for words in commands} >= {path.stem for path in (ROOT / "jobs").glob("*.py")}


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
        text = (ROOT / name).read_text()
        asked = re.search(r"ask\(bundles=\[\{'GPU': 1\}\] \* (\d+)\)", text)
        assert asked
        assert int(asked[1]) == aws.resources.workers
