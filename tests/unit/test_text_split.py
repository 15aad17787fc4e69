"""Drawing test documents: by text and seed alone, and every label stays in train."""

from __future__ import annotations

import numpy as np
import pytest

from ray_xml.label_book import NamedLabels, NumberedLabels
from ray_xml.sparse import Csr
from ray_xml.text_split import Draw


def labels_of(rows: list[list[int]], width: int) -> Csr:
    return Csr.from_lists(rows, width)


def test_the_share_is_drawn_and_the_seed_matters() -> None:
    hashes = np.random.default_rng(1).integers(2**64, size=20_000, dtype=np.uint64)
    drawn = Draw(0.1, 0).drawn(hashes)
    assert abs(drawn.mean() - 0.1) < 0.01
    other = Draw(0.1, 1).drawn(hashes)
    assert abs((drawn & other).mean() - 0.01) < 0.003
    assert not Draw(0.0, 0).drawn(hashes).any()
    np.testing.assert_array_equal(Draw(0.1, 0).drawn(hashes[::-1]), drawn[::-1])
    assert (Draw(0.3, 0).drawn(hashes) >= drawn).all()  # a larger share draws the same and more


@pytest.mark.parametrize("share", [0.2, 0.999])
def test_every_label_stays_in_train_and_copies_stay_together(share: float) -> None:
    rng = np.random.default_rng(4)
    count, width = 400, 150
    hashes = rng.integers(1000, size=count).astype(np.uint64)  # some texts are there twice
    rows = [sorted(set(rng.zipf(1.4, 3).clip(max=width) - 1)) for _ in range(count)]
    rows[7] = []
    draw = Draw(share, 0)
    for low in range(0, count, 90):  # labels are met as they come
        some = rows[low : low + 90]
        width_so_far = 1 + max(max(row, default=0) for row in rows[: low + 90])
        draw.see(
            hashes[low : low + 90], labels_of([[int(i) for i in r] for r in some], width_so_far)
        )
    draw.keep_labels()
    test = draw.in_test(hashes)
    in_train = {label for row, out in zip(rows, test, strict=True) if not out for label in row}
    assert in_train == {label for row in rows for label in row}
    assert not set(hashes[test].tolist()) & set(hashes[~test].tolist())
    assert test.sum() > 0
    # No more were taken back than labels that would have been lost.
    drawn = draw.drawn(hashes)
    kept = {label for row, out in zip(rows, drawn, strict=True) if not out for label in row}
    assert draw.moved <= len(in_train - kept)
    assert (test <= drawn).all()


def test_names_are_numbered_in_their_order() -> None:
    book = NamedLabels()
    first = book.meet([["b", "c", "b"], [], ["a"]])
    assert (first.offsets.tolist(), first.ids.tolist()) == ([0, 2, 2, 3], [0, 1, 2])
    assert book.meet([["c", "d"]]).num_columns == 4
    assert book.settle().tolist() == [1, 2, 0, 3]
    assert book.names == ["a", "b", "c", "d"]
    assert book.meet([["d", "a"]]).ids.tolist() == [0, 3]
    assert NamedLabels().meet([]).num_rows == 0


def test_numbered_labels_may_share_a_name() -> None:
    book = NumberedLabels(["same", "same", "other"])
    rows = book.meet([["2", "0", "2"], []])
    assert (rows.ids.tolist(), rows.offsets.tolist(), rows.num_columns) == ([0, 2], [0, 2, 2], 3)
    assert book.settle().tolist() == [0, 1, 2]
