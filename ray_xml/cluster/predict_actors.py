"""The processes that predict: label shards, which hold the labels, and document workers, which ask
them. Both are plain classes until made remote.

Neither holds anything that is not in files, and both load on their first call: so what is wrong
with a model arrives as an answer, and one that Ray started anew needs no telling.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from ray_xml.cluster.label_shards import get
from ray_xml.cluster.session import NAMESPACE
from ray_xml.data_url import open_data
from ray_xml.errors import DataSetError, InputError, LostError
from ray_xml.label_search import Found
from ray_xml.model_place import ModelPlace
from ray_xml.predict_blocks import Documents, blocks
from ray_xml.predict_documents import BLOCK, DocumentSide, Predictions, at_least
from ray_xml.predict_inputs import Part
from ray_xml.predict_parts import PartsFolder
from ray_xml.predict_shard import ModelShard
from ray_xml.predict_table import schema, table
from ray_xml.run_data import metric_sums
from ray_xml.text import Vectorizer
from ray_xml.truth import Truth

_AHEAD = 2  # blocks a worker has under way at each shard


class PredictShard:
    """One range of a model's labels."""

    def __init__(self, place: ModelPlace, number: int, of: int, threads: int) -> None:
        self._place, self._number, self._of = place, number, of
        use_threads(threads)

    @cached_property
    def _shard(self) -> ModelShard:
        return ModelShard(self._place.labels(self._number, self._of))

    def ready(self) -> int:
        """Loads; returns the number of labels held."""
        with _told():
            return len(self._shard.proxies.labels)

    def search(self, embeddings: np.ndarray, k: int, given: np.ndarray) -> Found:
        """As ``ModelShard.search``."""
        with _told():
            return self._shard.search(embeddings, k, given)

    def scores(self, embeddings: np.ndarray, given: np.ndarray) -> Found:
        """As ``ModelShard.scores``."""
        with _told():
            return self._shard.scores(embeddings, given)

    def pid(self) -> int:
        return os.getpid()


class PredictWorker:
    """Takes parts of the input through all label shards.

    Args:
        shards: the shards' names, in label order.
    """

    def __init__(self, place: ModelPlace, shards: list[str], threads: int) -> None:
        self._place = place
        self._shards = [ray.get_actor(name, namespace=NAMESPACE) for name in shards]
        use_threads(threads)

    @cached_property
    def _side(self) -> DocumentSide:
        return DocumentSide(self._place.documents())

    @cached_property
    def _vectorizer(self) -> Vectorizer:
        return self._place.vectorizer(self._side.model.num_features)

    def ready(self) -> int:
        """Loads; returns the number of labels."""
        with _told():
            return self._side.model.num_labels

    def predict(
        self,
        part: Part,
        out: str,
        top: int,
        names: pa.Array | None,
        threshold: float | None = None,
    ) -> int:
        """Writes the predictions of a part; ``threshold`` is the least score of those given.

        Returns:
            peak resident bytes of this process.
        """
        with _told(), PartsFolder(out).part(part.number) as draft:
            self._write(part, draft, top, names, threshold)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _write(
        self, part: Part, draft: Any, top: int, names: pa.Array | None, threshold: float | None
    ) -> None:
        writer: pq.ParquetWriter | None = None
        first = part.start
        vectorizer = self._vectorizer if part.file.texts is not None else None
        given = blocks(part, self._side.model.num_features, BLOCK, vectorizer)
        try:
            for documents, found in self._answers(given, top):
                kept = found if threshold is None else at_least(found, threshold)
                rows = table(kept, first, names, documents.ids)
                first += len(found.labels)
                writer = writer or pq.ParquetWriter(draft, rows.schema)
                writer.write_batch(rows)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            pq.write_table(schema(named=names is not None).empty_table(), draft)

    def measure(self, part: Part, filtered: bool) -> np.ndarray:
        """float64 [blocks, …]: ``MetricSums.as_array`` of each block of a part of a data set;
        ``filtered`` as for ``evaluation.evaluate``.

        Block by block, for sums of floats depend on their order: added up in the input's order they
        are those of one process.
        """
        with _told():
            data = open_data(part.file.place)
            if data.meta.num_labels != self._side.model.num_labels:
                raise DataSetError(
                    f"{data.path} has {data.meta.num_labels:,} labels, the model "
                    f"{self._side.model.num_labels:,}; give the data set that it was trained on"
                )
            empty = metric_sums(data, self._side.model.config.dataset)
            truth = Truth.of(data.split(part.file.split), filtered=filtered)
            top, first = max(empty.ks), part.first
            sums = []
            given = blocks(part, self._side.model.num_features, BLOCK)
            for _, found in self._answers(given, truth.asked(top)):
                own = empty.from_array(np.zeros_like(empty.as_array()))
                theirs = truth.slice(first, first + len(found.labels))
                own.update(theirs.best(*found, top)[0], theirs.labels)
                first += len(found.labels)
                sums.append(own.as_array())
            return np.stack(sums)

    def pid(self) -> int:
        return os.getpid()

    def _answers(
        self, given: Iterable[Documents], top: int
    ) -> Iterator[tuple[Documents, Predictions]]:
        """Each block with its predictions; the next ones are under way meanwhile."""
        under_way: deque[tuple[Documents, Any, list[Any]]] = deque()
        for documents in given:
            question = self._side.ask(documents.features, top)
            embeddings, labels = ray.put(question.embeddings), ray.put(question.given)
            calls = [one.search.remote(embeddings, question.k, labels) for one in self._shards]
            under_way.append((documents, question, calls))
            if len(under_way) >= _AHEAD:
                yield self._answer(*under_way.popleft(), top)
        while under_way:
            yield self._answer(*under_way.popleft(), top)

    def _answer(
        self, documents: Documents, question: Any, calls: list[Any], top: int
    ) -> tuple[Documents, Predictions]:
        found: list[Found] = get(calls)
        return documents, self._side.predict(question, found, top)


def use_threads(threads: int) -> None:
    """So many CPU threads compute in this process."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)


@contextmanager
def _told() -> Iterator[None]:
    """Errors as they can be sent, and told apart where they arrive."""
    try:
        yield
    except InputError as error:  # does not survive being pickled
        raise DataSetError(str(error)) from None
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise LostError(f"on {socket.gethostname()}: {error}") from None
