"""Predictions as a table: one row a document, lists as long as it has labels.

document   int64, its number in the input, from 0
labels     list of int32, best first; scores list of float32
names      list of strings, where labels have names
id         as in the input, where documents have one
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ray_xml.predict_documents import Predictions


def schema(*, named: bool, ids: pa.DataType | None = None) -> pa.Schema:
    """The columns: with ``names``, with ``id`` of a type."""
    fields = [
        ("document", pa.int64()),
        ("labels", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
    ]
    if named:
        fields.append(("names", pa.list_(pa.string())))
    if ids is not None:
        fields.append(("id", ids))
    return pa.schema(fields)


def table(
    block: Predictions, first: int, names: pa.Array | None, ids: pa.Array | None = None
) -> pa.RecordBatch:
    """The rows of a block.

    Args:
        first: number of its first document.
        names: of all labels, by number.
        ids: of its documents.
    """
    kept = block.labels >= 0
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    labels = pa.array(block.labels[kept])
    columns = [
        pa.array(np.arange(first, first + len(kept))),
        pa.ListArray.from_arrays(offsets, labels),
        pa.ListArray.from_arrays(offsets, pa.array(block.scores[kept])),
    ]
    if names is not None:
        columns.append(pa.ListArray.from_arrays(offsets, names.take(labels)))
    if ids is not None:
        columns.append(ids)
    kind = schema(named=names is not None, ids=None if ids is None else ids.type)
    return pa.record_batch(columns, schema=kind)
