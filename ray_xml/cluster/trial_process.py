"""A trial's training in a process, and so a Ray job, of its own.

Ray frees what a job has reserved when its process ends, however it ends; within one job the
placement group of a training that was stopped would stay until the whole search ends. So ending
this process frees all that a trial held, its label shards and workers too, and what Ray Tune
reserved for the search does not reach into it.

    python -m ray_xml.cluster.trial_process

reads a JSON object from standard input: ``config``, a RunConfig, ``address`` of the cluster and
``runtime_env`` of the search's job. When its standard input ends, its parent is gone, and it ends.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from ray_xml.cluster.session import NAMESPACE, set_environment
from ray_xml.cluster.trainer import train
from ray_xml.config import build_config
from ray_xml.errors import RayXmlError, TrainingError
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import wait_for_workers

_END_SECONDS = 60.0  # that workers have to end after the process that started them
_ORPHAN = 3  # exit status
_PARENTS = ("RAY_JOB_ID", "OMP_NUM_THREADS")  # variables


class TrialProcess:
    """The process, as its parent sees it.

    Args:
        log: file for what it says.
    """

    def __init__(self, config: RunConfig, log: Path) -> None:
        self._config, self._log = config, log
        context = ray.get_runtime_context()
        told = {
            "config": config.model_dump(mode="json"),
            "address": context.gcs_address,
            "runtime_env": json.loads(json.dumps(dict(context.runtime_env))),
        }
        # Ray tells an actor's process what it is by variables that are not the child's.
        environment = {name: v for name, v in os.environ.items() if name not in _PARENTS}
        with open(log, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray_xml.cluster.trial_process"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=environment,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()

    def status(self) -> int | None:
        """Its exit status, or None while it is running."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line that it said, which is why it ended."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word"

    def end(self) -> None:
        """Ends it, and waits until no worker of its run is left."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        with suppress(TrainingError):
            wait_for_workers(RunFolder(self._config.run).path, _END_SECONDS, lambda _: None)


def _end_with_parent() -> None:
    # Not sys.stdin.read: its lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(_ORPHAN)


def main() -> int:
    told: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    set_environment()
    environment = dict(told["runtime_env"])
    # Ray's own helpers look for their cluster by it where a machine runs several.
    environment["env_vars"] = {**environment.get("env_vars", {}), "RAY_ADDRESS": told["address"]}
    ray.init(
        address=told["address"],
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env=environment,
    )
    try:
        train(build_config(RunConfig, told["config"], origin="trial"))
    except RayXmlError as error:
        print(f"error: {error}".replace("\n", " "), file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
