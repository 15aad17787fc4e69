"""TF-IDF rows: against scikit-learn, against the formula, and the way through files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from ray_xml.errors import ConfigError, DataSetError
from ray_xml.text import VECTORIZER, TextSettings, Vectorizer, buckets
from ray_xml.text_fit import TextFit, count_terms, fit
from ray_xml.words import words

TEXTS = [
    "Reads a CSV file; read_csv keeps the order of the file.",
    "readCSV: an older name of read_csv.",
    "Schreibt die Größe der Datei, naïve Fassung.",
    "Größe und Länge der Datei prüfen.",
    "of the of the of the",
    "",
]
UNSEEN = [*TEXTS, "Eine GRÖSSE der the the read", "???", "the"]


def dense(vectorizer: Vectorizer, texts: list[str]) -> np.ndarray:
    rows = vectorizer.transform(texts)
    rows.check("rows")
    return rows.to_scipy().toarray()


@pytest.mark.parametrize("sublinear", [True, False])
@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize(("least", "length"), [(1, 1), (2, 2)])
def test_rows_of_words_are_those_of_scikit_learn(
    sublinear: bool, low: int, high: int, least: int, length: int
) -> None:
    def cut(text: str) -> list[str]:
        return [word for word in words(text) if len(word) >= length]

    reference = TfidfVectorizer(
        tokenizer=cut,
        lowercase=False,
        token_pattern=None,
        ngram_range=(low, high),
        min_df=least,
        sublinear_tf=sublinear,
    ).fit(TEXTS)
    settings = TextSettings(
        ngrams=(low, high), min_df=least, min_length=length, sublinear_tf=sublinear
    )
    found = fit(TEXTS, settings)
    assert found.names == list(reference.get_feature_names_out())
    np.testing.assert_allclose(
        dense(found, UNSEEN), reference.transform(UNSEEN).toarray(), rtol=1e-5, atol=1e-7
    )


def test_runs_of_characters_are_those_of_scikit_learn() -> None:
    apart = [" ".join(words(text)) for text in TEXTS]
    reference = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    expected = reference.fit_transform(apart).toarray()
    settings = TextSettings(char_ngrams=(3, 5), min_df=1, min_length=1)
    found = fit(TEXTS, settings)
    assert found.names is not None
    characters = [i for i, name in enumerate(found.names) if name.startswith("#")]
    assert [found.names[i][1:] for i in characters] == list(reference.get_feature_names_out())
    # Words are features besides, so rows are compared by direction.
    rows = dense(found, TEXTS)[:, characters]
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(rows / np.maximum(length, 1e-9), expected, rtol=1e-5, atol=1e-6)


def test_hashed_rows_are_those_of_their_terms_where_none_collide() -> None:
    settings = TextSettings(min_df=1, min_length=1)
    named = fit(TEXTS, settings)
    hashed = fit(TEXTS, settings.model_copy(update={"hash": 1 << 20}))
    assert named.names is not None
    places = buckets(named.names, 1 << 20)
    assert len(set(places.tolist())) == len(places), "this corpus has a collision: change it"
    np.testing.assert_array_equal(dense(hashed, UNSEEN)[:, places], dense(named, UNSEEN))


def test_terms_that_collide_are_counted_as_one() -> None:
    hashed = fit(["a b", "a", "c a"], TextSettings(hash=1, min_length=1))
    assert hashed.counts.tolist() == [3]
    assert dense(hashed, ["a b c", "", "z z"]).tolist() == [[1], [0], [1]]


def test_hashes_stay_what_they_are() -> None:
    # They are in data sets and models: another hash would read their texts wrongly.
    assert buckets(["a", "read csv", "größe", "#e "], 1 << 20).tolist() == [
        810707,
        353826,
        957241,
        773949,
    ]


def test_hashes_are_spread_evenly() -> None:
    found = np.bincount(buckets((f"word{i}" for i in range(64_000)), 64), minlength=64)
    # Of 1,000 expected in each, a fair hash keeps within six standard deviations.
    assert abs(found - 1000).max() < 6 * math.sqrt(1000)


def test_rows_match_the_formula_worked_by_hand() -> None:
    vectorizer = fit(["red red blue", "blue green"], TextSettings(min_df=1))
    rows = vectorizer.transform(["red red blue", "nothing known"])
    assert vectorizer.names == ["blue", "green", "red"]
    # Of two texts, blue is in both and red in one; red's count of two weighs 1 + log 2.
    blue = math.log(3 / 3) + 1
    red = (math.log(3 / 2) + 1) * (1 + math.log(2))
    length = math.hypot(blue, red)
    assert rows.ids.tolist() == [0, 2]
    np.testing.assert_allclose(rows.values, [blue / length, red / length], rtol=1e-6)
    assert rows.offsets.tolist() == [0, 2, 2]


def test_rows_have_the_types_of_a_data_set() -> None:
    rows = fit(TEXTS, TextSettings(min_df=1)).transform(text for text in TEXTS)
    assert rows.values is not None
    kinds = (rows.offsets.dtype, rows.ids.dtype, rows.values.dtype)
    assert kinds == (np.int64, np.int32, np.float32)
    none = fit(TEXTS).transform([])
    assert (none.num_rows, none.nnz, none.ids.dtype) == (0, 0, np.int32)


@pytest.mark.parametrize("hash_to", [None, 50])
def test_texts_of_many_terms_are_counted_in_pieces(
    monkeypatch: pytest.MonkeyPatch, hash_to: int | None
) -> None:
    vectorizer = fit(TEXTS, TextSettings(min_df=1, hash=hash_to))
    expected = dense(vectorizer, UNSEEN)
    monkeypatch.setattr("ray_xml.text._TERMS", 3)
    np.testing.assert_array_equal(dense(vectorizer, UNSEEN), expected)


def test_settings_choose_the_terms() -> None:
    texts = ["a cat and a dog", "a cat and a cow", "a cat"]

    def names(**settings: Any) -> list[str] | None:
        return fit(texts, TextSettings(**settings)).names

    assert names(min_df=1) == ["and", "cat", "cow", "dog"]
    assert names() == ["and", "cat"]
    assert names(min_length=1) == ["a", "and", "cat"]
    assert names(min_df=1, max_features=1) == ["cat"]
    assert names(min_df=1, max_features=3) == ["and", "cat", "cow"]  # of equals the first
    assert names(min_df=3) == ["cat"]
    assert names(min_df=1, cut="identifiers", ngrams=(2, 2)) == ["and cow", "and dog", "cat and"]


def test_counts_are_exact_whatever_the_memory_and_the_batches() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{i}" for i in rng.zipf(1.3, 12) % 500) for _ in range(200)]
    settings = TextSettings(ngrams=(1, 2), max_features=300)
    expected = fit(texts, settings)
    reference = CountVectorizer(binary=True, ngram_range=(1, 2), min_df=2).fit(texts)
    counted = np.asarray(reference.transform(texts).sum(0)).ravel()
    by_name = dict(zip(reference.get_feature_names_out(), counted.tolist(), strict=True))
    assert expected.names is not None
    assert [by_name[name] for name in expected.names] == expected.counts.tolist()
    with TextFit(settings, held=100) as fitted:
        for start in range(0, 200, 7):
            batch = texts[::-1][start : start + 7]
            fitted.add(len(batch), count_terms(batch, settings))
        assert len(fitted._files) > 3
        assert fitted.vectorizer().to_json() == expected.to_json()
        assert fitted.vectorizer().names == expected.names


@pytest.mark.parametrize("hash_to", [None, 64])
def test_a_loaded_vectorizer_gives_the_very_same_rows(tmp_path: Path, hash_to: int | None) -> None:
    fitted = fit(TEXTS, TextSettings(min_df=1, hash=hash_to, ngrams=(1, 2), char_ngrams=(2, 3)))
    fitted.save(tmp_path)
    loaded = Vectorizer.load(tmp_path)
    before, after = fitted.transform(UNSEEN), loaded.transform(UNSEEN)
    np.testing.assert_array_equal(before.offsets, after.offsets)
    np.testing.assert_array_equal(before.ids, after.ids)
    assert before.values is not None
    assert after.values is not None
    assert before.values.tobytes() == after.values.tobytes()
    assert loaded.settings == fitted.settings
    assert loaded.to_json() == fitted.to_json()
    assert (tmp_path / "features.txt").exists() == (hash_to is None)


@pytest.mark.parametrize("hash_to", [None, 8])
@pytest.mark.parametrize("texts", [[], ["every word differs"], ["! ?"]])
def test_texts_without_features_are_refused(texts: list[str], hash_to: int | None) -> None:
    with pytest.raises(ConfigError, match="lower min_df"):
        fit(texts, TextSettings(hash=hash_to, min_df=4))


@pytest.mark.parametrize(
    "bad",
    [
        {"min_dff": 1},
        {"min_df": 0},
        {"max_features": 0},
        {"ngrams": (2, 1)},
        {"char_ngrams": (0, 2)},
        {"ngrams": (1, 10**9)},
        {"hash": 0},
        {"hash": 8, "max_features": 8},
    ],
)
def test_settings_refuse_unknown_keys_and_bad_values(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        TextSettings.model_validate(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "format_version 2"),
        ({"format_version": True}, "format_version 2"),
        ({"settings": {"min_df": "many"}}, "damaged"),
        ({"settings": {"hash": 3}}, "2 counts for 3"),
        ({"document_counts": [1]}, "1 different terms"),
        ({"document_counts": []}, "0 features"),
        ({"document_counts": None}, "no list"),
        ({"document_counts": {"0": 1}}, "no list"),
        ({"document_counts": [1, 2]}, "2 is no whole number from 0 to 1"),
        ({"document_counts": [1, -1]}, "damaged"),
        ({"document_counts": [1, 0.5]}, "damaged"),
        ({"document_counts": [1, math.nan]}, "damaged"),
        ({"documents": 10**400}, "damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fit(["red blue"], TextSettings(min_df=1)).save(tmp_path)
    path = tmp_path / VECTORIZER
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataSetError, match=message) as caught:
        Vectorizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("terms", [b"red\n", b"red\nblue", b"red\nred\n", b"\xff\nred\n"])
def test_damaged_terms_are_refused(tmp_path: Path, terms: bytes) -> None:
    fit(["red blue"], TextSettings(min_df=1)).save(tmp_path)
    (tmp_path / "features.txt").write_bytes(terms)
    with pytest.raises(DataSetError, match=r"features\.txt is damaged"):
        Vectorizer.load(tmp_path)
    (tmp_path / "features.txt").unlink()
    with pytest.raises(DataSetError, match=r"features\.txt is damaged"):
        Vectorizer.load(tmp_path)


def test_missing_cut_off_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="ray-xml prepare text"):
        Vectorizer.load(tmp_path)
    for text, message in (
        ("{", "cannot be read"),
        ("[]", "format_version"),
        ("[" * 100_000, "deep"),
    ):
        (tmp_path / VECTORIZER).write_text(text)
        with pytest.raises(DataSetError, match=message):
            Vectorizer.load(tmp_path)
