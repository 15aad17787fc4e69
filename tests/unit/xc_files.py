"""XC files for the tests: writing, reading, and a slow obvious parser to compare with."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from ray_xml.errors import InputError
from ray_xml.sparse import Csr
from ray_xml.xc_io import open_xc

Document = tuple[list[int], list[tuple[int, float]]]  # labels, features


def write(path: Path, text: str | bytes) -> Path:
    raw = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(
        gzip.compress(raw) if path.suffix == ".gz" else
        lzma.compress(raw) if path.suffix == ".xz" else raw
    )  # fmt: skip
    return path


def documents(blocks: list[tuple[Csr, Csr]]) -> list[Document]:
    found: list[Document] = []
    for features, labels in blocks:
        assert features.num_rows == labels.num_rows
        assert features.offsets.dtype == labels.offsets.dtype == np.int64
        assert features.ids.dtype == labels.ids.dtype == np.int32
        assert features.values is not None
        assert features.values.dtype == np.float32
        assert labels.values is None
        for row in range(features.num_rows):
            low, high = features.offsets[row : row + 2]
            pairs = zip(features.ids[low:high], features.values[low:high], strict=True)
            ids = labels.ids[labels.offsets[row] : labels.offsets[row + 1]]
            found.append(([int(i) for i in ids], [(int(i), float(v)) for i, v in pairs]))
    return found


def read(path: Path, **options: object) -> list[Document]:
    return documents(list(open_xc(path, **options).blocks()))  # type: ignore[arg-type]


def fault(path: Path, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    return caught.value


def slow_parse(text: str) -> list[Document]:
    """Only for files without faults."""
    found: list[Document] = []
    for line in text.split("\n")[1:-1]:
        labels: list[int] = []
        pairs: list[tuple[int, float]] = []
        for number, token in enumerate(line.replace("\t", " ").rstrip("\r").split(" ")):
            if ":" in token:
                pairs.append((int(token.split(":")[0]), float(np.float32(token.split(":")[1]))))
            elif token:
                assert number == 0
                labels = [int(label) for label in token.split(",")]
        found.append((labels, pairs))
    return found


quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
