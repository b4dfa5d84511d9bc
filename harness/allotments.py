"""What the caps of a run leave, allotted to several processes: no cap is passed, though not every request is
asked about.

What is allotted counts as spent from then on, and lives a second; the rest goes back. The less is left the
smaller allotments are, in the end single requests; and nobody is refused as long as something may come back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.caps import Amount, Meter, Price, Spending, Volume

LIFE = 1.0
"""Seconds in which an allotment is spent, or goes back."""

FIRST = 16
"""Requests that are asked for where nothing has been sent of late."""

LOW = 0.25
"""Share of an allotment: when less is left the next one is asked for, while the rest is being spent."""

SHORTEST = 0.1
"""Seconds over which it is measured how fast an allotment is spent, at least."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a process asks for."""

    least: Amount
    """For a request that waits; nothing: none does yet."""
    wish: Amount
    """For all that it is likely to send in `LIFE` seconds."""
    last: int = 0
    """The number of the allotment that it has; 0: none."""
    unused: Amount = field(default_factory=Amount)
    """Of that, given back."""
    kept: Amount = field(default_factory=Amount)
    """Of that, still being spent; all else has been."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """What it gets."""

    number: int
    amount: Amount
    """On top of what was kept."""
    reason: str = ""
    """The cap that was reached, as its flag: then there is nothing, and never will be."""


class Allots(Protocol):
    """Whoever keeps the spending of a run, as workers see it, over whatever wire."""

    async def allot(self, holder: str, need: Need) -> Allotment:
        """What the caps leave to a holder; waits while others may still give something back."""

    async def settle(self, holder: str, number: int, unused: Amount) -> None:
        """A holder gives back what it has not spent of an allotment, and has spent all else."""


@dataclass(slots=True, eq=False)
class _Waiting:
    holder: str
    need: Need
    answered: asyncio.Future[Allotment]


class Allotter:
    """Allots what a run's `Spending` leaves; for one event loop. It is what holders see as `Allots`."""

    def __init__(self, spending: Spending) -> None:
        """Take what all share."""
        self._spending = spending
        self._holders: set[str] = set()
        self._out: dict[tuple[str, int], Amount] = {}
        """What holders have that may still come back, by the numbers of allotments."""
        self._numbers = 0
        self._waiting: deque[_Waiting] = deque()

    async def allot(self, holder: str, need: Need) -> Allotment:
        """What the caps leave to a holder; waits while others may still give something back."""
        self._holders.add(holder)
        self._settled(holder, need.last, need.unused)
        if need.least == Amount() and self._waiting:
            return self._allotted(holder, need, Amount())
        waiting = _Waiting(holder, need, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._serve()
        try:
            return await waiting.answered
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def settle(self, holder: str, number: int, unused: Amount) -> None:
        """A holder gives back what it has not spent of an allotment, and has spent all else."""
        self._settled(holder, number, unused)
        self._serve()

    def gone(self, holder: str) -> None:
        """A holder has ended: what it had counts as spent."""
        self._holders.discard(holder)
        self._out = {key: amount for key, amount in self._out.items() if key[0] != holder}
        for each in self._waiting:
            if each.holder == holder and not each.answered.done():
                each.answered.cancel()
        self._serve()

    def _settled(self, holder: str, number: int, unused: Amount) -> None:
        if self._out.pop((holder, number), None) is not None:
            self._spending.give_back(unused)

    def _serve(self) -> None:
        """First come, first served; the first whom nothing that comes back can help ends the run."""
        while self._waiting:
            waiting = self._waiting[0]
            if not waiting.answered.done():
                least, wish = waiting.need.least, waiting.need.wish.at_least(waiting.need.least)
                amount = self._spending.reserve(least, wish, len(self._holders), LIFE)
                if amount is None and self._out and not self._spending.reason:
                    return
                if amount is None and not self._spending.reason:
                    self._spending.admit(least.tokens, least.money)
                found = self._allotted(waiting.holder, waiting.need, amount or Amount())
                waiting.answered.set_result(found)
            self._waiting.popleft()

    def _allotted(self, holder: str, need: Need, amount: Amount) -> Allotment:
        self._numbers += 1
        if need.kept + amount != Amount():
            self._out[holder, self._numbers] = need.kept + amount
        return Allotment(self._numbers, amount, self._spending.reason)


class LeasedSpending:
    """What a process may spend of what its run's caps leave, in the place of `Spending`.

    Attributes:
        capped: there is a cap to ask about.
        reason: the cap that was reached, as its flag; empty: none yet.
    """

    def __init__(self, allots: Allots, holder: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take whom to ask, and our name there."""
        self.capped = True
        self.reason = ""
        self._allots = allots
        self._holder = holder
        self._clock = clock
        self._have = self._had = Amount()
        self._number = 0
        self._since = 0.0
        """When that was allotted."""
        self._turn = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def meter(self, price: Price) -> Meter:
        """What one endpoint asks before it is sent anything."""
        return Meter(self, price)

    def admit(self, tokens: int, money: float) -> bool:
        """Whether one more attempt may be made of what is there; if so it counts."""
        cost = Amount(1, tokens, money)
        if self.reason or not self._have.holds(cost):
            return False
        self._have -= cost
        if not self._turn.locked() and not self._have.holds(self._had.times(LOW)):
            self._tell(self._refill())
        return True

    def leaves(self, sent: Volume, money: float) -> bool:
        """Whether no cap has been reached; how much is left is not known here."""
        return not self.reason

    async def more(self, tokens: int, money: float) -> bool:
        """Ask for more, for one attempt at least; first come, first served."""
        async with self._turn:
            if self.admit(tokens, money):
                return True
            if self.reason:
                return False
            unused, self._have = self._have, Amount()
            await self._ask(Amount(1, tokens, money), unused)
            return self.admit(tokens, money)

    async def close(self) -> None:
        """Give back what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._expired()
        if self._sending:
            await asyncio.wait(self._sending)

    async def _refill(self) -> None:
        """Ask before all is spent."""
        if not self._turn.locked():
            async with self._turn:
                await self._ask(Amount(), Amount())

    async def _ask(self, least: Amount, unused: Amount) -> None:
        """Get another allotment on top of what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kept, seconds = self._have, max(SHORTEST, self._clock() - self._since)
        wish = (self._had - kept - unused).times(LIFE / seconds).at_least(least.times(FIRST))
        found = await self._allots.allot(self._holder, Need(least, wish, self._number, unused, kept))
        self.reason, self._number = found.reason, found.number
        self._have = self._had = self._have + found.amount
        self._since = self._clock()
        self._timer = asyncio.get_running_loop().call_later(LIFE, self._expired)

    def _expired(self) -> None:
        """What was not spent goes back; all else has been spent: that is told too."""
        self._timer = None
        unused, self._have, self._had = self._have, Amount(), Amount()
        self._tell(self._allots.settle(self._holder, self._number, unused))
        self._number = 0

    def _tell(self, message: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(message)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
