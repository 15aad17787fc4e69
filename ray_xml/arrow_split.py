"""Mapping a split's Arrow file: sound lists over the file's own bytes, or an error.

pyarrow trusts what a file says of its buffers, and so do numpy and scipy after it: offsets that
lie would have them read foreign memory. So everything is checked that costs no more than a look
at the offsets. The entries are checked when they are first used (see ``store.Split``).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa

_MAGIC = b"ARROW1\0\0"
_RECORD_BATCH, _COMPRESSION = 2, 3  # fields of the flatbuffer tables Message and RecordBatch

Column = tuple[np.ndarray, np.ndarray]


def map_split(path: Path, schema: pa.Schema) -> list[Column]:
    """(int64 [rows + 1] offsets, entries) of each list column, as views of the mapped file.

    Raises:
        ValueError: it is no Arrow file of one record batch with this schema, or damaged.
        OSError: it cannot be read.
    """
    with pa.memory_map(str(path)) as file:
        # An Arrow file is a stream of messages between two marks. Reading them one by one leaves
        # no second opinion, that of the file's end, about where a batch lies.
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is no Arrow file")
        # pyarrow takes any message for what it is told to be, and crashes if it is not.
        if not pa.ipc.read_schema(_message(file, "schema")).equals(schema):
            raise ValueError("its columns are not the expected ones")
        message = _message(file, "record batch")
        if _is_compressed(message.metadata.to_pybytes()):
            # Unfolding could take any amount of memory, and what is unfolded is not shared.
            raise ValueError("its columns are compressed")
        batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    return [_arrays(column) for column in batch.columns]


def _message(file: pa.NativeFile, kind: str) -> pa.ipc.Message:
    """The next message of a file."""
    try:
        message = pa.ipc.read_message(file)
    except EOFError as error:
        raise ValueError("it is cut short") from error
    if message.type != kind:
        raise ValueError(f"a message of type {message.type} stands where its {kind} should")
    return message


def _arrays(column: pa.LargeListArray) -> Column:
    if column.null_count or column.values.null_count:
        raise ValueError("a column has nulls")
    offsets = column.offsets.to_numpy()
    return offsets, column.values.to_numpy()


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch's message, a flatbuffer, names a compression of its buffers.

    Source: Message.fbs of the Arrow format.
    """
    try:
        message = struct.unpack_from("<I", metadata)[0]
        header = _field(metadata, message, _RECORD_BATCH)
        batch = header + struct.unpack_from("<I", metadata, header)[0]
        return header == 0 or _field(metadata, batch, _COMPRESSION) != 0
    except struct.error as error:
        raise ValueError("its message cannot be read") from error


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where field ``number`` of the flatbuffer table at ``table`` lies, 0 if it is not there."""
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", metadata, fields)[0]:
        return 0
    offset = int(struct.unpack_from("<H", metadata, fields + place)[0])
    return table + offset if offset else 0
