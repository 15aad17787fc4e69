"""The first fault of XC lines: where it is, by line and column, and what to do about it.

``xc_parse.convert`` has refused a text without saying why. Halving the text by whole lines, and
asking ``convert`` about each first half, soon leaves a few lines with the first faulty one among
them; these a plain loop reads token by token.
"""

from __future__ import annotations

import re

import numpy as np

from ray_xml.errors import InputError
from ray_xml.xc_parse import (
    COLON,
    COMMA,
    LABEL,
    NEWLINE,
    PAIR,
    SEPARATORS,
    TOO_LARGE,
    VALUE,
    WRONG,
    LineForm,
    convert,
)

PIECE_BYTES = 16 << 10  # so little text is not halved further (unless it is a single line)
_TOKEN = re.compile(rb"([^,: \n]*)([,: \n])")


def show(token: bytes) -> str:
    """A token as it may stand in a message."""
    return repr((token[:37] + b"..." if len(token) > 40 else token).decode("ascii", "replace"))


def first_fault(
    path: str, text: bytes, line: int, form: LineForm, *, piece_bytes: int = PIECE_BYTES
) -> InputError:
    """The first fault of whole lines that ``convert`` refused.

    Args:
        path: the file, as it is to be named.
        text: the lines.
        line: the number of the first of them.
        form: what they should look like.
        piece_bytes: about how much to read token by token.
    """
    start, stop = 0, len(text)  # the first faulty line begins and ends in between
    while stop - start > piece_bytes:
        newline = text.rfind(b"\n", start, (start + stop) // 2)
        if newline < 0:  # the first line reaches beyond the first half
            newline = text.index(b"\n", start)
        middle = newline + 1
        if middle == stop:
            break
        if convert(text[start:middle], form) is None:
            stop = middle
        else:
            start = middle
    return _read(path, text[start:stop], line + text.count(b"\n", 0, start), form)


def _read(path: str, text: bytes, line: int, form: LineForm) -> InputError:
    """The slow path: reads lines token by token up to the first fault."""
    roles = form.roles()
    start = 0
    while start < len(text):
        stop = text.index(b"\n", start) + 1
        before = NEWLINE
        seen: dict[int, dict[int, None]] = {LABEL: {}, PAIR: {}}
        for match in _TOKEN.finditer(text, start, stop):
            token, after = match.group(1), SEPARATORS.index(match.group(2))
            what = _token_fault(token, before, after, roles, form, seen)
            if what is not None:
                return InputError(path, what, line=line, column=match.start() - start + 1)
            before = after
        start, line = stop, line + 1
    raise AssertionError(f"{path}: lines up to {line} were refused without a fault")


def _token_fault(
    token: bytes,
    before: int,
    after: int,
    roles: np.ndarray,
    form: LineForm,
    seen: dict[int, dict[int, None]],
) -> str | None:
    """What is wrong with a token between these two separators, or None."""
    if strange := re.search(rb"[^ -~]", token):
        byte = strange.group()[0]
        return f"the byte 0x{byte:02x} is not plain ASCII text: is this file binary or damaged?"
    role = roles[int(not token), before, after]
    if role == WRONG:
        return _misplaced(token, before, after, form.labels is not None)
    if role == VALUE:
        return _value_fault(token)
    if role == PAIR:
        return _id_fault(token, form.pair_name, form.pairs, seen[PAIR], form.sort_ids)
    if role == LABEL:
        return _id_fault(token, "label", form.labels or 0, seen[LABEL], form.sort_ids)
    return None


def _misplaced(token: bytes, before: int, after: int, with_labels: bool) -> str:
    """Why a token may not stand between these two separators."""
    if not token and after in (COMMA, COLON):
        return f"an id is missing before '{chr(SEPARATORS[after])}'"
    if not token:
        return f"{'a value' if before == COLON else 'a label'} is missing here"
    if not with_labels:
        return f"{show(token)} is not an 'id:value' pair, which is all this file may hold"
    if COLON in (before, after):
        return f"{show(token)} has a ',' or ':' too many around it: write 'l1,l2 f:v f:v'"
    return f"{show(token)} is not a 'feature:value' pair; labels stand at the line's beginning"


def _value_fault(token: bytes) -> str | None:
    """What is wrong with a value, or None."""
    if re.fullmatch(rb"[+-]?(nan|inf|infinity)", token, re.IGNORECASE):
        return f"the value {show(token)} is not finite: leave the entry out or give a number"
    try:
        if not (set(token) <= set(b"0123456789+-.eE")):
            raise ValueError
        value = float(token)
    except ValueError:
        return f"the value {show(token)} is not a number"
    if abs(value) >= TOO_LARGE:
        return f"the value {show(token)} is too large for a 32-bit number"
    return None


def _id_fault(
    token: bytes, name: str, width: int, seen: dict[int, None], sort_ids: bool
) -> str | None:
    """What is wrong with an id, or None; ``seen`` holds the line's earlier ids in order."""
    if re.fullmatch(rb"-[0-9]+", token):
        return f"the {name} id {show(token)} is negative: ids count from 0"
    if not re.fullmatch(rb"[0-9]+", token):
        return f"the {name} id {show(token)} is not a whole number"
    digits = token.lstrip(b"0") or b"0"
    number = int(digits) if len(digits) <= 10 else width
    if number >= width:
        allowed = f"so ids go from 0 to {width - 1}" if width else "so no id is allowed"
        return (
            f"the {name} id {show(token)} is out of range: the header says {width} {name}s, "
            f"{allowed}"
        )
    if number in seen:
        return f"the {name} id {number} stands twice in this line"
    last = next(reversed(seen), -1)
    if number < last and not sort_ids:
        return (
            f"the {name} id {number} comes after {last}: ids must be ascending; "
            "sort them, or ask for it with sort_ids"
        )
    seen[number] = None
    return None
