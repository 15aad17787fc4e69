"""Trains, or goes on with a run, as a Ray job.

    ray job submit --working-dir . -- python jobs/train.py ARGUMENTS

The arguments are those of `ray-xml train`.
"""

import sys

from ray_xml.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
