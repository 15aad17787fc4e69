"""Writing a made data set: from a shape to a prepared data-set folder, block by block.

``synth_shapes`` says what can be asked for and ``synth_model`` what the documents are. Memory is
that of the model and of one block, however many documents there are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from ray_xml.errors import ConfigError
from ray_xml.store_meta import DataSetMeta
from ray_xml.store_write import DataSetWriter
from ray_xml.synth_model import SynthModel
from ray_xml.synth_shapes import Shape

_BLOCK_ENTRIES = 150_000  # a block's arrays stay near the processor: larger ones are slower
SETTINGS = "synth.json"


def synthesise(
    out: str | Path,
    shape: Shape,
    *,
    name: str | None = None,
    overwrite: bool = False,
    block: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> DataSetMeta:
    """Makes a data-set folder with the splits train and test; ``synth.json`` says of what shape.

    Equal shapes, seed included, give equal checksums.

    Args:
        out: the folder to make.
        name: the data set's name; by default that of the folder.
        overwrite: replace a data set that is at ``out``, once the new one is complete.
        block: documents to make at once; None takes about 150,000 labels and features.
        progress: called after each block with the split, its documents done and in all.

    Returns:
        What was written.

    Raises:
        ConfigError: the shape cannot be had.
        DataSetError: ``out`` may not be written.
    """
    mean = shape.labels_per_document + shape.features_per_document
    block = max(1, int(_BLOCK_ENTRIES / mean)) if block is None else block
    if block < 1:
        raise ConfigError(f"block is {block}; it must be 1 or more")
    with DataSetWriter(
        out,
        name=name or Path(out).absolute().name,
        num_features=shape.features,
        num_labels=shape.labels,
        overwrite=overwrite,
    ) as writer:
        writer.write_text_file(SETTINGS, json.dumps(dataclasses.asdict(shape), indent=2) + "\n")
        model = SynthModel(shape)
        for split, total in (("train", shape.documents), ("test", shape.test_documents)):
            with writer.split(split, leave_out_empty=False) as part:
                for start in range(0, total, block):
                    stop = min(start + block, total)
                    part.append(*model.block(split, start, stop))
                    if progress is not None:
                        progress(split, stop, total)
    assert writer.meta is not None
    return writer.meta
