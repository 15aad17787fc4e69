"""The shape of a made data set: how many of everything, asked for or after a published set.

``PUBLISHED`` holds the statistics of the public sets under the names of their files in
``configs/``: points, widths and labels a document as the Extreme Classification Repository states
them (tibkat-gnd, wordnet-114k and the features of EURLex-4.3K: as their own files have them).
The features a document are measured for Bibtex, EURLex-4.3K, tibkat-gnd and wordnet-114k; all
others are **assumptions** of the right size: about 9 words in a product's title, 4 in a page's,
40 to 400 in a text.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ray_xml.errors import ConfigError

MOST_DOCUMENTS = 2**30  # of a split: the documents' numbers have 32 bits, two of them the stream's
_MOST_LABELS = 2**27  # slots of the label table have 31 bits
_DEFAULT_TEST = 20_000


class Statistics(NamedTuple):
    """A published set's counts, and its mean labels and features a document."""

    train: int
    test: int
    features: int
    labels: int
    labels_per_document: float
    features_per_document: float


PUBLISHED = {
    "amazon-3m": Statistics(1_717_899, 742_507, 337_067, 2_812_281, 36.17, 50),
    "amazon-670k": Statistics(490_449, 153_025, 135_909, 670_091, 5.45, 75),
    "amazoncat-13k": Statistics(1_186_239, 306_782, 203_882, 13_330, 5.04, 70),
    "amazoncat-14k": Statistics(4_398_050, 1_099_725, 597_540, 14_588, 3.53, 70),
    "amazontitles-3m": Statistics(1_712_536, 739_665, 165_431, 2_812_281, 36.18, 9),
    "amazontitles-670k": Statistics(485_176, 150_875, 66_666, 670_091, 5.39, 9),
    "bibtex": Statistics(4_880, 2_515, 1_836, 159, 2.40, 68.5),
    "delicious": Statistics(12_920, 3_185, 500, 983, 19.03, 18),
    "delicious-200k": Statistics(196_606, 100_095, 782_585, 205_443, 75.54, 300),
    "eurlex-4.3k": Statistics(45_000, 6_000, 18_004, 4_271, 5.07, 124.2),
    "eurlex-4k": Statistics(15_539, 3_809, 5_000, 3_993, 5.31, 240),
    "lf-amazon-131k": Statistics(294_805, 134_835, 80_000, 131_073, 2.29, 75),
    "lf-amazontitles-1.3m": Statistics(2_248_619, 970_237, 128_000, 1_305_265, 22.20, 9),
    "lf-amazontitles-131k": Statistics(294_805, 134_835, 40_000, 131_073, 2.29, 9),
    "lf-wikipedia-500k": Statistics(1_813_391, 783_743, 2_381_304, 501_070, 4.77, 380),
    "lf-wikiseealso-320k": Statistics(693_082, 177_515, 80_000, 312_330, 2.11, 100),
    "lf-wikiseealsotitles-320k": Statistics(693_082, 177_515, 40_000, 312_330, 2.11, 4),
    "lf-wikititles-500k": Statistics(1_813_391, 783_743, 80_000, 501_070, 4.74, 4),
    "mediamill": Statistics(30_993, 12_914, 120, 101, 4.38, 50),
    "mm-amazontitles-300k": Statistics(586_781, 260_536, 40_000, 303_296, 8.13, 9),
    "orcas-800k": Statistics(7_360_881, 2_547_702, 100_000, 797_322, 1.75, 4),
    "rcv1-2k": Statistics(623_847, 155_962, 47_236, 2_456, 4.79, 75),
    "tibkat-gnd": Statistics(90_452, 26_168, 137_291, 41_218, 2.85, 94.4),
    "wiki10-31k": Statistics(14_146, 6_616, 101_938, 30_938, 18.64, 400),
    "wikilshtc-325k": Statistics(1_778_351, 587_084, 1_617_899, 325_056, 3.19, 42),
    "wikipedia-500k": Statistics(1_813_391, 783_743, 2_381_304, 501_070, 4.77, 380),
    "wikiseealsotitles-350k": Statistics(629_418, 162_491, 91_414, 352_072, 2.33, 4),
    "wikititles-500k": Statistics(1_699_722, 722_678, 185_479, 501_070, 4.89, 4),
    "wordnet-114k": Statistics(81_661, 35_094, 45_005, 113_730, 3.09, 7.7),
}
_DEFAULT = Statistics(20_000, 5_000, 20_000, 5_000, 5.0, 30.0)


