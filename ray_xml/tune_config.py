"""The ``tune`` section: which settings are searched over, how far, and by what means."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from ray_xml.config import Section

Scalar = bool | int | float | str | None
_DIGITS = 4  # significant ones of a searched number: more would be noise, and hard to read


class Domain(Section):
    """The values that one key may take; exactly one of the attributes is set.

    Attributes:
        uniform: [low, high], numbers, drawn evenly.
        log_uniform: likewise, evenly in their logarithm.
        integer: [low, high], whole numbers, both ends included.
        log_integer: likewise, evenly in their logarithm.
        choice: the values themselves.
    """

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    log_integer: tuple[int, int] | None = None
    choice: tuple[Scalar, ...] | None = None

    @model_validator(mode="after")
    def _one_that_makes_sense(self) -> Domain:
        kinds = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(kinds) != 1:
            every = ", ".join(type(self).model_fields)
            raise ValueError(f"give exactly one of {every}, such as uniform: [0.1, 0.5]")
        if self.choice is not None:
            if len(set(map(repr, self.choice))) < max(2, len(self.choice)):
                raise ValueError("choice needs two values at least, and none of them twice")
            return self
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{kinds[0]}: [{low:g}, {high:g}] is not [low, high] with low < high")
        if self.logarithmic and low <= 0:
            raise ValueError(f"{kinds[0]}: [{low:g}, {high:g}] has no logarithm; low must be > 0")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """(low, high) of what is not a choice."""
        found = self.uniform or self.log_uniform or self.integer or self.log_integer
        assert found is not None, "a choice has no range"
        return found

    @property
    def logarithmic(self) -> bool:
        return self.log_uniform is not None or self.log_integer is not None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return self.integer is not None or self.log_integer is not None

    def edges(self) -> tuple[Scalar, ...]:
        """Both ends, or all choices: what a schema must take for all between to be taken."""
        return self.range if self.choice is None else self.choice

    def value(self, place: float) -> Scalar:
        """The value at ``place`` of the way through the domain, in [0, 1)."""
        if self.choice is not None:
            return self.choice[min(int(place * len(self.choice)), len(self.choice) - 1)]
        low, high = self.range
        if self.whole:  # each whole number has a stretch of its own
            low, high = low - 0.5, high + 0.5
        if self.logarithmic:
            return self.tidy(math.exp(math.log(low) + place * (math.log(high) - math.log(low))))
        return self.tidy(low + place * (high - low))

    def tidy(self, number: float) -> float | int:
        """``number`` as it is tried: in the range, whole or with few digits."""
        low, high = self.range
        if self.whole:
            return int(min(max(round(number), low), high))
        return min(max(float(f"{number:.{_DIGITS}g}"), low), high)

    def place(self, value: Any) -> float | None:
        """How far through the domain ``value`` lies, from 0 to 1; None if it is not in it."""
        if self.choice is not None:
            if value not in self.choice:
                return None
            return (self.choice.index(value) + 0.5) / len(self.choice)
        low, high = self.range
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not low <= value <= high:
            return None
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


class TuneConfig(Section):
    """A search for better settings. Training ignores it.

    Attributes:
        space: the keys that are searched over, such as ``training.rate``, and their values.
        trials: runs, the first of which is the config as it stands. Under ``pbt`` the population.
        concurrent: runs at a time; None is as many as the cluster holds.
        scheduler: ``asha`` stops runs that are behind (Li et al., MLSys 2020): of those that came
            to ``grace``, ``grace·reduction``, … epochs, the best ``1/reduction`` go on. ``pbt``
            lets runs that are behind take over the weights of those in front, with other values
            (see ``pbt``). ``none`` lets every run end.
        searcher: ``random``, or ``optuna`` (TPE), which learns from the runs before.
        metric: what is to be as large as can be, of the validation documents; None is
            ``training.metric``.
        grace: epochs that no run is stopped before; None is the first validation.
        reduction: see ``scheduler``.
        interval: pbt: epochs from one comparison of the population to the next, a multiple of
            ``training.cycle_epochs``, which None is.
        quantile: pbt: share of the population that is behind, and share that is in front.
        resample: pbt: probability that a value is drawn anew rather than perturbed.
        seed: of what is drawn.
    """

    space: dict[str, Domain] = Field(default_factory=dict)
    trials: int = Field(16, ge=2)
    concurrent: int | None = Field(None, ge=1)
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    searcher: Literal["random", "optuna"] = "random"
    metric: str | None = None
    grace: int | None = Field(None, ge=1)
    reduction: int = Field(3, ge=2)
    interval: int | None = Field(None, ge=1)
    quantile: float = Field(0.25, gt=0, le=0.5)
    resample: float = Field(0.25, ge=0, le=1)
    seed: int = Field(0, ge=0)
