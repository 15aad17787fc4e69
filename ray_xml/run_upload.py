"""Keeps a run's storage up with its run folder while the run is going on.

What is new is sent after each epoch; training does not wait for it. What fails is told and tried
again after the next epoch, and once more at the end.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ray_xml.errors import StorageError
from ray_xml.follow import Listener
from ray_xml.run_folder import RunFolder
from ray_xml.run_storage import RunStorage


class Uploader(Listener):
    """Sends after each epoch that a ``Follower`` tells of. On leaving the ``with`` block, which
    goes around the follower's, everything has been sent.

    Args:
        storage: where to; None sends nothing.

    Raises:
        StorageError: on leaving, if the last attempt failed and nothing else did. The run folder
            is whole.
    """

    name = "the storage"
    patience = None

    def __init__(self, folder: RunFolder, storage: RunStorage | None, out: Any = None) -> None:
        self._folder, self._storage = folder, storage
        self._out = out or sys.stderr

    def __enter__(self) -> Uploader:
        if self._storage is not None:
            self._storage.push(self._folder)  # fails now rather than after the first epoch
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._storage is None:
            return
        try:
            self._storage.push(self._folder)
        except StorageError as failed:
            said = (
                f"{failed}. Nothing is lost: the run is whole in {self._folder.path}, and the "
                "same command sends it again"
            )
            if kind is None:
                raise StorageError(said) from failed
            print(said, file=self._out, flush=True)

    def epoch(self, line: dict[str, Any]) -> None:
        if self._storage is None:
            return
        try:
            self._storage.push(self._folder)
        except StorageError as failed:
            said = f"{failed}. Training goes on; the next epoch's upload tries again"
            print(said, file=self._out, flush=True)
