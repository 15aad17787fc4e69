"""Population-based training on a cluster: what ``tune_pbt`` says is next, until nothing is.

Each part of a run is a process of its own, which ends when the part does: a run that waits for the
others holds nothing but its folder, so a population may be larger than what the cluster holds.
"""

from __future__ import annotations

from ray.tune.schedulers import FIFOScheduler

from ray_xml.cluster.trials import Trials
from ray_xml.run_fork import fork
from ray_xml.search_log import Move
from ray_xml.tune_pbt import Exploit, Train, next_step
from ray_xml.tune_space import comparison_epochs


def is_over(trials: Trials) -> bool:
    """Whether there is nothing left to train, what failed included."""
    return _next(trials, set()) is None


def train_population(trials: Trials) -> None:
    """Trains it to the end.

    Raises:
        CheckpointError: a run whose weights are to be taken over has lost all its checkpoints.
    """
    log = trials.log
    given_up: set[int] = set()
    found = trials.budget(trials.config.tune.trials)
    trials.say(found.arithmetic)
    _fork_all(trials)  # what a killed search did not come to
    while (step := _next(trials, given_up)) is not None:
        if isinstance(step, Exploit):
            log.exploit(step.epoch, step.moves)
            for move in step.moves:
                trials.folder.forget_scratch(move.replaces)
                trials.say(_told(step.epoch, move))
            _fork_all(trials)
        else:
            trials.run(step.trials, FIFOScheduler(), step.epoch, found)
            came = {one.number for one in log.trials() if one.epochs >= step.epoch}
            given_up |= set(step.trials) - came


def _next(trials: Trials, given_up: set[int]) -> Train | Exploit | None:
    log = trials.log
    return next_step(
        trials.config.tune,
        comparison_epochs(trials.config),
        trials.total,
        log.trials(),
        log.compared(),
        given_up,
    )


def _fork_all(trials: Trials) -> None:
    """Folders for the trials that begin with another's weights. Before any trial goes on: it would
    leave the epoch that the weights are taken from."""
    for one in trials.log.trials():
        if one.parent is not None:
            config = trials.folder.trial_config(
                trials.config, one.number, one.parameters, 1.0, trials.total
            )
            fork(
                trials.folder.trial(one.parent),
                trials.folder.trial(one.number),
                config.resolved(trials.data),
            )


def _told(epoch: int, move: Move) -> str:
    changed = " ".join(f"{key}={value}" for key, value in move.parameters.items())
    return (
        f"trial {move.number}  takes the place of {move.replaces} after epoch {epoch}, "
        f"with the weights of {move.parent}: {changed}"
    )
