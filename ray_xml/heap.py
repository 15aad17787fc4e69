"""Giving freed memory back to the system.

The C library keeps what is freed below something that still lives. So a process whose steps make
and drop blocks of tens of megabytes, beside a thread that makes the next batch, grows far beyond
what it holds at any moment: by 8 MB a step, measured over an epoch with 18,000 candidates.
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> bool:
    """Returns all free pages of the heap; whether the C library can (glibc's ``malloc_trim``).

    Milliseconds, and pages that are used again have to be fetched again: for every so many steps.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
