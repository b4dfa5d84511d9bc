"""What a run answers its workers: which piece is next, what is known, that something is kept."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness.errors import EndpointRefused, Stopped, StoreError, UsageError
from harness.events import event
from harness.layout import SHORTCUT
from harness.manifest import EndpointRun
from harness.opening import Lost
from harness.sharding import Piece
from harness.work import Work
from harness.workers.hands import Hand
from harness.workers.ledger import Ledger
from harness.workers.lenders import Lenders
from harness.workers.line import STOPPED
from harness.workers.messages import (
    Answer,
    Before,
    Broken,
    Call,
    Counted,
    Done,
    Doubt,
    Ended,
    Enough,
    Forget,
    Handed,
    Happened,
    Keep,
    Lookup,
    Note,
    Ready,
    Refused,
    Stop,
    Take,
    Texts,
    ToRun,
)
from harness.workers.stores import Stores
from harness.workers.tally import Tally

_WRITES = "writes"
"""What a task is called that must not be broken off."""


@dataclass(slots=True)
class _Asked:
    """One endpoint, as all workers together ask it."""

    part: EndpointRun
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more is asked of it."""
    refused: EndpointRefused | None = None
    takers: deque[tuple[Hand, int]] = field(default_factory=deque)
    """Who waits for a piece, and the number of the call."""
    before: Callable[[], Awaitable[object]] | None = None
    moved: Callable[[], object] | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """It may be asked."""


