"""A server's counters: over all processes, and in the form that Prometheus reads."""

from __future__ import annotations

import re
from pathlib import Path

from ray_xml.serve_counts import Counts

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? ([0-9.e+-]+|\+Inf)')


def values(text: str) -> dict[str, float]:
    """The samples by name and labels; every line must be sound."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    for line in text.splitlines():
        if re.fullmatch(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|histogram))", line):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        found[f"{match[1]}{{{match[2]}}}" if match[2] else match[1]] = float(match[3])
    return found


def test_counts_of_all_processes_are_added_up(tmp_path: Path) -> None:
    first, second = Counts(tmp_path), Counts(tmp_path)
    first.request("/tag", 200)
    second.request("/tag", 200)
    second.request("/tag", 413)
    second.request("/what?", 404)
    first.tagged(3, 12, 0.004)
    second.tagged(1, 5, 20.0)
    first.batch(3)
    second.batch(1000)
    found = values(first.text())
    assert first.text() == second.text()
    name = "ray_xml_serve_requests_total"
    assert found[f'{name}{{path="/tag",status="200"}}'] == 2
    assert found[f'{name}{{path="/tag",status="413"}}'] == 1
    assert found[f'{name}{{path="other",status="404"}}'] == 1
    assert sum(value for key, value in found.items() if key.startswith(name)) == 4
    assert found["ray_xml_serve_texts_total"] == 4
    assert found["ray_xml_serve_labels_total"] == 17
    assert found["ray_xml_serve_tag_seconds_count"] == 2
    assert found["ray_xml_serve_tag_seconds_sum"] == 20.004
    assert found['ray_xml_serve_tag_seconds_bucket{le="0.0025"}'] == 0
    assert found['ray_xml_serve_tag_seconds_bucket{le="0.005"}'] == 1
    assert found['ray_xml_serve_tag_seconds_bucket{le="10.0"}'] == 1
    assert found['ray_xml_serve_tag_seconds_bucket{le="+Inf"}'] == 2
    assert found['ray_xml_serve_batch_texts_bucket{le="4"}'] == 1
    assert found["ray_xml_serve_batch_texts_sum"] == 1003


def test_counts_outlive_the_process_that_counted(tmp_path: Path) -> None:
    gone = Counts(tmp_path)
    for _ in range(5):
        gone.request("/healthz", 200)
    del gone
    key = 'ray_xml_serve_requests_total{path="/healthz",status="200"}'
    assert values(Counts(tmp_path).text())[key] == 5


def test_a_bound_is_in_its_bucket(tmp_path: Path) -> None:
    counts = Counts(tmp_path)
    counts.batch(4)
    found = values(counts.text())
    assert found['ray_xml_serve_batch_texts_bucket{le="2"}'] == 0
    assert found['ray_xml_serve_batch_texts_bucket{le="4"}'] == 1


def test_another_reader_agrees(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    counts = Counts(tmp_path)
    counts.request("/tag", 200)
    counts.tagged(1, 5, 0.02)
    families = {one.name: one for one in text_string_to_metric_families(counts.text())}
    assert families["ray_xml_serve_requests"].type == "counter"
    assert families["ray_xml_serve_tag_seconds"].type == "histogram"
    assert {one.type for one in families.values()} == {"counter", "histogram"}
