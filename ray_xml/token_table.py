"""The token table a run starts from: truncated SVD, a given .npy file, or random numbers.

SVD: the top right singular vectors of the training matrix X (documents × tokens), by randomised
subspace iteration (Halko, Martinsson & Tropp, SIAM Review 2011) with the documents spread over
the workers: each multiplies its own rows, and only V×p sums travel, a few times a run. The
result is the same for any number of workers up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ray_xml.bags import bags_of, sum_bags, transposed_bags
from ray_xml.errors import ConfigError
from ray_xml.exchange import Exchange
from ray_xml.kept_file import KeptFile
from ray_xml.npy_file import map_npy
from ray_xml.partition import Range, even
from ray_xml.sparse import Csr, Rows

_CPU = torch.device("cpu")
_BLOCK, _STRIP = 8192, 80  # documents and columns at a time
_EXTRA = 16  # oversampling p - D; Halko et al. advise 5 to 10, more costs little here


def token_table(
    source: str,
    features: Rows,
    dim: int,
    exchange: Exchange,
    *,
    seed: int,
    device: torch.device = _CPU,
    kept: KeptFile | None = None,
) -> Tensor:
    """float32 [V, d]: this rank's columns of the starting token table.

    Args:
        source: ``svd``, ``random`` or the path of an .npy file (float [V, D]).
        features: [N, V], the training documents.
        dim: D.
        device: where it is computed and left; the workers' sums travel from there.
        kept: where an SVD is looked for, and kept for other runs.

    Raises:
        ConfigError: the file is missing or has another shape or type.
    """
    low, high = even(dim, exchange.size)[exchange.rank]
    if source == "svd" and kept is not None:
        return _kept_svd(features, dim, exchange, seed=seed, device=device, kept=kept)
    if source == "svd":
        whole = svd_table(features, dim, exchange, seed=seed, device=device)
        return whole[:, low:high].contiguous()
    if source == "random":
        return torch.from_numpy(_random(features.num_columns, dim, (low, high), seed)).to(device)
    table = _open_npy(source, (features.num_columns, dim))
    return torch.from_numpy(np.array(table[:, low:high], np.float32)).to(device)


def _kept_svd(
    features: Rows,
    dim: int,
    exchange: Exchange,
    *,
    seed: int,
    device: torch.device,
    kept: KeptFile,
) -> Tensor:
    """As ``svd_table``, this rank's columns, computed only where no run has kept it yet.

    Rank 0 looks, waits for another run that is computing it, and keeps it, on behalf of all.
    """
    low, high = even(dim, exchange.size)[exchange.rank]
    with ExitStack() as held:
        found = False
        if exchange.rank == 0:
            held.enter_context(kept.alone())
            found = kept.good()
        if not exchange.any(found, device):
            whole = svd_table(features, dim, exchange, seed=seed, device=device)
            if exchange.rank == 0:
                kept.keep(lambda path: whole.cpu().numpy().tofile(path))
            return whole[:, low:high].contiguous()
    table = np.memmap(kept.path, np.float32, "r", shape=(features.num_columns, dim))
    return torch.from_numpy(np.array(table[:, low:high])).to(device)


def _random(rows: int, dim: int, columns: Range, seed: int) -> np.ndarray:
    """float32 [V, d]: some columns of V·D normal numbers, of which a few rows exist at a time."""
    random = np.random.default_rng([seed, 0x7AB1E])
    table = np.empty((rows, columns[1] - columns[0]), np.float32)
    for first in range(0, rows, _BLOCK):
        some = random.standard_normal((min(_BLOCK, rows - first), dim), np.float32)
        table[first : first + len(some)] = some[:, slice(*columns)] * np.float32(dim**-0.5)
    return table


def scratch_bytes(source: str, features: int, dim: int, workers: int) -> int:
    """What making a worker's V x d table takes beside it, at most, until it is there.

    SVD: three arrays V x p while a basis is made orthonormal (what it is made of, LAPACK's copy and
    the result). The others: one more share of the table, which ``token_scale`` is applied to.
    """
    share = 4 * features * -(-dim // workers)
    if source != "svd":
        return share + 8 * _BLOCK * dim
    width = min(dim + _EXTRA, features)
    return 3 * 4 * features * width - share


def _open_npy(path: str, shape: tuple[int, int]) -> np.ndarray:
    if not Path(path).is_file():
        raise ConfigError(
            f"encoder.tokens: {path!r} is neither 'svd' nor 'random' nor an .npy file that exists"
        )
    try:
        table = map_npy(path)
    except (ValueError, OSError) as error:
        raise ConfigError(f"encoder.tokens: {path} is not a plain .npy array: {error}") from error
    if table.shape != shape or table.dtype.kind != "f":
        raise ConfigError(
            f"encoder.tokens: {path} holds {table.dtype} {list(table.shape)}, but the data set "
            f"and encoder.dim ask for floats {list(shape)} (features × dim)"
        )
    return table


def svd_table(
    features: Rows,
    dim: int,
    exchange: Exchange,
    *,
    seed: int,
    passes: int = 3,
    device: torch.device = _CPU,
) -> Tensor:
    """float32 [V, D]: right singular vectors, scaled so that documents come out usable.

    Column i is v_i · sqrt(N) / sqrt(s_1 · s_i): halfway (in logarithms) between plain vectors,
    where the first direction drowns the rest, and whitened ones, where noise counts as much as
    signal. Directions beyond the matrix's rank are zero.

    Vectors of nearby singular values turn into each other at the slightest rounding, so the
    arithmetic does not depend on the number of workers: whole blocks of documents are dealt out,
    their sums are added in float64, and each process works with one thread.
    """
    width = min(dim + _EXTRA, features.num_columns)
    start = np.random.default_rng([seed, 0x54D]).standard_normal(
        (features.num_columns, width), np.float32
    )
    with _one_thread():
        basis = _orthonormal(torch.from_numpy(start).to(device))
        del start
        for _ in range(passes):
            # Nothing that is V x p outlives its use: there are three of them at most.
            basis = _times_gram(features, basis, exchange)
            basis = _orthonormal(basis)
        gram = torch.zeros(width, width, dtype=torch.float64, device=device)
        for block in _own_blocks(features, exchange):
            part = sum_bags(basis, bags_of(block).to(device)).double()
            gram += part.t() @ part
        squares, vectors = torch.linalg.eigh(exchange.sum_(gram))
        keep = min(dim, width)
        squares, vectors = squares.flip(0)[:keep], vectors.flip(1)[:, :keep]
        singular = squares.clamp_min(0).sqrt()
        # eigh leaves each vector's sign open: the largest entry is made positive.
        table = torch.empty(len(basis), keep, device=device)
        for first in range(0, len(basis), _BLOCK):
            rows = slice(first, first + _BLOCK)
            table[rows] = (basis[rows].double() @ vectors).float()
        del basis
    largest = table.gather(0, table.abs().argmax(0, keepdim=True)).sign()
    alive = singular > singular[0] * 1e-5
    scale = torch.where(alive, features.num_rows**0.5 * (singular[0] * singular).rsqrt(), 0.0)
    table *= largest
    table *= scale.float()
    return torch.nn.functional.pad(table, (0, dim - keep))


def _times_gram(features: Rows, basis: Tensor, exchange: Exchange) -> Tensor:
    """float32 [V, p]: XᵀX · basis over all workers, a few columns at a time.

    Narrow strips bound the float64 scratch, and the sparse sums run faster on them.
    """
    image = torch.empty_like(basis)
    for low in range(0, basis.shape[1], _STRIP):
        strip = basis[:, low : low + _STRIP].contiguous()
        sums = torch.zeros(strip.shape, dtype=torch.float64, device=strip.device)
        for block in _own_blocks(features, exchange):
            tokens, turned = transposed_bags(block)
            projected = sum_bags(strip, bags_of(block).to(strip.device))
            places = torch.from_numpy(tokens).to(strip.device)
            sums[places] += sum_bags(projected, turned.to(strip.device))
        image[:, low : low + _STRIP] = exchange.sum_(sums)
    return image


def _own_blocks(features: Rows, exchange: Exchange) -> Iterator[Csr]:
    """This rank's blocks of documents; block borders are the same for any number of workers."""
    for start, block in features.blocks(_BLOCK):
        if start // _BLOCK % exchange.size == exchange.rank:
            yield block


def _orthonormal(x: Tensor) -> Tensor:
    """An orthonormal basis of the columns of ``x``, stored by rows, as bags read them."""
    orthonormal: Tensor = torch.linalg.qr(x).Q
    return orthonormal.contiguous()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
