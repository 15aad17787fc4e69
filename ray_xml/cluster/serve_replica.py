"""A server's process: a Ray Serve replica that listens for HTTP itself.

Ray Serve starts as many as asked for, watches over them and starts anew what dies. Its own HTTP
proxy is left out: a request would go through two more processes (docs/serving.md has what that
costs). Instead all replicas listen at one port of their machine, and the kernel shares out the
connections.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ray_xml.cluster.predict_actors import use_threads
from ray_xml.cluster.predict_shards import ShardedLabels
from ray_xml.errors import DataSetError, LostError, RayXmlError, ResourceError
from ray_xml.model import Model
from ray_xml.model_place import ModelPlace
from ray_xml.predictor import Predictor
from ray_xml.run_url import local_run
from ray_xml.serve_app import App
from ray_xml.serve_batch import Batcher
from ray_xml.serve_counts import Counts
from ray_xml.serve_http import LAST_SECONDS, http_server
from ray_xml.serve_socket import listen
from ray_xml.tagger import Tagger

_ANSWER_SECONDS, _CHECK_SECONDS = (
    60.0,
    2.0,
)  # for label shards to search; to say that they are there
_START_SECONDS = 30.0  # for listening to begin
# Threads change places this often at most. Python's 5 ms would have the one that reads requests
# wait for the one that computes.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Part:
    """What a replica needs.

    Attributes:
        place: the model.
        shards: names of the label shards, in label order; none where it holds all labels.
        host, port: reserved by the driver.
        counts: the folder of the server's counters.
    """

    place: ModelPlace
    shards: tuple[str, ...]
    host: str
    port: int
    counts: str


class Replica:
    """One process of a server; plain until it is deployed."""

    def __init__(self, part: Part) -> None:
        self._wrong: RayXmlError | None = None
        self._server: _Server | None = None
        try:
            self._server = _Server(part)
        except RayXmlError as error:
            # Said when asked for: out of a constructor it would come as Ray's text of a traceback.
            self._wrong = error

    def wrong(self) -> RayXmlError | None:
        """Why it does not serve, if it does not."""
        return self._wrong

    def check_health(self) -> None:
        """Ray Serve replaces a replica that raises here."""
        if self._server is not None and not self._server.alive():
            raise RuntimeError("the server's threads have ended")

    def __del__(self) -> None:  # how Ray Serve says that a replica is to end
        if self._server is not None:
            self._server.close()
            self._server = None


class _Server:
    """uvicorn in a thread, with an event loop of its own."""

    def __init__(self, part: Part) -> None:
        use_threads(1)  # more texts at a time take more replicas
        sys.setswitchinterval(_SWITCH_SECONDS)
        labels = ShardedLabels(part.shards, _ANSWER_SECONDS) if part.shards else None
        tagger = _tagger(part.place, labels)
        _ = tagger.vectorizer, tagger.names  # loads them, and says what is wrong with them
        if tagger.vectorizer.embedding is not None:
            raise DataSetError(
                "the model was trained with embeddings, which requests cannot bring: use `ray-xml "
                "predict --embeddings`, or serve a model of words"
            )
        tagger.tag(["a text, to warm up"])
        counts = Counts(Path(part.counts))
        self._batcher = Batcher(tagger, counts)

        async def healthy() -> str | None:
            try:
                if labels is not None:
                    await asyncio.to_thread(labels.check, _CHECK_SECONDS)
            except LostError:
                return "some of the labels cannot be reached"
            return None

        app = App(self._batcher, counts, _about(tagger), healthy=healthy)
        self._uvicorn = http_server(app)
        self._socket = listen(part.host, part.port)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([self._socket],), name="http", daemon=True
        )
        gc.collect()
        gc.freeze()  # what a model is made of stays: no need to look through it again and again
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._uvicorn.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ResourceError("the HTTP server does not start; its log says why")
            time.sleep(0.01)

    def alive(self) -> bool:
        return self._thread.is_alive() and self._batcher.alive()

    def close(self) -> None:
        """Answers what is under way, then ends."""
        self._uvicorn.should_exit = True
        self._thread.join(2 * LAST_SECONDS)
        self._batcher.close()


def _tagger(place: ModelPlace, labels: ShardedLabels | None) -> Tagger:
    folder = local_run(place.source)
    if labels is None:
        return Predictor(Model.of(place.documents(), place.labels(0, 1)), folder)
    return Tagger(place.documents(), labels, folder)


def _about(tagger: Tagger) -> str:
    name = tagger.config.dataset.name
    return f"{tagger.num_labels:,} labels" + (f" of {name}" if name else "")
