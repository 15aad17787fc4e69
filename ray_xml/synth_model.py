"""Made documents that a classifier can learn, a block at a time, each a function of its number.

A document has one or two topics. Most of its labels come from these topics by frequency, a few
from anywhere. Its features come from its labels (each label has a few of its own), its topics
(each has some, shared by all its documents) and a Zipf background. A label's or topic's own
features are hashes of (seed, owner, number), so they take no memory and are shared with other
labels, as words are. Values are TF-IDF, scaled to unit length. Of the labels that a document is
about some are not recorded, as in real sets, so that no classifier can be right every time.

All randomness is an integer hash of (seed, stream, document, purpose, draw). So a document does
not depend on the block it is made in, nor on how many others there are.
"""

from __future__ import annotations

import numpy as np
import scipy.special

from ray_xml.errors import ConfigError
from ray_xml.sparse import Csr
from ray_xml.synth_labels import LabelUrn
from ray_xml.synth_shapes import MOST_DOCUMENTS, Shape

STREAMS = {"train": 0, "test": 1, "pilot": 2}

_STRAY_LABELS = 0.1  # of a document's labels, those from anywhere
_UNRECORDED = 0.3  # of the labels that a document is about, those it is not given
_SECOND_TOPIC = 0.4  # of documents, those with two topics
_SECOND_SHARE = 0.4  # of their labels and topic features, those from the second one
_FROM_TOPIC, _FROM_BACKGROUND = 0.3, 0.3  # of a document's features; the rest come from labels
_PILOT = 8192  # documents that the means and the feature weights are set by
_BACKGROUND_BITS = 18  # of the number of slots in the background's urn
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: successive draws lie far apart before they are mixed

# One number for each purpose that a document's hash is used for.
(
    _LABEL_COUNT,
    _FEATURE_COUNT,
    _SPLIT,
    _TOPICS,
    _LABELS,
    _OF_LABEL,
    _OWN,
    _TOPIC,
    _BACKGROUND,
    _RECORD,
) = range(10)


