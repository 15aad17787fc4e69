"""Reading .xz files in bounded memory.

The header of an .xz file says how much memory unpacking it takes, up to 4 GiB, and ``lzma.open``
takes its word. Here more than ``xz -9`` asks for several times over is refused.
"""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from typing import BinaryIO, cast

MEMORY = 512 << 20  # bytes; xz -9 takes 65 MiB
_PIECE = 1 << 16  # packed bytes read at a time


def open_xz(path: str | Path, mode: str = "rb") -> BinaryIO:
    """The unpacked bytes of an .xz (or .lzma) file; of all its streams, one after another.

    Raises:
        OSError: it cannot be opened.
        lzma.LZMAError: from reading: it is damaged, or takes too much memory.
        EOFError: from reading: it is cut short.
    """
    assert mode == "rb"
    return cast(BinaryIO, io.BufferedReader(_Unpacked(open(path, "rb"))))


class _Unpacked(io.RawIOBase):
    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._held = b""  # packed bytes that no stream has taken yet
        self._stream: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._stream is None and not self._next_stream():
                return 0
            assert self._stream is not None
            if self._stream.needs_input and not self._held:
                self._held = self._packed.read(_PIECE)
                if not self._held:
                    raise EOFError("it ends before its end mark")
            piece = self._stream.decompress(self._held, len(into))
            self._held = b""
            if self._stream.eof:
                self._held, self._stream = self._stream.unused_data, None
            if piece:
                into[: len(piece)] = piece
                return len(piece)

    def _next_stream(self) -> bool:
        """Begins the next stream; False where there is none."""
        while not self._held.strip(b"\0"):  # streams may be padded with zeros
            self._held = self._packed.read(_PIECE)
            if not self._held:
                return False
        self._held = self._held.lstrip(b"\0")
        self._stream = lzma.LZMADecompressor(memlimit=MEMORY)
        return True

    def close(self) -> None:
        self._packed.close()
        super().close()
