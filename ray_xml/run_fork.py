"""A new run that goes on from where another one is, with other settings.

It gets all that a run needs to go on, under its own name: the checkpoints, which nobody changes
once they are written, as second names of the same files where the file system has that; losses and
lines of the epochs behind it as copies. What a run makes anew when it starts is not taken along.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ray_xml.checkpoint import epochs_in, folder_of
from ray_xml.checkpoint_check import damage, newest_good
from ray_xml.config import dump_config
from ray_xml.disk import replace_text, sync, writing
from ray_xml.errors import CheckpointError
from ray_xml.kept_file import link_or_copy
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder, tell


def fork(parent: RunFolder, child: RunFolder, config: RunConfig) -> int:
    """Makes the run folder ``child`` with what ``parent`` has, unless it is there: whole or not at
    all.

    Args:
        config: what the new run trains, resolved against its data set. It must not change the
            shapes of what the checkpoints hold.

    Returns:
        the epochs that are done in it.

    Raises:
        CheckpointError: no checkpoint of ``parent`` is whole.
        DiskError: the disk is full.
    """
    if child.config_file.exists():
        return child.epochs_done()
    done, damaged = newest_good(parent.checkpoints)
    if done == 0:
        why = f" ({damage(damaged[0][1])})" if damaged else ""
        raise CheckpointError(
            f"{parent.path}: no checkpoint is whole{why}, so no other run can go on from it; train "
            f"it again (`ray-xml train {parent.config_file}`), and then give the same command"
        )
    for _, error in damaged:
        tell(f"{damage(error)}; {child.path.name} goes on from epoch {done} instead")
    draft = child.path.with_name(f".{child.path.name}.fork")
    shutil.rmtree(draft, ignore_errors=True)  # a killed one's
    with writing(draft):
        draft.mkdir(parents=True)
        # The best one so far stays the best until the new run has a better one.
        for epoch in epochs_in(parent.checkpoints):
            if epoch <= done:
                _link_all(
                    folder_of(parent.checkpoints, epoch), folder_of(draft / "checkpoints", epoch)
                )
        (draft / "losses").mkdir()
        for file in sorted((parent.path / "losses").glob("epoch-*.npy")):
            shutil.copyfile(file, draft / "losses" / file.name)
        lines = [json.dumps(line) + "\n" for line in parent.lines() if line["epoch"] <= done]
        replace_text(draft / child.metrics_file.name, "".join(lines))
        replace_text(draft / child.config_file.name, dump_config(config))
        sync(draft)
        os.replace(draft, child.path)
        sync(child.path.parent)
    return done


def _link_all(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        link_or_copy(file, target / file.name)
    sync(target)
