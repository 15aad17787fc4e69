"""Shortlists searched for beside training: brute force's, every document once, all or no file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from groups import Groups
from made import begin_cycle, proxies_of, random_csr

from ray_xml import shortlists
from ray_xml.exchange import Exchange
from ray_xml.label_range import LabelRange
from ray_xml.label_search import Found
from ray_xml.partition import epoch_order
from ray_xml.proxies import identity_map
from ray_xml.ranges import Block, LocalRanges
from ray_xml.shortlist import ShortlistConfig
from ray_xml.shortlists import Shortlists

DOCUMENTS, LABELS, DIM, SIZE, K = 333, 40, 8, 20, 6
CPU = torch.device("cpu")
Source = Literal["proxy", "classifier", "both"]


@pytest.fixture(autouse=True)
def _small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine stretches of two batches, the last with a batch and a half batch less."""
    monkeypatch.setattr(shortlists, "_STRETCH", 40)


def embeddings() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.maximum(rng.standard_normal((DOCUMENTS, DIM)), 0).astype(np.float16)


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((LABELS, DIM)).astype(np.float32)
    return weight, rng.standard_normal(LABELS).astype(np.float32)


class Watched(LocalRanges):
    """Label ranges that note which documents were asked for, and may fail at some block.

    Attributes:
        asked: the documents of each block.
        fails_at: the block that cannot be searched, or None.
    """

    fails_at: int | None = None

    def search(
        self, blocks: Iterable[Block], k: int, sources: tuple[str, ...], both_scores: bool
    ) -> Iterator[tuple[int, Found]]:
        self.asked: list[list[int]] = []
        for block in blocks:
            if len(self.asked) == self.fails_at:
                raise ConnectionError(f"the shard is gone at block {self.fails_at}")
            self.asked.append(block[1].tolist())
            yield from super().search([block], k, sources, both_scores)


def ranges() -> Watched:
    """Two ranges with proxies and rows."""
    labels = random_csr(np.random.default_rng(2), DOCUMENTS, LABELS, 0.1, binary=True)
    made = Watched([LabelRange(cut, labels) for cut in ((0, 13), (13, LABELS))])
    begin_cycle(made, 0, embeddings()).set_proxies(identity_map(DIM)).index_rows(*rows())
    return made


def lists_in(folder: Path, source: Source = "both") -> Shortlists:
    order = epoch_order(DOCUMENTS, seed=3, epoch=0)
    path = folder / "shortlists" / "cycle-0000.i32"
    return Shortlists(path, order, ShortlistConfig(size=K, source=source))


