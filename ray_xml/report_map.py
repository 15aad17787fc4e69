"""A map of the labels: the proxies of the most frequent ones on the plane that shows most of them.

The plane is that of the first two principal components: with the mean taken away, the first two
right singular vectors of the [n, D] proxies.
"""

from __future__ import annotations

import numpy as np

from ray_xml.charts import Dot, dot_map
from ray_xml.label_table import bin_of
from ray_xml.model import Model
from ray_xml.report_data import Gathered, Measured
from ray_xml.report_html import charts, figure
from ray_xml.svg import shortened

_LABELS, _SHADES = 400, 8
_WORDS, _LENGTH = 60, 20  # labels whose names are written if there is room, and how much of them


def label_map(gathered: Gathered, measured: Measured, model: Model) -> str:
    """The map as markup; empty of fewer than three labels."""
    counts = measured.counts
    falling = np.argsort(-counts[model.labels], kind="stable")[:_LABELS]
    if len(falling) < 3:
        return ""
    places, shares = plane(np.asarray(model.proxies[falling], np.float64))
    labels = model.labels[falling]
    bins = bin_of(counts[labels])
    low, high = int(bins.min()), int(bins.max())
    shades = np.round((bins - low) / max(high - low, 1) * (_SHADES - 1)).astype(int)
    dots = []
    for rank, (label, at, shade) in enumerate(
        zip(labels.tolist(), places.tolist(), shades.tolist(), strict=True)
    ):
        named = gathered.label(label)
        told = f"{shortened(named, 90)}: {counts[label]:,} training documents"
        written = shortened(named, _LENGTH) if rank < _WORDS else ""
        dots.append(Dot((at[0], at[1]), told, shade, written))
    chart = dot_map(
        "map of labels",
        dots,
        f"first component, {100 * shares[0]:.0f} % of the variance",
        f"second, {100 * shares[1]:.0f} %",
    )
    fewest, most = int(counts[labels].min()), int(counts[labels].max())
    told = (
        f"Proxies of the {len(labels):,} most frequent labels; the stronger the colour, the more "
        f"training documents ({fewest:,} to {most:,}). Names where there is room; rest the pointer "
        "on a dot for its own."
    )
    return charts(figure("Labels near each other", chart, told))


def plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components.

    Args:
        vectors: float64 [n, D], n ≥ 1.

    Returns:
        (places float64 [n, 2], shares of the variance float64 [2]). Each component points where
        its largest entry is positive, so that it does not depend on the solver.
    """
    centred = vectors - vectors.mean(0)
    _, lengths, right = np.linalg.svd(centred, full_matrices=False)
    missing = 2 - len(lengths)
    if missing > 0:
        lengths = np.pad(lengths, (0, missing))
        right = np.pad(right, ((0, missing), (0, 0)))
    axes = right[:2]
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])
    axes = axes * np.where(signs == 0, 1.0, signs)[:, None]
    total = float(np.square(lengths).sum())
    return centred @ axes.T, np.square(lengths[:2]) / (total or 1.0)
