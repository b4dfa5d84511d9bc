"""One endpoint, as a worker asks it: the pool of a run in one process, over the pieces that it is handed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial

from harness.caps import Meter
from harness.clients import Clients
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, Stopped, StoreError
from harness.forecast import Forecast
from harness.learning import Lesson
from harness.planning import leading
from harness.pool import Pool
from harness.prepare import asked_of, names_of
from harness.probing import Ready
from harness.progress import Progress
from harness.reading import EVERY
from harness.sharding import Piece
from harness.shards import PieceReader
from harness.work import Work
from harness.workers.keeping import KeptByRun
from harness.workers.line import Line
from harness.workers.messages import Before, Begin, Counted, Counts, Done, Doubt, Handed, Refused, Take, Texts
from harness.workers.pieces import HandedSuite, Pieces


class OneEndpoint:
    """One endpoint, as this worker asks it.

    Attributes:
        enough: set where the run has given it up.
    """

    def __init__(
        self, line: Line, begin: Begin, found: Ready, endpoint: Endpoint, reader: PieceReader
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
        self._pieces = Pieces(self._piece_done, self._texts, self._so_far)
        self._taking: Future[Handed | None] | None = None
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
            suite=prepared.suite.as_kind(
                HandedSuite, reader=self._reader, take=self._take, pieces=self._pieces
            ),
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
        open_items, open_unscorable = self._pieces.counts()
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
            open_items=open_items,
            open_unscorable=open_unscorable,
            found=self._lesson.found is not None,
        )

    def _so_far(self) -> tuple[Counter[str], Counter[str]]:
        progress = self._progress
        bad = progress.unscorable["bad row"]  # these belong to pieces from the start
        counted = {
            "items_unscored": progress.items_unscored - bad,
            "shifted": progress.shifted,
            "truncated": progress.truncated,
        }
        return Counter(counted), progress.unscorable - Counter({"bad row": bad})

    def _take(self) -> Handed | None:
        """Wait for the next piece; runs in the planning thread."""
        asking = self._line.call(Take(self._endpoint.label), Handed | None)
        taking: Future[Handed | None] = asyncio.run_coroutine_threadsafe(asking, self._line.loop)
        self._taking = taking
        return taking.result()

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
            self._line.tell(Done(self._endpoint.label, piece))

    def _texts(self, piece: Piece, tokenizer: str, content: bytes) -> None:
        texts = Texts(piece, tokenizer, content)
        self._line.loop.call_soon_threadsafe(self._line.tell, texts)
