"""The thread that the models live in: it runs the scheduler, the event loop is free meanwhile.

What a step ends goes back to the event loop in one call, so that a burst of results wakes it up once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Generic

from harness.serving.decoding.job import Completion, Job, Piece
from harness.serving.decoding.spelling import Spell
from harness.serving.models.seam import Model, P
from harness.serving.prefixes import PrefixCache
from harness.serving.scheduler import Cancelled, Counts, Scheduler, Task

logger = logging.getLogger(__name__)

_AT_ONCE = 500
"""Tokens that the event loop is told of before it looks at anything else."""


class Engine(Generic[P]):
    """Runs completions on some models, named by route; used from one event loop.

    Attributes:
        counts: what was done so far.
        cache: what is kept of contexts; None: nothing.
    """

    def __init__(
        self, models: Mapping[str, Model[P]], spell: Spell, cache: PrefixCache[P] | None = None
    ) -> None:
        self._scheduler = Scheduler(models, spell, cache)
        self._inbox: SimpleQueue[Task[P] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[Task[P], asyncio.Future[Completion]] = {}
        self._told: list[Callable[[], object]] = []
        self._stopped = False

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return self._scheduler.counts

    @property
    def cache(self) -> PrefixCache[P] | None:
        """What is kept of contexts."""
        return self._scheduler.cache

    async def complete(self, route: str, job: Job) -> Completion:
        """The job's completion on the model of that route; `job.emit` is called on the event loop.

        Who is cancelled here stops the model's work at its next step.

        Raises:
            Cancelled: the engine was stopped meanwhile.
        """
        if self._stopped:
            raise Cancelled
        self._start()
        task: Task[P] = Task(route, self._emitting(job))
        self._waiting[task] = asyncio.get_running_loop().create_future()
        self._inbox.put(task)
        try:
            return await self._waiting[task]
        finally:
            task.cancelled = True
            self._waiting.pop(task, None)

    def stop(self) -> None:
        """Take no more, drop what waits, and end what runs at its next step."""
        self._stopped = True
        for task in self._waiting:
            task.cancelled = True

    async def close(self) -> None:
        """Stop, and wait for the thread to end."""
        self.stop()
        if self._thread is not None:
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)

    # ------------------------------------------------------------------------------- on the event loop

    def _start(self) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = Thread(target=self._run, name="model", daemon=True)
            self._thread.start()

    def _emitting(self, job: Job) -> Job:
        """The job, its `emit` called on the event loop: with what else a step has to tell."""
        emit = job.emit
        if emit is None:
            return job

        def tell(piece: Piece) -> None:
            self._told.append(lambda: emit(piece))

        return replace(job, emit=tell)

    def _deliver(self, told: Sequence[Callable[[], object]], ended: Sequence[Task[P]]) -> None:
        for tell in told[:_AT_ONCE]:
            tell()
        if len(told) > _AT_ONCE:
            asyncio.get_running_loop().call_soon(self._deliver, told[_AT_ONCE:], ended)
            return
        for task in ended:
            future = self._waiting.get(task)
            if future is None or future.done():
                continue
            if isinstance(task.result, Completion):
                future.set_result(task.result)
            elif task.result is not None:
                future.set_exception(task.result)

    # ------------------------------------------------------------------------------ in the model's thread

    def _run(self) -> None:
        while self._take_in():
            try:
                ended = self._scheduler.step()
            except Exception as error:  # a fault of ours: who waits must learn of it, and others be served
                logger.exception("a step failed")
                ended = self._scheduler.give_up(error)
            self._pass_on(ended)
        while not self._inbox.empty():
            late = self._inbox.get()
            if late is not None:
                self._scheduler.add(late)
        self._pass_on(self._scheduler.give_up(Cancelled()))

    def _pass_on(self, ended: Sequence[Task[P]]) -> None:
        """Let the event loop know what a step came to."""
        told, self._told = self._told, []
        if (ended or told) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, told, ended)

    def _take_in(self) -> bool:
        """Take what has come, waiting where there is nothing else to do; whether to go on."""
        while self._scheduler.idle or not self._inbox.empty():
            task = self._inbox.get()
            if task is None:
                return False
            self._scheduler.add(task)
        return True
