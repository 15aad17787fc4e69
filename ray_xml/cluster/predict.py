"""Prediction and evaluation on Ray, of any number of documents: the driver hands out parts of the
input and gathers counts.

    input, part by part → document workers ⇄ label shards → a Parquet file a part

Whatever dies, what is written stays: a shard or worker that Ray starts anew reads its share of the
model again and its part is done again; a lost node costs the parts that were under way; and where
the driver died, the same command makes the parts that are missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from ray_xml.cluster.placement import cluster_nodes
from ray_xml.cluster.predict_crew import done_by_crews, sized
from ray_xml.cluster.session import session
from ray_xml.data_url import open_data
from ray_xml.errors import ConfigError
from ray_xml.evaluation import labelled
from ray_xml.model_place import ModelPlace
from ray_xml.predict_documents import BLOCK
from ray_xml.predict_inputs import Part, Texts, cut, find_inputs, find_texts
from ray_xml.predict_parts import PartsFolder
from ray_xml.run_data import metric_sums
from ray_xml.run_sections import ResourcesConfig

PART = 50 * BLOCK  # documents of a part
_TELL_SECONDS = 10.0


@dataclass(frozen=True)
class Crews:
    """What prediction takes of a cluster.

    Attributes:
        workers, label_shards: None is one a node, and as many shards as workers.
        address: as ``resources.address``.
    """

    workers: int | None = None
    label_shards: int | None = None
    address: str | None = None

    def resources(self) -> ResourcesConfig:
        """Before the cluster is known."""
        return ResourcesConfig(
            workers=self.workers or 1, label_shards=self.label_shards or 1, address=self.address
        )

    def on_cluster(self) -> ResourcesConfig:
        """Once it has been joined."""
        workers, shards = sized(cluster_nodes(), self.workers, self.label_shards)
        return self.resources().model_copy(update={"workers": workers, "label_shards": shards})


@dataclass(frozen=True)
class Written:
    """What came of a prediction.

    Attributes:
        documents, parts: in the folder.
        made: documents predicted by this call, ``seconds`` the time that it took them, without
            the start of processes.
        memory: bytes that the largest worker so far has held at most, after each part.
    """

    documents: int
    parts: int
    made: int
    seconds: float
    memory: list[int]

    @property
    def rate(self) -> float:
        """Documents a second."""
        return self.made / self.seconds if self.seconds > 0 else 0.0


def predict(
    model: str,
    source: str,
    out: str,
    *,
    split: str = "test",
    texts: Texts | None = None,
    top: int = 5,
    precision: float | None = None,
    part_size: int = PART,
    names: list[str] | None = None,
    crews: Crews = Crews(),
) -> Written:
    """Predicts every document of ``source`` into the folder ``out``; goes on where it stopped.

    Args:
        model: run folder or exported model, or the URL of one.
        source, split: see ``predict_inputs``.
        texts: how documents are read that are texts, not features.
        precision: give only labels with a score from which that precision holds, see
            ``Probability.threshold``.
        out: a folder or URL, see ``predict_parts``.
        part_size: documents of a part; a multiple of 1,024, since these go through at a time.
        names: of all labels, to be written beside their numbers.

    Raises:
        ConfigError: the folder holds other predictions, or a number is wrong.
        InputError, DataSetError, CheckpointError, StorageError: input or model cannot be read.
        ResourceError: the cluster does not hold it.
    """
    if part_size % BLOCK:
        raise ConfigError(f"--part-size {part_size}: it must be a multiple of {BLOCK:,}")
    files = find_inputs(source, split) if texts is None else find_texts(source, texts)
    place, folder = ModelPlace.find(model), PartsFolder(out)
    threshold = None if precision is None else place.probability().threshold(precision)
    parts = cut(files, part_size)
    asked = {
        "inputs": [file.told() for file in files],
        "model": {"epoch": place.epoch, "checksum": place.checksum},
        "top_k": top,
        "part_size": part_size,
        "names": names is not None,
    }
    if threshold is not None:
        asked["threshold"] = threshold
    total = sum(file.rows for file in files)
    with folder.held():
        done = folder.begin(asked, len(parts))
        left = [part for part in parts if part.number not in done]
        if done:
            print(f"{out}: {len(done)} of {len(parts)} parts are done already", file=sys.stderr)
        made, memory, seconds = 0, [0], 0.0
        if left:
            table = None if names is None else pa.array(names, pa.string())
            clock = _Clock()
            with session(crews.resources()) as where:
                given = ray.put(table)

                def begin(worker: Any, part: Part) -> Any:
                    clock.start()
                    return worker.predict.remote(part, str(_absolute(out)), top, given, threshold)

                settings = crews.on_cluster()
                for part, held in done_by_crews(place, settings, where, left, begin):
                    made += part.rows
                    memory.append(max(memory[-1], held))
                    clock.tell(total - sum(p.rows for p in left) + made, total, made)
                seconds = clock.seconds()
        written = Written(total, len(parts), made, seconds, memory[1:])
        if left or "done" not in folder.manifest():
            told = {"documents": made, "seconds": seconds, "docs_per_second": written.rate}
            folder.finish({"documents": total, "last_call": told})
    return written


def evaluate(
    model: str,
    source: str,
    split: str,
    *,
    filtered: bool = True,
    crews: Crews = Crews(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """``evaluation.evaluate`` on Ray: the same numbers, to the last bit.

    Raises:
        DataSetError: no such split, one without labels, or of other widths than the model's.
        CheckpointError, StorageError, ResourceError: as ``predict``.
    """
    data = open_data(source)
    documents = labelled(data, split)
    place = ModelPlace.find(model)
    sums = metric_sums(data, place.config().dataset)
    parts = cut(find_inputs(str(_absolute(source)), split), PART)
    found: dict[int, np.ndarray] = {}
    with session(crews.resources()) as where:
        settings = crews.on_cluster()
        # Small sets, too, are to be shared out.
        each = -(-documents.num_documents // settings.workers // BLOCK) * BLOCK
        if each < PART:
            parts = cut([parts[0].file], max(each, BLOCK))
        done = 0

        def begin(worker: Any, part: Part) -> Any:
            return worker.measure.remote(part, filtered)

        for part, blocks in done_by_crews(place, settings, where, parts, begin):
            found[part.number] = blocks
            done += part.rows
            progress(done, documents.num_documents)
    for number in sorted(found):
        for block in found[number]:
            sums.merge(sums.from_array(block))
    return sums.result()


def _absolute(place: str) -> str | Path:
    """Workers run elsewhere: paths must not depend on where the driver was started."""
    return place if "://" in place else Path(place).resolve()


class _Clock:
    """Times what is predicted, and tells of it now and then."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._told = 0.0

    def start(self) -> None:
        """Begins with the first call."""
        if self._begun is None:
            self._begun = self._told = time.monotonic()

    def seconds(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def tell(self, done: int, total: int, made: int) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_SECONDS or done == total:
            self._told = now
            rate = made / max(self.seconds(), 1e-9)
            print(
                f"{done:,} of {total:,} documents, {rate:,.0f} docs/s", file=sys.stderr, flush=True
            )
