"""Between planning and sending: requests go in by the batch, and out one by one as the schedule lets them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from harness.exchange import ScoreRequest
from harness.sending import Schedule

ROOM = 1024
"""Requests that may wait before whoever puts more in has to wait too."""


class Feed:
    """A schedule that workers wait at; for one event loop."""

    def __init__(self) -> None:
        """Start empty."""
        self._schedule = Schedule()
        self._offered: ScoreRequest | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._room = asyncio.Event()
        self._ended = False

    async def put(self, requests: Sequence[ScoreRequest]) -> None:
        """Add requests, and return when there is room for more; sooner where the feed has been closed."""
        self.add(requests)
        while self._schedule.coming > ROOM and not self._ended:
            self._room.clear()
            await self._room.wait()

    def add(self, requests: Sequence[ScoreRequest]) -> None:
        """Add requests without waiting for room."""
        self._schedule.add(requests)
        self._wake(len(requests))

    def end(self) -> None:
        """Nothing more will be put in."""
        self._ended = True
        self._wake(len(self._waiting))

    def close(self) -> None:
        """Nothing more is to go out."""
        if self._offered is not None:  # it never went
            self._schedule.returned(self._offered, computed=False)
            self._offered = None
        self._schedule.clear()
        self._room.set()
        self.end()

    async def wait(self) -> bool:
        """Wait until a request may go; False: none ever will."""
        while not self._offer():
            if self._ended and not len(self._schedule) and not self._schedule.in_flight:
                self._wake(len(self._waiting))
                return False
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        return True

    def next(self) -> ScoreRequest | None:
        """A request that may go; None: another worker was faster."""
        self._offer()
        request, self._offered = self._offered, None
        return request

    def returned(
        self, request: ScoreRequest, *, computed: bool = True, again: Sequence[ScoreRequest] = ()
    ) -> None:
        """A request has come back.

        Args:
            request: one that went out.
            computed: the endpoint read its context.
            again: requests with the same context that have to be sent after it.
        """
        self._schedule.add_first(again)
        self._wake(1 + len(again) + self._schedule.returned(request, computed=computed))

    def delayed(self, request: ScoreRequest) -> None:
        """A request takes longer than it should."""
        self._wake(self._schedule.delayed(request))

    def _offer(self) -> bool:
        if self._offered is None:
            self._offered = self._schedule.next()
            if self._schedule.coming <= ROOM:
                self._room.set()
        return self._offered is not None

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                count -= 1
