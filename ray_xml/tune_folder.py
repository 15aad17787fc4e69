"""The folder of a search, and the rules for going on with one.

tune.yaml      the config with its space
search.jsonl   what happened, see ``search_log``
trials/007/    an ordinary run folder of each trial; trials/007.log is what it said. Under
               ``pbt`` one that took over another's weights has a folder of its own too
cache/         what the trials share, see ``run_cache``
best.yaml      a config that trains as it is; trials.csv, trials.svg: see ``tune_report``
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ray_xml.config import dump_config, load_config
from ray_xml.disk import replace_text
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig, differences
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import DRIVER, WORKERS
from ray_xml.tune_config import TuneConfig
from ray_xml.tune_space import Parameters, tuned

# Keys of ``tune`` that may differ when a search goes on; a population keeps its size.
_FREE = {"trials", "concurrent"}


class TuneFolder:
    """A search's folder by its path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.config_file = self.path / "tune.yaml"

    def begin(self, config: RunConfig, *, resume: bool) -> None:
        """Makes the folder, or with ``resume`` checks that ``config`` goes on with its search.

        Raises:
            ConfigError: it holds another search, or something else, or nothing to go on with.
        """
        if self.config_file.exists():
            if not resume:
                raise ConfigError(
                    f"{self.path} holds a search already; --resume goes on with it, or choose "
                    "another folder with run=FOLDER"
                )
            changed = _differences(load_config(RunConfig, self.config_file), config)
            if changed:
                raise ConfigError(
                    f"{self.path} holds a search with other settings ({'; '.join(changed)}); set "
                    "them back to go on with it, or choose a new folder"
                )
        elif resume:
            raise ConfigError(f"{self.path}: no search here to go on with; leave --resume out")
        elif {one.name for one in self.path.iterdir()} - {DRIVER, WORKERS}:
            raise ConfigError(f"{self.path} is not empty and holds no search; choose a new folder")
        replace_text(self.config_file, dump_config(config))
        (self.path / "trials").mkdir(exist_ok=True)

    def trial(self, number: int) -> RunFolder:
        return RunFolder(self.path / "trials" / f"{number:03d}")

    def trial_log(self, number: int) -> Path:
        return self.path / "trials" / f"{number:03d}.log"

    def trial_config(
        self,
        config: RunConfig,
        number: int,
        parameters: Parameters,
        cpus_per_worker: float,
        epochs: int,
    ) -> RunConfig:
        """What trial ``number`` trains.

        Args:
            config: the search's.
            cpus_per_worker: see ``tune_budget``.
            epochs: that it has done when it ends.
        """
        resources = config.resources.model_copy(
            update={
                "cache": config.resources.cache or str(self.path / "cache"),
                "cpus_per_worker": cpus_per_worker,
            }
        )
        made = tuned(config, parameters if number else {})  # trial 0 is the config as it stands
        return made.model_copy(
            update={
                "run": str(self.trial(number).path),
                "resources": resources,
                "training": made.training.model_copy(update={"epochs": epochs}),
            }
        )

    def forget_scratch(self, number: int) -> None:
        """Frees what a trial that will not go on held for going on: its checkpoints stay."""
        run = self.trial(number)
        for what in ("embeddings", "shortlists"):
            shutil.rmtree(run.path / what, ignore_errors=True)


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """As ``run_config.differences``, of searches: the epochs count too, since runs that may spend
    different ones cannot be compared."""
    changed = differences(old, new)
    if old.training.epochs != new.training.epochs:
        changed.append(f"training.epochs: {old.training.epochs} → {new.training.epochs}")
    free = _FREE - ({"trials"} if old.tune.scheduler == "pbt" else set())
    for name in TuneConfig.model_fields:
        before, after = getattr(old.tune, name), getattr(new.tune, name)
        if name not in free and before != after:
            changed.append(
                f"tune.{name} differs" if name == "space" else f"tune.{name}: {before} → {after}"
            )
    return changed
