"""The bytes of a step, against those that real workers count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from groups import Groups
from test_training_group import config_of, train_group

from ray_xml.classifier import product_type
from ray_xml.plan_counts import Counts
from ray_xml.plan_traffic import traffic
from ray_xml.run_data import split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_step_sends_what_was_planned(
    groups: Groups, data: DataSet, tmp_path: Path, size: int
) -> None:
    config = config_of(2).resolved(data)
    config = config.model_copy(
        update={"resources": config.resources.model_copy(update={"workers": size})}
    )
    train_group(groups, data, config, tmp_path / "run", size=size)
    lines = RunFolder(tmp_path / "run").lines()
    counts = Counts.of_data(data).without(config.training.validation)
    assert counts.documents == len(split_rows(data, config)[0])
    product = product_type(config.classifier.precision, torch.device("cpu"))
    planned = traffic(config, counts, product.itemsize)
    assert planned.steps == len(RunFolder(tmp_path / "run").step_losses()) // 2
    assert (planned.cycles, planned.refreshes) == (1, 2)
    sent = [line["bytes_sent_per_step"] for line in lines]
    # Only rounding to whole numbers, in the groups' sums and in the report, is between them.
    assert sent == pytest.approx([planned.step_first, planned.step], rel=0.002, abs=1)
    assert (sent[0] > 0) == (size > 1)
