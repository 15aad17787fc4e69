"""TF-IDF rows: the cut into words, the weights, and the way through JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_xml.errors import ConfigError, DataSetError
from ray_xml.text import TextSettings, TextVectorizer, words

TEXTS = [
    "Reads a CSV file; read_csv keeps the order.",
    "readCSV: an older name of read_csv.",
    "Schreibt die Größe der Datei, naïve Fassung.",
    "Größe und Länge der Datei prüfen.",
]


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
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_rows_match_the_formula_worked_by_hand() -> None:
    vectorizer = TextVectorizer(TextSettings(min_df=1)).fit(["red red blue", "blue green"])
    rows = vectorizer.transform(["red red blue", "nothing known"])
    assert vectorizer.feature_names == ["blue", "green", "red"]
    # Of two texts, blue is in both and red in one; red's count of two weighs 1 + log 2.
    blue = math.log(3 / 3) + 1
    red = (math.log(3 / 2) + 1) * (1 + math.log(2))
    length = math.hypot(blue, red)
    assert rows.ids.tolist() == [0, 2]
    np.testing.assert_allclose(rows.values, [blue / length, red / length], rtol=1e-6)
    assert rows.offsets.tolist() == [0, 2, 2]


def test_rows_have_the_types_order_and_length_of_a_data_set() -> None:
    vectorizer = TextVectorizer(TextSettings(min_df=1)).fit(TEXTS)
    rows = vectorizer.transform(text for text in TEXTS)
    assert rows.values is not None
    assert (rows.offsets.dtype, rows.ids.dtype, rows.values.dtype) == (
        np.int64,
        np.int32,
        np.float32,
    )
    assert rows.num_columns == vectorizer.num_features == len(vectorizer.feature_names)
    for row in range(rows.num_rows):
        part = slice(rows.offsets[row], rows.offsets[row + 1])
        assert (np.diff(rows.ids[part]) > 0).all()
        assert np.linalg.norm(rows.values[part]) == pytest.approx(1, abs=1e-6)


def test_settings_choose_the_words() -> None:
    texts = ["a cat and a dog", "a cat and a cow", "a cat"]

    def names(**settings: int) -> list[str]:
        return TextVectorizer(TextSettings(**settings)).fit(texts).feature_names  # type: ignore[arg-type]

    assert names(min_df=1) == ["and", "cat", "cow", "dog"]
    assert names() == ["and", "cat"]
    assert names(min_length=1) == ["a", "and", "cat"]
    assert names(min_df=1, max_features=1) == ["cat"]
    assert names(min_df=3) == ["cat"]


def test_plain_tf_weighs_by_the_count_itself() -> None:
    settings = TextSettings(min_df=1, sublinear_tf=False)
    values = TextVectorizer(settings).fit(["red blue"]).transform(["red red red blue"]).values
    assert values is not None
    np.testing.assert_allclose(values, np.array([1, 3]) / math.sqrt(10), rtol=1e-6)


def test_the_order_of_the_fitted_texts_does_not_matter() -> None:
    there = TextVectorizer(TextSettings(min_df=1, max_features=9)).fit(TEXTS)
    back = TextVectorizer(TextSettings(min_df=1, max_features=9)).fit(TEXTS[::-1])
    assert there.to_json() == back.to_json()


def test_a_loaded_vectorizer_gives_the_very_same_rows(tmp_path: Path) -> None:
    fitted = TextVectorizer(TextSettings(min_df=1, max_features=12)).fit(TEXTS)
    fitted.save(tmp_path / "vectorizer.json")
    loaded = TextVectorizer.load(tmp_path / "vectorizer.json")
    unseen = [*TEXTS, "Eine Größe read_csv read_csv", "???"]
    before, after = fitted.transform(unseen), loaded.transform(unseen)
    np.testing.assert_array_equal(before.offsets, after.offsets)
    np.testing.assert_array_equal(before.ids, after.ids)
    assert before.values is not None
    assert after.values is not None
    assert before.values.tobytes() == after.values.tobytes()
    assert loaded.settings == fitted.settings
    assert loaded.to_json() == fitted.to_json()


def test_no_texts_are_no_rows() -> None:
    vectorizer = TextVectorizer(TextSettings(min_df=1)).fit(TEXTS)
    rows = vectorizer.transform([])
    assert (rows.num_rows, rows.nnz) == (0, 0)
    assert rows.num_columns == vectorizer.num_features
    assert (rows.ids.dtype, rows.offsets.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("texts", [[], ["every word differs"], ["! ?"]])
def test_texts_without_features_are_refused_in_plain_words(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="lower min_df"):
        TextVectorizer().fit(texts)


def test_settings_refuse_unknown_keys_and_bad_values() -> None:
    for bad in ({"min_dff": 1}, {"min_df": 0}, {"max_features": 0}):
        with pytest.raises(ValueError, match="validation error"):
            TextSettings.model_validate(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version 99"),
        ({"settings": {"min_df": "many"}}, "damaged"),
        ({"idf": [1.0]}, "one finite idf"),
        ({"idf": None}, "damaged"),
        ({"vocabulary": [1, 2]}, "one finite idf"),
        ({"vocabulary": ["same", "same"]}, "one finite idf"),
        ({"vocabulary": [], "idf": []}, "one finite idf"),
        ({"idf": [1.0, math.nan]}, "one finite idf"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    record = json.loads(TextVectorizer(TextSettings(min_df=1)).fit(["red blue"]).to_json())
    path = tmp_path / "vectorizer.json"
    path.write_text(json.dumps(record | change))
    with pytest.raises(DataSetError, match=message) as caught:
        TextVectorizer.load(path)
    assert str(path) in str(caught.value)


def test_missing_cut_off_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="cannot read"):
        TextVectorizer.load(tmp_path / "nowhere.json")
    for text, message in (("{", "not valid JSON"), ("[]", "format_version None")):
        with pytest.raises(DataSetError, match=message):
            TextVectorizer.from_json(text)
