"""A folder on a file system that pyarrow or fsspec knows: s3://, gs://, file://, hdfs://, memory://."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from ray_xml.errors import RayXmlError, StorageError

_CHUNK = 8 * 2**20  # bytes


class Storage:
    """A folder by its URI; files in it go by paths relative to it, with slashes.

    Credentials and regions are found where pyarrow's or fsspec's file systems look for them.

    Raises:
        StorageError: from every method, with the URI: it cannot be reached, read or written.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with self._told("opened"):
            self._fs, root = file_system(uri)
        self._root = root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Bytes of every file in the folder and below; empty where there is no such folder."""
        with self._told("listed"):
            selector = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
            found = self._fs.get_file_info(selector)
        # fsspec's file systems do not agree whether a path begins with a slash.
        start = len(self._root.strip("/"))
        return {
            info.path.strip("/")[start:].strip("/"): info.size
            for info in found
            if info.type == fs.FileType.File
        }

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        with self._told("read", name), self._fs.open_input_stream(self._path(name)) as file:
            return bytes(file.read())

    def download(self, name: str, target: Path) -> None:
        """Writes a file's content to ``target``, which is seen whole or not at all."""
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with (
                self._told("read", name),
                self._fs.open_input_stream(self._path(name)) as file,
                draft.open("wb") as out,
            ):
                shutil.copyfileobj(file, out, _CHUNK)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)

    def upload(self, source: Path, name: str) -> None:
        """Writes a local file.

        Raises:
            FileNotFoundError: there is no local file, or no more.
        """
        with source.open("rb") as file, self._told("written", name):
            path = self._path(name)
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            with self._fs.open_output_stream(path) as out:
                shutil.copyfileobj(file, out, _CHUNK)

    def put(self, source: Path, name: str) -> None:
        """As ``upload``, but the file is seen whole or not at all, whatever the file system."""
        draft = f"{name}.{secrets.token_hex(4)}.partial"
        self.upload(source, draft)
        with self._told("written", name):
            self._fs.move(self._path(draft), self._path(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a file of any size, in order."""
        with self._told("read", name), self._fs.open_input_stream(self._path(name)) as file:
            while piece := file.read(_CHUNK):
                yield piece

    def delete(self, name: str) -> None:
        """Deletes a file."""
        with self._told("deleted", name):
            self._fs.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, done: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except RayXmlError:
            raise
        except Exception as error:  # fsspec's file systems raise whatever their clients do
            place = f"{self.uri.rstrip('/')}/{name}" if name else self.uri
            raise StorageError(
                f"{place} cannot be {done} ({type(error).__name__}: {error}); check "
                "resources.storage, the network and the credentials"
            ) from error


def is_url(text: str) -> bool:
    """Whether a place that a user named is a URI rather than a path."""
    return "://" in text


def file_system(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path on it.

    Raises:
        StorageError: it is no URI.
        Exception: whatever the file system says.
    """
    if not is_url(uri):
        raise StorageError(
            f"storage {uri!r} is no URI; give one such as s3://bucket/prefix or file:///folder"
        )
    try:
        found, path = fs.FileSystem.from_uri(uri)
        return found, str(path)
    except pa.ArrowInvalid as error:  # a scheme that pyarrow does not know
        try:
            import fsspec
        except ImportError:
            raise error from None
        found, path = fsspec.core.url_to_fs(uri)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), str(path)