class Desk:
    """Hands out the pieces, and keeps what comes back. For one event loop.

    Attributes:
        hands: the workers that there are.
    """

    def __init__(
        self,
        parts: Sequence[EndpointRun],
        pieces: Sequence[Piece],
        lenders: Lenders,
        stores: Stores,
        lost: Lost,
    ) -> None:
        """Nobody has asked yet.

        Args:
            parts: the endpoints that are to be asked.
            pieces: what is handed out, in the order of the run.
            lenders: what workers may send of budgets and caps.
            stores: keep what comes back.
            lost: is told what breaks the run.
        """
        self.hands: set[Hand] = set()
        self._asked = {part.endpoint.label: _Asked(part) for part in parts}
        self._ledger = Ledger(pieces, self._asked)
        self._lenders = lenders
        self._stores = stores
        self._lost = lost
        self._calls: set[asyncio.Task[None]] = set()
        for label, asked in self._asked.items():
            asked.part.progress.waits = self._waits_of(label)

    def hand(self, name: str) -> Hand:
        """A worker more."""
        hand = Hand(name, {label: Tally(asked.part) for label, asked in self._asked.items()})
        self.hands.add(hand)
        return hand

    def replies(self) -> dict[str, int]:
        """How many replies there were of each endpoint that may still be asked."""
        return {label: asked.part.before.replies for label, asked in self._asked.items() if not asked.refused}

    @property
    def whole(self) -> bool:
        """Whether every piece is done for one endpoint at least."""
        return any(self._ledger.over(label) for label in self._asked)

    @property
    def over(self) -> bool:
        """Whether nothing more is asked."""
        return all(asked.over.is_set() for asked in self._asked.values())

    async def ask(self, work: Work) -> None:
        """Have an endpoint asked all its items, as its pool would.

        Raises:
            EndpointRefused: it must not be asked any more.
        """
        asked, loop = self._asked[work.progress.label], asyncio.get_running_loop()
        asked.before, asked.moved = work.before, work.moved

        def beside(keys: Sequence[bytes]) -> None:  # looks, which this process asks itself
            loop.call_soon_threadsafe(work.progress.count, len(keys))

        asked.part.journal.on_commit = beside
        asked.opened.set()
        await asked.over.wait()
        with suppress(StoreError):  # it breaks the run, which was told
            await asyncio.to_thread(asked.part.journal.flush)
        work.forecast.whole = self._ledger.over(work.progress.label)
        if asked.refused is not None:
            raise asked.refused

    def stop(self) -> None:
        """Nobody is handed anything any more, and who works ends what is in flight."""
        for hand in self.hands:
            hand.outgoing.put_nowait(Stop())
        for label in self._asked:
            self._hand_out(label)

    def end(self) -> None:
        """Nothing more is asked, whether all is done or not: who has done what it had ends."""
        for label, asked in self._asked.items():
            asked.over.set()
            self._hand_out(label)

    def gone(self, hand: Hand) -> None:
        """A worker has ended; where it had not told all, what it had is handed to others."""
        self.hands.discard(hand)
        self._lenders.gone(hand.name)
        if hand.ended:
            return
        for tally in hand.tallies.values():
            tally.lose()
        pieces = self._ledger.lost(hand.name)
        if hand.ready or not (self.over or self._lost.stop.is_set()):  # else nobody needs it any more
            event("worker_lost", level=logging.WARNING, worker=hand.name, pieces=pieces)
        for label, asked in self._asked.items():
            asked.takers = deque(each for each in asked.takers if each[0] is not hand)
            self._hand_out(label)

    async def close(self) -> None:
        """Answer nobody any more; what is being written is."""
        for each in [*self._calls]:
            if each.get_name() != _WRITES:
                each.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _waits_of(self, label: str) -> Callable[[], int]:
        return lambda: sum(each.tallies[label].waiting for each in self.hands)

    # ------------------------------------------------------------------------------------- what a worker says

    def take_in(self, hand: Hand, message: ToRun) -> None:
        """Take a message of a worker; raises `UsageError` where it cannot go on, nor could another."""
        match message:
            case Call():
                self._answer_soon(hand, message)
            case Counted():
                for label, counts in message.counts.items():
                    hand.tallies[label].count(counts)
                    if (moved := self._asked[label].moved) is not None:
                        moved()
            case Done():
                self._ledger.done(hand.name, message.label, message.piece)
                if self._ledger.over(message.label):
                    self._give_up(message.label)
            case Texts():
                self._do_soon(self._stores.keep_texts(message), _WRITES)
            case Note():
                self._note(hand, message)
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

    def _note(self, by: Hand, message: Note) -> None:
        """Keep evidence, but never in place of what says that it does not hold; that all workers are told."""
        journal = self._asked[message.label].part.journal
        if "why" in json.loads(journal.meta.get(SHORTCUT, "{}")):
            return
        journal.note_shortcut(message.evidence)
        said = json.loads(message.evidence)
        if "why" in said:
            doubt = Doubt(message.label, said["largest_difference"], said["why"])
            for hand in self.hands - {by}:
                hand.outgoing.put_nowait(doubt)

    def _refuse(self, label: str, error: EndpointRefused) -> None:
        asked = self._asked[label]
        asked.refused = asked.refused or error
        self._give_up(label)

    def _give_up(self, label: str) -> None:
        """Nobody asks this endpoint any more."""
        asked = self._asked[label]
        if asked.refused is not None:
            for hand in self.hands:
                hand.outgoing.put_nowait(Enough(label))
        asked.over.set()
        self._hand_out(label)

    # -------------------------------------------------------------------------------------------------- calls

    def _answer_soon(self, hand: Hand, call: Call) -> None:
        what = call.what
        if isinstance(what, Take):
            self._asked[what.label].takers.append((hand, call.call))
            self._hand_out(what.label)
            return
        if isinstance(what, Keep):
            self._stores.keep(hand, call.call, what)
            return
        self._do_soon(self._answer(hand, call))

    def _do_soon(self, what: Coroutine[Any, Any, None], name: str = "") -> None:
        doing = asyncio.get_running_loop().create_task(what, name=name)
        self._calls.add(doing)
        doing.add_done_callback(self._calls.discard)

    async def _answer(self, hand: Hand, call: Call) -> None:
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

    async def _value(self, hand: Hand, what: object) -> object:
        match what:
            case Before():
                asked = self._asked[what.label]
                await asked.opened.wait()
                if asked.before is not None:
                    await asked.before()
                return None
            case Lookup():
                return await self._stores.answered(what)
            case Forget():
                await self._stores.forget(what)
                return None
        return await self._lenders.answer(hand.name, what)

    def _hand_out(self, label: str) -> None:
        """Hand pieces to who waits for one; nothing, for good, where there is nothing more."""
        asked = self._asked[label]
        while asked.takers:
            hand, number = asked.takers[0]
            piece = None
            if not asked.over.is_set() and not self._lost.stop.is_set():
                piece = self._ledger.take(hand.name, label)
                if piece is None:
                    return  # another has it, and may be lost
            asked.takers.popleft()
            value: Handed | None = None
            if piece is not None:
                texts = self._stores.wants_texts(piece, label)
                value = Handed(piece, texts)
            hand.outgoing.put_nowait(Answer(number, value))
