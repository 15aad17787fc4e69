"""Makes a data-set folder, as a Ray job.

    ray job submit --working-dir . -- python jobs/prepare.py ARGUMENTS

The arguments are those of `ray-xml prepare`.
"""

import sys

from ray_xml.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
