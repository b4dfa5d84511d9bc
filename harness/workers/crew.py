"""The workers of a run: started, told what to do, replaced where one is lost, and ended."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import msgspec

from harness import __version__
from harness.asking import Asking
from harness.background import to_its_end
from harness.checked import Known
from harness.errors import HarnessError
from harness.events import LOGGER
from harness.manifest import EndpointRun
from harness.opening import Lost
from harness.planning import leading_pieces
from harness.prepare import Prepared
from harness.probing import Ready as Found
from harness.runs import RunFolder
from harness.sharding import Piece
from harness.shards import small_pieces
from harness.suite import Suite
from harness.terminal import say
from harness.work import Runs, Work
from harness.workers.channel import Channel, ChannelLost
from harness.workers.desk import Desk
from harness.workers.engine import Engine
from harness.workers.hands import Hand
from harness.workers.lenders import Lenders
from harness.workers.messages import Begin, Stop
from harness.workers.stores import Stores
from harness.workers.texts import TextPieces
from harness.workers.wire import encoded, to_run
from harness.workers.worker import identity_text

if TYPE_CHECKING:
    from rich.console import Console

EACH = 16
"""Pieces a worker, so that all end at about the same time."""
FEWEST, MOST = 16, 512
"""Items of a piece."""
SILENCE_S = 30.0
"""Seconds after which a worker is given up that says nothing; it should twice a second."""
RESTARTS = 3
"""Times that a worker is started again, for each that there should be."""
GATHER_S, LONGEST_S = 0.015, 1.0
"""Seconds for which a worker gathers what came on an endpoint before it sends it here."""
MESSAGES_S = 1000
"""Of such groups a second: a message costs this process a fifth of a millisecond, whatever is in it."""


class Crew:
    """Keeps as many workers as there should be; an async context manager, for one event loop."""

    def __init__(self, engine: Engine, desk: Desk, begin: Begin, lost: Lost, console: Console) -> None:
        """Nothing is started yet.

        Args:
            engine: starts workers.
            desk: answers them.
            begin: what each is told first, but for its name.
            lost: is told what breaks the run.
            console: where people are told of lost workers.
        """
        self._engine = engine
        self._desk = desk
        self._begin = begin
        self._lost = lost
        self._console = console
        self._numbers = itertools.count(1)
        self._restarts = RESTARTS * engine.workers
        self._employing: list[asyncio.Task[None]] = []
        self._with: dict[asyncio.Task[None], Hand] = {}
        """The worker that each of these tasks has, once it is started."""
        self._stopping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Crew:
        self._employing = [asyncio.create_task(self._employ()) for _ in range(self._engine.workers)]
        self._stopping = asyncio.create_task(self._stop_all())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Wait until all have told all, unless the block was broken off."""
        tasks = [*self._employing, *([self._stopping] if self._stopping else [])]
        try:
            if not any(error):
                self._end_all()
                await asyncio.wait(self._employing)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._desk.close()

    def pool(self, work: Work, stop: asyncio.Event) -> Runs:
        """What stands where an endpoint's pool would; the run's own event stops it."""
        return _CrewPool(self._desk, work)

    def _end_all(self) -> None:
        """Nothing is left to ask: who works ends by itself."""
        self._desk.end()
        self._cancel_starting()

    def _stop_workers(self) -> None:
        """Who works ends what is in flight; who has not begun, or waits for a processor, is let go."""
        self._desk.stop()
        self._cancel_starting()

    def _cancel_starting(self) -> None:
        for task in self._employing:
            if (hand := self._with.get(task)) is None or not hand.ready:
                task.cancel()

    async def _stop_all(self) -> None:
        """Pass on that the run is stopped."""
        await self._lost.stop.wait()
        self._stop_workers()
        await asyncio.wait(self._employing)
        self._desk.end()

    # -------------------------------------------------------------------------------------- one worker's life

    async def _employ(self) -> None:
        """Keep one worker, and start another in its place where it is lost."""
        try:
            while not self._desk.over and not self._lost.stop.is_set():
                name = f"worker {next(self._numbers)}"
                try:
                    await self._work_with(name)
                    return
                except ChannelLost as error:
                    if not self._replaceable(name, str(error)):
                        return
                except HarnessError as error:
                    self._cannot(name, error)
                    return
        finally:
            if all(each.done() or each is asyncio.current_task() for each in self._employing):
                self._desk.end()

    def _replaceable(self, name: str, why: str) -> bool:
        """Whether another is to be started in place of one that is lost."""
        if self._desk.over or self._lost.stop.is_set():
            return False
        self._restarts -= 1
        if self._restarts < 0:
            self._lost(f"workers end by themselves again and again; the last: {why}")
            return False
        say(self._console, f"{name} is lost ({why}); what it had in hand is asked by another")
        return True

    def _cannot(self, name: str, error: HarnessError) -> None:
        """A worker cannot be had, or cannot work: that breaks the run, unless it was to replace one that was
        lost, and others are left."""
        if str(error) in self._lost.why:
            return  # it has heard of it from us
        if name in self._firsts() or not self._desk.hands:
            self._lost(f"{name}: {error}")
        else:
            say(self._console, f"{name}: {error}; the others go on without it")

    def _firsts(self) -> list[str]:
        return [f"worker {number}" for number in range(1, self._engine.workers + 1)]

    async def _work_with(self, name: str) -> None:
        channel = await self._engine.start(name)
        hand, task = self._desk.hand(name), asyncio.current_task()
        assert task is not None
        self._with[task] = hand
        sending = asyncio.create_task(_send_all(channel, hand))
        try:
            part = (int(name.split()[1]) - 1) % self._engine.workers / self._engine.workers
            begin = msgspec.structs.replace(self._begin, name=name, part=part, replies=self._desk.replies())
            hand.outgoing.put_nowait(begin)
            if self._lost.stop.is_set():
                hand.outgoing.put_nowait(Stop())
            while not hand.ended:
                async with asyncio.timeout(SILENCE_S if hand.ready else None):
                    message = await channel.receive()
                self._desk.take_in(hand, to_run(message))
        except TimeoutError:
            raise ChannelLost(f"it has said nothing for {SILENCE_S:g} s") from None
        finally:
            del self._with[task]
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self._desk.gone(hand)
            await channel.close()