def search(
    lists: Shortlists, over: LocalRanges, told: list[bool] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    waiting = (lambda _: None) if told is None else told.append
    return lists.search(SIZE, over, Exchange(), CPU, waiting)


def by_document(found: Iterable[tuple[np.ndarray, np.ndarray]], width: int) -> np.ndarray:
    """int32 [N, k], after a look at whether every document came once."""
    whole = np.full((DOCUMENTS, width), -2, np.int32)
    for documents, lists in found:
        assert lists.dtype == np.int32
        assert lists.shape == (len(documents), width)
        assert (whole[documents] == -2).all()
        whole[documents] = lists
    assert (whole != -2).all()
    return whole


def brute_force(source: Source) -> list[list[set[int]]]:
    """For each document the best labels of each source."""
    z, (weight, bias) = embeddings().astype(np.float64), rows()
    norms = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    scores = {
        "proxy": (z / norms) @ proxies_of(ranges(), LABELS).T.astype(np.float64),
        "classifier": z @ weight.T + bias,
    }
    wanted = ("proxy", "classifier") if source == "both" else (source,)
    best = [np.argsort(-scores[one].round(6), axis=1, kind="stable")[:, :K] for one in wanted]
    return [[set(one[document].tolist()) for one in best] for document in range(DOCUMENTS)]


@pytest.mark.parametrize("source", ["proxy", "classifier", "both"])
def test_lists_are_brute_force(tmp_path: Path, source: Source) -> None:
    lists = lists_in(tmp_path, source)
    found = by_document(search(lists, ranges()), lists.config.width)
    for row, sources in zip(found, brute_force(source), strict=True):
        named = row[row >= 0].tolist()
        assert len(named) == len(set(named))
        assert set(named) == set.union(*sources)


def test_batches_are_those_of_the_order(tmp_path: Path) -> None:
    lists, over = lists_in(tmp_path), ranges()
    batches = list(search(lists, over))
    expected = [lists.order[at : at + SIZE].tolist() for at in range(0, DOCUMENTS, SIZE)]
    assert [documents.tolist() for documents, _ in batches] == expected
    stretches = [lists.order[at : at + 40].tolist() for at in range(0, DOCUMENTS, 40)]
    assert over.asked == stretches


@pytest.mark.parametrize("source", ["proxy", "both"])
def test_the_file_gives_the_same_lists_in_any_order(tmp_path: Path, source: Source) -> None:
    lists = lists_in(tmp_path, source)
    found = by_document(search(lists, ranges()), lists.config.width)
    assert lists.path.stat().st_size == 4 * DOCUMENTS * lists.config.width
    assert [path.name for path in lists.path.parent.iterdir()] == [lists.path.name]
    for order in (lists.order, epoch_order(DOCUMENTS, seed=3, epoch=1), np.arange(DOCUMENTS)):
        for size in (20, 33, 1000):
            read = list(lists.read(order, size))
            assert np.concatenate([documents for documents, _ in read]).tolist() == order.tolist()
            assert {len(documents) for documents, _ in read[:-1]} <= {size}
            np.testing.assert_array_equal(by_document(read, lists.config.width), found)


def test_older_files_go(tmp_path: Path) -> None:
    lists = lists_in(tmp_path)
    lists.path.parent.mkdir()
    for name in ("cycle-0007.i32", "cycle-0005.i32.unfinished", lists.path.name):
        (lists.path.parent / name).write_bytes(b"old")
    by_document(search(lists, ranges()), lists.config.width)
    assert [path.name for path in lists.path.parent.iterdir()] == [lists.path.name]


def test_it_tells_when_it_waits(tmp_path: Path) -> None:
    told: list[bool] = []
    batches = search(lists_in(tmp_path), ranges(), told)
    assert told == []
    next(batches)
    assert told == [True, False]  # the first stretch is there, and two batches in it
    next(batches)
    assert told == [True, False]
    next(batches)
    assert told == [True, False] * 2
    list(batches)
    assert told == [True, False] * 9


def test_it_searches_ahead_but_not_without_end(tmp_path: Path) -> None:
    over, ahead = ranges(), threading.Event()
    plain = over.search

    def watched(*given: Any) -> Iterator[tuple[int, Found]]:
        for number, answer in plain(*given):
            yield number, answer
            if number == 2:
                ahead.set()

    over.search = watched  # type: ignore[method-assign]
    batches = search(lists_in(tmp_path), over)
    next(batches)
    assert ahead.wait(60)  # two stretches more were found while nobody asked for them
    # One is handed out, two lie ready, one waits for a place: the rest is not begun.
    assert len(over.asked) <= 4
    list(batches)
    assert len(over.asked) == 9


def searching() -> bool:
    return any(thread.name == "shortlists" for thread in threading.enumerate())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fails_at", [0, 1, 5, 8])
def test_an_error_of_the_ranges_reaches_the_caller(tmp_path: Path, fails_at: int) -> None:
    lists, over = lists_in(tmp_path), ranges()
    over.fails_at = fails_at
    batches = search(lists, over)
    for _ in range(2 * fails_at):  # all that could be found is handed out first
        next(batches)
    with pytest.raises(ConnectionError, match=f"gone at block {fails_at}"):
        next(batches)
    assert not searching()
    assert not lists.path.exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("drawn", [1, 3, 16])
def test_who_stops_early_ends_the_thread_and_leaves_no_file(tmp_path: Path, drawn: int) -> None:
    lists = lists_in(tmp_path)
    batches = search(lists, ranges())
    for _ in range(drawn):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not searching()
    assert not lists.path.exists()
    # The next attempt knows nothing of it.
    found = by_document(search(lists, ranges()), lists.config.width)
    np.testing.assert_array_equal(by_document(lists.read(lists.order, 50), found.shape[1]), found)


def die_half_way(folder: Path) -> None:
    """Searches until the last batch but one, and is killed; runs in a process of its own."""
    shortlists._STRETCH = 40
    for number, _ in enumerate(search(lists_in(folder), ranges())):
        if number == 15:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_half_way_leaves_no_file_with_the_final_name(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_half_way, args=(tmp_path,))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    lists = lists_in(tmp_path)
    left = [path.name for path in lists.path.parent.iterdir()]
    assert left == [lists.path.name + ".unfinished"]
    found = by_document(search(lists, ranges()), lists.config.width)
    assert [path.name for path in lists.path.parent.iterdir()] == [lists.path.name]
    np.testing.assert_array_equal(by_document(lists.read(lists.order, 50), found.shape[1]), found)


def group_worker(folder: Path) -> tuple[list[list[int]], np.ndarray, list[list[int]]]:
    """(the batches' documents, their lists, what this worker asked for); runs in a group."""
    over, lists = ranges(), lists_in(folder)
    with pytest.MonkeyPatch.context() as patch:  # other tests use the same processes
        patch.setattr(shortlists, "_STRETCH", 40)
        batches = list(lists.search(SIZE, over, Exchange(), CPU, lambda _: None))
    together = np.concatenate([one for _, one in batches])
    return [documents.tolist() for documents, _ in batches], together, over.asked


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_gather_what_one_finds(
    groups: Groups, tmp_path: Path, workers: int
) -> None:
    alone = lists_in(tmp_path / "alone")
    batches = list(search(alone, ranges()))
    answers = groups.run(workers, group_worker, tmp_path / "group")
    for documents, lists, _ in answers:
        assert documents == [one.tolist() for one, _ in batches]
        np.testing.assert_array_equal(lists, np.concatenate([one for _, one in batches]))
    # Each document was searched for by one of them.
    asked = [document for _, _, blocks in answers for block in blocks for document in block]
    assert sorted(asked) == list(range(DOCUMENTS))
    assert all(blocks for _, _, blocks in answers)
    together = lists_in(tmp_path / "group")
    assert together.path.read_bytes() == alone.path.read_bytes()
