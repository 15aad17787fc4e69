"""The starting token table: SVD against scipy's, .npy files good and bad."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from groups import Groups
from made import random_csr

from ray_xml.errors import ConfigError
from ray_xml.exchange import Exchange
from ray_xml.partition import even
from ray_xml.sparse import Csr
from ray_xml.token_table import svd_table, token_table

TOKENS, DIM = 40, 6


def features() -> Csr:
    """200 documents over 40 tokens with six strong directions and weak noise."""
    rng = np.random.default_rng(0)
    strong = rng.standard_normal((200, DIM)) * np.array([9, 7, 5, 4, 3, 2.5])
    matrix = strong @ rng.standard_normal((DIM, TOKENS)) + 0.1 * rng.standard_normal((200, TOKENS))
    matrix[np.abs(matrix) < 1.0] = 0
    return Csr.from_scipy(scipy.sparse.csr_matrix(matrix))


def expected_svd(rows: Csr, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(singular values, right singular vectors as columns), largest first."""
    _, values, vectors = scipy.sparse.linalg.svds(rows.to_scipy().astype(np.float64), dim)
    return values[::-1], vectors[::-1].T


def test_svd_is_scipys_up_to_sign_and_scale() -> None:
    rows = features()
    table = svd_table(rows, DIM, Exchange(), seed=0).double().numpy()
    singular, vectors = expected_svd(rows, DIM)
    lengths = np.linalg.norm(table, axis=0)
    cosines = np.abs((table / lengths * vectors).sum(0))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-4)
    # Column i is v_i · sqrt(N) / sqrt(s_1 · s_i).
    np.testing.assert_allclose(lengths, np.sqrt(200 / (singular[0] * singular)), rtol=1e-4)


def test_svd_spans_the_best_subspace_of_a_flat_spectrum() -> None:
    # Without a gap single vectors are not determined; what they explain nearly is.
    rows = random_csr(np.random.default_rng(1), 300, TOKENS, 0.3)
    table = svd_table(rows, DIM, Exchange(), seed=0).double().numpy()
    basis = np.linalg.qr(table)[0]
    explained = np.linalg.norm(rows.to_scipy() @ basis) ** 2
    best = (expected_svd(rows, DIM)[0] ** 2).sum()
    assert 0.99 * best < explained <= best * (1 + 1e-6)


def test_svd_signs_are_settled() -> None:
    table = svd_table(features(), DIM, Exchange(), seed=0).numpy()
    largest = table[np.abs(table).argmax(0), np.arange(DIM)]
    assert (largest > 0).all()
    other = svd_table(features(), DIM, Exchange(), seed=99).numpy()
    np.testing.assert_allclose(table, other, rtol=1e-2, atol=1e-3)


def test_directions_beyond_the_rank_are_zero() -> None:
    rows = Csr.from_lists([[0, 1], [0, 1], [2], [2]], 5, [[1, 1], [2, 2], [3], [1]])
    table = svd_table(rows, 4, Exchange(), seed=0)
    assert table.shape == (5, 4)
    assert table.isfinite().all()
    assert (table[:, :2].norm(dim=0) > 0.1).all()
    assert torch.equal(table[:, 2:], torch.zeros(5, 2))
    wide = svd_table(rows, 7, Exchange(), seed=0)  # more dimensions than tokens
    assert wide.shape == (5, 7)
    torch.testing.assert_close(wide[:, :2], table[:, :2])


def test_a_matrix_without_entries_gives_zeros() -> None:
    table = svd_table(Csr.from_lists([[], []], 5, [[], []]), 3, Exchange(), seed=0)
    assert torch.equal(table, torch.zeros(5, 3))


def group_table(source: str) -> np.ndarray:
    return token_table(source, features(), DIM, Exchange(), seed=3).numpy()


@pytest.mark.parametrize("size", [2, 3])
def test_groups_make_the_table_of_one_process(groups: Groups, size: int) -> None:
    parts = groups.run(size, group_table, "svd")
    widths = [high - low for low, high in even(DIM, size)]
    assert [part.shape for part in parts] == [(TOKENS, width) for width in widths]
    np.testing.assert_allclose(np.concatenate(parts, 1), group_table("svd"), rtol=1e-3, atol=1e-4)
    random = groups.run(size, group_table, "random")
    np.testing.assert_array_equal(np.concatenate(random, 1), group_table("random"))


def test_random_tables_depend_on_the_seed() -> None:
    tables = [token_table("random", features(), DIM, Exchange(), seed=s) for s in (0, 0, 1)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert abs(tables[0].square().sum(1).mean().item() - 1) < 0.2  # rows of about unit length


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_given_table(tmp_path: Path, dtype: type) -> None:
    given = np.random.default_rng(0).standard_normal((TOKENS, DIM)).astype(dtype)
    np.save(tmp_path / "given.npy", given)
    table = token_table(str(tmp_path / "given.npy"), features(), DIM, Exchange(), seed=0)
    assert table.dtype == torch.float32
    np.testing.assert_array_equal(table.numpy(), given.astype(np.float32))
    table += 1  # training writes to it: it must be no view of the file
    np.testing.assert_array_equal(np.load(tmp_path / "given.npy"), given)


BAD = {
    "shape": (np.zeros((TOKENS, DIM + 1), np.float32), r"\[40, 7\].*\[40, 6\]"),
    "rank": (np.zeros(TOKENS * DIM, np.float32), r"\[240\]"),
    "integers": (np.zeros((TOKENS, DIM), np.int64), "int64"),
    "objects": (np.full((TOKENS, DIM), None, dtype=object), "not a plain .npy"),
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_a_bad_table_is_refused(tmp_path: Path, what: str) -> None:
    given, message = BAD[what]
    path = tmp_path / "given.npy"
    np.save(path, given)
    with pytest.raises(ConfigError, match=message) as caught:
        token_table(str(path), features(), DIM, Exchange(), seed=0)
    assert re.search(r"encoder\.tokens", str(caught.value))
    assert str(path) in str(caught.value)


def test_other_files_and_no_file_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npy"
    np.save(whole, np.zeros((TOKENS, DIM), np.float32))
    np.savez(tmp_path / "several.npz", a=np.zeros((TOKENS, DIM), np.float32))
    contents = {"empty.npy": b"", "text.npy": b"token 0.1\n", "cut.npy": whole.read_bytes()[:200]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in [*contents, "several.npz"]:
        with pytest.raises(ConfigError, match=f"{name}.*not a plain .npy"):
            token_table(str(tmp_path / name), features(), DIM, Exchange(), seed=0)
    with pytest.raises(ConfigError, match=r"'missing\.npy' is neither"):
        token_table("missing.npy", features(), DIM, Exchange(), seed=0)
