"""A worker as it stands in an actor of Ray, of which nothing is known here.

It is `work` with a channel whose other end is the run: chunks come in by `put`, and go out by `get`, which
waits for them. Ray keeps the arguments of a constructor, so nothing secret is among them.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import harness
from harness.collecting import settle
from harness.redacting import install
from harness.workers.actorbudgets import LentByActor
from harness.workers.channel import Channel, ChannelLost
from harness.workers.chunks import GATHER, Inbox, Outbox

POLL = 5.0
"""Seconds for which `get` waits before it says that there is nothing yet."""
SILENCE = 60.0
"""Seconds without a `get` after which the run is taken for gone: nothing more is sent for it."""

Works = Callable[[Channel, Mapping[int, LentByActor]], Awaitable[None]]
"""A whole worker, until it is told to end, or its channel is lost; given who keeps the budgets of accounts,
by their position in the run, where it is not the run."""


class Build(NamedTuple):
    """Which program this is."""

    version: str
    python: str
    code: str
    """A hash of all its source files: checkouts of one version differ."""


def own_build() -> Build:
    """That of this process."""
    folder = Path(harness.__path__[0])
    code = blake2b(digest_size=16)
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        code.update(f"{file.relative_to(folder).as_posix()} {len(content)} ".encode() + content)
    return Build(harness.__version__, platform.python_version(), code.hexdigest())


class ActorChannel:
    """A worker's end of its channel to the run."""

    def __init__(self, gather: float) -> None:
        """Nothing has been said; `gather`: seconds, see `Outbox`."""
        self.outbox, self.inbox = Outbox(gather=gather), Inbox()

    async def send(self, message: bytes) -> None:
        """Send a message; raises `ChannelLost`."""
        await self.outbox.put(message)

    async def receive(self) -> bytes:
        """The next message; raises `ChannelLost` once the run is gone."""
        return await self.inbox.next()

    async def close(self) -> None:
        """Say and hear no more."""
        self.lose("the worker has ended")

    def lose(self, why: str) -> None:
        """The other end is gone."""
        self.outbox.end(why)
        self.inbox.end(why)


class WorkerActor:
    """A worker in an actor; what it does goes on beside its methods, in the same event loop."""

    def __init__(
        self, works: Works, keepers: Mapping[int, Any], gather: float = GATHER, silence: float = SILENCE
    ) -> None:
        """Nothing is done before `begin`.

        Args:
            works: what the worker does.
            keepers: the actors that keep budgets, by the position of their account in the run.
            gather: seconds, see `chunks.gathering`.
            silence: seconds, see `SILENCE`.
        """
        self._works = works
        self._lenders = {number: LentByActor(actor) for number, actor in keepers.items()}
        self._gather = gather
        self._silence = silence
        self._asked = 0.0
        """When `get` was called or answered last, on the clock of the event loop."""
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> Build:
        """Start to work; what the worker is built of."""
        settle()
        install()
        self._channel = ActorChannel(self._gather)
        self._asked = asyncio.get_running_loop().time()
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._watch())]
        return own_build()

    async def put(self, chunk: bytes) -> None:
        """Take a chunk of what the run says; one at a time, so that they stay in order."""
        self._channel.inbox.feed(chunk)
        await self._channel.inbox.room()

    async def get(self) -> bytes | str:
        """A chunk of what the worker says, empty if there is none for a while; at the end a text: why."""
        clock = asyncio.get_running_loop().time
        self._asked = clock()
        try:
            chunk = await self._channel.outbox.take(POLL)
        finally:
            self._asked = clock()
        return self._channel.outbox.why if chunk is None else chunk

    async def _work(self) -> None:
        """Work to the end. What breaks a worker is its own to tell, by a message: only the kind of it is told
        here, as Ray would print a text."""
        why = "the worker has ended"
        try:
            await self._works(self._channel, self._lenders)
        except ChannelLost as error:
            why = str(error)
        except Exception as error:
            why = f"the worker broke down ({type(error).__name__})"
        self._channel.lose(why)

    async def _watch(self) -> None:
        """Lose the channel once the run has been silent for too long: Ray ends what it left, but not where
        the two cannot reach each other."""
        clock = asyncio.get_running_loop().time
        while (left := self._asked + self._silence - clock()) > 0:  # noqa: ASYNC110 - other calls move it
            await asyncio.sleep(left)
        self._channel.lose(f"the run has been silent for {self._silence:g} s")
