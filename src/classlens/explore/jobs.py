"""Work that runs a model: one worker thread takes it in turn, and finished results are kept for a while."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Literal

from classlens.errors import ClasslensError, cause

_log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed"]
_LOOK = 0.5
"""Seconds after which a request that waits looks whether its reader is still there."""


class Busy(ClasslensError):
    """Too much work waits for the model."""


class Job:
    """Work by its key; ``text`` says to a reader what it does, such as ``"running the model"``.

    Several requests may wait for a job. One that no request waits for any more is dropped while it is queued.
    """

    def __init__(self, number: int, text: str, work: Callable[[], Any]) -> None:
        self.number = number
        self.text = text
        self._work: Callable[[], Any] | None = work
        self.future: Future[Any] = Future()
        self.waiting = 0

    @property
    def state(self) -> State:
        # In the order in which a job goes through them backward, since it may go on between two of the questions.
        if self.future.running():
            return "running"
        if not self.future.done():
            return "queued"
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
        # The photos that work holds are gone with it.
        work, self._work = self._work, None
        if work is None or not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(work())
        except ClasslensError as error:
            self.future.set_exception(error)
        except BaseException as error:  # also SystemExit: a job without an end would hold its place forever
            _log.exception("%s failed", self.text)
            name = type(error).__name__
            self.future.set_exception(
                ClasslensError(f"{self.text} failed ({name}: {cause(error)}): the log of the server says more")
            )

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until the job has ended, so many seconds at most; whether it has."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def tell(future: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(ended.set)

        self.waiting += 1
        try:
            self.future.add_done_callback(tell)
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), seconds)
        finally:
            self.waiting -= 1
        return self.future.done()

    async def answer(self, gone: Callable[[], Awaitable[bool]] | None = None) -> Any:
        """The result, once it is there. A queued job is dropped with the last request that waits for it.

        ``gone`` says whether the reader has left, such as ``request.is_disconnected``.
        """
        try:
            while not await self.wait(None if gone is None else _LOOK):
                if gone is not None and await gone():
                    self._drop()
                    raise Busy("the reader of this answer has left: ask again")
        except asyncio.CancelledError:
            self._drop()
            raise
        return self.result

    def _drop(self) -> None:
        if not self.waiting:
            self.future.cancel()


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
        self._closed = False
        self._turns: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon, unlike the threads of an executor: the end of the program does not wait for a model.
        self._worker = Thread(target=self._work, name="classlens-model", daemon=True)

    def submit(self, key: Hashable, text: str, work: Callable[[], Any]) -> Job:
        """The job of a key; a new one where there is none, or the last one failed.

        Raises Busy where too many wait already.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.state != "failed":
                self._jobs.move_to_end(key)
                return job
            if self._closed:
                raise Busy("the server is about to stop: start it again")
            if len(self._pending()) >= self._queue:
                raise Busy(f"{self._queue} requests wait for the model: try again in a moment")
            self._number += 1
            job = self._jobs[key] = Job(self._number, text, work)
            self._jobs.move_to_end(key)
            ended = [key for key, job in self._jobs.items() if job.future.done()]
            for old in ended[: max(0, len(ended) - self._kept)]:
                del self._jobs[old]
            if self._worker.ident is None:
                self._worker.start()
            self._turns.put(job)
            return job

    def find(self, number: int) -> Job | None:
        """The job of a number; None for one that is no longer kept."""
        with self._lock:
            return next((job for job in self._jobs.values() if job.number == number), None)

    def ahead(self, job: Job) -> int:
        """Number of jobs that come before."""
        with self._lock:
            return sum(other.number < job.number for other in self._pending())

    def close(self, seconds: float | None = None) -> bool:
        """Drop what is queued, and wait for what runs, so many seconds at most; whether nothing runs any more."""
        with self._lock:
            self._closed = True
            for job in self._jobs.values():
                job.future.cancel()
        self._turns.put(None)
        if self._worker.ident is not None:
            self._worker.join(seconds)
        return not self._worker.is_alive()

    def _work(self) -> None:
        while (job := self._turns.get()) is not None:
            job.run()
            del job  # its result is not held while the next one is waited for

    def _pending(self) -> list[Job]:
        return [job for job in self._jobs.values() if not job.future.done()]
