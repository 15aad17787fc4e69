"""Every fuzz target takes its seeds, and some mutations of them, without a finding."""

from __future__ import annotations

from random import Random

import fuzz_seeds
import numpy as np
import pytest
from fuzz_targets import FindingError, Targets, check_predictions
from tiny import make_artefacts

from ray_xml.predictor import Predictions


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    made = make_artefacts(tmp_path_factory.mktemp("tiny"))
    return Targets(made, tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize("name", fuzz_seeds.NAMES_OF_TARGETS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_seeds_and_mutations_are_no_findings(targets: Targets, name: str) -> None:
    target, random, seen = getattr(targets, name), Random(name), set()
    for seed in fuzz_seeds.seeds(name, targets.made):
        target(seed)
        for _ in range(6):
            changed = fuzz_seeds.mutated(name, seed, random)
            seen.add(changed)
            target(changed)
    assert len(seen) > 4  # mutations do change something


def test_seeds_are_good_inputs(targets: Targets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds get through: nothing is fuzzed where an entry point refuses at its door."""
    made: list[int] = []

    def count(found: Predictions, rows: int) -> None:
        made.append(rows)
        check_predictions(found, rows)

    monkeypatch.setattr("fuzz_targets.check_predictions", count)
    for name in ("meta", "arrow", "manifest", "part", "lexical", "export", "rows", "run_files"):
        before = len(made)
        for seed in fuzz_seeds.seeds(name, targets.made):
            getattr(targets, name)(seed)
        assert len(made) > before, name


def test_a_finding_is_told() -> None:
    with pytest.raises(FindingError, match="shape"):
        check_predictions(Predictions(*[np.zeros((1, 3))] * 2), 2)
