"""A run folder's second place: what a run needs to go on or to predict, kept on a ``Storage``.

It lies there under the same names as in the run folder. A checkpoint's manifest is written after
its parts and deleted before them, and whoever fetches takes only checkpoints whose manifest names
files that are there with the right sizes. So a reader never sees half a checkpoint, whenever the
writer was stopped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ray_xml import checkpoint
from ray_xml.checkpoint_check import damage, verify
from ray_xml.config import build_config
from ray_xml.errors import CheckpointError, ConfigError, StorageError, VersionError
from ray_xml.json_text import parse_json
from ray_xml.run_config import RunConfig, differences
from ray_xml.run_folder import RunFolder, tell
from ray_xml.storage import Storage
from ray_xml.yaml_text import MOST_BYTES, parse_yaml

_MANIFEST = "manifest.json"
_SMALL = (
    "config.yaml",
    "metrics.jsonl",
    "probability.json",
    "losses/epoch-*.npy",
    "loggers/*.json",
)
# Other runs with the same settings write the same bytes under these names.
_LARGE = ("neighbors.safetensors",)
# What is fetched, by its whole name: each lies where a run folder has it, and nowhere else.
_OURS = re.compile(
    r"config\.yaml|metrics\.jsonl|probability\.json|neighbors\.safetensors|losses/epoch-[0-9]+\.npy"
    r"|loggers/[a-z]+\.json"
    r"|shortlists/cycle-[0-9]+\.i32"
    r"|checkpoints/epoch-[0-9]+/(manifest\.json|[A-Za-z0-9_][A-Za-z0-9_-]*\.safetensors)"
)
_TRIES = 5  # a run that goes on may take away files that are being sent


class RunStorage:
    """A run's files on a storage."""

    def __init__(self, uri: str) -> None:
        self.storage = Storage(uri)
        self._sent: dict[str, tuple[int, int]] = {}  # name → size and mtime when last sent

    # ---- sending -----------------------------------------------------------------------------

    def push(self, folder: RunFolder) -> None:
        """Sends what is new of the run folder and deletes what the folder has no more.

        The run may be going on meanwhile. Small files are sent if they changed, a checkpoint if
        the storage has not the same one.

        Raises:
            StorageError: what was there before is still of use.
        """
        for _ in range(_TRIES):
            try:
                self._push(folder)
                return
            except FileNotFoundError:  # the run has gone on: look again
                continue
        raise StorageError(
            f"{folder.path} changed faster than {self.storage.uri} could take it; "
            "raise training.keep_checkpoints"
        )

    def _push(self, folder: RunFolder) -> None:
        epochs = checkpoint.epochs_in(folder.checkpoints)
        stored = self.storage.sizes()
        small = [name for pattern in _SMALL for name in _names(folder.path, pattern)]
        large = [name for name in _LARGE if (folder.path / name).exists()]
        lists = _shortlists(folder.path, epochs)
        for name in [*small, *large, *lists]:
            source = folder.path / name
            seen = source.stat()
            version = (seen.st_size, seen.st_mtime_ns)
            fixed = name not in small and stored.get(name) == seen.st_size
            if not fixed and (self._sent.get(name) != version or name not in stored):
                self.storage.upload(source, name)
                self._sent[name] = version
        for epoch in epochs:
            self._push_checkpoint(folder.path, epoch, stored)
        gone = [n for n in stored if n.startswith("shortlists/") and n not in lists]
        gone += [n for n in stored if n.startswith("losses/") and n not in small]
        for epoch in _epochs_named(stored):
            if epoch not in epochs and epoch < max(epochs, default=0):
                gone += _checkpoint_files(stored, epoch)
        for name in gone:
            self.storage.delete(name)

    def _push_checkpoint(self, run: Path, epoch: int, stored: Mapping[str, int]) -> None:
        folder = checkpoint.folder_of(run / "checkpoints", epoch)
        prefix = _prefix(epoch)
        manifest = (folder / _MANIFEST).read_bytes()
        if prefix + _MANIFEST in stored and self.storage.read(prefix + _MANIFEST) == manifest:
            return
        for name in _checkpoint_files(stored, epoch):  # half of one, or one of other workers
            self.storage.delete(name)
        for name in sorted(parse_json(manifest)["parts"]):
            self.storage.upload(folder / name, prefix + name)
        self.storage.upload(folder / _MANIFEST, prefix + _MANIFEST)

    def send_probability(self, folder: RunFolder) -> None:
        """Sends what ``calibrate`` left in the run folder.

        Raises:
            StorageError: it cannot be written.
        """
        self.storage.put(folder.probability_file, folder.probability_file.name)

    # ---- fetching ----------------------------------------------------------------------------

    def config(self) -> RunConfig | None:
        """The config of the run that is stored, or None if there is none.

        Raises:
            ConfigError: it is damaged, or of another version of ray_xml.
        """
        size = self.storage.sizes().get("config.yaml")
        if size is None:
            return None
        origin = f"{self.storage.uri.rstrip('/')}/config.yaml"
        if size > MOST_BYTES:
            raise ConfigError(f"{origin}: {size:,} bytes: is this a config file?")
        try:
            tree = parse_yaml(self.storage.read("config.yaml"))
        except ValueError as error:
            raise ConfigError(f"{origin}: not valid YAML: {error}") from error
        return build_config(RunConfig, tree or {}, origin=origin)

    def epochs(self) -> list[int]:
        """Epochs of the checkpoints that are whole, ascending."""
        stored = self.storage.sizes()
        return [epoch for epoch in _epochs_named(stored) if self._whole(stored, epoch)]

    def _whole(self, stored: Mapping[str, int], epoch: int) -> bool:
        prefix = _prefix(epoch)
        if prefix + _MANIFEST not in stored:
            return False
        try:
            parts = checkpoint.part_sizes(parse_json(self.storage.read(prefix + _MANIFEST)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return all(
            checkpoint.is_part(str(name)) and stored.get(prefix + str(name)) == size
            for name, size in parts.items()
        )

    def fetch(self, folder: RunFolder) -> int:
        """Brings the stored run into the run folder; goes on with a fetch that was stopped.

        Returns:
            the number of epochs done by the run that is now in the folder.

        Raises:
            StorageError: nothing is stored, or it cannot be read.
            ConfigError: the folder holds another run, or something else.
            CheckpointError: every checkpoint that is stored is damaged. Where one is good, the
                others are told on stderr and left where they are.
        """
        config = self.config()
        if config is None:
            raise StorageError(f"{self.storage.uri}: no run there (no config.yaml); check the URI")
        if not folder.config_file.exists():
            folder.begin(config)
        self._check_same(folder.config(), config, str(folder.path))
        # A storage may hold files of any name: whatever is none of a run's stays there.
        stored = {n: size for n, size in self.storage.sizes().items() if _OURS.fullmatch(n)}
        begun = ("metrics.jsonl", "probability.json", "losses/", "loggers/")
        small = [name for name in stored if name.startswith(begun)]
        for name in [*small, *_LARGE, *(n for n in stored if n.startswith("shortlists/"))]:
            target = folder.path / name
            same_size = target.exists() and target.stat().st_size == stored.get(name)
            if name in stored and (name in small or not same_size):
                target.parent.mkdir(parents=True, exist_ok=True)
                self.storage.download(name, target)
        damaged: list[CheckpointError] = []
        for epoch in _epochs_named(stored):  # the newest last: until then the fetch is unfinished
            if self._whole(stored, epoch):
                try:
                    self._fetch_checkpoint(folder.checkpoints, epoch, stored)
                except VersionError:
                    raise
                except CheckpointError as error:
                    damaged.append(error)
        done = folder.epochs_done()
        if damaged and not done:
            raise damaged[-1]
        for one in damaged:
            tell(f"{damage(one)}; so it was fetched from {self.storage.uri}, and left out")
        return done

    def _fetch_checkpoint(self, root: Path, epoch: int, stored: Mapping[str, int]) -> None:
        final = checkpoint.folder_of(root, epoch)
        manifest = self.storage.read(_prefix(epoch) + _MANIFEST)
        if final.exists():
            if (final / _MANIFEST).read_bytes() == manifest:
                return
            shutil.rmtree(final)
        draft = checkpoint.begin(root, epoch)
        for name in _checkpoint_files(stored, epoch):
            self.storage.download(name, draft / name.rpartition("/")[2])
        try:
            verify(draft)
        except CheckpointError:
            checkpoint.give_up(root, epoch)
            raise
        draft.rename(final)

    def catch_up(self, folder: RunFolder, config: RunConfig) -> bool:
        """Before a run: fetches a stored run that is further than the one in the folder.

        Returns:
            whether it did.

        Raises:
            ConfigError: the storage holds a run of another config.
        """
        held = self.config()
        if held is None:
            return False
        self._check_same(held, config, self.storage.uri)
        if max(self.epochs(), default=0) <= folder.epochs_done():
            return False
        self.fetch(folder)
        return True

    def _check_same(self, old: RunConfig, new: RunConfig, where: str) -> None:
        changed = differences(old, new)
        if changed:
            raise ConfigError(
                f"{where} holds a run with other settings ({'; '.join(changed)}); set them back "
                "to go on with it, or choose another run folder or resources.storage"
            )


def _names(run: Path, pattern: str) -> list[str]:
    return [path.relative_to(run).as_posix() for path in sorted(run.glob(pattern))]


def _shortlists(run: Path, epochs: Iterable[int]) -> list[str]:
    """Shortlists that an epoch was trained with, and so are written to the end. Those of a cycle
    that has only begun are made anew by whoever goes on with it."""
    newest = max(epochs, default=0)
    return [
        name
        for name in _names(run, "shortlists/cycle-*.i32")
        if int(name.removeprefix("shortlists/cycle-").removesuffix(".i32")) < newest
    ]


def _prefix(epoch: int) -> str:
    return f"checkpoints/{checkpoint.folder_of(Path(), epoch).name}/"


def _epochs_named(stored: Iterable[str]) -> list[int]:
    """Epochs with any file of a checkpoint, ascending."""
    folders = {name.split("/")[1] for name in stored if name.startswith("checkpoints/epoch-")}
    numbers = (name.removeprefix("epoch-") for name in folders)
    return sorted(int(number) for number in numbers if re.fullmatch("[0-9]{1,18}", number))


def _checkpoint_files(stored: Iterable[str], epoch: int) -> list[str]:
    """The files of a checkpoint, its manifest first."""
    found = sorted(name for name in stored if name.startswith(_prefix(epoch)))
    return sorted(found, key=lambda name: not name.endswith(f"/{_MANIFEST}"))
