"""The sparse channel at rest: made once a run, mapped into memory by all who search it.

One file in the run folder (see ``mapped_file``) holds the neighbours' postings and labels and
the counts of the labels' words. The features of a label are counted some labels at a time and go
straight to the file, so that making it needs little more memory than the training documents do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ray_xml.errors import CheckpointError
from ray_xml.exchange import Exchange
from ray_xml.kept_file import KeptFile, link_or_copy
from ray_xml.label_words import LabelWords, block_bytes, count_words, shares
from ray_xml.lexical import Lexical
from ray_xml.mapped_file import ArraysWriter, map_arrays, read_metadata
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.sparse import Csr, Rows, is_finite

_KINDS = {
    "widths": np.int64,
    "offsets": np.int64,
    "ids": np.int32,
    "values": np.float32,
    "scale": np.float32,
    "share": np.float32,
    "weights": np.float32,
    "vectors": np.float16,
}
FORMAT_VERSION = 2  # 1 held documents by rows, and no words


def save_lexical(
    path: Path,
    config: NeighborsConfig,
    features: Csr,
    labels: Csr,
    words: int | None = None,
) -> None:
    """Builds the channel over training documents and writes it.

    Args:
        features: [N, V].
        labels: [N, L].
        words: see ``Neighbors.build``.

    Raises:
        ValueError: ids that are no features or labels, so the data set is damaged.
    """
    neighbors = Neighbors.build(config, features, labels, words)
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


def file_bytes(
    features: int, documents: int, postings: int, words: int, labels: int, pairs: int
) -> int:
    """Bytes of the file, but for its header.

    Args:
        features, documents: V and N.
        postings: stored features of the cut documents.
        words: stored features of the cut labels.
        labels, pairs: L and the (document, label) pairs.
    """
    return 16 * features + 8 * documents + 8 * postings + 4 * pairs + 12 * labels + 8 * words


def build_bytes(documents: int, entries: int, postings: int, pairs: int) -> int:
    """Bytes that ``save_lexical`` takes at most: copies of the documents and their labels, the
    documents cut, by rows and turned, and one block of labels' words with what it is cut from.

    Args: as for ``file_bytes``; ``entries`` are stored features before the cut.
    """
    copies = 8 * entries + 4 * pairs + 16 * documents
    block = block_bytes(documents, postings, pairs)
    # The cut: all parts and what they are stacked to. Afterwards: rows, postings, labels turned.
    return copies + max(2 * 8 * postings, 2 * 8 * postings + 14 * pairs + block)


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
        _check_lengths(named)
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
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); train again") from error


def _check_lengths(named: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays of other types or lengths than ``save_lexical`` writes.

    So everything that is made of the widths' size has its like in the file.
    """
    widths = named["widths"]
    if widths.shape != (2,) or widths.dtype != np.int64:
        raise ValueError(f"widths are {widths.dtype} {list(widths.shape)}")
    features = len(named["postings.offsets"]) - 1
    documents, labels = widths.tolist()
    lengths = {
        "labels.offsets": documents + 1,
        "words.offsets": labels + 1,
        "words.scale": labels,
        "words.share": features,
        "weights": features,
        "vectors": documents * features,
    }
    for name, array in named.items():
        kind = _KINDS.get(name.rpartition(".")[2])
        if array.dtype != kind or len(array) != lengths.get(name, len(array)):
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
        if np.dtype(kind).kind == "f" and not is_finite(array):
            raise ValueError(f"{name} is not finite")


def shared_lexical(
    path: Path,
    config: NeighborsConfig,
    features: Rows,
    labels: Rows,
    exchange: Exchange,
    kept: KeptFile | None = None,
    words: int | None = None,
) -> Lexical:
    """The channel of a run, made by one worker and mapped by all; every worker calls this.

    Args:
        words: see ``Neighbors.build``.
        kept: where its file is looked for, and kept for other runs.
    """
    if exchange.rank == 0:
        if kept is None:
            _make(path, config, features, labels, words)
        else:
            with kept.alone():
                if not kept.good():
                    kept.keep(lambda target: _make(target, config, features, labels, words))
                link_or_copy(kept.path, path)
    exchange.barrier()
    return load_lexical(path, config)


def _make(
    path: Path, config: NeighborsConfig, features: Rows, labels: Rows, words: int | None
) -> None:
    documents = features.num_rows
    save_lexical(path, config, features.slice(0, documents), labels.slice(0, documents), words)
