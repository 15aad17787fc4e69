"""``ray-xml`` as it is, on a machine that seems to have two CPUs: as many threads everywhere make
the same sums everywhere."""

from __future__ import annotations

import os

os.cpu_count = lambda: 2

if __name__ == "__main__":
    from ray_xml.cli import main

    raise SystemExit(main())