@dataclass(frozen=True, slots=True)
class _CrewPool:
    """Stands where an endpoint's pool would."""

    desk: Desk
    work: Work

    async def run(self) -> None:
        """As `Pool.run`."""
        await self.desk.ask(self.work)


async def _send_all(channel: Channel, hand: Hand) -> None:
    with suppress(ChannelLost):  # who receives meets the same
        while True:
            await channel.send(encoded(await hand.outgoing.get()))


@asynccontextmanager
async def crew_of(
    found: Found,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    asking: Asking,
    engine: Engine,
    addresses: Mapping[str, str],
    lost: Lost,
) -> AsyncIterator[Crew]:
    """The workers of a run, while the block goes on; their texts are put together when it has ended."""
    prepared = found.prepared
    pieces = pieces_for(prepared.suite, engine.workers)
    texts = None
    if prepared.settings.store_text:
        tokenizers = {label: each.sha256 for label, each in prepared.tokenizers.items()}
        texts = TextPieces(folder.path / "texts.parquet", pieces, tokenizers)
    budgets = (asking.clients.budgets.get(account) for account in prepared.allowances)
    lenders = Lenders(budgets, asking.spending)
    asked = [part for part in parts if not part.refused]
    desk = Desk(asked, pieces, lenders, Stores(asked, texts, lost), lost)
    begin = begin_of(prepared, engine, len(parts), addresses, capped=lenders.capped)
    try:
        async with Crew(engine, desk, begin, lost, asking.console) as crew:
            yield crew
    finally:
        if texts is not None:
            await to_its_end(asyncio.to_thread(texts.close, complete=desk.whole))


def pieces_for(suite: Suite, workers: int) -> list[Piece]:
    """What is handed to so many workers, one by one."""
    size = ceil(suite.size / (EACH * max(1, workers)))
    return small_pieces(suite, min(MOST, max(FEWEST, size)))


def begin_of(
    prepared: Prepared, engine: Engine, endpoints: int, addresses: Mapping[str, str], *, capped: bool
) -> Begin:
    """What every worker is told first."""
    settings = replace(
        prepared.settings, out=prepared.folder, workers=None, engine="local", ray_address=None, log_file=None
    )
    variables = {each for found in prepared.secrets.values() for each in found.variables}
    return Begin(
        name="",
        part=0.0,
        version=__version__,
        settings=settings,
        environ={each: os.environ[each] for each in sorted(variables) if each in os.environ},
        folder=os.getcwd(),
        identity=identity_text(prepared),
        rows={each.task.name: Known(each.rows.revision, each.survey) for each in prepared.suite.tasks},
        leading=leading_pieces(prepared.suite) if prepared.settings.shortcut else (),
        addresses=addresses if engine.here else {},
        replies={},
        capped=capped,
        gather=min(LONGEST_S, max(GATHER_S, engine.workers * endpoints / MESSAGES_S)),
        logs=LOGGER.isEnabledFor(logging.INFO),
    )
