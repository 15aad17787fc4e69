"""Input files at URLs: fetched for as long as a command reads them.

What reads them goes over a file more than once and from several processes, so a copy on this
machine it is, in the cache folder, for which room must be anyway where data sets come from URLs.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_xml.data_url import cache_folder
from ray_xml.errors import InputError
from ray_xml.storage import Storage, is_url


@contextmanager
def files_here(options: Namespace, *, but: str = "out") -> Iterator[Namespace]:
    """A command's options with a path on this machine for every file at a URL, for the block.

    An error that names a copy is raised again with the URL.

    Args:
        but: the option that names an output.

    Raises:
        StorageError: a URL cannot be read.
    """
    urls = sorted({one for key, value in vars(options).items() if key != but for one in _of(value)})
    if not urls:
        yield options
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="input-") as scratch:
        copies = {}
        for number, url in enumerate(urls):
            name = url.rstrip("/").rpartition("/")[2]
            folder = Path(scratch, str(number))
            folder.mkdir()
            Storage(url.rstrip("/").removesuffix(name)).download(name, folder / name)
            copies[url] = str(folder / name)
        given = {
            key: value if key == but else _put(value, copies)
            for key, value in vars(options).items()
        }
        try:
            yield Namespace(**given)
        except InputError as error:
            named = {path: url for url, path in copies.items()}.get(error.file)
            if named is None:
                raise
            raise InputError(named, error.what, line=error.line, column=error.column) from error


def _of(value: object) -> list[str]:
    several = value if isinstance(value, list) else [value]
    return [one for one in several if isinstance(one, str) and is_url(one)]


def _put(value: object, copies: dict[str, str]) -> object:
    if isinstance(value, list):
        return [_put(one, copies) for one in value]
    return copies.get(value, value) if isinstance(value, str) else value
