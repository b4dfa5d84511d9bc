"""A time limit for many pieces of work at once, all the same, kept by one timer.

`asyncio.timeout` makes and cancels a timer for each: a tenth of what sending a request takes. Where all have
the same limit, those that began first are due first, and one timer for the oldest does.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

TICK = 0.001
"""Seconds between which uvloop's clock does not tell: what is due within them is due."""


class Deadlines:
    """What the deadlines of one event loop share: the time that each has, and the timer."""

    def __init__(self, seconds: float) -> None:
        """Nothing has begun; `seconds` are what each block may take."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._running: dict[Deadline, None] = {}
        """The oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, deadline: Deadline) -> None:
        """A block begins."""
        deadline.due = self._loop.time() + self._seconds
        self._running[deadline] = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline.due, self._look)

    def end(self, deadline: Deadline) -> None:
        """A block has ended."""
        self._running.pop(deadline, None)

    def _look(self) -> None:
        """End what is due, and come again when the next one is."""
        self._timer = None
        now = self._loop.time() + TICK
        while self._running:
            deadline = next(iter(self._running))
            if deadline.due > now:
                self._timer = self._loop.call_at(deadline.due, self._look)
                return
            del self._running[deadline]
            deadline.expire()


class Deadline:
    """A block that is cancelled, and raises TimeoutError, when its time is up, as with `asyncio.timeout`."""

    __slots__ = ("_cancelling", "_deadlines", "_late", "_task", "due")

    def __init__(self, deadlines: Deadlines) -> None:
        """Begin when the block is entered, once."""
        self._deadlines = deadlines
        self._late = False
        self.due = 0.0

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        if self._late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """The time is up."""
        self._late = True
        self._task.cancel()
