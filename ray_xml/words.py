"""Cutting a text into terms: words, runs of words, and runs of the characters of a word.

A word is a run of letters and digits of any script, with the combining marks on them (accents, the
vowel signs of Hindi); underscores separate. Scripts that put no spaces between words (Chinese,
Japanese, Thai) come out as one long word a run: cut such texts beforehand, or use characters.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache, lru_cache

# Letters and digits of any script; underscores separate.
_RUN = re.compile(r"[^\W_]+")
# Begins a run of characters, so that it is no word: no word can hold it.
CHARACTERS = "#"


def words(text: str) -> list[str]:
    """The words of a text, so that upper and lower case and compatible forms are one.

    NFKC, Unicode case folding (``Straße`` gives strasse), and NFKC again, as folding may undo it.
    """
    if text.isascii():
        return _RUN.findall(text.lower())
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _run_with_marks().findall(text)


def identifier_words(text: str) -> list[str]:
    """The words of a text in lower case, identifiers cut at ``_`` and camelCase.

    ``read_csv`` gives read, csv; ``HTTPServer`` gives http, server; ``Conv2D`` gives conv2d.
    Compatible forms of a character (``ﬁ``, full-width letters) are made one first.
    """
    run_of = _RUN
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        run_of = _run_with_marks()
    found: list[str] = []
    for run in run_of.findall(text):
        # Only a capital after the first letter can mark a cut, and most words have none.
        if run[1:].islower() or run.isupper():
            found.append(run.lower())
        else:
            found.extend(part.lower() for part in _camel_parts(run))
    return found


def word_runs(cut: list[str], low: int, high: int) -> list[str]:
    """Runs of ``low`` to ``high`` words, with a space between two words."""
    found = list(cut) if low == 1 else []
    for length in range(max(low, 2), high + 1):
        found.extend(map(" ".join, zip(*(cut[start:] for start in range(length)), strict=False)))
    return found


def character_runs(cut: list[str], low: int, high: int) -> list[str]:
    """Runs of ``low`` to ``high`` characters of each word with a space on either side of it.

    ``CHARACTERS`` goes before each. Of a word that is shorter with its spaces than a run, the whole
    is taken, once: as ``analyzer="char_wb"`` of scikit-learn does.
    """
    found: list[str] = []
    for word in cut:
        found += _character_runs(word, low, high)
    return found


@lru_cache(maxsize=1 << 14)  # the words that most of any text consists of
def _character_runs(word: str, low: int, high: int) -> list[str]:
    padded, found = f" {word} ", []
    for length in range(low, high + 1):
        last = max(len(padded) - length, 0)
        found += [CHARACTERS + padded[at : at + length] for at in range(last + 1)]
        if last == 0:
            break
    return found


@cache
def _run_with_marks() -> re.Pattern[str]:
    r"""``_RUN`` that combining marks do not cut: ``\w`` lacks them, and ``re`` has no category M.

    Made when the first text beyond ASCII is met, as it goes through all code points.
    """
    points = map(chr, range(sys.maxunicode + 1))
    marks = "".join(point for point in points if unicodedata.category(point)[0] == "M")
    # Looking a character up among the marks is slow, and the first 256 hold none.
    return re.compile(rf"[^\W_]+(?:(?![\x00-\xff])[{marks}]+[^\W_]*)*")


def _camel_parts(run: str) -> list[str]:
    """``run`` cut before each capital that starts a new word."""
    cuts = [0]
    for i in range(1, len(run)):
        if not run[i].isupper():
            continue
        rest = run[i + 1 :]
        # The last capital of HTTPServer's HTTPS belongs to the word after it, that of URLs does
        # not. A capital after a digit only starts a word: base64Encode, but Conv2D.
        starts_word = rest[:1].islower() and rest != "s"
        if run[i - 1].islower() or starts_word:
            cuts.append(i)
    return [run[low:high] for low, high in zip(cuts, [*cuts[1:], len(run)], strict=True)]
