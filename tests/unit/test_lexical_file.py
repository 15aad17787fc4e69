"""The sparse channel at rest answers as the one in memory, and damage is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import random_csr
from safetensors.numpy import load_file, save_file

from ray_xml import label_words
from ray_xml.errors import CheckpointError
from ray_xml.lexical import Lexical
from ray_xml.lexical_file import FORMAT_VERSION, load_lexical, save_lexical
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.sparse import Csr
from ray_xml.votes import Votes

DOCUMENTS, FEATURES, LABELS = 40, 25, 13


def documents(seed: int, rows: int) -> Csr:
    return random_csr(np.random.default_rng(seed), rows, FEATURES, 0.3, binary=True)


def labels() -> Csr:
    return random_csr(np.random.default_rng(2), DOCUMENTS, LABELS, 0.2, binary=True)


def config(size: int = 7) -> NeighborsConfig:
    return NeighborsConfig(size=size, labels=5, terms=6, label_terms=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_lexical(tmp_path / "lexical", config(), documents(0, DOCUMENTS), labels())
    return tmp_path / "lexical"


@pytest.mark.parametrize("size", [0, 7])
@pytest.mark.parametrize("products", [1, 1 << 24])
def test_it_answers_as_the_one_in_memory(
    tmp_path: Path, size: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_words, "_PRODUCTS", products)
    save_lexical(tmp_path / "a", config(size), documents(0, DOCUMENTS), labels())
    stored = load_lexical(tmp_path / "a", config(size))
    made = Lexical.build(Neighbors.build(config(size), documents(0, DOCUMENTS), labels()))
    asked = documents(1, 11)
    listed = np.random.default_rng(3).integers(-1, LABELS, (11, 6), dtype=np.int32)
    one, other = stored.ask(asked), made.ask(asked)
    for name in Votes.__dataclass_fields__:
        assert np.array_equal(getattr(one.votes, name), getattr(other.votes, name)), name
    for ours, theirs in zip(one.fits(listed), other.fits(listed), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.any() == (size > 0)
    assert np.array_equal(stored.label_counts, made.label_counts)
    before = (tmp_path / "a").read_bytes()
    save_lexical(tmp_path / "a", config(size), documents(0, DOCUMENTS), labels())
    assert (tmp_path / "a").read_bytes() == before


def test_nothing_large_is_copied(path: Path) -> None:
    lexical = load_lexical(path, config())
    words, neighbors = lexical.words, lexical.neighbors
    assert words.counts.values is not None
    for array in (words.counts.ids, words.counts.values, neighbors.labels.ids):
        assert not array.flags.owndata
        assert not array.flags.writeable
    # What scipy multiplies lies in the file too.
    assert np.shares_memory(words._table.data, words.counts.values)
    assert np.shares_memory(words._table.indices, words.counts.ids)
    postings = neighbors._postings
    assert postings.rows.values is not None
    assert np.shares_memory(postings._table.data, postings.rows.values)
    assert np.shares_memory(postings._table.indices, postings.rows.ids)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("postings.ids", lambda a: a + 1, "ids of postings"),
        ("labels.ids", lambda a: a - 1, "ids of labels"),
        ("words.ids", lambda a: a + 2**30, "ids of words"),
        ("words.ids", lambda a: a - 2**30, "ids of words"),
        ("words.offsets", lambda a: a[::-1].copy(), "offsets of words"),
        ("words.offsets", lambda a: a[:0], "words.offsets is"),
        ("words.offsets", lambda a: a[:-1], "words.offsets is"),
        ("words.values", lambda a: a[1:], "ids of words, .* values"),
        ("words.scale", lambda a: a[1:], "words.scale is"),
        ("words.share", lambda a: a[1:], "words.share is"),
        ("widths", lambda a: a[:1], "widths are"),
    ],
)  # fmt: skip
def test_damaged_arrays_are_told(path: Path, name: str, change: Any, message: str) -> None:
    arrays, version = load_file(path), {"format_version": str(FORMAT_VERSION)}
    save_file({**arrays, name: change(arrays[name])}, path, metadata=version)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))}: damaged .*{message}"):
        load_lexical(path, config())
    save_file({key: arrays[key] for key in arrays if key != name}, path, metadata=version)
    with pytest.raises(CheckpointError, match=f"damaged .*{name}.*train again"):
        load_lexical(path, config())


@pytest.mark.parametrize("raw", [b"", b"no arrays", None])
def test_damaged_files_are_told(path: Path, raw: bytes | None) -> None:
    path.write_bytes(path.read_bytes()[:-1] if raw is None else raw)
    with pytest.raises(CheckpointError, match=r"lexical: damaged .*train again"):
        load_lexical(path, config())


def test_a_missing_file_is_told(path: Path) -> None:
    path.unlink()
    with pytest.raises(CheckpointError, match=r"lexical: missing.*train again"):
        load_lexical(path, config())


@pytest.mark.parametrize(("metadata", "version"), [(None, 1), ({"format_version": "3"}, 3)])
def test_other_versions_are_told(path: Path, metadata: dict[str, str] | None, version: int) -> None:
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(CheckpointError, match=f"version {version}, .* reads 2; .*train again"):
        load_lexical(path, config())
