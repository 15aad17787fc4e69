"""A run on MLflow: its config as parameters, the numbers of its epochs as metrics, a step an epoch.

RUN/loggers/mlflow.json remembers which MLflow run it is, so that a run that goes on stays one
there, and what MLflow has already is not sent again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ray_xml.disk import replace_text
from ray_xml.follow import Line, Listener
from ray_xml.json_text import parse_json
from ray_xml.run_identity import flat, identity
from ray_xml.run_records import scalars

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_AT_ONCE = 100  # parameters that MLflow takes in a call
_LONGEST = 500  # characters of a parameter's value, for servers of any version


class MlflowLogger(Listener):
    """Tells the server or store at ``uri``; ``config`` is the run's, as plain values."""

    name = "MLflow"

    def __init__(self, uri: str, experiment: str, run: Path, config: Mapping[str, Any]) -> None:
        self._uri, self._experiment, self._run, self._config = uri, experiment, run, config
        self._file = run / "loggers" / "mlflow.json"
        self._client: Any = None
        self._id = ""
        self._told: set[int] = set()

    def begin(self, lines: Sequence[Line]) -> None:
        self._client = MlflowClient(tracking_uri=self._uri)
        self._id = self._known() or self._new()
        self._client.update_run(self._id, status="RUNNING")
        told = self._client.get_metric_history(self._id, "loss")
        self._told = {int(one.step) for one in told}
        for line in lines:
            self.epoch(line)

    def epoch(self, line: Line) -> None:
        step = line["epoch"]
        if step in self._told:  # MLflow cannot take a step back; it was the same training
            return
        now = int(time.time() * 1000)
        # MLflow knows no @ in names.
        named = {key.replace("@", "_at_"): value for key, value in scalars(line).items()}
        self._client.log_batch(
            self._id, metrics=[Metric(key, value, now, step) for key, value in named.items()]
        )
        self._told.add(step)

    def end(self, status: str) -> None:
        if self._id:
            self._client.set_terminated(self._id, _STATUS[status])

    def _known(self) -> str:
        """The id of the MLflow run that this run made earlier, or nothing."""
        try:
            kept = parse_json(self._file.read_bytes())
            if kept["uri"] != self._uri:
                return ""
            found = self._client.get_run(str(kept["run_id"]))
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # may be there all the same
                raise
            return ""
        return "" if found.info.lifecycle_stage == "deleted" else str(found.info.run_id)

    def _new(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = (
            self._client.create_experiment(self._experiment)
            if experiment is None
            else experiment.experiment_id
        )
        tags = {"ray_xml.run": str(self._run), "ray_xml.identity": identity(self._config)}
        made = self._client.create_run(number, run_name=self._run.name, tags=tags)
        params = [Param(key, str(value)[:_LONGEST]) for key, value in flat(self._config).items()]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(made.info.run_id, params=params[first : first + _AT_ONCE])
        self._file.parent.mkdir(exist_ok=True)
        replace_text(self._file, json.dumps({"uri": self._uri, "run_id": made.info.run_id}) + "\n")
        return str(made.info.run_id)
