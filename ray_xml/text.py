"""Text to TF-IDF rows.

``words`` cuts a text, ``TextVectorizer`` counts and weighs the words with scikit-learn and hands
back a ``Csr``. A fitted vectoriser is saved as JSON (vocabulary, idf, settings) and gives the very
same rows after loading, so that a text met at prediction time is read as the training texts were.

The cut follows letters and digits of any script, with the combining marks on them (accents, the
vowel signs of Hindi). Scripts that put no spaces between words (Chinese, Japanese, Thai) come out
as one long word a run: cut such texts beforehand.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer

from ray_xml.errors import ConfigError, DataSetError
from ray_xml.json_text import parse_json
from ray_xml.sparse import Csr

FORMAT_VERSION = 1

# Letters and digits of any script; underscores separate.
_RUN = re.compile(r"[^\W_]+")


class TextSettings(BaseModel):
    """How texts become rows.

    Attributes:
        min_df: a word must occur in this many of the fitted texts to become a feature.
        max_features: keep only this many words, the most frequent ones; None keeps all.
        min_length: shorter words are left out.
        sublinear_tf: weigh a word's count c in a text as 1 + log(c).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_df: int = Field(default=2, ge=1)
    max_features: int | None = Field(default=None, ge=1)
    min_length: int = Field(default=2, ge=1)
    sublinear_tf: bool = True


def words(text: str) -> list[str]:
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


class TextVectorizer:
    """TF-IDF rows of unit length over the words of the fitted texts.

    Features are the words in code point order, so neither the order of the fitted texts nor the
    machine changes them. The idf is smoothed: log((1 + texts) / (1 + texts with the word)) + 1.
    """

    def __init__(self, settings: TextSettings | None = None) -> None:
        self.settings = settings or TextSettings()
        self._model: Any = None

    def fit(self, texts: Iterable[str]) -> Self:
        """Learns the vocabulary and the idf.

        Raises:
            ConfigError: no word passes the settings.
        """
        model = self._new_model(
            min_df=self.settings.min_df, max_features=self.settings.max_features
        )
        try:
            model.fit(texts)
        except ValueError as error:
            raise ConfigError(
                f"the texts leave no features: no word of {self.settings.min_length} characters or"
                f" more occurs in at least {self.settings.min_df} texts; lower min_df or min_length"
            ) from error
        self._set(list(model.get_feature_names_out()), np.asarray(model.idf_, np.float32))
        return self

    def transform(self, texts: Iterable[str]) -> Csr:
        """One row a text; a text without a known word gives an empty row."""
        # scikit-learn refuses an empty list, but no texts simply are no rows.
        texts = list(texts)
        if not texts:
            return Csr.from_lists([], self.num_features, [])
        return Csr.from_scipy(self._fitted().transform(texts))

    @property
    def feature_names(self) -> list[str]:
        """The words, in feature order."""
        return [str(word) for word in self._fitted().get_feature_names_out()]

    @property
    def num_features(self) -> int:
        return len(self._fitted().vocabulary)

    def to_json(self) -> str:
        """The fitted vectoriser as a JSON text."""
        record = {
            "format_version": FORMAT_VERSION,
            "settings": self.settings.model_dump(),
            "vocabulary": self.feature_names,
            # A float32 widened to a double prints and reads back exactly.
            "idf": [float(weight) for weight in self._fitted().idf_],
        }
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, source: str = "vectoriser") -> Self:
        """The vectoriser that ``to_json`` wrote.

        Args:
            text: the JSON text.
            source: what to call it in an error message, usually the file's path.

        Raises:
            DataSetError: the text is damaged, or of a format this version does not know.
        """
        try:
            record = parse_json(text)
        except ValueError as error:
            raise DataSetError(f"{source} is not valid JSON ({error}); write it anew") from error
        version = record.get("format_version") if isinstance(record, dict) else None
        if version != FORMAT_VERSION:
            raise DataSetError(
                f"{source} has format_version {version!r}, but this version of ray_xml reads"
                f" {FORMAT_VERSION}; prepare the data set anew"
            )
        try:
            vectorizer = cls(TextSettings.model_validate(record["settings"]))
            vocabulary = record["vocabulary"]
            idf = np.array(record["idf"], np.float32)
        except (KeyError, TypeError, ValueError, OverflowError, ValidationError) as error:
            raise DataSetError(
                f"{source} is damaged ({error}); prepare the data set anew"
            ) from error
        sound = (
            isinstance(vocabulary, list)
            and all(isinstance(word, str) for word in vocabulary)
            and len(set(vocabulary)) == len(vocabulary) > 0
            and idf.shape == (len(vocabulary),)
            and bool(np.isfinite(idf).all())
        )
        if not sound:
            raise DataSetError(
                f"{source} is damaged: it needs a list of different words and one finite idf"
                " weight for each; prepare the data set anew"
            )
        vectorizer._set(vocabulary, idf)
        return vectorizer

    def save(self, path: str | Path) -> None:
        """Writes ``to_json`` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a file that ``save`` wrote.

        Raises:
            DataSetError: the file is missing or damaged.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataSetError(f"cannot read the vectoriser {path}: {error}") from error
        return cls.from_json(text, source=str(path))

    def _analyse(self, text: str) -> list[str]:
        return [word for word in words(text) if len(word) >= self.settings.min_length]

    def _new_model(self, **options: Any) -> Any:
        return TfidfVectorizer(
            analyzer=self._analyse,
            sublinear_tf=self.settings.sublinear_tf,
            smooth_idf=True,
            norm="l2",
            dtype=np.float32,
            **options,
        )

    def _set(self, vocabulary: list[str], idf: np.ndarray) -> None:
        # A fitted vectoriser is rebuilt just as a loaded one is, so that both take one path.
        self._model = self._new_model(vocabulary={word: i for i, word in enumerate(vocabulary)})
        self._model.idf_ = idf

    def _fitted(self) -> Any:
        assert self._model is not None, "fit or load the vectoriser first"
        return self._model
