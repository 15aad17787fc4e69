"""Rows whose last columns nearly all of them have, as where embeddings stand behind the words.

Stored by entries, d such columns cost as much a document as d words; taken together they are a
matrix, and matrix products are an order of magnitude faster.
"""

from __future__ import annotations

import numpy as np

from ray_xml.sparse import Csr

_LEAST = 16  # columns below which a matrix gains nothing
_LOOKED_AT = 8  # rows that say how many columns they share


def without_tail(rows: Csr) -> tuple[Csr, np.ndarray] | None:
    """(the other columns' entries, float32 [rows, d] of the last d), or None where there are no
    such columns. Half of the rows must have all of the last d, the others none of them.

    Args:
        rows: packed, with values.
    """
    counts, width = rows.counts, rows.num_columns
    ends = rows.offsets[1:]
    if rows.values is None or rows.nnz < _LEAST * rows.num_rows // 2:
        return None
    closed = np.flatnonzero(counts >= _LEAST)
    closed = closed[rows.ids[ends[closed] - 1] == width - 1]
    if 2 * len(closed) < rows.num_rows or len(closed) == 0:
        return None
    d = min(_run(rows.ids[rows.offsets[row] : ends[row]]) for row in closed[:_LOOKED_AT].tolist())
    if d < _LEAST:
        return None
    having = closed[counts[closed] >= d]
    places = (ends[having] - d)[:, None] + np.arange(d)
    if 2 * len(having) < rows.num_rows or (rows.ids[places] != np.arange(width - d, width)).any():
        return None
    others = np.ones(rows.nnz, bool)
    others[places] = False
    ids = rows.ids[others]
    if len(ids) and ids.max() >= width - d:
        return None
    tail = np.zeros((rows.num_rows, d), np.float32)
    tail[having] = rows.values[places]
    fewer = counts.copy()
    fewer[having] -= d
    offsets = np.concatenate([[0], np.cumsum(fewer)])
    return Csr(offsets, ids, rows.values[others], width), tail


def _run(ids: np.ndarray) -> int:
    """How many consecutive numbers stand at the end."""
    steps = np.flatnonzero(np.diff(ids) != 1)
    return len(ids) - (int(steps[-1]) + 1 if len(steps) else 0)
