"""A run's gauges, scraped as Prometheus would."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import ray
from small_runs import both_config, start

from ray_xml.store import DataSet

_SAMPLE = re.compile(r"^(ray_xml_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_TAG = re.compile(r'(\w+)="([^"]*)"')


def scrape(run: str) -> dict[tuple[str, str], float]:
    """Values by (name, metric or phase) of a run, of all nodes."""
    found = {}
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        for name, tags, value in _SAMPLE.findall(text):
            told = dict(_TAG.findall(tags))
            if told.get("run") == run:
                found[name, told.get("metric") or told.get("phase") or ""] = float(value)
    return found


def test_prometheus_sees_the_run(cluster: None, data: DataSet, tmp_path: Path) -> None:
    run = start(both_config(data, tmp_path / "seen", workers=1, shards=1, epochs=2))
    last = run.outcome.lines[-1]
    expected = {
        ("ray_xml_epoch", ""): 2, ("ray_xml_epochs", ""): 2,
        ("ray_xml_memory_gib", ""): last["memory_gib"],
        ("ray_xml_shortlist_recall", ""): last["shortlist_recall"],
        ("ray_xml_candidate_recall", ""): last["candidate_recall"],
        ("ray_xml_validation", "P@1"): last["validation"]["P@1"],
    }  # fmt: skip
    end = time.monotonic() + 60
    name = run.folder.path.name
    while (seen := scrape(name)) != {**seen, **expected}:  # Ray exports every few seconds
        assert time.monotonic() < end, seen
        time.sleep(0.5)
    assert seen["ray_xml_loss", ""] > 0
    assert seen["ray_xml_docs_per_second", ""] > 0
    phases = {phase: value for (name, phase), value in seen.items() if name == "ray_xml_phase"}
    assert phases  # which ones were seen is a matter of time: some last for milliseconds
    assert set(phases.values()) == {0}