@dataclass(frozen=True)
class Shape:
    """What to make; see ``shape``, which fills in what was not asked for.

    Attributes:
        documents, test_documents: of the two splits.
        features, labels: widths.
        labels_per_document, features_per_document: means of the distinct ones.
        topics: groups of labels that go together.
        zipf: s of the label frequencies (rank + q)^-s.
        seed: another seed makes another set of the same shape.

    Raises:
        ConfigError: a number is out of range, or the numbers cannot go together.
    """

    documents: int
    test_documents: int
    features: int
    labels: int
    labels_per_document: float
    features_per_document: float
    topics: int
    zipf: float
    seed: int

    def __post_init__(self) -> None:
        for name, most in (
            ("documents", MOST_DOCUMENTS),
            ("test_documents", MOST_DOCUMENTS),
            ("features", 2**31 - 1),
            ("labels", _MOST_LABELS),
        ):
            _check(name, getattr(self, name), 1, most)
        for things in ("labels", "features"):
            mean, count = getattr(self, f"{things}_per_document"), getattr(self, things)
            if mean > count:
                raise ConfigError(
                    f"a document cannot have {mean:g} {things} on average where there are "
                    f"{count:,} in all: ask for more {things} or fewer a document"
                )
            _check(f"{things}_per_document", mean, 1, max(1.0, count / 2))
        _check("topics", self.topics, 1, self.labels)
        _check("zipf", self.zipf, 0, 3)
        _check("seed", self.seed, 0, 2**63 - 1)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # a NaN too
        raise ConfigError(f"{name} is {value:g}; it must lie between {low:g} and {high:,g}")


def shape(
    *,
    like: str | None = None,
    scale: float = 1.0,
    seed: int = 0,
    asked: Mapping[str, float | None] | None = None,
) -> Shape:
    """The shape of a data set, from a published one's statistics and what was asked for.

    Args:
        like: a name in ``PUBLISHED``; None starts from a small set.
        scale: factor on its documents, labels and features; their means a document stay.
        seed: see ``Shape``.
        asked: fields of ``Shape`` that are wanted so, before everything else; None is not asked.
            Of test documents, if only ``documents`` is asked for, there are a quarter as many,
            at most 20,000. There is a topic for every 20 documents' worth of labels, at least
            50 labels and at least 8 topics.

    Raises:
        ConfigError: an unknown name, or a number out of range.
    """
    if like is not None and like not in PUBLISHED:
        near = difflib.get_close_matches(like.lower(), PUBLISHED, n=3, cutoff=0.4)
        raise ConfigError(
            f"there is no published set {like!r}; "
            + (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"there are {', '.join(PUBLISHED)}"
            )
        )
    if not 0 < scale <= 1000:  # a NaN too
        raise ConfigError(f"scale is {scale:g}; it must be above 0, such as 0.1, and at most 1000")
    base = _DEFAULT if like is None else PUBLISHED[like]
    given = {key: value for key, value in (asked or {}).items() if value is not None}

    def count(name: str, published: int) -> int:
        return int(given.get(name, max(1, round(published * scale))))

    documents = count("documents", base.train)
    test = count("test_documents", base.test)
    if "documents" in given and "test_documents" not in given:
        test = max(1, min(documents // 4, _DEFAULT_TEST))
    labels = count("labels", base.labels)
    per_document = given.get("labels_per_document", base.labels_per_document)
    topics = min(labels, max(8, int(labels / max(50.0, 20.0 * per_document))))
    return Shape(
        documents=documents,
        test_documents=test,
        features=count("features", base.features),
        labels=labels,
        labels_per_document=per_document,
        features_per_document=given.get("features_per_document", base.features_per_document),
        topics=int(given.get("topics", topics)),
        zipf=given.get("zipf", 1.0),
        seed=seed,
    )
