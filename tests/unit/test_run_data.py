"""What a run takes from its data set: a split that is one, and propensities from all of train."""

from __future__ import annotations

import numpy as np
import pytest
from made import make_config

from ray_xml.propensity import propensities
from ray_xml.run_data import metric_sums, split_rows
from ray_xml.run_sections import DataSetConfig
from ray_xml.store import DataSet


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5])
def test_fitted_and_held_rows_are_all_of_train(data: DataSet, share: float) -> None:
    config = make_config(training={"validation": share})
    fitted, held = split_rows(data, config)
    assert len(held) == round(600 * share)
    assert sorted([*fitted, *held]) == list(range(600))
    assert (np.diff(fitted) > 0).all()
    other = split_rows(data, make_config(training={"validation": share, "seed": 1}))[1]
    assert (held.tolist() == other.tolist()) == (share == 0)


@pytest.mark.parametrize(
    ("expected", "a", "b"),
    [
        (DataSetConfig(), 0.55, 1.5),
        (DataSetConfig(propensity_a=0.3, propensity_b=2.0), 0.3, 2.0),
        (DataSetConfig(name="Amazon-670K"), 0.6, 2.6),
    ],
)
def test_the_yardstick(data: DataSet, expected: DataSetConfig, a: float, b: float) -> None:
    counts = data.split("train").labels.column_counts()
    sums = metric_sums(data, expected)
    np.testing.assert_allclose(
        sums.inverse_propensities, 1 / propensities(counts, 600, a, b), rtol=1e-12
    )
    assert sums.documents == 0
