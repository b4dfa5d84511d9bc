"""The workers of a run, as the run sees them: it hands them pieces, keeps what comes back, and has another do
what a lost one had not done."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from harness import __version__
from harness.background import to_its_end
from harness.clients import Clients
from harness.errors import EndpointRefused, HarnessError, Stopped, StoreError, UsageError
from harness.events import event
from harness.journal import Rows
from harness.layout import SHORTCUT
from harness.manifest import EndpointRun
from harness.opening import Lost
from harness.pool import Runs, Work
from harness.prepare import Prepared
from harness.probing import Ready as Found
from harness.runs import RunFolder
from harness.sharding import Piece
from harness.shards import small_pieces
from harness.suite import Suite
from harness.terminal import say
from harness.workers.channel import Channel, ChannelLost
from harness.workers.engine import Engine
from harness.workers.ledger import Ledger
from harness.workers.lenders import Lenders
from harness.workers.line import STOPPED
from harness.workers.messages import (
    Answer,
    Before,
    Begin,
    Broken,
    Call,
    Counted,
    Done,
    Ended,
    Enough,
    Forget,
    Happened,
    Keep,
    Known,
    Note,
    Ready,
    Refused,
    Stop,
    Take,
    Texts,
    ToRun,
    ToWorker,
    encoded,
    to_run,
)
from harness.workers.tally import Tally
from harness.workers.texts import TextPieces
from harness.workers.work import identity_text

if TYPE_CHECKING:
    from rich.console import Console

EACH = 16
"""Pieces a worker, so that all end at about the same time."""
FEWEST, MOST = 16, 512
"""Items of a piece."""
RESTARTS = 3
"""Times that a worker is started again, for each that there should be."""


@dataclass(slots=True, eq=False)
class _Hand:
    """One worker."""

    name: str
    channel: Channel
    tallies: Mapping[str, Tally]
    working: asyncio.Task[None]
    """Works with it."""
    outgoing: asyncio.Queue[ToWorker] = field(default_factory=asyncio.Queue)
    ready: bool = False
    """It can be handed pieces."""
    ended: bool = False
    """It has told all."""


@dataclass(slots=True)
class _Task:
    """One endpoint, as all workers together ask it."""

    part: EndpointRun
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more is asked of it."""
    refused: EndpointRefused | None = None
    takers: deque[tuple[_Hand, int]] = field(default_factory=deque)
    """Who waits for a piece, and the number of the call."""
    before: Callable[[], Awaitable[object]] | None = None
    moved: Callable[[], object] | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """It may be asked."""


