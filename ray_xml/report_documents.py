"""Sample predictions of a report: documents that went right, that went wrong, and the surest
mistakes."""

from __future__ import annotations

import numpy as np

from ray_xml.predictor import Predictions, Predictor
from ray_xml.report_data import Gathered, Measured
from ray_xml.report_html import name, paragraph, words
from ray_xml.report_labels import shown_name
from ray_xml.report_tally import Tally
from ray_xml.svg import shortened
from ray_xml.truth import Truth

_COUNT, _SEED = 3, 0
_TITLE, _SUMMARY, _FEATURES, _MISSED = 120, 400, 12, 5


def sample_documents(gathered: Gathered, measured: Measured, predictor: Predictor) -> str:
    """Some documents with their predictions, as markup."""
    parts = []
    for heading, rows in zip(
        ("Right in the first place", "Wrong in the first place", "The surest mistakes"),
        chosen(measured.tally, _COUNT, _SEED),
        strict=True,
    ):
        if len(rows):
            articles = "\n".join(_articles(gathered, measured, predictor, rows))
            parts.append(f'<h3>{heading}</h3><div class="documents">{articles}</div>')
    told = (
        "✓ marks true labels; the number is the score. The first two groups are drawn at random, "
        "the third has the highest scores in the first place that are wrong. A wrong label may be "
        "one that nobody wrote down."
    )
    return paragraph(told) + "".join(parts)


def chosen(tally: Tally, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents, ascending: drawn from those whose best label is right, and from those whose is
    wrong; and of the latter the highest scores first. None of them twice."""
    rng = np.random.default_rng(seed)
    drawn = []
    for right in (True, False):
        some = np.flatnonzero(tally.first_right == right)
        drawn.append(np.sort(rng.choice(some, min(count, len(some)), replace=False)))
    wrong = np.flatnonzero(~tally.first_right & np.isfinite(tally.first_score))
    wrong = np.setdiff1d(wrong, drawn[1])
    surest = wrong[np.argsort(-tally.first_score[wrong], kind="stable")[:count]]
    return drawn[0], drawn[1], surest


def _articles(
    gathered: Gathered, measured: Measured, predictor: Predictor, rows: np.ndarray
) -> list[str]:
    documents = measured.data.split(measured.split)
    features = documents.features.take(rows)
    whole, top = Truth.of(documents), measured.tally.top
    theirs = whole.take(rows)
    predicted = Predictions(*theirs.best(*predictor.predict(features, whole.asked(top)), top))
    truth = theirs.labels
    feature_names = measured.data.feature_names() if measured.titles is None else None
    made = []
    for place, row in enumerate(rows.tolist()):
        head = f"document {row}"
        below = ""
        if measured.titles is not None:
            head, below = measured.titles.at(row)
        elif feature_names is not None:
            own = features.slice(place, place + 1).packed()
            weights = np.ones(len(own.ids)) if own.values is None else np.abs(own.values)
            strong = own.ids[np.argsort(-weights, kind="stable")[:_FEATURES]]
            below = " · ".join(feature_names[one] for one in strong.tolist())
        true = set(truth.slice(place, place + 1).packed().ids.tolist())
        items = []
        for label, score in zip(predicted.labels[place], predicted.scores[place], strict=True):
            if label >= 0:
                mark = '<b class="good">✓</b>' if int(label) in true else '<b class="bad">✗</b>'
                items.append(
                    f"<li>{mark}<span>{score:.2f}</span>{shown_name(gathered.label(int(label)))}</li>"
                )
        missed = sorted(true - set(predicted.labels[place].tolist()))
        told = " · ".join(shown_name(gathered.label(one)) for one in missed[:_MISSED])
        more = f" and {len(missed) - _MISSED} more" * (len(missed) > _MISSED)
        made.append(
            f"<article><h4>{name(shortened(head, _TITLE))}</h4>"
            + (f'<p class="dim">{name(shortened(below, _SUMMARY))}</p>' if below else "")
            + f"<ul>{''.join(items)}</ul>"
            + (f"<p>missed: {told}{words(more)}</p>" if missed else "")
            + "</article>"
        )
    return made
