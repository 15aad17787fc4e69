"""Fitting probabilities to a run's validation documents.

The score was fitted to these documents, so on them it looks better than it is. Therefore the
documents are halved, the score is fitted to each half anew, and a document's predictions are those
of the score that has not seen it: ``blend.fit`` as validation in training does. Their log-odds and
truth go into ``probability.fit``.
"""

from __future__ import annotations

import json

import numpy as np

from ray_xml import blend, checkpoint, probability
from ray_xml.disk import replace_text
from ray_xml.errors import DataSetError
from ray_xml.evaluation import check_labels
from ray_xml.predictor import Predictor
from ray_xml.probability import Probability
from ray_xml.refresh import true_candidates
from ray_xml.run_data import split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.scoring import top_k
from ray_xml.store import DataSet
from ray_xml.truth import Truth

TOP = 5  # predictions of a document that count
_DOCUMENTS = 20_000  # of more validation documents so many are taken: bounds time and memory
_BLOCK = 256


def calibrate(run: RunFolder, data: DataSet) -> tuple[Probability, int]:
    """Fits the probabilities of the run's best model and keeps them in its folder.

    Args:
        data: the run's.

    Returns:
        (the fit, the documents that it was made of).

    Raises:
        DataSetError: no validation documents were set aside, or ``data`` is another data set.
        CheckpointError: no checkpoint that can predict, or a damaged one.
    """
    seal = checkpoint.read_manifest(run.model())["seal"]
    predictor = Predictor.load(run.path)
    log_odds, right, documents = held_out(predictor, data)
    fitted = probability.fit(log_odds, right)
    text = json.dumps({"checkpoint": seal, **fitted.as_dict()})
    replace_text(run.probability_file, text + "\n")
    return fitted, documents


def held_out(predictor: Predictor, data: DataSet) -> tuple[np.ndarray, np.ndarray, int]:
    """(log-odds float32 [n], right bool [n], documents): the validation documents' best predictions
    under a score that has not seen them; errors as above."""
    train, (_, rows) = data.split("train"), split_rows(data, predictor.config)
    check_labels(data, predictor)
    if len(rows) < 2:
        raise DataSetError(
            "the run has no validation documents to fit probabilities to; train with "
            "training.validation above 0"
        )
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _DOCUMENTS)).astype(np.int64)]
    half, whole = np.arange(len(rows)) % 2, Truth.of(train)
    blocks = []
    examples: list[list[tuple[np.ndarray, np.ndarray]]] = [[], []]
    for first in range(0, len(rows), _BLOCK):
        some = rows[first : first + _BLOCK]
        evidence = predictor.evidence(train.features.take(some))
        x = evidence.features(predictor.lexical.label_counts)
        theirs = whole.take(some)
        labels = theirs.cleared(evidence.labels)
        truth = true_candidates(labels, theirs.labels)
        blocks.append((labels, x, truth))
        own = half[first : first + _BLOCK, None]
        for which in (0, 1):
            part = (labels >= 0) & (own == which)
            examples[which].append((x[part], truth[part]))
    odd = blend.fit(examples[1])
    even = blend.fit(examples[0], start=odd)
    log_odds, right = [], []
    for number, (labels, x, truth) in enumerate(blocks):
        own = half[number * _BLOCK : number * _BLOCK + len(labels), None]
        z = np.where(own == 0, odd.log_odds_of(x), even.log_odds_of(x))
        # Numbered by place, so that each prediction's truth can be found again.
        places = np.where(labels < 0, -1, np.arange(labels.shape[1])).astype(np.int32)
        places, best = top_k(places, z, TOP)
        log_odds.append(best[places >= 0])
        right.append(np.take_along_axis(truth, np.maximum(places, 0), 1)[places >= 0])
    found = np.concatenate(log_odds)
    if len(found) == 0:
        raise DataSetError("no validation document has a candidate label; train for longer")
    return found, np.concatenate(right), len(rows)
