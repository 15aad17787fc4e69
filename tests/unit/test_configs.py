"""The files that users start from: configs/ and jobs/."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_xml.config import load_config
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
OWN = {"default", "demo", "scaling"}  # not of a published data set
PUBLISHED = [path for path in CONFIGS if path.stem not in OWN]
OTHER_CONSTANTS = {
    **dict.fromkeys(("wikipedia-500k", "wikititles-500k", "wikilshtc-325k"), (0.5, 0.4)),
    **dict.fromkeys(("lf-wikipedia-500k", "lf-wikititles-500k"), (0.5, 0.4)),
}
WITHOUT_FEATURES = {"orcas-800k"}  # published as text: the width is the vectoriser's
JOBS = sorted((ROOT / "jobs").glob("*.py"))


def leaves(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def renamed(tree: dict[str, Any], key: tuple[str, ...], name: str) -> dict[str, Any]:
    """A copy of ``tree`` where the key ``key`` is called ``name`` instead."""
    head, *rest = key
    return {
        (name if k == head and not rest else k): (
            renamed(v, tuple(rest), name) if k == head and rest else v
        )
        for k, v in tree.items()
    }


def test_there_are_configs_and_jobs() -> None:
    assert len(PUBLISHED) >= 20
    assert {path.stem for path in JOBS} >= {"prepare", "train", "evaluate", "predict"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(path: Path) -> None:
    config = load_config(RunConfig, path)
    assert isinstance(yaml.safe_load(path.read_text()), dict)
    # The line that a user copies from the head of the file names the file itself.
    assert f"ray-xml train configs/{path.name}" in path.read_text()
    labels = config.dataset.labels
    assert labels is None or (config.shortlist.size or 1) <= labels


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_set_s_config_states_the_set(path: Path) -> None:
    expected = load_config(RunConfig, path).dataset
    assert expected.name is not None
    assert re.sub(r"[^a-z0-9]", "", expected.name.lower()) == path.stem.replace("-", "").replace(
        ".", ""
    )
    stated = {"labels": expected.labels, "train": expected.train, "test": expected.test}
    if path.stem not in WITHOUT_FEATURES:
        stated["features"] = expected.features
    assert all(stated.values()), stated
    amazon = "amazon" in path.stem and "amazoncat" not in path.stem
    constants = OTHER_CONSTANTS.get(path.stem, (0.6, 2.6) if amazon else (0.55, 1.5))
    assert (expected.propensity_a, expected.propensity_b) == constants


@pytest.mark.parametrize("path", PUBLISHED[::4], ids=lambda path: path.stem)
def test_a_slip_of_the_pen_in_any_key_names_the_right_key(path: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    keys = list(leaves(tree))
    assert len(keys) > 8
    for key in keys:
        for place, letter in ((0, "q"), (len(key[-1]) // 2, "q"), (len(key[-1]) - 1, "")):
            wrong = key[-1][:place] + letter + key[-1][place + 1 :]
            file = tmp_path / path.name
            file.write_text(yaml.safe_dump(renamed(tree, key, wrong)))
            with pytest.raises(ConfigError) as caught:
                load_config(RunConfig, file)
            bad, good = ".".join((*key[:-1], wrong)), ".".join(key)
            said = str(caught.value)
            if wrong == "propensity_":  # as near to _b as to _a
                said = said.replace("propensity_b'?", "propensity_a'?")
                good = good.replace("propensity_b", "propensity_a")
            assert said == f"{file}: unknown key {bad!r}; did you mean {good!r}?"


@pytest.mark.parametrize("section", ["dataset", "encoder", "shortlist", "training"])
def test_a_slip_in_a_section_s_name(section: str, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "configs" / "eurlex-4k.yaml").read_text())
    file = tmp_path / "eurlex-4k.yaml"
    file.write_text(yaml.safe_dump(renamed(tree, (section,), section[:-1] + "x")))
    with pytest.raises(ConfigError, match=f"did you mean '{section}'"):
        load_config(RunConfig, file)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_job_answers_help(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, path, "--help"], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"usage: ray-xml {path.stem}")
    assert "ray job submit" in path.read_text()
