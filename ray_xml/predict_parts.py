"""A folder of predictions, written part by part, so that whoever was stopped goes on.

    OUT/
        manifest.json            what is predicted, by which model, in which parts; at the end: done
        part-000000.parquet …    a part's documents each, in order

The manifest is written first, a part under another name until it is whole. So a part that is there
is done, and a second start with the same inputs, model and sizes makes the missing ones alone. The
folder may be at a URL.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_xml.disk import replace_text, sync, writing
from ray_xml.errors import ConfigError
from ray_xml.json_text import parse_json
from ray_xml.storage import Storage, is_url

MANIFEST, LOCK = "manifest.json", ".lock"
KIND, FORMAT_VERSION = "ray_xml predictions", 1
_DRAFT = ".part-"


def part_name(number: int) -> str:
    return f"part-{number:06d}.parquet"


class PartsFolder:
    """The folder by its path or URL."""

    def __init__(self, out: str) -> None:
        self.out = out
        self._storage = Storage(out) if is_url(out) else None
        self._path = None if self._storage else Path(out).resolve()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and has it for this process alone; at a URL there is no such lock.

        Raises:
            ConfigError: another process predicts into it, or it is no folder.
        """
        if self._path is None:
            yield
            return
        if self._path.exists() and not self._path.is_dir():
            raise ConfigError(f"{self._path} is a file; choose another folder for predictions")
        with writing(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path / LOCK, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno == errno.EWOULDBLOCK:
                    raise ConfigError(
                        f"{self._path}: another process is predicting into this folder; wait for "
                        "it, or choose another"
                    ) from None
            yield
            (self._path / LOCK).unlink(missing_ok=True)
        finally:
            os.close(lock)

    def begin(self, asked: dict[str, Any], parts: int) -> set[int]:
        """Writes the manifest, or holds what is asked for against the one that is there.

        Args:
            asked: what the predictions depend on, for JSON.

        Returns:
            the numbers of the parts that are done.

        Raises:
            ConfigError: the folder holds other predictions, or something else.
        """
        whole = {"kind": KIND, "format_version": FORMAT_VERSION, "asked": asked, "parts": parts}
        whole = json.loads(json.dumps(whole))
        names = self._names()
        if MANIFEST not in names:
            strange = sorted(name for name in names if name != LOCK)
            if strange:
                raise ConfigError(
                    f"{self.out} holds {strange[0]} but no {MANIFEST}, so it was not made by "
                    "`ray-xml predict`; choose a new folder"
                )
            self._write_manifest(whole)
            return set()
        held = self.manifest()
        for key in ("kind", "format_version", "asked", "parts"):
            changed = _differences(held.get(key), whole[key], key)
            if changed:
                raise ConfigError(
                    f"{self.out} holds predictions of something else ({'; '.join(changed)}); ask "
                    "for the same again to go on with them, or choose a new folder"
                )
        self._remove_drafts(names)
        return {number for number in range(parts) if part_name(number) in names}

    def manifest(self) -> dict[str, Any]:
        """The manifest; ``done`` is in it once all parts are there.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        try:
            if self._storage:
                return dict(parse_json(self._storage.read(MANIFEST)))
            assert self._path is not None
            return dict(parse_json((self._path / MANIFEST).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.out}/{MANIFEST} cannot be read ({error}); choose a new folder"
            ) from error

    @contextmanager
    def part(self, number: int) -> Iterator[Path]:
        """A file to write a part into; it gets its name, and its place, when the block is done.

        Raises:
            DiskError: the disk is full or takes nothing.
        """
        name = part_name(number)
        if self._storage is not None:
            with tempfile.TemporaryDirectory(prefix="ray_xml-part-") as scratch:
                draft = Path(scratch) / name
                with writing(draft):
                    yield draft
                self._storage.put(draft, name)
            return
        assert self._path is not None
        draft = self._path / f"{_DRAFT}{number:06d}.{secrets.token_hex(4)}"
        try:
            with writing(draft):
                yield draft
                sync(draft)
                draft.replace(self._path / name)
        finally:
            draft.unlink(missing_ok=True)

    def finish(self, done: dict[str, Any]) -> None:
        """Notes in the manifest that all parts are there."""
        self._write_manifest({**self.manifest(), "done": done})

    def _names(self) -> set[str]:
        if self._storage is not None:
            return set(self._storage.sizes())
        assert self._path is not None
        return {one.name for one in self._path.iterdir()}

    def _write_manifest(self, tree: dict[str, Any]) -> None:
        text = json.dumps(tree, indent=1)
        if self._storage is None:
            assert self._path is not None
            replace_text(self._path / MANIFEST, text)
            return
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / MANIFEST
            file.write_text(text, encoding="utf-8")
            self._storage.put(file, MANIFEST)

    def _remove_drafts(self, names: set[str]) -> None:
        """What killed processes left; this one alone is at work."""
        if self._path is not None:
            for name in names:
                if re.fullmatch(re.escape(_DRAFT) + r"\d{6}\.[0-9a-f]{8}", name):
                    (self._path / name).unlink(missing_ok=True)


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    """The places, with both values, where two JSON trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            text
            for one in keys
            for text in _differences(old.get(one), new.get(one), f"{key}.{one}" if key else one)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [text for i, (a, b) in pairs for text in _differences(a, b, f"{key}[{i}]")]
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list):
        return [f"{key}: {len(old)} → {len(new)}"]
    return [f"{key or 'manifest'}: {old} → {new}"]
