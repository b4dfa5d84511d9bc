"""A whole worker: it prepares the run as the run itself did, asks endpoints the pieces that it is handed, and
sends back what came. It writes no file of the run."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import fields, replace
from functools import partial

from rich.console import Console

from harness import __version__
from harness.caps import Caps, Meter, Spending
from harness.clients import Clients
from harness.embedded import served
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, HarnessError, Stopped, StoreError
from harness.events import LOGGER
from harness.forecast import Forecast
from harness.learning import Lesson
from harness.pacing import Lends
from harness.planning import leading
from harness.pool import Pool, Work
from harness.prepare import Prepared, asked_of, fail_on_overflow, names_of, prepare
from harness.probing import Ready as Found
from harness.probing import ready
from harness.progress import Progress
from harness.reading import EVERY
from harness.runs import SuiteIdentity
from harness.sharding import Piece
from harness.shards import PieceReader
from harness.suite import Suite
from harness.workers.channel import Channel, ChannelLost
from harness.workers.keeping import KeptByRun
from harness.workers.leases import Leases
from harness.workers.line import Line
from harness.workers.messages import (
    Before,
    Begin,
    Broken,
    Counted,
    Counts,
    Done,
    Doubt,
    Ended,
    Enough,
    Happened,
    Ready,
    Refused,
    Stop,
    Take,
    Texts,
    ToWorker,
    to_worker,
)
from harness.workers.pieces import Handed, HandedSuite, Pieces

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
        self._asked: dict[str, _Asked] = {}
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
        self._line.tell(Ready(__version__, identity, platform.node(), os.getpid()))

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
            await self._long_items(found)
            reader = PieceReader(prepared.suite, keep=2 + 2 * len(prepared.endpoints))
            for endpoint in found.prepared.endpoints:
                label = endpoint.label
                if label in found.refused:
                    self._line.tell(Refused(label, found.refused[label]))
                elif label in self._begin.replies and label not in self._given_up:
                    asked = _Asked(self._line, self._begin, found, endpoint, reader)
                    await asked.open(clients, addresses, opened)
                    self._asked[label] = asked
            telling = asyncio.create_task(self._tell_all_counts())
            try:
                await asyncio.gather(*(each.run(self._stop) for each in self._asked.values()))
            finally:
                telling.cancel()
                self._tell_counts()

    async def _long_items(self, found: Found) -> None:
        """Look for items that are to end the run where only the endpoint could tell how long they are."""
        for tokenizer in found.asked.values():
            await asyncio.to_thread(fail_on_overflow, found.prepared, [tokenizer])

    def _broken(self, why: str) -> None:
        self._line.tell(Broken(why))
        self._stop.set()

    async def _tell_all_counts(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            self._tell_counts()

    def _tell_counts(self) -> None:
        self._line.tell(Counted({label: each.counts() for label, each in self._asked.items()}))


class _Asked:
    """One endpoint, as this worker asks it.

    Attributes:
        enough: set where the run has given it up.
    """

    def __init__(
        self, line: Line, begin: Begin, found: Found, endpoint: Endpoint, reader: PieceReader
    ) -> None:
        self.enough = asyncio.Event()
        self._line = line
        self._found = found
        self._endpoint = endpoint
        self._reader = reader
        self._progress = Progress(endpoint.label, 0)
        self._lesson = Lesson()
        self._forecast = Forecast()
        self._leading = begin.leading
        self._journal = KeptByRun(line, endpoint.label, begin.replies[endpoint.label], begin.gather)
        self._pieces = Pieces(self._piece_done, self._texts, self._unscored)
        self._taking: Future[object] | None = None
        self._may_send = False
        self._telling: set[asyncio.Task[None]] = set()
        self._work: Work | None = None
        self._meter: Meter | None = None
        self._pool: Pool | None = None
        self._read_before = int(EVERY * begin.part)

    async def open(self, clients: Clients, addresses: Mapping[str, str], opened: AsyncExitStack) -> None:
        """Make its client, and all that its pool is given."""
        prepared, endpoint = self._found.prepared, self._endpoint
        tokenizer, asked = self._found.asked.get(endpoint.label), asked_of(prepared, endpoint)
        self._meter = clients.meters[endpoint.label]
        clients.tell(endpoint, self._progress)
        client = clients.scoring(endpoint, addresses)

        def interrupt() -> None:
            if self._taking is not None:
                self._taking.cancel()
            if tokenizer is not None:
                tokenizer.interrupt()

        self._work = Work(
            suite=self._suite(prepared.suite),
            asked=asked,
            names=names_of(prepared, endpoint, self._lesson),
            lesson=self._lesson,
            leading=partial(leading, prepared.suite, asked, self._leading),
            interrupt=interrupt,
            journal=self._journal,
            client=await opened.enter_async_context(client),
            progress=self._progress,
            forecast=self._forecast,
            texts=self._pieces if prepared.settings.store_text else None,
            before=self._before,
            finished=self._pieces.finished,
            read_before=self._read_before,
            enough=self.enough,
        )

    def doubt(self, message: Doubt) -> None:
        """Alternatives are not what forcing gives: read nothing any more."""
        if self._pool is not None and self._lesson.found is not None:
            doubting = self._line.loop.create_task(self._pool.doubt(message.difference, message.why))
            self._telling.add(doubting)
            doubting.add_done_callback(self._telling.discard)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until there is nothing more; a refusal ends this endpoint alone, and is told."""
        assert self._work is not None
        try:
            self._pool = Pool(self._work, stop)
            await self._pool.run()
        except EndpointRefused as error:
            self._line.tell(Refused(self._endpoint.label, str(error), error.reason))
        finally:
            self._pieces.close()
            await asyncio.gather(*self._telling)

    def counts(self) -> Counts:
        """What was counted so far."""
        assert self._meter is not None
        progress = self._progress
        done, unscored, bad = self._pieces.counts()
        return Counts(
            items_done=progress.items_done,
            items_unscored=progress.items_unscored,
            unscorable=dict(progress.unscorable),
            requests_done=progress.requests_done,
            requests_reused=progress.requests_reused,
            choices_read=progress.choices_read,
            in_flight=progress.in_flight,
            waiting=progress.waits(),
            retries=dict(progress.retries),
            shifted=progress.shifted,
            truncated=progress.truncated,
            message=progress.message,
            sent=replace(self._meter.sent),
            planned=replace(self._forecast.volume),
            read=self._forecast.read,
            lesson=self._lesson.why,
            tried=self._lesson.tried,
            open_done=done,
            open_unscored=unscored,
            open_bad=bad,
            found=self._lesson.found is not None,
        )

    def _unscored(self) -> int:
        return self._progress.items_unscored - self._progress.unscorable["bad row"]

    def _suite(self, suite: Suite) -> HandedSuite:
        whole = {field.name: getattr(suite, field.name) for field in fields(Suite)}
        return HandedSuite(**whole, reader=self._reader, take=self._take, pieces=self._pieces)

    def _take(self) -> Handed | None:
        """Wait for the next piece; runs in the planning thread."""
        asking = self._line.call(Take(self._endpoint.label), tuple[int, int, int, bool] | None)
        taking = asyncio.run_coroutine_threadsafe(asking, self._line.loop)
        self._taking = taking
        found = taking.result()
        return found and Handed(Piece(*found[:3]), found[3])

    async def _before(self) -> None:
        """Ask the run whether anything may be sent, until it has said yes."""
        if not self._may_send:
            try:
                await self._line.call(Before(self._endpoint.label))
            except Stopped:
                self.enough.set()
                return
            self._may_send = True

    def _piece_done(self, piece: Piece) -> None:
        self._line.loop.call_soon_threadsafe(self._tell_soon, piece)

    def _tell_soon(self, piece: Piece) -> None:
        telling = self._line.loop.create_task(self._tell_done(piece))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell_done(self, piece: Piece) -> None:
        """Only once its items, as planned, are on disk too."""
        with suppress(StoreError):  # the pool meets the same
            await asyncio.to_thread(self._journal.flush)
            self._pieces.told(piece)
            self._line.tell(Counted({self._endpoint.label: self.counts()}))
            self._line.tell(Done(self._endpoint.label, piece.task, piece.start, piece.stop))

    def _texts(self, piece: Piece, tokenizer: str, content: bytes) -> None:
        texts = Texts(piece.task, piece.start, piece.stop, tokenizer, content)
        self._line.loop.call_soon_threadsafe(self._line.tell, texts)


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