class Crew:
    """Starts the workers, answers them, and ends them; a context manager, for one event loop."""

    def __init__(
        self,
        prepared: Prepared,
        parts: Sequence[EndpointRun],
        engine: Engine,
        pieces: Sequence[Piece],
        lenders: Lenders,
        addresses: Mapping[str, str],
        texts: TextPieces | None,
        lost: Lost,
        console: Console,
    ) -> None:
        """Nothing is started yet.

        Args:
            prepared: the run.
            parts: its endpoints; those that have been refused already are not asked.
            engine: starts workers.
            pieces: what they are handed, in the order of the run.
            lenders: what they may send of budgets and caps.
            addresses: where embedded endpoints are on this machine.
            texts: takes the texts of pieces; None: they are not kept.
            lost: is told what breaks the run.
            console: where people are told of lost workers.
        """
        self._prepared = prepared
        self._engine = engine
        self._lenders = lenders
        self._addresses = addresses if engine.here else {}
        self._texts = texts
        self._lost = lost
        self._console = console
        self._tasks = {part.endpoint.label: _Task(part) for part in parts if not part.refused}
        self._ledger = Ledger(pieces, self._tasks)
        self._hands: set[_Hand] = set()
        self._restarts = RESTARTS * engine.workers
        self._identity = identity_text(prepared)
        self._calls: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._employing: list[asyncio.Task[None]] = []
        self._stopping: asyncio.Task[None] | None = None
        for task in self._tasks.values():
            task.part.progress.waits = self._waits_of(task.part.endpoint.label)

    async def __aenter__(self) -> Crew:
        self._employing = [asyncio.create_task(self._employ()) for _ in range(self._engine.workers)]
        self._stopping = asyncio.create_task(self._stop_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait until all have told all, unless the block was broken off."""
        tasks = [each for each in [*self._employing, self._stopping] if each is not None]
        try:
            if not any(_):
                self._end_all()
                await asyncio.wait(self._employing)
        finally:
            for each in [*tasks, *self._calls]:
                each.cancel()
            await asyncio.gather(*tasks, *self._calls, return_exceptions=True)

    def _end_all(self) -> None:
        """Nothing is left to ask; who has not even begun need not."""
        for task in self._tasks.values():
            task.over.set()
        for label in self._tasks:
            self._hand_out(label)
        for hand in self._hands:
            if hand.ready:
                hand.outgoing.put_nowait(Stop())
            else:
                hand.working.cancel()

    # ------------------------------------------------------------------------------------ what pools are here

    def pool(self, work: Work, stop: asyncio.Event) -> Runs:
        """What stands where an endpoint's pool would; the run's own event stops it."""
        return _CrewPool(self, work)

    @property
    def whole(self) -> bool:
        """Whether every piece is done for one endpoint at least."""
        return any(self._ledger.over(label) for label in self._tasks)

    async def ask(self, work: Work) -> None:
        """Have an endpoint asked all its items, as its pool would.

        Raises:
            EndpointRefused: it must not be asked any more.
        """
        task, loop = self._tasks[work.progress.label], asyncio.get_running_loop()
        task.before, task.moved = work.before, work.moved

        def beside(keys: Sequence[bytes]) -> None:  # looks, which this process asks itself
            loop.call_soon_threadsafe(work.progress.count, len(keys))

        task.part.journal.on_commit = beside
        task.opened.set()
        await task.over.wait()
        with suppress(StoreError):  # it breaks the run, which was told
            await asyncio.to_thread(task.part.journal.flush)
        work.forecast.whole = self._ledger.over(work.progress.label)
        if task.refused is not None:
            raise task.refused

    def _waits_of(self, label: str) -> Callable[[], int]:
        return lambda: sum(each.tallies[label].waiting for each in self._hands)

    # -------------------------------------------------------------------------------------- one worker's life

    async def _employ(self) -> None:
        """Keep one worker, and start another in its place where it is lost."""
        while not self._over():
            name = f"worker {next(self._numbers)}"
            try:
                await self._work_with(name)
                return
            except ChannelLost as error:
                if self._over() or self._lost.stop.is_set():
                    break
                self._restarts -= 1
                if self._restarts < 0:
                    self._lost(f"workers end by themselves again and again; the last: {error}")
                    break
                say(self._console, f"{name} is lost ({error}); others go on with what it had")
            except HarnessError as error:
                self._lost(f"{name}: {error}")
                break
        self._finish_where_nobody_is()

    async def _work_with(self, name: str) -> None:
        channel = await self._engine.start(name)
        working = asyncio.current_task()
        assert working is not None
        hand = _Hand(name, channel, {label: Tally(task.part) for label, task in self._tasks.items()}, working)
        self._hands.add(hand)
        sending = asyncio.create_task(self._send_all(hand))
        try:
            hand.outgoing.put_nowait(self._begin(name))
            if self._lost.stop.is_set():
                hand.outgoing.put_nowait(Stop())
            while not hand.ended:
                self._take_in(hand, to_run(await channel.receive()))
        except msgspec.MsgspecError as error:
            raise ChannelLost(f"what it says is no message: {error}") from error
        finally:
            self._hands.discard(hand)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if not hand.ended:
                self._gone(hand)
            self._lenders.gone(name)
            await channel.close()

    async def _send_all(self, hand: _Hand) -> None:
        with suppress(ChannelLost):  # who receives meets the same
            while True:
                await hand.channel.send(encoded(await hand.outgoing.get()))

    def _begin(self, name: str) -> Begin:
        prepared = self._prepared
        names = {each for found in prepared.secrets.values() for each in found.variables}
        return Begin(
            name=name,
            version=__version__,
            settings=replace(
                prepared.settings, out=prepared.folder, workers=None, engine="local", ray_address=None
            ),
            environ={each: os.environ[each] for each in sorted(names) if each in os.environ},
            folder=os.getcwd(),
            identity=self._identity,
            addresses=self._addresses,
            replies={
                label: task.part.before.replies for label, task in self._tasks.items() if not task.refused
            },
            capped=self._lenders.capped,
            logs=logging.getLogger("harness.events").isEnabledFor(logging.INFO),
        )

    def _gone(self, hand: _Hand) -> None:
        """A worker is lost: what it had is handed to others."""
        for tally in hand.tallies.values():
            tally.lose()
        pieces = self._ledger.lost(hand.name)
        event("worker_lost", level=logging.WARNING, worker=hand.name, pieces=pieces)
        for label, task in self._tasks.items():
            task.takers = deque(each for each in task.takers if each[0] is not hand)
            self._hand_out(label)

    def _finish_where_nobody_is(self) -> None:
        """Nobody is left, or comes: what is not done stays so."""
        if all(each.done() or each is asyncio.current_task() for each in self._employing):
            for task in self._tasks.values():
                task.over.set()

    def _over(self) -> bool:
        return all(task.over.is_set() for task in self._tasks.values())

    # ------------------------------------------------------------------------------------- what a worker says

    def _take_in(self, hand: _Hand, message: ToRun) -> None:
        match message:
            case Call():
                self._answer_soon(hand, message)
            case Counted():
                for label, counts in message.counts.items():
                    hand.tallies[label].count(counts)
                    if (moved := self._tasks[label].moved) is not None:
                        moved()
            case Done():
                self._ledger.done(hand.name, message.label, Piece(message.task, message.start, message.stop))
                if self._ledger.over(message.label):
                    self._give_up(message.label)
            case Texts():
                if self._texts is not None:
                    piece = Piece(message.task, message.start, message.stop)
                    self._texts.put(piece, message.tokenizer, message.parquet)
            case Note():
                self._note(message)
            case Refused():
                self._refuse(message.label, EndpointRefused(message.why, message.reason))
            case Happened():
                event(
                    message.name,
                    message.fields,
                    endpoint=message.endpoint,
                    level=message.level,
                    worker=hand.name,
                )
            case Ready():
                hand.ready = True
                event("worker_ready", worker=hand.name, host=message.host, pid_there=message.pid)
            case Broken():
                raise UsageError(message.why)
            case Ended():
                hand.ended = True
            case _:
                self._lenders.told(hand.name, message)

    def _note(self, message: Note) -> None:
        """Keep evidence, but never in place of what says that it does not hold."""
        journal = self._tasks[message.label].part.journal
        if "why" not in json.loads(journal.meta.get(SHORTCUT, "{}")):
            journal.note_shortcut(message.evidence)

    def _refuse(self, label: str, error: EndpointRefused) -> None:
        task = self._tasks[label]
        task.refused = task.refused or error
        self._give_up(label)

    def _give_up(self, label: str) -> None:
        """Nobody asks this endpoint any more."""
        task = self._tasks[label]
        if task.refused is not None:
            for hand in self._hands:
                hand.outgoing.put_nowait(Enough(label))
        task.over.set()
        self._hand_out(label)

    # -------------------------------------------------------------------------------------------------- calls

    def _answer_soon(self, hand: _Hand, call: Call) -> None:
        what = call.what
        if isinstance(what, Take):
            self._tasks[what.label].takers.append((hand, call.call))
            self._hand_out(what.label)
            return
        if isinstance(what, Keep):
            self._keep(hand, call.call, what)
            return
        task = asyncio.create_task(self._answer(hand, call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _keep(self, hand: _Hand, number: int, what: Keep) -> None:
        """Hand rows to the journal; the answer goes when they are on disk."""
        loop = asyncio.get_running_loop()

        def kept() -> None:
            loop.call_soon_threadsafe(hand.outgoing.put_nowait, Answer(number))

        try:
            self._tasks[what.label].part.journal.put_rows(Rows(what.replies, what.items, kept))
        except StoreError as error:
            hand.outgoing.put_nowait(Answer(number, error=str(error)))
            self._lost(str(error))

    async def _answer(self, hand: _Hand, call: Call) -> None:
        try:
            answer = Answer(call.call, await self._value(hand, call.what))
        except EndpointRefused as error:
            answer = Answer(call.call, error=str(error), reason=error.reason)
        except Stopped:
            answer = Answer(call.call, error=STOPPED)
        except StoreError as error:
            answer = Answer(call.call, error=str(error))
            self._lost(str(error))
        hand.outgoing.put_nowait(answer)

    async def _value(self, hand: _Hand, what: object) -> object:
        match what:
            case Before():
                task = self._tasks[what.label]
                await task.opened.wait()
                if task.before is not None:
                    await task.before()
                return None
            case Known():
                journal = self._tasks[what.label].part.journal
                return list(await asyncio.to_thread(journal.answered, what.keys))
            case Forget():
                await asyncio.to_thread(self._tasks[what.label].part.journal.forget, what.keys)
                return None
        return await self._lenders.answer(hand.name, what)

    def _hand_out(self, label: str) -> None:
        """Hand pieces to who waits for one; nothing, for good, where there is nothing more."""
        task = self._tasks[label]
        while task.takers:
            hand, number = task.takers[0]
            piece = None
            if not task.over.is_set() and not self._lost.stop.is_set():
                piece = self._ledger.take(hand.name, label)
                if piece is None:
                    return  # another has it, and may be lost
            task.takers.popleft()
            value = None
            if piece is not None:
                texts = self._texts is not None and self._texts.wanted(piece, label)
                value = [piece.task, piece.start, piece.stop, texts]
            hand.outgoing.put_nowait(Answer(number, value))

    async def _stop_all(self) -> None:
        """Pass on that the run is stopped."""
        await self._lost.stop.wait()
        for hand in self._hands:
            hand.outgoing.put_nowait(Stop())
        for label in self._tasks:
            self._hand_out(label)
        await asyncio.wait(self._employing)
        for task in self._tasks.values():
            task.over.set()


@dataclass(frozen=True, slots=True)
class _CrewPool:
    """Stands where an endpoint's pool would."""

    crew: Crew
    work: Work

    async def run(self) -> None:
        """As `Pool.run`."""
        await self.crew.ask(self.work)


@asynccontextmanager
async def crew_of(
    found: Found,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    engine: Engine,
    clients: Clients,
    addresses: Mapping[str, str],
    lost: Lost,
    console: Console,
) -> AsyncIterator[Crew]:
    """The workers of a run, while the block goes on; their texts are put together when it has ended."""
    prepared = found.prepared
    pieces = pieces_for(prepared.suite, engine.workers)
    texts = None
    if prepared.settings.store_text:
        tokenizers = {label: each.sha256 for label, each in prepared.tokenizers.items()}
        texts = TextPieces(folder.path / "texts.parquet", pieces, tokenizers)
    lenders = Lenders(clients.budgets.get(account) for account in prepared.allowances)
    crew = Crew(prepared, parts, engine, pieces, lenders, addresses, texts, lost, console)
    try:
        async with crew:
            yield crew
    finally:
        if texts is not None:
            await to_its_end(asyncio.to_thread(texts.close, complete=crew.whole))


def pieces_for(suite: Suite, workers: int) -> list[Piece]:
    """What is handed to so many workers, one by one."""
    size = ceil(suite.size / (EACH * max(1, workers)))
    return small_pieces(suite, min(MOST, max(FEWEST, size)))
