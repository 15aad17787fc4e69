"""Explanations in lines of text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ray_xml.predictor import Explanation, Predictor

_TERMS, _DOCUMENTS = 8, 5


def explained(
    predictor: Predictor,
    text: str,
    *,
    top_k: int,
    threshold: float | None = None,
    embedding: np.ndarray | None = None,
) -> Iterator[str]:
    """Why each of a text's best labels is given.

    Args:
        embedding: as for ``Predictor.explain``.
        threshold: the least score of a label that is given; None gives all ``top_k``.
    """
    vectors = None if embedding is None else embedding[None]
    tags = predictor.predict([text], top_k=top_k, embeddings=vectors)[0]
    kept = [tag for tag in tags if threshold is None or tag.score >= threshold]
    if not kept:
        yield "  no label"
    for tag in kept:
        yield from lines(predictor.explain(text, tag.label, most=_TERMS, embedding=embedding))


def lines(why: Explanation) -> Iterator[str]:
    """One label's explanation."""
    yield f"  {why.probability:.2f}  {why.name or f'label {why.label}'}"
    if why.terms:
        told = ", ".join(f"{one.term} {one.contribution:+.2f}" for one in why.terms)
        yield f"        terms, in log-odds: {told}"
    for near in why.documents[:_DOCUMENTS]:
        mark = "✓" if near.has_label else " "
        name = f"document {near.document}" + (f"  {near.name}" if near.name else "")
        yield f"      {mark} {near.similarity:.2f}  {name}"
