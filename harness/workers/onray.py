"""Workers on Ray: one actor each, on the nodes of a cluster, or of one that is started here for the run.

Ray places the actors and tells when one is gone. All that is said goes through their methods: a `get` of a
worker is always waiting, and brings what it has to say; one `put` at a time takes there what the run says.
Every actor ends with the run, also where that is killed: none is detached.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import harness
from harness.background import to_its_end
from harness.errors import UsageError
from harness.workers.actors import POLL, WorkerActor, Works
from harness.workers.chunks import Inbox, Outbox
from harness.workers.cluster import (
    imported,
    init,
    kill,
    ray_errors,
    result,
    why_lost,
    why_not,
    without_secrets,
)

START = 120.0
"""Seconds within which a worker must have a processor and begin, which takes a second or two."""
ANSWER = 25.0
"""Seconds beyond its own wait within which `get` must answer: a worker that does not is lost."""
AHEAD = 1_000_000
"""Bytes that may wait for a `put`."""

_Given = TypeVar("_Given")


class RayEngine:
    """Workers in actors of Ray; a context manager.

    Attributes:
        workers: how many to keep.
    """

    def __init__(self, works: Works, *, address: str | None = None, workers: int | None = None) -> None:
        """Connect to nothing yet.

        Args:
            works: what a worker does: a function that workers can import.
            address: of a cluster (`HOST:PORT`, or `auto` for one on this machine); None: what RAY_ADDRESS
                says, else one is started for as long as the engine is entered.
            workers: how many; None: as many as the cluster has processors.
        """
        self._works = works
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._asked_for = workers
        self.workers = workers or 0
        # One thread, which lives as long as the engine: what Ray starts on Linux ends with the thread that
        # started it, and in the main thread Ray would take SIGTERM for itself.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._ours = False
        """Whether we have connected, and so must disconnect."""
        self._channels: set[_ActorsChannel] = set()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UsageError: Ray is not installed, there is no such cluster, or it is of another version.
        """
        try:
            await to_its_end(self._in_thread(self._connect))
        except BaseException:
            await to_its_end(self._end())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_its_end(self._end())

    async def start(self, name: str) -> _ActorsChannel:
        """Start a worker; the way to it.

        Raises:
            UsageError: there is no processor for it, or the node lacks this program.
        """
        actor = await self._in_thread(lambda: self._placed(name))
        try:
            async with asyncio.timeout(START):
                version, python, _ = await result(actor.begin.remote())
        except TimeoutError:
            await self._in_thread(lambda: kill(actor))
            raise UsageError(
                f"--workers {self.workers}: the cluster has had no processor for {name} in {START:g} s;"
                " ask for fewer workers"
            ) from None
        except ray_errors() as error:
            raise UsageError(f"--engine ray: {name} cannot be started: {why_not(error)}") from error
        if version != harness.__version__:
            await self._in_thread(lambda: kill(actor))
            raise UsageError(
                f"--engine ray: a node has forced-choice {version} (Python {python}), this is"
                f" {harness.__version__} (Python {platform.python_version()}); install the same on all"
            )
        channel = _ActorsChannel(actor, self._let_go)
        self._channels.add(channel)
        return channel

    # --------------------------------------------------------------------------------------- in the thread

    def _connect(self) -> None:
        ray = imported()
        if not ray.is_initialized():
            with without_secrets():
                init(ray, self._address, self._asked_for)
            self._ours = True
        processors = int(ray.cluster_resources().get("CPU", 0))
        self.workers = self._asked_for or max(1, processors)

    def _placed(self, name: str) -> Any:
        ray = imported()
        placed = ray.remote(WorkerActor).options(
            num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD", name=f"forced-choice {name}"
        )
        return placed.remote(self._works)

    def _disconnect(self) -> None:
        if self._ours:
            imported().shutdown()

    # ------------------------------------------------------------------------------------------ everywhere

    async def _in_thread(self, what: Callable[[], _Given]) -> _Given:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)

    async def _let_go(self, channel: _ActorsChannel) -> None:
        self._channels.discard(channel)
        await self._in_thread(lambda: kill(channel.actor))

    async def _end(self) -> None:
        for channel in list(self._channels):
            await channel.close()
        await self._in_thread(self._disconnect)
        self._thread.shutdown(wait=False)


class _ActorsChannel:
    """The run's end of a channel to a worker in an actor."""

    def __init__(self, actor: Any, let_go: Callable[[_ActorsChannel], Any]) -> None:
        self.actor = actor
        self._let_go = let_go
        self._outbox, self._inbox = Outbox(gather=0, most=AHEAD), Inbox()
        self._tasks = [asyncio.create_task(self._pull()), asyncio.create_task(self._push())]

    async def send(self, message: bytes) -> None:
        """Send a message; raises `ChannelLost`."""
        await self._outbox.put(message)

    async def receive(self) -> bytes:
        """The next message; raises `ChannelLost` once the worker is gone."""
        return await self._inbox.next()

    async def close(self) -> None:
        """End the actor."""
        self._lose("the run has closed it")
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._let_go(self)

    async def _pull(self) -> None:
        """Bring what the worker says, to its end."""
        with self._losing():
            while True:
                await self._inbox.room()
                async with asyncio.timeout(POLL + ANSWER):
                    chunk: bytes | str = await result(self.actor.get.remote())
                if isinstance(chunk, str):
                    return self._lose(chunk)
                self._inbox.feed(chunk)

    async def _push(self) -> None:
        """Take there what the run says."""
        with self._losing():
            while (chunk := await self._outbox.take()) is not None:
                await result(self.actor.put.remote(chunk))

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Turn what Ray raises into the end of the channel."""
        try:
            yield
        except TimeoutError:
            self._lose(f"it has said nothing for {POLL + ANSWER:g} s")
        except ray_errors() as error:
            self._lose(why_lost(error))

    def _lose(self, why: str) -> None:
        self._outbox.end(why)
        self._inbox.end(why)
