"""The loggers that a run's config asks for. Each is a ``Listener`` in a file of its own, which is
imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder

if TYPE_CHECKING:
    from ray_xml.follow import Listener


def run_loggers(config: RunConfig) -> list[Listener]:
    """The loggers of ``config``, which has its run folder.

    Raises:
        ConfigError: a package is missing; the message says how to get it.
    """
    wanted, run = config.logging, RunFolder(config.run).path
    plain = config.model_dump(mode="json")
    loggers: list[Listener] = []
    if wanted.tensorboard:
        try:
            from ray_xml.log_tensorboard import TensorBoardLogger
        except ImportError as error:
            raise _missing("tensorboard", "tensorboardX", "false", error) from error
        loggers.append(TensorBoardLogger(run))
    if wanted.mlflow is not None:
        try:
            from ray_xml.log_mlflow import MlflowLogger
        except ImportError as error:
            raise _missing("mlflow", "mlflow", "null", error) from error
        loggers.append(MlflowLogger(wanted.mlflow, wanted.mlflow_experiment, run, plain))
    if wanted.wandb is not None:
        try:
            from ray_xml.log_wandb import WandbLogger
        except ImportError as error:
            raise _missing("wandb", "wandb", "null", error) from error
        loggers.append(WandbLogger(wanted.wandb, run, plain))
    return loggers


def _missing(key: str, package: str, off: str, error: ImportError) -> ConfigError:
    extra = f"the extra {key}: pip install 'ray-xml[{key}]'" if off == "null" else package
    return ConfigError(
        f"logging.{key} needs the package {package}, which cannot be imported ({error}); install "
        f"{extra}, or set logging.{key}={off}"
    )
