"""A whole worker: it prepares the run as the run itself did, asks endpoints the pieces that it is handed, and
sends back what came. It writes no file of the run."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress

from rich.console import Console

from harness import __version__
from harness.caps import Caps, Spending
from harness.clients import Clients
from harness.embedded import served
from harness.errors import HarnessError, StoreError
from harness.events import LOGGER
from harness.pacing import Lends
from harness.prepare import Prepared, prepare
from harness.probing import ready
from harness.runs import SuiteIdentity
from harness.shards import PieceReader
from harness.workers.channel import Channel, ChannelLost
from harness.workers.leases import Leases
from harness.workers.line import Line
from harness.workers.messages import (
    Begin,
    Broken,
    Counted,
    Doubt,
    Ended,
    Enough,
    Happened,
    Ready,
    Refused,
    Stop,
    ToWorker,
)
from harness.workers.oneendpoint import OneEndpoint
from harness.workers.wire import to_worker

UNCAPPED = Spending(Caps())
TELL_S = 0.5
"""Seconds between two times that it says how far it is."""


async def work(channel: Channel, lenders: Mapping[int, Lends] | None = None) -> None:
    """Work until all is done, the run says so, or it is gone.

    Args:
        channel: to the run.
        lenders: who keeps the budgets of accounts, by their position in the run; None: the run does.
    """
    begin = to_worker(await channel.receive())
    if not isinstance(begin, Begin):
        raise ChannelLost(f"the first message is {type(begin).__name__}, and should be what to do")
    if begin.version != __version__:
        raise ChannelLost(f"the worker is forced-choice {__version__}, the run {begin.version}")
    with suppress(OSError):  # it is not there on this machine: then all paths have to be whole
        os.chdir(begin.folder)
    worker = _Worker(begin, channel, lenders)
    with suppress(ChannelLost):
        await worker.run()


class _Worker:
    """What belongs to one run."""

    def __init__(self, begin: Begin, channel: Channel, lenders: Mapping[int, Lends] | None) -> None:
        self._begin = begin
        self._line = Line(channel, self._told)
        self._lenders = lenders
        self._stop = asyncio.Event()
        self._asked: dict[str, OneEndpoint] = {}
        self._given_up: set[str] = set()

    async def run(self) -> None:
        """Do it all; raises `ChannelLost` where the run is gone."""
        line = asyncio.create_task(self._line.run())
        working = asyncio.create_task(self._work())
        try:
            await asyncio.wait((line, working), return_when=asyncio.FIRST_COMPLETED)
            if not line.done():
                await working
                self._line.tell(Ended())
            await line
        finally:
            self._stop.set()
            for each in (working, line):
                each.cancel()
            await asyncio.gather(working, line, return_exceptions=True)

    def _told(self, message: ToWorker) -> None:
        if isinstance(message, Stop):
            self._stop.set()
        elif isinstance(message, Doubt):
            if message.label in self._asked:
                self._asked[message.label].doubt(message)
        elif isinstance(message, Enough):
            self._given_up.add(message.label)
            if message.label in self._asked:
                self._asked[message.label].enough.set()

    async def _work(self) -> None:
        logged = _Forward(self._line) if self._begin.logs else None
        if logged is not None:
            LOGGER.addHandler(logged)
            LOGGER.setLevel(logging.INFO)
        try:
            await self._ask_all(await asyncio.to_thread(self._prepare))
        except HarnessError as error:
            self._line.tell(Broken(str(error)))
        finally:
            if logged is not None:
                LOGGER.removeHandler(logged)

    def _prepare(self) -> Prepared:
        """What the run has prepared, from the same settings."""
        environ = {**os.environ, **self._begin.environ}
        return prepare(self._begin.settings, environ, known=self._begin.rows)

    def _agree(self, prepared: Prepared) -> None:
        """See that it is the same that the run has, tokenizers of endpoints too."""
        identity = identity_text(prepared)
        if identity != self._begin.identity:
            here, there = json.loads(identity)[0], json.loads(self._begin.identity)[0]
            differs = SuiteIdentity(here).difference(there) or "rows of its tasks are others"
            raise StoreError(
                f"finds another suite on {platform.node()} than the run has: {differs}; workers need the same"
                " data, tokenizers and task files, under the same paths"
            )
        self._line.tell(Ready(platform.node(), os.getpid()))

    async def _ask_all(self, prepared: Prepared) -> None:
        """Ask all endpoints side by side."""
        async with AsyncExitStack() as opened:
            leases = Leases(self._line, prepared, self._begin, self._lenders)
            await opened.enter_async_context(leases.kept())
            spending = await opened.enter_async_context(leases.spending()) if self._begin.capped else UNCAPPED
            clients = Clients(prepared, Console(quiet=True), self._stop, spending, leases.budgets)
            found = await opened.enter_async_context(ready(prepared, clients.tokenizing, self._stop))
            self._agree(found.prepared)
            addresses = self._begin.addresses
            if not addresses:
                addresses = await opened.enter_async_context(served(prepared.endpoints, self._broken))
            reader = PieceReader(prepared.suite, keep=2 + 2 * len(prepared.endpoints))
            for endpoint in found.prepared.endpoints:
                label = endpoint.label
                if label in found.refused:
                    self._line.tell(Refused(label, found.refused[label]))
                elif label in self._begin.replies and label not in self._given_up:
                    asked = OneEndpoint(self._line, self._begin, found, endpoint, reader)
                    await asked.open(clients, addresses, opened)
                    self._asked[label] = asked
            telling = asyncio.create_task(self._tell_all_counts())
            try:
                await asyncio.gather(*(each.run(self._stop) for each in self._asked.values()))
            finally:
                telling.cancel()
                self._tell_counts()

    def _broken(self, why: str) -> None:
        self._line.tell(Broken(why))
        self._stop.set()

    async def _tell_all_counts(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            self._tell_counts()

    def _tell_counts(self) -> None:
        self._line.tell(Counted({label: each.counts() for label, each in self._asked.items()}))


class _Forward(logging.Handler):
    """Sends events to the run, whose log file has them."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Send one; from any thread."""
        told = Happened(
            str(getattr(record, "event", "")),
            str(getattr(record, "endpoint", "")),
            record.levelno,
            dict(getattr(record, "fields", {})),
        )
        with suppress(RuntimeError):  # the loop has ended
            self._line.loop.call_soon_threadsafe(self._line.tell, told)


def identity_text(prepared: Prepared) -> str:
    """The identity of a prepared suite, and how many items it has, as text."""
    sizes: Sequence[int] = [task.size for task in prepared.suite.tasks]
    hashes = [task.survey.content_sha256 for task in prepared.suite.tasks]
    return json.dumps([prepared.identity.fields, sizes, hashes], sort_keys=True, default=str)
