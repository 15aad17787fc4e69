"""Lines of the extreme-classification (XC) formats to sparse rows, with numpy alone.

    with labels      ``l1,l2 f:v f:v``
    without labels   ``f:v f:v`` (or ``l:v l:v`` in the label file of the split format)

``convert`` judges and converts a text of whole lines at once. It says only whether all is well;
``xc_faults`` finds out what is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.sparse import Csr

TOO_LARGE = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in float32

# What a byte may be. Separators come last and in the order of SEPARATORS.
_DIGIT, _SIGN, _POINT, _EXPONENT, _ILLEGAL, _SEPARATOR = range(6)
SEPARATORS = b",: \n"
COMMA, COLON, SPACE, NEWLINE = range(4)
_KINDS = np.full(256, _ILLEGAL, np.uint8)
_KINDS[list(b"0123456789")] = _DIGIT
_KINDS[list(b"+-")] = _SIGN
_KINDS[list(b".")] = _POINT
_KINDS[list(b"eE")] = _EXPONENT
_KINDS[list(SEPARATORS)] = _SEPARATOR + np.arange(4)
_TO_SPACES = bytes.maketrans(b",:\n", b"   ")

# What a token is follows from the separators around it (and whether it is empty).
WRONG, BLANK, LABEL, PAIR, VALUE = range(5)


@dataclass(frozen=True)
class LineForm:
    """What the lines of a file look like.

    Attributes:
        pairs: the width of the ``id:value`` pairs.
        labels: the width of the label lists, or None where lines have none.
        pair_name: what an id of a pair is called in messages.
        sort_ids: whether ids may come in any order (they are then sorted).
    """

    pairs: int
    labels: int | None
    pair_name: str
    sort_ids: bool

    def roles(self) -> np.ndarray:
        """uint8 [2, 4, 4]: a token's role by (is empty, separator before it, separator after)."""
        roles = np.full((2, 4, 4), WRONG, np.uint8)
        for before in (SPACE, NEWLINE):
            roles[0, before, COLON] = PAIR
            roles[1, before, [SPACE, NEWLINE]] = BLANK
        roles[0, COLON, [SPACE, NEWLINE]] = VALUE
        if self.labels is not None:
            for before in (NEWLINE, COMMA):
                roles[0, before, [COMMA, SPACE, NEWLINE]] = LABEL
        return roles


def _allowed_neighbours() -> np.ndarray:
    """bool [3, 6, 6]: may a sign, point or exponent stand between bytes of these two kinds?

    Together with "at most a point and then an exponent a token" this is all that makes a number.
    """
    allowed = np.zeros((3, 6, 6), np.bool_)
    sign, point, exponent = allowed
    sign[[_SEPARATOR, _EXPONENT], _DIGIT] = True
    sign[_SEPARATOR, _POINT] = True
    point[[_DIGIT, _SIGN, _SEPARATOR], _DIGIT] = True  # .5
    point[_DIGIT, [_EXPONENT, _SEPARATOR]] = True  # 5.
    exponent[np.ix_([_DIGIT, _POINT], [_DIGIT, _SIGN])] = True
    return allowed


_ALLOWED = _allowed_neighbours()


def empty(form: LineForm) -> tuple[Csr, Csr]:
    """(pairs, label lists) of no lines."""
    ids, offsets = np.zeros(0, np.int32), np.zeros(1, np.int64)
    return (
        Csr(offsets, ids, np.zeros(0, np.float32), form.pairs),
        Csr(offsets, ids, None, form.labels or 0),
    )


