"""The cut of texts into words and runs."""

from __future__ import annotations

import pytest

from ray_xml.words import character_runs, identifier_words, word_runs, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read_csv", "read csv"),
        ("readCsvFile", "read csv file"),
        ("HTTPServer", "http server"),
        ("getHTTPResponse", "get http response"),
        ("URLs of base64Encode", "urls of base64 encode"),
        ("Conv2D float32 B2B", "conv2d float32 b2b"),
        ("__init__(self, x=3)", "init self x 3"),
        ("Größe naïve ÉcoleÉlan", "größe naïve école élan"),
        ("Привет, МирВсем", "привет мир всем"),
        ("ﬁle nai\u0308ve", "file naïve"),  # a ligature and a combining mark
        ("हिन्दी में किताब", "हिन्दी में किताब"),  # vowel signs are combining marks
        ("ที่นี่", "ที่นี่"),
        ("X\u0302_a ab\u0302Cd", "x\u0302 a ab\u0302 cd"),  # marks that no single letter has
        ("\u0301 \u2764\ufe0f one", "one"),  # a mark alone is no word
        ("中文", "中文"),
        ("", ""),
        ("___ -- !", ""),
    ],
)
def test_identifiers_are_cut(text: str, expected: str) -> None:
    assert identifier_words(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reads a CSV file; readCSV", "reads a csv file readcsv"),
        ("snake_case, x2 3.14", "snake case x2 3 14"),
        ("Straße STRASSE straße", "strasse strasse strasse"),
        ("ﬁle Ｆｕｌｌ nai\u0308ve", "file full naïve"),
        ("ΣΊΣΥΦΟΣ σίσυφος", "σίσυφοσ σίσυφοσ"),  # both lower-case sigmas are one
        ("हिन्दी में", "हिन्दी में"),
        ("don't e-mail", "don t e mail"),
        ("\ud800 half a pair", "half a pair"),
        ("İstanbul", "i\u0307stanbul"),
        ("", ""),
        ("_ -- !", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_words_are_stable() -> None:
    for text in ("Straße ﬁle ΣΊΣΥΦΟΣ İstanbul ẞ ǆ ᾳ", "plain ASCII Text"):
        once = words(text)
        assert words(" ".join(once)) == once


def test_runs_of_words() -> None:
    cut = ["a", "b", "c"]
    assert word_runs(cut, 1, 1) == cut
    assert word_runs(cut, 1, 2) == ["a", "b", "c", "a b", "b c"]
    assert word_runs(cut, 2, 3) == ["a b", "b c", "a b c"]
    assert word_runs(cut, 4, 9) == []
    assert cut == ["a", "b", "c"]


def test_runs_of_characters_cannot_be_taken_for_words() -> None:
    assert character_runs(["cat"], 3, 3) == ["# ca", "#cat", "#at "]
    assert character_runs(["a", "bc"], 2, 3) == [
        "# a",
        "#a ",
        "# a ",
        "# b",
        "#bc",
        "#c ",
        "# bc",
        "#bc ",
    ]
    assert character_runs(["a"], 4, 6) == ["# a "]  # shorter than a run: the whole, once
