"""One fuzzing process: atheris, told which modules to watch, over one target."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["ray_xml"]):
    import fuzz_seeds
    import fuzz_targets
    import tiny

from fuzz_watch import Watch


def fuzz(target: str, seconds: float, work: Path) -> None:
    """Fuzzes until the time is up; ends the process."""
    folder = work / target
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    made = tiny.make_artefacts(work / "artefacts")
    for number, seed in enumerate(fuzz_seeds.seeds(target, made)):
        (corpus / f"seed-{number}").write_bytes(seed)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as scratch:
        targets = fuzz_targets.Targets(made, Path(scratch))
        watch = Watch(getattr(targets, target), folder)

        def mutate(data: bytes, max_size: int, seed: int) -> bytes:
            random = Random(seed)
            if random.random() < 0.5:
                return bytes(atheris.Mutate(data, max_size))
            changed = fuzz_seeds.mutated(target, data, random)
            return changed if len(changed) <= max_size else changed[:max_size]

        arguments = [
            sys.argv[0],
            f"-max_total_time={int(seconds)}",
            "-timeout=120",
            "-rss_limit_mb=6000",
            "-max_len=65536",
            "-len_control=0",
            f"-artifact_prefix={folder}/died-",
            str(corpus),
        ]
        atheris.Setup(arguments, watch, custom_mutator=mutate)
        atheris.Fuzz()
