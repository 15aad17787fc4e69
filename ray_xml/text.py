"""Texts to TF-IDF rows.

A ``Vectorizer`` knows its terms, or hashes them, and in how many of the texts it was fitted to each
occurs. It is kept as two text files, in a data set and in an exported model alike:

    vectorizer.json   settings, the number of fitted texts, the number of them with each feature
    features.txt      a term a line, in feature order; absent where terms are hashed

Where documents come with vectors (see ``embedding``), vectorizer.json has ``embedding`` too, and
features.txt the names of its columns behind the terms.

so that a text met at prediction time is read as the training texts were. ``text_fit`` makes one.

The weight of a term that occurs c > 0 times in a text, and in d of the n fitted texts, is

    (1 + ln c) · (ln((1 + n) / (1 + d)) + 1)

divided by the Euclidean length of the text's weights: sublinear tf (Manning, Raghavan, Schütze,
Introduction to Information Retrieval, 6.4.1) and the smoothed idf of scikit-learn's
``TfidfVectorizer(sublinear_tf=True)``.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ray_xml.embedding import NAME as EMBEDDING
from ray_xml.embedding import Embedding, fault
from ray_xml.errors import DataSetError
from ray_xml.json_text import MOST, count_of, parse_json
from ray_xml.sparse import Csr, stacked
from ray_xml.store_meta import FEATURE_NAMES
from ray_xml.words import character_runs, identifier_words, word_runs, words

if TYPE_CHECKING:
    from ray_xml.store_write import DataSetWriter

FORMAT_VERSION = 2
_WITH_EMBEDDING = 3  # as the former, and the embedding
VECTORIZER = "vectorizer.json"
_NOTHING = (np.zeros(0, np.int32), np.zeros(0, np.float32))
_TERMS = 1 << 20  # terms counted at a time: bounds the scratch memory

Runs = tuple[Annotated[int, Field(ge=1, le=32)], Annotated[int, Field(ge=1, le=32)]]


class TextSettings(BaseModel):
    """How texts become rows.

    Attributes:
        cut: into the words of a text, or of code, where identifiers are cut as well.
        ngrams: the shortest and the longest run of words that is a term.
        char_ngrams: likewise of the characters of a word; None for no such terms.
        min_df: a term must occur in this many of the fitted texts to become a feature.
        max_features: keep only this many terms, those of the most texts (of equals the first in
            code point order); None keeps all.
        hash: the number of features that terms are hashed to, instead of a list of terms.
        min_length: shorter words are left out.
        sublinear_tf: weigh a term's count c in a text as 1 + ln c.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cut: Literal["words", "identifiers"] = "words"
    ngrams: Runs = (1, 1)
    char_ngrams: Runs | None = None
    min_df: int = Field(default=2, ge=1, le=MOST)
    max_features: int | None = Field(default=None, ge=1, le=MOST)
    hash: int | None = Field(default=None, ge=1, le=2**31 - 1)
    min_length: int = Field(default=2, ge=1, le=MOST)
    sublinear_tf: bool = True

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        for runs in (self.ngrams, self.char_ngrams):
            if runs is not None and runs[0] > runs[1]:
                raise ValueError(f"runs from {runs[0]} to {runs[1]} are none")
        if self.hash is not None and self.max_features is not None:
            raise ValueError("max_features chooses terms, and hash keeps no terms: set one")
        return self

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order, with repeats."""
        cut = words(text) if self.cut == "words" else identifier_words(text)
        if self.min_length > 1:
            cut = [word for word in cut if len(word) >= self.min_length]
        if self.ngrams == (1, 1) and self.char_ngrams is None:
            return cut
        found = word_runs(cut, *self.ngrams)
        if self.char_ngrams is not None:
            found += character_runs(cut, *self.char_ngrams)
        return found


def buckets(terms: Iterable[str], number: int) -> np.ndarray:
    """int64 [n]: the feature that each term is hashed to, of ``number``.

    CRC-32 of its UTF-8 bytes, mixed by the finaliser of MurmurHash3 (public domain) as CRC-32 is
    linear, and scaled. It is the same on every machine and in every version of Python.
    """
    x = np.array([zlib.crc32(term.encode()) for term in terms], np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    x = ((x ^ (x >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & mask
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & mask
    x ^= x >> np.uint64(16)
    return np.asarray((x * np.uint64(number)) >> np.uint64(32)).astype(np.int64)


class Vectorizer:
    """TF-IDF rows of unit length.

    Args:
        settings: how a text is cut and weighed.
        documents: n, the number of fitted texts.
        counts: int64 [V], the number of them with each feature.
        names: the V terms in feature order; None where terms are hashed.
        embedding: of the vectors that come with texts; None where none do.
    """

    def __init__(
        self,
        settings: TextSettings,
        documents: int,
        counts: np.ndarray,
        names: list[str] | None,
        embedding: Embedding | None = None,
    ) -> None:
        assert (names is None) == (settings.hash is not None)
        self.settings, self.documents, self.counts, self.names = settings, documents, counts, names
        self.embedding = embedding
        self._idf = np.log((1 + documents) / (1 + counts.astype(np.float64))) + 1
        # A bucket that too few fitted texts fell into is a feature that nothing was learnt of.
        self._idf[counts < settings.min_df] = 0
        self._known = None if names is None else dict(zip(names, range(len(names)), strict=True))

    def beside(self, embedding: Embedding) -> Vectorizer:
        """The same for texts that come with vectors."""
        return Vectorizer(self.settings, self.documents, self.counts, self.names, embedding)

    @property
    def num_words(self) -> int:
        """V, the terms or what they are hashed to."""
        return len(self.counts)

    @property
    def num_features(self) -> int:
        """V and the embedding's columns."""
        return self.num_words + (self.embedding.columns if self.embedding else 0)

    def transform(self, texts: Iterable[str], embeddings: np.ndarray | None = None) -> Csr:
        """One row a text; a text without a known term gives a row without words.

        Args:
            embeddings: float [texts, d], the texts' vectors, if and only if there is an
                ``embedding``.

        Returns:
            Csr [texts, num_features], float32 values.

        Raises:
            DataSetError: the vectors are missing, not wanted, or of another shape, or one of them
                cannot be used.
        """
        words = self.word_rows(texts)
        if self.embedding is None:
            if embeddings is not None:
                raise DataSetError("the model was trained without embeddings: leave them out")
            return words
        wanted = (words.num_rows, self.embedding.columns)
        if embeddings is None:
            raise DataSetError(
                f"the model was trained with embeddings: give one of {wanted[1]:,} numbers a text"
            )
        vectors = np.asarray(embeddings)
        if vectors.shape != wanted or vectors.dtype.kind != "f":
            raise DataSetError(
                f"the embeddings are {vectors.dtype} {list(vectors.shape)}, not floats "
                f"{list(wanted)}: a row a text, from the model that train's are from"
            )
        wrong = fault(vectors)
        if wrong is not None:
            raise DataSetError(f"the embedding of text {wrong[0]:,}, from 0: {wrong[1]}")
        return self.embedding.beside(words, vectors)

    def word_rows(self, texts: Iterable[str]) -> Csr:
        """Csr [texts, V]: the words' columns alone."""
        parts = [self._rows(lengths, ids) for lengths, ids in self._found(texts)]
        return stacked(parts, self.num_words) if parts else Csr.from_lists([], self.num_words, [])

    def terms(self, text: str) -> dict[int, str]:
        """The terms of a text by feature, those that share a hashed one with a slash between. All
        columns of an embedding are called the same."""
        found = list(dict.fromkeys(self.settings.terms(text)))
        ids = self._features(
            found if self._known is None else [self._known.get(term, -1) for term in found]
        )
        named: dict[int, str] = {}
        for feature, term in zip(ids.tolist(), found, strict=True):
            named[feature] = f"{named[feature]} / {term}" if feature in named else term
        named.pop(-1, None)
        named.update(dict.fromkeys(range(self.num_words, self.num_features), EMBEDDING))
        return named

    def _found(self, texts: Iterable[str]) -> Iterator[tuple[list[int], np.ndarray]]:
        """(terms of each text, the features of all), some texts at a time; -1 is no feature."""
        lengths: list[int] = []
        held: array[int] | list[str] = array("q") if self._known is not None else []
        for text in texts:
            terms = self.settings.terms(text)
            lengths.append(len(terms))
            # A list of all terms would take some ten times the memory of their numbers.
            held.extend(
                terms if self._known is None else map(self._known.get, terms, repeat(-1))  # type: ignore[arg-type]
            )
            if len(held) >= _TERMS:
                yield lengths, self._features(held)
                lengths, held = [], held[:0]
        if lengths:
            yield lengths, self._features(held)

    def _features(self, held: array[int] | list[str] | list[int]) -> np.ndarray:
        if self._known is None:
            return buckets(held, self.num_words)  # type: ignore[arg-type]
        return np.array(held, np.int64)

    def _rows(self, lengths: list[int], ids: np.ndarray) -> Csr:
        if self.num_words == 0:
            return Csr(np.zeros(len(lengths) + 1, np.int64), *_NOTHING, 0)
        keys = np.repeat(np.arange(len(lengths)), lengths) * self.num_words + ids
        keys = np.sort(keys[(ids >= 0) & (self._idf[ids] > 0)])
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        found = np.diff(starts, append=len(keys)).astype(np.float64)
        row, ids = np.divmod(keys[starts], self.num_words)
        values = (1 + np.log(found) if self.settings.sublinear_tf else found) * self._idf[ids]
        length = np.sqrt(np.bincount(row, values**2, minlength=len(lengths)))
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=len(lengths)), out=offsets[1:])
        weights = (values / length[row]).astype(np.float32)
        return Csr(offsets, ids.astype(np.int32), weights, self.num_words)

    # ---- files ----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """What ``vectorizer.json`` holds."""
        record = {
            "format_version": FORMAT_VERSION,
            "settings": self.settings.model_dump(),
            "documents": self.documents,
            "document_counts": self.counts.tolist(),
        }
        if self.embedding is not None:
            embedding = self.embedding.model_dump()
            record |= {"format_version": _WITH_EMBEDDING, "embedding": embedding}
        return json.dumps(record) + "\n"

    def write(self, writer: DataSetWriter) -> None:
        """Adds its files to a data set in the making."""
        writer.write_text_file(VECTORIZER, self.to_json())
        if self.names is not None:
            writer.write_feature_names(self._feature_names())

    def _feature_names(self) -> list[str]:
        assert self.names is not None
        return self.names + (self.embedding.names() if self.embedding else [])

    def save(self, folder: str | Path) -> None:
        """Writes its files into a folder."""
        folder = Path(folder)
        (folder / VECTORIZER).write_text(self.to_json(), encoding="utf-8")
        if self.names is not None:
            text = "".join(f"{name}\n" for name in self._feature_names())
            (folder / FEATURE_NAMES).write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The vectoriser of a data set or of an exported model.

        Raises:
            DataSetError: there is none, or it is damaged or of another version.
        """
        file = Path(folder) / VECTORIZER
        try:
            record = parse_json(file.read_bytes())
        except FileNotFoundError as error:
            raise DataSetError(
                f"{folder} has no {VECTORIZER}, so it does not say how texts become features: give "
                "features instead, or make the data set with `ray-xml prepare text`"
            ) from error
        except (OSError, ValueError) as error:
            raise DataSetError(
                f"the vectoriser {file} cannot be read ({error}); prepare the data set anew"
            ) from error
        version = record.get("format_version") if isinstance(record, dict) else None
        if type(version) is not int or version not in (FORMAT_VERSION, _WITH_EMBEDDING):
            raise DataSetError(
                f"the vectoriser {file} is not of format_version {FORMAT_VERSION} or "
                f"{_WITH_EMBEDDING}, which this version of ray_xml reads; prepare the data set anew"
            )
        try:
            settings = TextSettings.model_validate(record["settings"])
            documents = count_of(record["documents"])
            given = record["document_counts"]
            if not isinstance(given, list):
                raise ValueError("document_counts is no list")
            counts = np.array([count_of(one, documents) for one in given], np.int64)
            embedding = None
            if version == _WITH_EMBEDDING:
                embedding = Embedding.model_validate(record["embedding"])
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise _damaged(file, str(error)[:300]) from error
        columns = embedding.columns if embedding else 0
        if not 0 < len(counts) + columns < 2**31:
            raise _damaged(file, f"{len(counts) + columns:,} features")
        if settings.hash is not None:
            if settings.hash != len(counts):
                raise _damaged(file, f"{len(counts):,} counts for {settings.hash:,} features")
            return cls(settings, documents, counts, None, embedding)
        names = _names(file.with_name(FEATURE_NAMES), len(counts) + columns)
        return cls(settings, documents, counts, names[: len(counts)], embedding)


def _names(file: Path, count: int) -> list[str]:
    """The terms of features.txt, ``count`` different ones."""
    try:
        # Not splitlines(): it would also split at characters that names may hold.
        names = file.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(file, str(error)) from error
    if names.pop() or len(names) != count or len(set(names)) != count:
        raise _damaged(file, f"it should have {count:,} different terms, one a line")
    return names


def _damaged(file: Path, what: str) -> DataSetError:
    return DataSetError(f"the vectoriser {file} is damaged: {what}; prepare the data set anew")
