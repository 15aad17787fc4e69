"""Measures a run's best model, as a Ray job.

    ray job submit --working-dir . -- python jobs/evaluate.py ARGUMENTS

The arguments are those of `ray-xml evaluate`.
"""

import sys

from ray_xml.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
