"""Mapping an .npy file, trusting nothing: no pickle, and no shape that the file does not hold."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np


def map_npy(path: str | Path) -> np.ndarray:
    """A read-only view of the file's array; nothing is read yet.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no .npy file, holds Python objects, or is cut short.
    """
    try:
        with np.errstate(over="ignore"):  # a shape whose size overflows is refused further on
            # Unlike np.load this opens nothing but an .npy file, and none that needs pickle.
            return np.lib.format.open_memmap(path, mode="r")
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError) as error:
        raise ValueError(f"its header cannot be read ({error})") from error
    except (SyntaxError, TypeError, TokenError) as error:  # the header is a Python literal
        raise ValueError(f"its header is no table ({error})") from error