def convert(text: bytes, form: LineForm) -> tuple[Csr, Csr] | None:
    """(pairs, label lists) of whole lines, or None if anything at all is wrong.

    Lines are judged apart: a text is refused if and only if one of its lines alone is.
    """
    if not text:
        return empty(form)
    kinds = _KINDS[np.frombuffer(text, np.uint8)]
    if (kinds == _ILLEGAL).any():
        return None
    ends = np.flatnonzero(kinds >= _SEPARATOR)
    starts = np.concatenate([[0], ends[:-1] + 1])
    after = kinds[ends] - _SEPARATOR
    before = np.concatenate([np.array([NEWLINE], np.uint8), after[:-1]])
    role = form.roles().reshape(-1)[16 * (starts == ends) + 4 * before + after]
    if (role == WRONG).any() or not _well_formed(kinds, ends, role):
        return None
    filled = role != BLANK
    numbers = _numbers(text, int(np.count_nonzero(filled)))
    if numbers is None:
        return None
    values = numbers[role[filled] == VALUE]
    if (np.abs(values) >= TOO_LARGE).any():
        return None
    last_of_line = np.flatnonzero(after == NEWLINE)
    is_label, is_pair = role == LABEL, role == PAIR
    pairs = _rows(
        numbers[is_pair[filled]], _offsets(is_pair, last_of_line), form.pairs, values, form.sort_ids
    )
    labels = _rows(
        numbers[is_label[filled]],
        _offsets(is_label, last_of_line),
        form.labels or 0,
        None,
        form.sort_ids,
    )
    return None if pairs is None or labels is None else (pairs, labels)


def _well_formed(kinds: np.ndarray, ends: np.ndarray, role: np.ndarray) -> bool:
    """Whether every token is written as a number, and every id in digits alone.

    Args:
        kinds: the kinds of all bytes; the last one is a separator.
        ends: where each token's separator stands.
        role: each token's role.
    """
    marks = np.flatnonzero((kinds >= _SIGN) & (kinds <= _EXPONENT))
    token = np.searchsorted(ends, marks)
    if (role[token] != VALUE).any():
        return False
    kind = kinds[marks]
    # Before the first byte of all stands, by the index -1, the last one: a separator, as it should.
    left = np.minimum(kinds[marks - 1], _SEPARATOR)
    right = np.minimum(kinds[marks + 1], _SEPARATOR)
    if not _ALLOWED[kind - _SIGN, left, right].all():
        return False
    is_sign = kind == _SIGN
    kind, token = kind[~is_sign], token[~is_sign]
    return bool((kind[:-1] < kind[1:])[token[:-1] == token[1:]].all())


def _numbers(text: bytes, count: int) -> np.ndarray | None:
    """float64 [count]: the numbers of a text of well-formed ones.

    numpy warns of text that is no number (it then stops there, which the count would show). As
    well-formed text cannot make it warn, no warning filter is touched: that is global, so doing
    so would not be safe beside other threads.
    """
    if count == 0:
        return np.zeros(0)
    numbers = np.fromstring(text.translate(_TO_SPACES), np.float64, sep=" ")
    return numbers if len(numbers) == count else None


def _offsets(is_one: np.ndarray, last_of_line: np.ndarray) -> np.ndarray:
    """int64 [lines + 1]: how many of the tokens up to each line's end are marked."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(is_one, dtype=np.int64)[last_of_line]])


def _rows(
    numbers: np.ndarray,
    offsets: np.ndarray,
    width: int,
    values: np.ndarray | None,
    sort_ids: bool,
) -> Csr | None:
    """Rows of ids, or None if an id is out of range, stands twice or is out of order."""
    if (numbers >= width).any():
        return None
    ids = numbers.astype(np.int32)
    values = None if values is None else values.astype(np.float32)
    inside = np.ones(len(ids) + 1, np.bool_)  # not the first of its line
    inside[offsets] = False
    inside = inside[1:-1]
    if sort_ids and (np.diff(ids)[inside] < 0).any():
        row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        order = np.lexsort((ids, row))
        ids = ids[order]
        values = None if values is None else values[order]
    if (np.diff(ids)[inside] <= 0).any():
        return None
    return Csr(offsets, ids, values, width)
