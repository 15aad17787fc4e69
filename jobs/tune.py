"""Searches for better settings, as a Ray job.

    ray job submit --working-dir . -- python jobs/tune.py ARGUMENTS

The arguments are those of `ray-xml tune`.
"""

import sys

from ray_xml.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
