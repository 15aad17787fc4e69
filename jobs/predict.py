"""Predicts labels for documents, as a Ray job.

    ray job submit --working-dir . -- python jobs/predict.py ARGUMENTS

The arguments are those of `ray-xml predict`.
"""

import sys

from ray_xml.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
