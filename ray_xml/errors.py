"""The exceptions a user can meet.

    RayXmlError
    ├── ConfigError       a config key or value is wrong
    ├── InputError        a file a user handed over is wrong (carries file, line, column)
    ├── DataSetError      a prepared data-set folder is missing, damaged or not the one expected
    ├── CheckpointError   a run folder or checkpoint is missing, damaged or does not match
    │   └── VersionError      it is whole, but of another version of ray_xml
    ├── ExportError       a model holds numbers that the wanted export cannot
    ├── TrainingError     training met a state it must not go on from, such as a NaN loss
    │   └── LostError     a process or node of the run is gone; starting again may help
    │       └── StaleError    a label range is not where its caller believes it to be
    ├── DiskError         the disk of a run folder is full or takes nothing; what it holds is whole
    ├── StorageError      a run's storage cannot be reached, read or written
    └── ResourceError     the machine or cluster cannot hold what was asked for

Every message says what is wrong, where, and what to do about it. A fault of ray_xml itself is a
plain ``AssertionError``: it is ours, not the user's.
"""

from __future__ import annotations

from typing import Any


class RayXmlError(Exception):
    """Base of every error that the command line prints without a traceback."""


class ConfigError(RayXmlError):
    """A config file, key or value is wrong."""


class InputError(RayXmlError):
    """A line of a user's file is wrong.

    ``line`` and ``column`` count from 1; either may be None where the file as a whole is meant.
    """

    def __init__(
        self, file: str, what: str, *, line: int | None = None, column: int | None = None
    ) -> None:
        self.file, self.line, self.column, self.what = file, line, column, what
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{place}: {what}")

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made anew from its message, which is not what this one takes: a process
        # that reads for another could not hand it over.
        return _input_error, (self.file, self.what, self.line, self.column)


def _input_error(file: str, what: str, line: int | None, column: int | None) -> InputError:
    return InputError(file, what, line=line, column=column)


class DataSetError(RayXmlError):
    """A prepared data-set folder is missing, damaged or not the one expected."""


class CheckpointError(RayXmlError):
    """A run folder or checkpoint is missing, damaged or does not match the run."""


class VersionError(CheckpointError):
    """A checkpoint of another version of ray_xml, which is not damaged for that."""


class ExportError(RayXmlError):
    """A model holds numbers that the wanted export cannot."""


class TrainingError(RayXmlError):
    """Training met a state it must not go on from."""


class LostError(TrainingError):
    """A process or a node of the run is gone: what was stored is good, and a new start may help."""


class StaleError(LostError):
    """A label range holds another cycle, or other files, than its caller counts on."""


class DiskError(RayXmlError):
    """A run folder's disk is full or takes nothing: trying again is of no use until that changes.

    What the run folder holds is whole.
    """


class StorageError(RayXmlError):
    """A run's storage cannot be reached, read or written, or holds no run."""


class ResourceError(RayXmlError):
    """The machine or the cluster cannot hold what was asked for."""
