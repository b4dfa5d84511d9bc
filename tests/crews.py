"""Workers in the same process and event loop as their run: quick to start, and lost at a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest

from harness.endpoints import Account
from harness.pacing import AnyBudget
from harness.workers.channel import Channel, ChannelLost
from harness.workers.worker import work


class MemoryChannel:
    """One end of a channel whose other end is in the same loop.

    Attributes:
        frozen: what is sent here does not arrive.
    """

    def __init__(self) -> None:
        """Nothing has come."""
        self.other: MemoryChannel | None = None
        self._came: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._why = ""
        self.frozen = False

    async def send(self, message: bytes) -> None:
        """Send a message; raises `ChannelLost`."""
        assert self.other is not None
        if self._why or self.other._why:
            raise ChannelLost(self._why or self.other._why)
        if self.frozen:
            return
        self.other._came.put_nowait(message)
        await asyncio.sleep(0)

    async def receive(self) -> bytes:
        """The next message; raises `ChannelLost` once the other end is gone."""
        message = await self._came.get()
        if message is None:
            raise ChannelLost(self._why)
        return message

    async def close(self) -> None:
        """Let go."""
        self.lose("closed")

    def lose(self, why: str) -> None:
        """Both ends are gone."""
        for each in (self, self.other):
            if each is not None and not each._why:
                each._why = why
                each._came.put_nowait(None)


def channels() -> tuple[MemoryChannel, MemoryChannel]:
    """The two ends of a channel."""
    ours, theirs = MemoryChannel(), MemoryChannel()
    ours.other, theirs.other = theirs, ours
    return ours, theirs


class MemoryEngine:
    """Starts workers as tasks.

    Attributes:
        started: the names of those that were started.
        ended: how each ended that has: its error, or None.
    """

    def __init__(self, workers: int, works: Callable[[Channel], object] = work) -> None:
        self.workers = workers
        self.here = True
        self.budgets: Mapping[Account, AnyBudget] = {}
        self.started: list[str] = []
        self._works = works
        self._running: dict[str, tuple[MemoryChannel, asyncio.Task[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel, _ in self._running.values():
            channel.lose("the run has ended")
        await asyncio.gather(*(task for _, task in self._running.values()), return_exceptions=True)

    async def start(self, name: str) -> MemoryChannel:
        """Start a worker."""
        ours, theirs = channels()
        task = asyncio.create_task(_quietly(self._works, theirs))
        self.started.append(name)
        self._running[name] = ours, task
        return ours

    def freeze(self, name: str) -> None:
        """A worker does not say anything any more, and does not end."""
        channel, _ = self._running[name]
        assert channel.other is not None
        channel.other.frozen = True

    def kill(self, name: str) -> None:
        """A worker is gone, with all that it had not sent."""
        channel, task = self._running[name]
        task.cancel()
        channel.lose("killed by a test")


async def _quietly(works: Callable[[Channel], object], channel: MemoryChannel) -> None:
    try:
        with suppress(ChannelLost):
            await works(channel)  # type: ignore[misc]
    finally:
        channel.lose("it has ended")


def use(monkeypatch: pytest.MonkeyPatch, engine: MemoryEngine) -> MemoryEngine:
    """Have the next run take this engine."""
    monkeypatch.setattr("harness.runner.engine_of", lambda prepared: engine)
    return engine
