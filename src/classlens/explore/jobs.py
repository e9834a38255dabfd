"""Work that runs a model: one worker thread takes it in turn, and finished results are kept for a while."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, Literal

from classlens.errors import ClasslensError, cause

_log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed"]


class Busy(ClasslensError):
    """Too much work waits for the model."""


class Job:
    """Work by its key; ``text`` says to a reader what it does, such as ``"running the model"``.

    Several requests may wait for a job. One that no request waits for any more is dropped while it is queued.
    """

    def __init__(self, number: int, text: str, work: Callable[[], Any]) -> None:
        self.number = number
        self.text = text
        self._work = work
        self.future: Future[Any] = Future()
        self.waiting = 0

    @property
    def state(self) -> State:
        if not self.future.done():
            return "running" if self.future.running() else "queued"
        return "failed" if self.future.cancelled() or self.future.exception() is not None else "done"

    @property
    def result(self) -> Any:
        """The result of a job that is done; raises the ClasslensError of one that failed."""
        if self.future.cancelled():
            raise Busy("the work was dropped before it began: ask again")
        return self.future.result()

    @property
    def error(self) -> str | None:
        """Why a job failed."""
        if self.state != "failed":
            return None
        return "the work was dropped" if self.future.cancelled() else str(self.future.exception())

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._work())
        except ClasslensError as error:
            self.future.set_exception(error)
        except Exception as error:
            _log.exception("%s failed", self.text)
            name = type(error).__name__
            self.future.set_exception(
                ClasslensError(f"{self.text} failed ({name}: {cause(error)}): the log of the server says more")
            )

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until the job has ended, so many seconds at most; whether it has."""
        self.waiting += 1
        try:
            with suppress(TimeoutError, asyncio.TimeoutError, ClasslensError):
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self.future)), seconds)
        finally:
            self.waiting -= 1
        return self.future.done()

    async def answer(self) -> Any:
        """The result, once it is there. A queued job is dropped with the last request that waits for it."""
        try:
            await self.wait()
        except asyncio.CancelledError:
            if not self.waiting:
                self.future.cancel()
            raise
        return self.result


class Jobs:
    """The queue of a server.

    Args:
        queue: maximum number of jobs that are queued or running.
        kept: number of results that are kept for later requests.
    """

    def __init__(self, *, queue: int = 32, kept: int = 64) -> None:
        self._queue, self._kept = queue, kept
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._number = 0
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="classlens-model")

    def submit(self, key: Hashable, text: str, work: Callable[[], Any]) -> Job:
        """The job of a key; a new one where there is none, or the last one failed.

        Raises Busy where too many wait already.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.state != "failed":
                self._jobs.move_to_end(key)
                return job
            if len(self._pending()) >= self._queue:
                raise Busy(f"{self._queue} requests wait for the model: try again in a moment")
            self._number += 1
            job = self._jobs[key] = Job(self._number, text, work)
            ended = [key for key, job in self._jobs.items() if job.future.done()]
            for old in ended[: max(0, len(ended) - self._kept)]:
                del self._jobs[old]
            self._worker.submit(job.run)
            return job

    def find(self, number: int) -> Job | None:
        """The job of a number; None for one that is no longer kept."""
        with self._lock:
            return next((job for job in self._jobs.values() if job.number == number), None)

    def ahead(self, job: Job) -> int:
        """Number of jobs that come before."""
        with self._lock:
            return sum(other.number < job.number for other in self._pending())

    def close(self) -> None:
        """Drop what is queued, and wait for what runs."""
        with self._lock:
            for job in self._jobs.values():
                job.future.cancel()
        self._worker.shutdown()

    def _pending(self) -> list[Job]:
        return [job for job in self._jobs.values() if not job.future.done()]
