"""Population-based training (Jaderberg et al., arXiv:1711.09846, 2017): what comes next.

A population of runs trains for ``interval`` epochs. Then those behind stop, and for each a new run
goes on with the weights of one in front (exploit) and with its values, changed (explore). So values
change while a run goes on, and what is found is a schedule of them.

Unlike the paper's, the population is compared when all of it has come to the same epoch. So what
happens depends on the seed and the scores alone, not on how many runs there is room for at a time,
nor on whether the search was killed in between. And the config as it stands, trial 0, goes on with
its own values to the end: it is the whole run that the best one is compared with. Others may take
over its weights.

Everything here is worked out from the log; nothing is kept between two questions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_xml.search_log import REPLACED, Move, TrialRecord
from ray_xml.tune_config import Domain, Scalar, TuneConfig

# Keys that may change in the middle of a run: they touch neither the documents, nor the shape of
# what a checkpoint holds, nor what a prediction is made of.
CHANGEABLE = (
    "training.rate",
    "training.batch_size",
    "encoder.dropout",
    "encoder.rate_factor",
    "classifier.random_negatives",
    "classifier.candidates",
    "classifier.sgd_rate",
    "proxy.passes",
    "proxy.ridge",
    "proxy.rate",
    "proxy.epochs",
)
_FACTORS = (0.8, 1.2)
_SALT = 0x9B7


@dataclass(frozen=True)
class Train:
    """These trials train until they have done ``epoch`` epochs."""

    trials: list[int]
    epoch: int


@dataclass(frozen=True)
class Exploit:
    """All have done ``epoch`` epochs: these moves are made, if there are any."""

    epoch: int
    moves: list[Move]


def next_step(
    settings: TuneConfig,
    interval: int,
    total: int,
    trials: Sequence[TrialRecord],
    compared: Collection[int],
    given_up: Collection[int] = (),
) -> Train | Exploit | None:
    """What a population has to do next; None when all is done.

    Args:
        interval: epochs from one comparison to the next.
        total: epochs of a whole run.
        trials: what the log has of each.
        compared: the epochs after which moves were made already.
        given_up: trials that failed, and that are not to be started again.
    """
    known = {one.number: one for one in trials}
    alive = sorted(
        number
        for number in {*range(settings.trials), *known}
        if number not in known or known[number].status != REPLACED
    )
    for epoch in [*range(interval, total, interval), total]:
        if epoch in compared:
            continue
        behind = [
            number
            for number in alive
            if number not in given_up and (number not in known or known[number].epochs < epoch)
        ]
        if behind:
            return Train(behind, epoch)
        if epoch < total:
            members = [known[number] for number in alive if number in known]
            return Exploit(epoch, moves(settings, epoch, members, max(known, default=0) + 1))
    return None


def moves(
    settings: TuneConfig, epoch: int, members: Sequence[TrialRecord], number: int
) -> list[Move]:
    """Who takes over whose weights after ``epoch`` epochs, and with which values.

    Those in front are the best ``quantile`` of the members, one at least; those behind are as many
    of the worst, and all that failed. Each of them is replaced, unless it is as good as the one
    that is drawn for it.

    Args:
        number: the first that is free for a new trial.
    """
    values = {one.number: value_at(one, epoch) for one in members}
    by_number = {one.number: one for one in members}

    def rank(one: int) -> tuple[float, int]:
        value = values[one]
        return (float("inf") if value is None else -value, one)

    ranked = sorted(values, key=rank)
    many = max(1, int(len(ranked) * settings.quantile))
    front = [one for one in ranked[:many] if values[one] is not None]
    others = [one for one in ranked if one != 0]
    back = [one for one in others[-many:] if one not in front]
    back += [one for one in others[:-many] if values[one] is None]
    found: list[Move] = []
    for one in sorted(back):
        if not front:
            break
        random = np.random.default_rng([settings.seed, epoch, one, _SALT])
        parent = front[int(random.integers(len(front)))]
        if not _better(values[parent], values[one]):
            continue
        changed = explore(settings, by_number[parent].parameters, random)
        found.append(Move(number + len(found), one, parent, changed))
    return found


def value_at(one: TrialRecord, epoch: int) -> float | None:
    """What its validation after ``epoch`` epochs said; None if it did not come so far."""
    return next((point.value for point in one.points if point.epoch == epoch), None)


def _better(one: float | None, other: float | None) -> bool:
    return one is not None and (other is None or one > other)


def explore(
    settings: TuneConfig, parameters: Mapping[str, Any], random: np.random.Generator
) -> dict[str, Scalar]:
    """Values near ``parameters``, each in its domain, or with probability ``resample`` any."""
    found = {}
    for key, domain in settings.space.items():
        drawn, anew, up = random.random(), random.random() < settings.resample, random.random()
        near = None if anew else perturbed(domain, parameters.get(key), up=up >= 0.5)
        found[key] = domain.value(float(drawn)) if near is None else near
    return found


def perturbed(domain: Domain, value: Any, *, up: bool) -> Scalar:
    """``value`` times 1.2, or 0.8 where not ``up``, within the domain; a whole number moves by one
    at least. Of choices the next one, or the one before; at an end the only neighbour.

    Returns:
        None where there is nothing near ``value``: it is no number, or none of the choices.
    """
    if domain.choice is not None:
        if domain.place(value) is None:
            return None
        at, last = domain.choice.index(value), len(domain.choice) - 1
        return domain.choice[1 if at == 0 else last - 1 if at == last else at + (1 if up else -1)]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    changed = value * _FACTORS[up]
    if domain.whole and round(changed) == value:
        changed = value + (1 if up else -1)
    return domain.tidy(changed)


def lineage(trials: Sequence[TrialRecord], number: int) -> list[TrialRecord]:
    """The trial with all whose weights it began with, the first one first."""
    known = {one.number: one for one in trials}
    found = [known[number]]
    while (parent := found[0].parent) is not None:
        found.insert(0, known[parent])
    return found