def mix(x: np.ndarray) -> np.ndarray:
    """uint32 → uint32, one to one: the finaliser of MurmurHash3 (public domain)."""
    x = x ^ (x >> 16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> 13
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> 16
    return x


def _scaled(hashed: np.ndarray, size: int | np.ndarray) -> np.ndarray:
    """int64, a hash as a number in [0, size): the multiply-shift of Lemire (2019)."""
    return ((hashed.astype(np.uint64) * np.asarray(size, np.uint64)) >> np.uint64(32)).astype(
        np.int64
    )


def _skewed(hashed: np.ndarray) -> np.ndarray:
    """uint32, the square of a hash seen as a fraction: small numbers are more likely."""
    wide = hashed.astype(np.uint64)
    return ((wide * wide) >> np.uint64(32)).astype(np.uint32)


def _unit(hashed: np.ndarray) -> np.ndarray:
    """float64 in [0, 1)."""
    return hashed * 2.0**-32


def _within(counts: np.ndarray) -> np.ndarray:
    """int64: 0, 1, … counts[0] - 1, 0, 1, … counts[1] - 1, and so on."""
    ends = np.cumsum(counts)
    within: np.ndarray = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    return within


def _rows_of(keys: np.ndarray, rows: int, width: int) -> tuple[Csr, np.ndarray]:
    """Rows with ascending distinct ids, without values, and how often each id was drawn.

    Args:
        keys: int64, row · width + id, in any order; sorted in place.
    """
    keys.sort(kind="stable")  # Timsort: far faster than the others where rows come in order
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    times = np.diff(first, append=len(keys))
    keys = keys[first]
    offsets = np.searchsorted(keys, np.arange(rows + 1) * width)
    ids = (keys - np.repeat(np.arange(rows) * width, np.diff(offsets))).astype(np.int32)
    return Csr(offsets, ids, None, width), times


class SynthModel:
    """Makes documents of a shape.

    Holds about 8 int32 a label and 3 numbers a feature; while it is set up, about twice that.

    Raises:
        ConfigError: the mean labels or features a document cannot be reached.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        rng = np.random.default_rng([shape.seed, 0x5E7])
        self._seeds = rng.integers(2**32, size=16, dtype=np.uint32)
        self._urn = LabelUrn(shape.labels, shape.topics, shape.labels_per_document, shape.zipf, rng)
        self._feature_of_rank = rng.permutation(np.arange(shape.features, dtype=np.int32))
        # Rank V^u - 1 for u even in [0, 1) has density 1 / (rank + 1): Zipf's law.
        spread = (np.arange(2**_BACKGROUND_BITS) + 0.5) / 2**_BACKGROUND_BITS
        ranks = (float(shape.features) ** spread).astype(np.int64) - 1
        self._background = self._feature_of_rank[np.minimum(ranks, shape.features - 1)]
        drawn = shape.features_per_document * (1 - _FROM_TOPIC - _FROM_BACKGROUND)
        self._own = max(4, round(2 * drawn / shape.labels_per_document))  # features of a label
        self._of_topic = max(30, round(2 * shape.features_per_document))  # features of a topic
        # How far a document's size is from the mean: a gamma law's quantiles, of mean 1.
        sizes = scipy.special.gammaincinv(3.0, (np.arange(4096) + 0.5) / 4096)
        self._sizes = sizes / sizes.mean()
        self._label_draws = 1 + (shape.labels_per_document - 1) / (1 - _UNRECORDED)
        self._feature_draws = shape.features_per_document
        self._idf = np.ones(shape.features, np.float32)
        self._set_means_and_weights()

    def block(self, split: str, start: int, stop: int) -> tuple[Csr, Csr]:
        """Documents ``start:stop`` of a split.

        Returns:
            (features [n, V] with float32 values, labels [n, L] without values).
        """
        keys = self._keys(split, start, stop)
        topics = self._topics_of(keys)
        about = self._about(keys, topics)
        return self._features(keys, topics, about), self._recorded(keys, about)

    def _keys(self, split: str, start: int, stop: int) -> np.ndarray:
        """uint32 [n], a key for each document, unlike all others' of the data set."""
        numbers = np.arange(start, stop, dtype=np.uint32) + np.uint32(
            STREAMS[split] * MOST_DOCUMENTS
        )
        return mix(mix(numbers) ^ self._seeds[15])

    def _draws(self, keys: np.ndarray, purpose: int) -> np.ndarray:
        """uint32 [n], one hash a document."""
        return mix(keys ^ self._seeds[purpose])

    def _more_draws(
        self, keys: np.ndarray, purpose: int, counts: np.ndarray, within: np.ndarray
    ) -> np.ndarray:
        """uint32 [counts.sum()], ``counts`` hashes of each document; ``within`` numbers them."""
        steps = within.astype(np.uint32) * np.uint32(_GOLDEN)
        steps += np.repeat(self._draws(keys, purpose), counts)
        return mix(steps)

    def _counts(self, keys: np.ndarray, purpose: int, mean: float) -> np.ndarray:
        """int64 [n] >= 1, how much to draw for each document."""
        hashed = self._draws(keys, purpose)
        size = (mean - 1) * self._sizes[hashed >> 20] + (hashed & 0xFFFFF) * 2.0**-20
        counts: np.ndarray = 1 + size.astype(np.int64)
        return counts

    def _topics_of(self, keys: np.ndarray) -> np.ndarray:
        """int64 [n, 2], both topics of each document, -1 where there is no second one."""
        first = self._draws(keys, _TOPICS)
        second = mix(first + np.uint32(_GOLDEN))
        both = np.stack([first, second], axis=1)
        topics = self._urn.topic_of(_scaled(both, len(self._urn.slots)))
        alone = _unit(mix(second + np.uint32(_GOLDEN))) >= _SECOND_TOPIC
        topics[alone | (topics[:, 0] == topics[:, 1]), 1] = -1
        return topics

    def _about(self, keys: np.ndarray, topics: np.ndarray) -> Csr:
        """What the documents are about, recorded or not: [n, L], one label at least."""
        total = self._counts(keys, _LABEL_COUNT, self._label_draws)
        split = self._draws(keys, _SPLIT)
        stray = (total * _STRAY_LABELS + _unit(split)).astype(np.int64)
        rest = total - stray
        second = (rest * _SECOND_SHARE + _unit(mix(split))).astype(np.int64)
        second[topics[:, 1] < 0] = 0
        # Three parts of the urn a document: the first topic's, the second's, and all of it.
        parts = np.stack([rest - second, second, stray], axis=1)
        low = np.concatenate([self._urn.starts[topics], np.zeros((len(keys), 1), np.int64)], axis=1)
        high = self._urn.starts[topics + 1]
        sizes = np.concatenate([high, np.full((len(keys), 1), len(self._urn.slots))], axis=1) - low
        # The draws from a part come from even strata of it, so that few labels come up twice.
        counts = parts.ravel()
        strata = sizes.ravel() / np.maximum(counts, 1)
        hashed = self._more_draws(keys, _LABELS, total, _within(total))
        place = (_within(counts) + _unit(hashed)) * np.repeat(strata, counts)
        place += np.repeat(low.ravel(), counts)
        ids = self._urn.slots[place.astype(np.int64)]
        width = self.shape.labels
        rows = np.repeat(np.arange(len(keys)) * width, total)
        return _rows_of(rows + ids, len(keys), width)[0]

    def _recorded(self, keys: np.ndarray, about: Csr) -> Csr:
        """The documents' labels among ``about``, [n, L], one at least."""
        hashed = self._more_draws(keys, _RECORD, about.counts, about.ids)
        lowest = np.minimum.reduceat(hashed, about.offsets[:-1])
        kept = (_unit(hashed) >= _UNRECORDED) | (hashed == np.repeat(lowest, about.counts))
        before = np.concatenate([[0], np.cumsum(kept)])
        return Csr(before[about.offsets], about.ids[kept], None, about.num_columns)

    def _features(self, keys: np.ndarray, topics: np.ndarray, about: Csr) -> Csr:
        """The documents' features, [n, V]."""
        total = self._counts(keys, _FEATURE_COUNT, self._feature_draws)
        split = mix(self._draws(keys, _SPLIT) + np.uint32(_GOLDEN))
        of_topic = (total * _FROM_TOPIC + _unit(split)).astype(np.int64)
        background = (total * _FROM_BACKGROUND + _unit(mix(split))).astype(np.int64)
        background = np.minimum(background, total - of_topic)
        of_labels = total - of_topic - background
        width = self.shape.features
        rows = np.arange(len(keys)) * width
        drawn = np.concatenate(
            [
                self._from_labels(keys, of_labels, about) + np.repeat(rows, of_labels),
                self._from_topics(keys, of_topic, topics) + np.repeat(rows, of_topic),
                self._from_background(keys, background) + np.repeat(rows, background),
            ]
        )
        found, times = _rows_of(drawn, len(keys), width)
        values = self._idf[found.ids] * times.astype(np.float32)
        squares = np.bincount(found.row_of_entry(), np.square(values, dtype=np.float64))
        values /= np.repeat(np.sqrt(squares), found.counts).astype(np.float32)
        return Csr(found.offsets, found.ids, values, width)

    def _owned(self, owners: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """int32, the ``numbers``-th own features of labels, or of topics behind them."""
        hashed = mix(owners.astype(np.uint32) ^ self._seeds[14])
        hashed += numbers.astype(np.uint32) * np.uint32(_GOLDEN)
        ranks = _scaled(_skewed(mix(hashed)), self.shape.features)
        features: np.ndarray = self._feature_of_rank[ranks]
        return features

    def _from_labels(self, keys: np.ndarray, counts: np.ndarray, labels: Csr) -> np.ndarray:
        """int32, ``counts`` features of each document's labels, whose turns come evenly."""
        within = _within(counts)
        place = within + _unit(self._more_draws(keys, _OF_LABEL, counts, within))
        place *= np.repeat(labels.counts / np.maximum(counts, 1), counts)
        place += np.repeat(labels.offsets[:-1], counts)
        hashed = self._more_draws(keys, _OWN, counts, within)
        return self._owned(labels.ids[place.astype(np.int64)], _scaled(_skewed(hashed), self._own))

    def _from_topics(self, keys: np.ndarray, counts: np.ndarray, topics: np.ndarray) -> np.ndarray:
        """int32, ``counts`` features of each document's topics."""
        hashed = self._more_draws(keys, _TOPIC, counts, _within(counts))
        first, second = (np.repeat(topics[:, i], counts) for i in (0, 1))
        use_second = (_unit(mix(hashed)) < _SECOND_SHARE) & (second >= 0)
        owners = np.where(use_second, second, first) + self.shape.labels
        return self._owned(owners, _scaled(_skewed(hashed), self._of_topic))

    def _from_background(self, keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """int32, ``counts`` features of any kind for each document."""
        hashed = self._more_draws(keys, _BACKGROUND, counts, _within(counts))
        features: np.ndarray = self._background[hashed >> (32 - _BACKGROUND_BITS)]
        return features

    def _set_means_and_weights(self) -> None:
        """Sets how much to draw so that the distinct are as many as asked, and the idf."""
        keys = self._keys("pilot", 0, _PILOT)
        topics = self._topics_of(keys)
        wanted = self.shape.labels_per_document
        for _ in range(6):
            about = self._about(keys, topics)
            drawn = self._counts(keys, _LABEL_COUNT, self._label_draws).mean()
            # A few documents show the share of distinct ones well, their mean size less well.
            found = self._recorded(keys, about).nnz / _PILOT * self._label_draws / drawn
            self._label_draws = _better(self._label_draws, found, wanted)
        _check_mean("labels", found, wanted)
        wanted = self.shape.features_per_document
        for _ in range(6):
            features = self._features(keys, topics, about)
            drawn = self._counts(keys, _FEATURE_COUNT, self._feature_draws).mean()
            found = features.nnz / _PILOT * self._feature_draws / drawn
            self._feature_draws = _better(self._feature_draws, found, wanted)
        _check_mean("features", found, wanted)
        # log(documents / documents with the feature) + 1 as in scikit-learn, in steps of 1/64, so
        # that another machine's last bit of a logarithm makes no other data set.
        idf = 1 + np.log((1 + _PILOT) / (1 + features.column_counts()))
        self._idf = (np.round(idf * 64) / 64).astype(np.float32)


def _better(draws: float, found: float, wanted: float) -> float:
    """A better mean to draw, where ``draws`` gave ``found`` distinct ones and not ``wanted``."""
    ratio = (wanted - 1) / (found - 1) if found > 1 else 1.0
    return 1 + (draws - 1) * min(max(ratio, 0.5), 2.0)


def _check_mean(things: str, found: float, wanted: float) -> None:
    if abs(found / wanted - 1) > 0.03:
        raise ConfigError(
            f"documents of this shape come out with {found:.2f} {things} on average, not "
            f"{wanted:g}: ask for more {things} in all, fewer a document, or a smaller zipf"
        )
