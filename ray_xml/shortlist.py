"""Which labels a document is compared with: those nearest to it under one or two scores."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ray_xml.best_k import best_k
from ray_xml.label_index import IndexConfig, LabelIndex

__all__ = ["IndexConfig", "LabelIndex", "ShortlistConfig", "best_k"]


class ShortlistConfig(IndexConfig):
    """Which labels a document is compared with, and how they are searched for.

    Attributes:
        size: labels from each source; None is 100, or all labels where there are fewer. 0 leaves
            the dense search to training: predictions are made among the neighbours' labels.
        source: ``proxy`` (cosine to label proxies), ``classifier`` (the classifier's own score)
            or ``both``.
    """

    size: int | None = Field(None, ge=0)
    source: Literal["proxy", "classifier", "both"] = "proxy"

    @property
    def listed(self) -> int:
        """``size`` once it is known (``RunConfig.resolved``)."""
        assert self.size is not None, "the config was not resolved against its data"
        return self.size

    @property
    def width(self) -> int:
        """Labels on a shortlist, over all sources."""
        return self.listed * len(self.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        if self.size == 0:
            return ()
        return ("proxy", "classifier") if self.source == "both" else (self.source,)

    def index_for(self, source: str, exact: bool = False) -> IndexConfig:
        """How the vectors behind ``source`` are indexed: those that are only scored are not,
        which is what flat means."""
        searched = source in self.sources and not exact
        return self if searched else self.model_copy(update={"index": "flat"})
