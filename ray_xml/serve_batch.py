"""Tagging requests together: those that come while others are computed go as one batch.

One thread computes. Nothing waits for a batch to fill: a request that finds the thread idle is
taken at once, and the more there are, the larger the batches.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ray_xml.errors import LostError
from ray_xml.serve_counts import Counts
from ray_xml.serve_request import RefusedError, Request
from ray_xml.tagger import Tag, Tagger

LOG = logging.getLogger("ray_xml.serve")
BATCH = 128  # texts tagged together at most, unless one request has more
WAITING = 2048  # texts that may wait: beyond, requests are refused
_MOST_TERMS = 10  # that explain a label


@dataclass
class _Job:
    request: Request
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[tuple[bytes, int]]
    answer: tuple[bytes, int] | BaseException = field(default_factory=lambda: (b"", 0))

    def settle(self) -> None:
        """In the loop's thread."""
        if self.future.done():  # whoever asked has gone
            return
        if isinstance(self.answer, BaseException):
            self.future.set_exception(self.answer)
        else:
            self.future.set_result(self.answer)


class Batcher:
    """Answers requests with a tagger, in a thread of its own that ends with ``close``."""

    def __init__(self, tagger: Tagger, counts: Counts) -> None:
        self._tagger, self._counts = tagger, counts
        self._jobs: deque[_Job] = deque()
        self._waiting, self._closed = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tagging", daemon=True)
        self._thread.start()

    async def answer(self, request: Request) -> tuple[bytes, int]:
        """(the answer's JSON, labels in it).

        Raises:
            RefusedError: too many wait already, the labels cannot be reached, or the server ends.
        """
        loop = asyncio.get_running_loop()
        job = _Job(request, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise _unavailable("the server is stopping")
            if self._jobs and self._waiting + len(request.texts) > WAITING:
                raise _unavailable(f"{self._waiting:,} texts are waiting already; try again later")
            self._jobs.append(job)
            self._waiting += len(request.texts)
            self._changed.notify()
        return await job.future

    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread once what waits has been answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    if self._closed:
                        return
                    self._changed.wait()
                jobs = self._take()
            self._do(jobs)
            # One call for all of the same loop: each wakes it up.
            jobs[0].loop.call_soon_threadsafe(_settle, jobs)

    def _take(self) -> list[_Job]:
        """The oldest job and those that can go with it: as many labels asked for, since what is
        searched for depends on it, and no reasons."""
        first = self._jobs.popleft()
        taken, texts, left = [first], len(first.request.texts), deque[_Job]()
        while self._jobs and not first.request.explain:
            job = self._jobs.popleft()
            fits = texts + len(job.request.texts) <= BATCH
            if fits and job.request.top_k == first.request.top_k and not job.request.explain:
                taken.append(job)
                texts += len(job.request.texts)
            else:
                left.append(job)
                if not fits:
                    break
        self._jobs.extendleft(reversed(left))
        self._waiting -= texts
        return taken

    def _do(self, jobs: list[_Job]) -> None:
        try:
            texts = [text for job in jobs for text in job.request.texts]
            self._counts.batch(len(texts))
            tags = iter(self._tagger.tag(texts, jobs[0].request.top_k))
            for job in jobs:
                job.answer = self._told(job.request, [next(tags) for _ in job.request.texts])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].answer = _refusal(error)
                return
            for job in jobs:  # a request must not fail for what another says
                self._do([job])

    def _told(self, request: Request, tags: list[list[Tag]]) -> tuple[bytes, int]:
        documents, count = [], 0
        for text, own in zip(request.texts, tags, strict=True):
            kept = [tag for tag in own if tag.probability >= request.min_probability]
            labels: list[dict[str, Any]] = [tag._asdict() for tag in kept]
            if request.explain and kept:
                numbers = [tag.label for tag in kept]
                reasons = self._tagger.reasons(text, numbers, most=_MOST_TERMS)
                for label, terms in zip(labels, reasons, strict=True):
                    label["terms"] = [term._asdict() for term in terms]
            documents.append({"labels": labels})
            count += len(kept)
        return json.dumps({"documents": documents}, ensure_ascii=False).encode(), count


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


def _refusal(error: Exception) -> Exception:
    if isinstance(error, LostError):
        LOG.error("labels cannot be reached: %s", error)
        return _unavailable("some of the labels cannot be reached; try again later")
    return error


def _unavailable(why: str) -> RefusedError:
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": "1"})
