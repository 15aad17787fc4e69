"""Runs and exported models at a URL.

To train, ``run=URL`` is short for ``resources.storage=URL`` with a run folder in the cache. To use
a model, whatever lies at the URL is fetched into the same folder, which later commands bring up
to date.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ray_xml.data_copy import only_one
from ray_xml.data_url import cache_folder
from ray_xml.errors import ConfigError
from ray_xml.export import ARRAYS, BESIDE, DOCUMENT_NAMES
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_storage import RunStorage
from ray_xml.storage import Storage, is_url
from ray_xml.store import DataSet

_MANIFEST = "manifest.json"
_FILES = {ARRAYS, "config.yaml", *BESIDE, DOCUMENT_NAMES}  # of an exported model, besides


def cached_run(url: str) -> Path:
    """The folder that stands for a URL on this machine."""
    url = url.rstrip("/")
    name = url.rpartition("/")[2] or "run"
    return cache_folder() / "runs" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def with_local_run(config: RunConfig) -> RunConfig:
    """The config with a run folder on a path.

    Raises:
        ConfigError: ``run`` and ``resources.storage`` name two URLs.
    """
    if not is_url(config.run):
        return config
    storage = config.resources.storage
    if storage is not None and storage.rstrip("/") != config.run.rstrip("/"):
        raise ConfigError(
            f"run={config.run} and resources.storage={storage}: a run at a URL has that as its "
            "storage; leave resources.storage out, or give run a folder"
        )
    resources = config.resources.model_copy(update={"storage": config.run})
    return config.model_copy(update={"run": str(cached_run(config.run)), "resources": resources})


def for_any_node(config: RunConfig, data: DataSet) -> RunConfig:
    """The config with paths that do not depend on where the driver was started: workers run
    elsewhere."""
    cache = config.resources.cache and str(Path(config.resources.cache).resolve())
    return config.model_copy(
        update={
            "data": config.data if is_url(config.data) else str(data.path.resolve()),
            "run": str(Path(config.run).resolve()),
            "resources": config.resources.model_copy(update={"cache": cache}),
        }
    )


def check_named(config: RunConfig) -> None:
    """Refuses a config that does not say where the data and the run are.

    Raises:
        ConfigError: with the key that is missing.
    """
    for key, value in (("data", config.data), ("run", config.run)):
        if not value:
            raise ConfigError(f"{key} is not set; add {key}=FOLDER")


def local_run(source: str | Path) -> Path:
    """A run folder or an exported model: ``source`` itself, or a URL's fetched copy.

    Raises:
        StorageError: there is neither at the URL, or it cannot be read.
        CheckpointError: every checkpoint there is damaged.
    """
    if not is_url(str(source)):
        return Path(source)
    folder = cached_run(str(source))
    with only_one(folder.parent, folder.name):
        storage = Storage(str(source))
        if ARRAYS in storage.sizes():
            _fetch_export(storage, folder)
        else:
            RunStorage(str(source)).fetch(RunFolder(folder))
    return folder


def _fetch_export(storage: Storage, folder: Path) -> None:
    """An exported model never changes under its name, but it may be replaced by another."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = storage.read(_MANIFEST)
    held = folder / _MANIFEST
    fresh = held.exists() and held.read_bytes() == manifest
    for name, size in storage.sizes().items():
        target = folder / name
        if name not in _FILES:  # a storage may hold files of any name
            continue
        if not (fresh and target.exists() and target.stat().st_size == size):
            storage.download(name, target)
    storage.download(_MANIFEST, held)
