"""Fitting a vectoriser: in how many texts does each term occur?

Terms are counted batch by batch, wherever the batches are, and added up here. There are far more
terms than features (most runs of two words occur once), so what is held at a time is bounded: the
rest waits in sorted files, which are merged at the end. The result is exact, and the same for any
order and cut of the texts.
"""

from __future__ import annotations

import heapq
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType

import numpy as np

from ray_xml.errors import ConfigError
from ray_xml.text import TextSettings, Vectorizer, buckets

_HELD = 4_000_000  # terms in memory at a time, about 500 MB
_BATCH = 4096

Terms = dict[str, int] | dict[int, int]  # by term or, where terms are hashed, by feature


def count_terms(texts: Iterable[str], settings: TextSettings) -> Terms:
    """The number of the texts that each term (or feature, where terms are hashed) occurs in."""
    counts: Counter[str] = Counter()
    hashed: Counter[int] = Counter()
    for text in texts:
        terms = set(settings.terms(text))
        if settings.hash is None:
            counts.update(terms)
        else:
            hashed.update(set(buckets(terms, settings.hash).tolist()))
    return dict(counts) if settings.hash is None else dict(hashed)


class TextFit:
    """Adds up counts; a context manager, which deletes its files at the end.

    Args:
        settings: of the vectoriser to make.
        held: terms in memory at a time.
    """

    def __init__(self, settings: TextSettings, *, held: int = _HELD) -> None:
        self._settings, self._held = settings, held
        self._documents = 0
        self._counts: dict[str, int] = {}
        self._hashed = np.zeros(settings.hash or 0, np.int64)
        self._scratch = tempfile.TemporaryDirectory(prefix="ray-xml-terms-")
        self._files: list[Path] = []

    @property
    def documents(self) -> int:
        """Texts added so far."""
        return self._documents

    def add(self, documents: int, counts: Mapping[str, int] | Mapping[int, int]) -> None:
        """Adds what ``count_terms`` found in ``documents`` texts."""
        self._documents += documents
        if self._settings.hash is not None:
            number = len(counts)
            features = np.fromiter(counts.keys(), np.int64, number)
            self._hashed[features] += np.fromiter(counts.values(), np.int64, number)
            return
        held = self._counts
        for term, count in counts.items():
            held[term] = held.get(term, 0) + count  # type: ignore[index, arg-type]
        if len(held) > self._held:
            self._spill()

    def _spill(self) -> None:
        path = Path(self._scratch.name, str(len(self._files)))
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{term}\t{count}\n" for term, count in sorted(self._counts.items()))
        self._files.append(path)
        self._counts = {}

    def vectorizer(self) -> Vectorizer:
        """The vectoriser of the texts added.

        Raises:
            ConfigError: no term passes the settings.
        """
        settings = self._settings
        if settings.hash is not None:
            if self._hashed.max() < settings.min_df:
                raise self._nothing()
            return Vectorizer(settings, self._documents, self._hashed, None)
        passed = (one for one in self._merged() if one[1] >= settings.min_df)
        if settings.max_features is None:
            chosen = list(passed)
        else:
            best = heapq.nsmallest(settings.max_features, ((-n, term) for term, n in passed))
            chosen = sorted((term, -n) for n, term in best)
        if not chosen:
            raise self._nothing()
        counts = np.array([count for _, count in chosen], np.int64)
        return Vectorizer(settings, self._documents, counts, [term for term, _ in chosen])

    def _merged(self) -> Iterator[tuple[str, int]]:
        """(term, texts) of all terms, in code point order."""
        with ExitStack() as stack:
            files = [
                stack.enter_context(path.open(encoding="utf-8", newline="\n"))
                for path in self._files
            ]
            sources = [map(_parsed, file) for file in files]
            merged = heapq.merge(*sources, sorted(self._counts.items()))
            for term, same in groupby(merged, key=itemgetter(0)):
                yield term, sum(count for _, count in same)

    def _nothing(self) -> ConfigError:
        return ConfigError(
            f"the texts leave no features: no word of {self._settings.min_length} characters or "
            f"more, or run, occurs in at least {self._settings.min_df} of the {self._documents:,} "
            "training texts; lower min_df (--min-documents) or min_length (--min-length)"
        )

    def __enter__(self) -> TextFit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self._scratch.cleanup()


def _parsed(line: str) -> tuple[str, int]:
    term, count = line.split("\t")
    return term, int(count)


def fit(texts: Iterable[str], settings: TextSettings | None = None) -> Vectorizer:
    """The vectoriser of some texts, in this process.

    Raises:
        ConfigError: no term passes the settings.
    """
    settings = settings or TextSettings()
    with TextFit(settings) as fitted:
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) == _BATCH:
                fitted.add(len(batch), count_terms(batch, settings))
                batch = []
        fitted.add(len(batch), count_terms(batch, settings))
        return fitted.vectorizer()
