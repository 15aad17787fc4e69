"""Memory that is free goes back, though something that lives lies above it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os
from ray_xml.heap import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

blocks = [bytearray(b"x" * 65536) for _ in range(3000)]
last = blocks[-1]
before = resident()
del blocks
kept = resident()
can = give_back()
print(can, before - kept, before - resident())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_free_pages_below_a_living_block_go_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=os.environ
    )
    can, without, with_it = done.stdout.split()
    if can == "False":
        pytest.skip("this C library has no malloc_trim")
    assert float(without) < 50
    assert float(with_it) > 150
