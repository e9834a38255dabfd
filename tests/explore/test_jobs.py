"""The queue of work: its laws, one by one and under threads."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from classlens.errors import ClasslensError
from classlens.explore.jobs import Busy, Job, Jobs
from tests.refusals import refused

SOON = 20.0
"""Seconds that no test waits for, unless it fails."""


class Gate:
    """Work that waits until it is let through."""

    def __init__(self, result: Any = None) -> None:
        self.begun, self.open, self.result = threading.Event(), threading.Event(), result

    def __call__(self) -> Any:
        self.begun.set()
        assert self.open.wait(SOON)
        return self.result


def finished(job: Job) -> Job:
    assert asyncio.run(job.wait(SOON))
    return job


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_work_is_done_in_turn_by_one_thread() -> None:
    jobs, order, threads = Jobs(), [], set()

    def work(number: int) -> int:
        order.append(number)
        threads.add(threading.get_ident())
        return number**2

    submitted = [jobs.submit(number, "counting", lambda number=number: work(number)) for number in range(20)]  # type: ignore[misc]
    assert [finished(job).result for job in submitted] == [number**2 for number in range(20)]
    assert order == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    assert [job.number for job in submitted] == sorted({job.number for job in submitted})
    assert jobs.close(SOON)


def test_places_in_the_queue() -> None:
    jobs, gate = Jobs(), Gate()
    first = jobs.submit("a", "running", gate)
    assert gate.begun.wait(SOON)
    second, third = (jobs.submit(key, "running", lambda: None) for key in "bc")
    assert [job.state for job in (first, second, third)] == ["running", "queued", "queued"]
    assert [jobs.ahead(job) for job in (first, second, third)] == [0, 1, 2]
    assert not asyncio.run(third.wait(0.01))
    gate.open.set()
    finished(third)
    assert [job.state for job in (first, second, third)] == ["done"] * 3
    assert [jobs.ahead(job) for job in (first, second, third)] == [0, 0, 0]
    assert jobs.close(SOON)


def test_one_key_is_one_job_while_it_waits_runs_and_is_kept() -> None:
    jobs, gate = Jobs(), Gate("result")
    calls: list[object] = []
    first = jobs.submit("key", "running", gate)
    assert gate.begun.wait(SOON)
    waits = jobs.submit("later", "running", lambda: calls.append(1))
    assert jobs.submit("key", "other words", lambda: calls.append("never")) is first
    assert jobs.submit("later", "running", lambda: calls.append("never")) is waits
    gate.open.set()
    finished(waits)
    assert jobs.submit("key", "running", lambda: calls.append("never")).result == "result"
    assert calls == [1]
    assert jobs.find(first.number) is first
    assert jobs.find(99) is None
    assert jobs.close(SOON)


def test_failed_work_says_why_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    jobs, problems = Jobs(), [ClasslensError("the photo is gone: open it again"), ZeroDivisionError("by zero"), None]

    def work() -> str:
        problem = problems.pop(0)
        if problem is not None:
            raise problem
        return "result"

    first = finished(jobs.submit("key", "running the model", work))
    assert (first.state, first.error) == ("failed", "the photo is gone: open it again")
    refused(lambda: first.result, "the photo is gone")
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        second = finished(jobs.submit("key", "running the model", work))
    assert second is not first
    assert second.error == "running the model failed (ZeroDivisionError: by zero): the log of the server says more"
    refused(lambda: second.result, "ZeroDivisionError")
    assert "by zero" in caplog.text
    third = finished(jobs.submit("key", "running the model", work))
    assert (third.state, third.error, third.result) == ("done", None, "result")
    assert jobs.close(SOON)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_no_exception_stops_the_worker(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    jobs = Jobs()

    def work() -> None:
        raise error

    assert finished(jobs.submit("bad", "running", work)).state == "failed"
    assert finished(jobs.submit("good", "running", lambda: 1)).result == 1
    assert jobs.close(SOON)


def test_results_asked_for_last_are_kept() -> None:
    jobs = Jobs(kept=3)
    submitted = {key: finished(jobs.submit(key, "running", lambda: None)) for key in "abc"}
    assert jobs.submit("a", "running", lambda: None) is submitted["a"]
    finished(jobs.submit("d", "running", lambda: None))
    finished(jobs.submit("e", "running", lambda: None))
    # Ended results are counted when the next one comes: b and c had been asked for least recently.
    kept = {key for key, job in submitted.items() if jobs.find(job.number) is job}
    assert kept == {"a", "c"}
    finished(jobs.submit("f", "running", lambda: None))
    assert jobs.find(submitted["c"].number) is None
    assert jobs.find(submitted["a"].number) is submitted["a"]
    assert jobs.close(SOON)


def test_work_and_results_that_are_dropped_leave_memory() -> None:
    class Big:
        pass

    jobs, big = Jobs(kept=1), Big()
    held = weakref.ref(big)
    finished(jobs.submit("a", "running", lambda big=big: big))  # type: ignore[misc]
    del big
    for key in "bcd":
        finished(jobs.submit(key, "running", lambda: None))
    gc.collect()
    assert held() is None
    assert jobs.close(SOON)


def test_full_queue_is_refused_and_known_keys_are_not() -> None:
    jobs, gate = Jobs(queue=3), Gate()
    first = jobs.submit(0, "running", gate)
    submitted = [first, *(jobs.submit(key, "running", lambda: None) for key in (1, 2))]
    for key in (3, 4):
        with pytest.raises(Busy, match="3 requests wait for the model"):
            jobs.submit(key, "running", lambda: None)
    assert jobs.submit(2, "running", lambda: None) is submitted[2]
    gate.open.set()
    finished(submitted[2])
    finished(jobs.submit(3, "running", lambda: None))
    assert jobs.close(SOON)


# Requests that leave


def test_queued_work_is_dropped_with_its_last_reader() -> None:
    jobs, gate, calls = Jobs(), Gate(), []

    async def scene() -> None:
        jobs.submit("first", "running", gate)
        await asyncio.to_thread(gate.begun.wait, SOON)
        job = jobs.submit("second", "running", lambda: calls.append(1))
        readers = [asyncio.create_task(job.answer()) for _ in range(2)]
        await asyncio.sleep(0.01)
        for reader, state in zip(readers, ("queued", "failed"), strict=True):
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            assert job.state == state
        assert job.error == "the work was dropped"
        assert jobs.submit("second", "running", lambda: "again") is not job
        gate.open.set()

    asyncio.run(scene())
    assert jobs.submit("second", "running", lambda: None).number == 3
    assert finished(jobs.submit("second", "running", lambda: None)).result == "again"
    assert not calls
    assert jobs.close(SOON)


def test_running_work_ends_though_its_reader_has_left() -> None:
    jobs, gate = Jobs(), Gate("result")

    async def scene() -> Job:
        job = jobs.submit("key", "running", gate)
        reader = asyncio.create_task(job.answer())
        await asyncio.to_thread(gate.begun.wait, SOON)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        gate.open.set()
        return job

    assert finished(asyncio.run(scene())).result == "result"
    assert jobs.close(SOON)


def test_reader_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classlens.explore.jobs._LOOK", 0.01)
    jobs, gate = Jobs(), Gate()
    looks = iter([False, False, True])

    async def gone() -> bool:
        return next(looks)

    async def scene() -> None:
        jobs.submit("first", "running", gate)
        job = jobs.submit("second", "running", lambda: None)
        with pytest.raises(Busy):
            await job.answer(gone)
        assert job.error == "the work was dropped"

    asyncio.run(scene())
    gate.open.set()
    assert jobs.close(SOON)


def test_readers_of_one_job_in_several_loops() -> None:
    jobs, gate = Jobs(), Gate("result")
    job, results = jobs.submit("key", "running", gate), []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(job.answer()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    asyncio.run(job.wait(0.01))  # a loop that ends before the job does
    gate.open.set()
    for thread in threads:
        thread.join(SOON)
    assert results == ["result"] * 8
    assert jobs.close(SOON)


# The end


def test_closing_drops_what_waits_and_lets_what_runs_end() -> None:
    jobs, gate = Jobs(), Gate("result")

    async def scene() -> None:
        first = jobs.submit("first", "running", gate)
        await asyncio.to_thread(gate.begun.wait, SOON)
        second = jobs.submit("second", "running", lambda: None)
        reader = asyncio.create_task(second.answer())
        await asyncio.sleep(0.01)
        assert not jobs.close(0)
        with pytest.raises(Busy, match="dropped before it began"):
            await reader
        with pytest.raises(Busy, match="about to stop"):
            jobs.submit("third", "running", lambda: None)
        assert jobs.submit("first", "running", lambda: None) is first
        gate.open.set()
        assert await first.answer() == "result"

    asyncio.run(scene())
    assert jobs.close(SOON)
    assert jobs.close(SOON)


def test_closing_what_never_ran() -> None:
    assert Jobs().close(SOON)


def test_no_failure_is_logged_as_never_retrieved(caplog: pytest.LogCaptureFixture) -> None:
    jobs, gate = Jobs(), Gate()

    async def scene() -> None:
        def work() -> None:
            gate()
            raise ClasslensError("it failed: try again")

        job = jobs.submit("key", "running", work)
        assert not await job.wait(0.01)
        gate.open.set()
        assert await job.wait(SOON)

    asyncio.run(scene())
    gc.collect()
    assert not caplog.records
    assert jobs.close(SOON)


def test_many_threads() -> None:
    """Work of 8 threads over 20 keys: none is lost, none runs twice at a time."""
    jobs, running, most, done = Jobs(queue=1000), [], [], []

    def work(key: int) -> int:
        running.append(key)
        most.append(len(running))
        running.pop()
        return key

    def submit(seed: int) -> None:
        for step in range(50):
            key = (seed * 7 + step * 3) % 20
            job = jobs.submit(key, "running", partial(work, key))
            jobs.ahead(job)
            assert asyncio.run(job.wait(SOON))
            assert job.state == "done"
            done.append(job.result == key)

    threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert len(done) == 400
    assert all(done)
    assert max(most) == 1
    assert jobs.close(SOON)


class QueueMachine(RuleBasedStateMachine):
    """Jobs against a model in plain lists; gates say which job runs, so that nothing depends on time."""

    @initialize(queue=st.integers(1, 4), kept=st.integers(1, 3))
    def begin(self, queue: int, kept: int) -> None:
        self.jobs, self.queue, self.kept = Jobs(queue=queue, kept=kept), queue, kept
        self.line: list[tuple[int, Job, Gate, bool]] = []
        self.asked: list[int] = []
        """Keys of all jobs, the one asked for last at the end."""
        self.results: dict[int, Job] = {}

    @rule(key=st.integers(0, 6), fails=st.booleans())
    def submit(self, key: int, fails: bool) -> None:
        gate = Gate(key)

        def work() -> int:
            gate()
            if fails:
                raise ClasslensError("failed")
            return key

        waiting = {number: job for number, job, _, _ in self.line}
        known = waiting.get(key) or self.results.get(key)
        if known is not None and known.state != "failed":
            assert self.jobs.submit(key, "", work) is known
            self.ask(key)
        elif len(self.line) >= self.queue:
            with pytest.raises(Busy):
                self.jobs.submit(key, "", work)
        else:
            job = self.jobs.submit(key, "", work)
            assert job is not known
            self.results.pop(key, None)
            self.ask(key)
            self.line.append((key, job, gate, fails))
            for old in [key for key in self.asked if key in self.results][: -self.kept]:
                del self.results[old]

    def ask(self, key: int) -> None:
        self.asked = [*(other for other in self.asked if other != key), key]

    @precondition(lambda self: self.line)
    @rule()
    def finish(self) -> None:
        key, job, gate, fails = self.line.pop(0)
        assert gate.begun.wait(SOON)
        gate.open.set()
        until(job.future.done)
        assert job.state == ("failed" if fails else "done")
        self.results[key] = job

    @precondition(lambda self: len(self.line) > 1)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(1, len(self.line) - 1))
        key, job, _, _ = self.line.pop(place)
        job._drop()
        assert job.state == "failed"
        self.results[key] = job

    @invariant()
    def places(self) -> None:
        if not hasattr(self, "jobs"):
            return
        if self.line:
            assert self.line[0][2].begun.wait(SOON)
            assert self.line[0][1].state == "running"
        for place, (_, job, gate, _) in enumerate(self.line):
            assert self.jobs.ahead(job) == place
            assert self.jobs.find(job.number) is job
            assert gate.begun.is_set() == (place == 0)
        for key, job in self.results.items():
            assert self.jobs.find(job.number) is job, key

    def teardown(self) -> None:
        for _, _, gate, _ in getattr(self, "line", ()):
            gate.open.set()
        if hasattr(self, "jobs"):
            assert self.jobs.close(SOON)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=40, stateful_step_count=20, deadline=None, derandomize=True)
