"""Workers on Ray: one actor each, on the nodes of a cluster, or of one that is started here for the run.

Ray places the actors and tells when one is gone. All that is said goes through their methods: a `get` of a
worker is always waiting, and brings what it has to say; one `put` at a time takes there what the run says.
Every actor ends with the run, also where that is killed: none is detached.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from harness.accounts import Allowance
from harness.background import to_its_end
from harness.endpoints import Account
from harness.errors import UsageError
from harness.pacing import AnyBudget
from harness.prepare import Prepared
from harness.workers.actorbudgets import ActorBudgets
from harness.workers.actors import POLL, Build, WorkerActor, Works, own_build
from harness.workers.channel import ChannelLost
from harness.workers.chunks import Inbox, Outbox, gathering
from harness.workers.cluster import (
    imported,
    init,
    kill,
    missing,
    ray_errors,
    result,
    why_lost,
    without_secrets,
)
from harness.workers.worker import work

START = 120.0
"""Seconds within which the first worker must have a processor and begin, which takes a second or two."""
ANSWER = 25.0
"""Seconds beyond its own wait within which `get` must answer: a worker that does not is lost."""
AHEAD = 1_000_000
"""Bytes that may wait for a `put`."""

_Given = TypeVar("_Given")


def ray_engine(prepared: Prepared) -> RayEngine:
    """The engine of a run with `--engine ray`."""
    settings = prepared.settings
    return RayEngine(
        work, address=settings.ray_address, workers=settings.workers, allowances=prepared.allowances
    )


class RayEngine:
    """Workers in actors of Ray; a context manager, which ends them all when it is left.

    Attributes:
        workers: how many to keep.
        here: they are on this machine, as the cluster was started for the run.
        budgets: of accounts that have a limit; they are kept by actors too.
        build: of this program; workers of another are refused.
    """

    def __init__(
        self,
        works: Works,
        *,
        address: str | None = None,
        workers: int | None = None,
        allowances: Mapping[Account, Allowance] | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            works: what a worker does: a function that workers can import.
            address: of a cluster (`HOST:PORT`, or `auto` for one on this machine); None: what RAY_ADDRESS
                says, else one is started for as long as the engine is entered.
            workers: how many; None: as many as the cluster has processors.
            allowances: what each account of the run allows.
        """
        self._works = works
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._asked_for = workers
        self._allowances = allowances or {}
        self._kept = ActorBudgets()
        self.build = own_build()
        self.workers = workers or 0
        self.here = self._address in (None, "local")
        self.budgets: Mapping[Account, AnyBudget] = {}
        # One thread, which lives as long as the engine: what Ray starts on Linux ends with the thread that
        # started it, and in the main thread Ray would take SIGTERM for itself.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._ours = False
        """Whether we have connected, and so must disconnect."""
        self._had = asyncio.Event()
        """A worker has begun."""
        self._channels: set[_ActorsChannel] = set()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UsageError: Ray is not installed, there is no such cluster, or it is of another version.
        """
        try:
            await to_its_end(self._in_thread(self._connect))
            self._kept.listen(self._allowances)
            self.budgets = self._kept.budgets
        except BaseException:
            await to_its_end(self._end())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_its_end(self._end())

    async def start(self, name: str) -> _ActorsChannel:
        """Start a worker; waits for a processor, if need be for ever once another worker has had one.

        Raises:
            UsageError: there is none, the node lacks this program, or has another version of it.
            ChannelLost: it was lost before it had begun.
        """
        actor = await self._in_thread(self._placed)
        try:
            _compare(await self._begun(actor), self.build)
        except ray_errors() as error:
            if lacks := missing(error):
                raise UsageError(
                    f"--engine ray: a node cannot import this program ({lacks}); install forced-choice on"
                    " every node, for Ray's Python"
                ) from error
            raise ChannelLost(why_lost(error)) from error
        except BaseException:
            await to_its_end(self._in_thread(lambda: kill(actor)))
            raise
        self._had.set()
        channel = _ActorsChannel(name, actor, gathering(self.workers), self._let_go)
        self._channels.add(channel)
        return channel

    async def _begun(self, actor: Any) -> Build:
        beginning = asyncio.ensure_future(result(actor.begin.remote()))
        had = asyncio.ensure_future(self._had.wait())
        try:
            await asyncio.wait((beginning, had), timeout=START, return_when=asyncio.FIRST_COMPLETED)
            if not beginning.done() and not had.done():
                raise UsageError(
                    f"--engine ray: the cluster has had no free processor for a worker in {START:g} s; see"
                    " `ray status` for who has them"
                )
            return Build(*await beginning)
        finally:
            for each in (beginning, had):
                each.cancel()
            await asyncio.wait((beginning, had))

    # --------------------------------------------------------------------------------------- in the thread

    def _connect(self) -> None:
        ray = imported()
        if not ray.is_initialized():
            with without_secrets():
                init(ray, self._address, self._asked_for)
            self._ours = True
        self.here = self.here and self._ours  # else nobody knows where its nodes are
        processors = int(ray.cluster_resources().get("CPU", 0))
        self.workers = self._asked_for or max(1, processors)
        self._kept.place(self._allowances)

    def _placed(self) -> Any:
        placed = imported().remote(WorkerActor)
        options = {"num_cpus": 1, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        gather = gathering(self.workers)
        return placed.options(**options).remote(self._works, self._kept.actors, gather)

    def _disconnect(self) -> None:
        if self._ours:
            imported().shutdown()

    # ------------------------------------------------------------------------------------------ everywhere

    async def _in_thread(self, what: Callable[[], _Given]) -> _Given:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)

    async def _let_go(self, channel: _ActorsChannel) -> None:
        if channel in self._channels:
            self._channels.remove(channel)
            self._kept.gone(channel.name)
            await self._in_thread(lambda: kill(channel.actor))

    async def _end(self) -> None:
        for channel in list(self._channels):
            await channel.close()
        await self._kept.close()
        await self._in_thread(self._disconnect)
        self._thread.shutdown(wait=False)


def _compare(theirs: Build, ours: Build) -> None:
    """Refuse a worker that is another program than this; another Python is Ray's to refuse."""
    if theirs.code != ours.code:
        which = theirs.version if theirs.version != ours.version else f"other files as version {ours.version}"
        raise UsageError(
            f"--engine ray: a node has forced-choice {which}, this is {ours.version}; install the same on all"
        )


class _ActorsChannel:
    """The run's end of a channel to a worker in an actor."""

    def __init__(
        self,
        name: str,
        actor: Any,
        gather: float,
        let_go: Callable[[_ActorsChannel], Awaitable[None]],
    ) -> None:
        self.name = name
        self.actor = actor
        self._let_go = let_go
        self._outbox, self._inbox = Outbox(gather=gather, most=AHEAD), Inbox()
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
