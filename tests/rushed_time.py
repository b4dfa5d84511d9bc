"""An event loop with real sockets and threads whose waits cost nothing.

Where everybody in it waits for a moment to come, and nothing is on its way, the clock jumps there: a whole
run with its endpoint in the same loop sits out hours of outages, time-outs and rate limits in no time. What
is really computed takes the time it takes.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from harness.serving.decoding.job import Completion, Job
from harness.serving.engine import Engine
from harness.serving.models.seam import P

_Result = TypeVar("_Result")

_GRACE = 0.0005
"""Seconds that what was just written to a socket gets to arrive."""
_COMPUTING = 0.05
"""Seconds that a thread gets to compute; one that has nothing to say by then may wait for the loop itself."""


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, lets the loop's time pass, unless something is on its way."""

    loop: RushedLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if timeout is None:
            return super().select(timeout)
        found = super().select(min(timeout, _COMPUTING if self.loop.busy else _GRACE))
        if not found:
            self.loop.jump(timeout)
        return found


class RushedLoop(asyncio.SelectorEventLoop):
    """The loop.

    Attributes:
        busy: threads that compute for it, as far as they tell.
        skipped: seconds that were not waited.
    """

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.busy = 0
        self.skipped = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Seconds since some moment."""
        return time.monotonic() + self.skipped

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self.skipped += seconds

    def run_in_executor(  # type: ignore[override] # what it takes and gives is hard to say, and stays as it is
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As ever; time does not jump meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self.busy += 1
        future.add_done_callback(self._free)
        return future

    def _free(self, _: object) -> None:
        self.busy -= 1


class LoopsEngine(Engine[P]):
    """An engine without a thread: it computes in the loop, which so knows when nothing is on its way."""

    async def complete(self, route: str, job: Job) -> Completion:
        """As ever."""
        asyncio.get_running_loop().call_soon(self._compute)
        return await super().complete(route, job)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def _compute(self) -> None:
        while not self._inbox.empty():
            if (task := self._inbox.get()) is not None:
                self._scheduler.add(task)
        while not self._scheduler.idle:
            self._pass_on(self._scheduler.step())


def in_rushed_time(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end."""
    with asyncio.Runner(loop_factory=RushedLoop) as runner:
        return runner.run(work)


def rushed_now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()
