"""The sparse channel at rest: made once a run, mapped into memory by all who search it.

One file in the run folder (see ``mapped_file``) holds the neighbours' postings and labels and
the counts of the labels' words. The features of a label are counted some labels at a time and go
straight to the file, so that making it needs little more memory than the training documents do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ray_xml.errors import CheckpointError
from ray_xml.label_words import LabelWords, count_words, shares
from ray_xml.lexical import Lexical
from ray_xml.mapped_file import ArraysWriter, map_arrays, read_metadata
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.sparse import Csr

FORMAT_VERSION = 2  # 1 held documents by rows, and no words


def save_lexical(path: Path, config: NeighborsConfig, features: Csr, labels: Csr) -> None:
    """Builds the channel over training documents and writes it.

    Args:
        features: [N, V].
        labels: [N, L].

    Raises:
        ValueError: ids that are no features or labels, so the data set is damaged.
    """
    neighbors = Neighbors.build(config, features, labels)
    with ArraysWriter(path, {"format_version": str(FORMAT_VERSION)}) as out:
        for name, array in neighbors.tensors().items():
            out.append(name, array)
        documents = neighbors.documents
        out.append("words.share", shares(documents))
        out.append("words.offsets", np.zeros(1, np.int64))
        total = 0
        for counts, scale in count_words(documents, labels, config.label_terms):
            out.append("words.offsets", counts.offsets[1:] + total)
            out.append("words.ids", counts.ids)
            assert counts.values is not None
            out.append("words.values", counts.values)
            out.append("words.scale", scale)
            total += counts.nnz


def load_lexical(path: Path, config: NeighborsConfig) -> Lexical:
    """The channel that ``save_lexical`` wrote, over memory-mapped arrays.

    Raises:
        CheckpointError: missing, damaged, or of another version.
    """
    try:
        version = read_metadata(path).get("format_version", "1")
        if version != str(FORMAT_VERSION):
            raise CheckpointError(
                f"{path}: format version {version}, this ray_xml reads {FORMAT_VERSION}; "
                "use the version of ray_xml that wrote it, or train again"
            )
        named = map_arrays(path)
        neighbors = Neighbors.from_tensors(config, named)
        counts = Csr(
            named["words.offsets"],
            named["words.ids"],
            named["words.values"],
            neighbors.num_features,
        )
        words = LabelWords(counts, named["words.scale"], named["words.share"])
        return Lexical(neighbors, words)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, though every run writes it; train again") from None
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); train again") from error
