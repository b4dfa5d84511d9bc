"""The keeper of an account's budget, who grants slots to holders in other processes: one event loop's.

Slots are planned round by round, ahead of time, and are just those moments at which a budget in one process
would have let the same requests go; no holder sends before, and none much later. So what holds for a budget
holds for all its holders together, whoever comes, goes or dies. What is asked for in one round is dealt out
one by one: between endpoints by the tags of fair queueing, between holders in turns.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from harness.pacing.allowance import ROUNDING
from harness.pacing.budget import Budget, Share
from harness.pacing.headers import Limits
from harness.pacing.lending import LEAD, ROUND, Ask, Grant, Slot, Terms

BUNDLES = 32
"""Slots, at most, for the requests of one ask that are only likely to come: planning them costs time."""

IN_ALL = 2048
"""Such slots for all holders together, one for each at least."""

ASKS = 1000.0
"""Asks a second. One takes about 0.3 ms, and with these half of a process (`tests.bench.costs`): where more
holders are to be answered, rounds are longer."""

KEPT = 1.5
"""Seconds for which is remembered what was lent: by then it is used, given back or lost."""

LONGEST_TRAVEL = 1.0
"""Seconds."""


@dataclass(slots=True)
class _Wanted:
    """Some requests of an ask."""

    moment: float
    """Not before which they are wanted."""
    requests: int
    tokens: int
    since: float | None = None
    """When they became the next."""


@dataclass(slots=True, eq=False)
class _Asking:
    """An ask that waits."""

    holder: str
    label: str
    number: int
    came: float
    wanted: deque[_Wanted]
    granted: list[Slot] = field(default_factory=list)
    answered: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def over(self) -> bool:
        """It waits no longer."""
        return self.answered.done()

    def answer(self) -> None:
        """It is to wait no longer."""
        if not self.answered.done():
            self.answered.set_result(None)


@dataclass(slots=True)
class _Line:
    """The asks for one endpoint that want something by now, and its share."""

    share: Share
    asks: deque[_Asking] = field(default_factory=deque)

    def first(self) -> _Asking | None:
        """Whose turn it is."""
        while self.asks and self.asks[0].over:
            self.asks.popleft()
        return self.asks[0] if self.asks else None


class Lessor:
    """Grants slots of one account's budget; it is what holders see as `Lends`, if need be over a wire.

    Attributes:
        budget: may be asked directly beside, in the same loop.
    """

    def __init__(
        self, budget: Budget, clock: Callable[[], float] = time.monotonic, *, asks: float = ASKS
    ) -> None:
        """Nobody has asked yet.

        Args:
            budget: what is lent.
            clock: that of whoever else asks it.
            asks: how many a second are to be answered at most, if all holders ask once in a round.
        """
        self.budget = budget
        budget.on_change = self._changed
        self._clock = clock
        self._asks = asks
        self._lines: dict[str, _Line] = {}
        self._lent: dict[tuple[str, str], deque[Slot]] = {}
        self._holders: set[str] = set()
        self._until = float("-inf")
        """Up to which slots are planned."""
        self._later: list[tuple[float, int, _Asking]] = []
        """Asks by the moment of what they want next, and their turns; a heap."""
        self._turns = 0
        self._waiting: set[_Asking] = set()
        self._timer: asyncio.Handle | None = None
        self._version = 0
        self._listening: set[asyncio.Future[None]] = set()

    @property
    def round(self) -> float:
        """Seconds for which slots are planned at a time by now."""
        return max(ROUND, len(self._holders) * len(self._lines) / self._asks)

    # ------------------------------------------------------------------------------------------ what is asked

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """Slots for an endpoint's requests; waits until there is one at least, or there are no limits."""
        now = self._clock()
        self._holders.add(holder)
        self._returned(holder, share, ask.requests, ask.tokens)
        bundles = max(1, min(BUNDLES, IN_ALL // len(self._holders)))
        wanted = deque(_wanted(ask, now, self.round, bundles))
        if self.budget.allowed == (None, None) or not wanted:
            return self._grant([], now)
        asking = _Asking(holder, share, self._turns, now, wanted)
        self._waiting.add(asking)
        self._put(asking)
        self._plan_soon()
        try:
            await asking.answered
        finally:
            self._waiting.discard(asking)
        return self._grant(asking.granted, now)

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """Of earlier grants this much was not used, and will not be."""
        self._returned(holder, share, requests, tokens)
        self._plan_soon()

    async def pause(self, seconds: float) -> None:
        """The endpoint asks everybody to send nothing for so long from now."""
        self.budget.pause(self._clock() + seconds)

    async def follow(self, limits: Limits) -> None:
        """The endpoint has told what it allows."""
        self.budget.follow(limits, self._clock())

    async def news(self, holder: str, seen: int) -> Terms:
        """Wait until the terms are others than those of version `seen`, and tell them."""
        self._holders.add(holder)
        while self._version == seen:
            heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._listening.add(heard)
            try:
                await heard
            finally:
                self._listening.discard(heard)
        return self._terms(self._clock())

    def gone(self, holder: str) -> None:
        """A holder has ended: it will not send what it might have sent from now on."""
        now = self._clock()
        self._holders.discard(holder)
        for asking in self._waiting:
            if asking.holder == holder:
                asking.answer()
        for who, label in [each for each in self._lent if each[0] == holder]:
            left = [slot for slot in self._lent[who, label] if slot.moment > now]
            self._returned(who, label, sum(slot.requests for slot in left), sum(slot.tokens for slot in left))
            del self._lent[who, label]
        self._plan_soon()

    # ---------------------------------------------------------------------------------------------- planning

    def _plan_soon(self) -> None:
        """Plan once all asks have come that are there already."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._plan)

    def _plan(self) -> None:
        """Give out the slots of this round, and of the next one when it is time for that."""
        self._timer = None
        if not self._waiting:
            return
        now = self._clock()
        if now >= self._until - LEAD - ROUNDING:
            self._until = max(self._until, now) + self.round
        self._deal(now)
        if self._waiting:
            wait = max(0.0, self._until - LEAD - now)
            self._timer = asyncio.get_running_loop().call_later(wait, self._plan)

    def _deal(self, at: float) -> None:
        """Let go what may go from a moment to the end of the round; who is next holds back all others."""
        granted: list[_Asking] = []
        while at <= self._until:
            self._come(at)
            if (found := self._next()) is None:
                at = self._later[0][0] if self._later else math.inf
                continue
            line, asking = found
            wanted = asking.wanted[0]
            if wanted.moment > at:  # the round was dealt up to then already
                self._put(line.asks.popleft())
                continue
            if wanted.since is None:
                wanted.since = at
            if wait := self.budget.let(line.share, wanted.tokens, at, wanted.since, wanted.requests):
                at += wait
                continue
            asking.wanted.popleft()
            self._lend(asking, Slot(moment=at, requests=wanted.requests, tokens=wanted.tokens))
            granted.append(line.asks.popleft())
            if asking.wanted:
                self._put(asking)
            else:
                asking.answer()
        for asking in granted:
            asking.answer()

    def _put(self, asking: _Asking) -> None:
        """Have an ask wait for the moment of what it wants next."""
        heappush(self._later, (asking.wanted[0].moment, self._turns, asking))
        self._turns += 1

    def _come(self, at: float) -> None:
        """Asks that want something by a moment come into their lines."""
        while self._later and self._later[0][0] <= at:
            asking = heappop(self._later)[2]
            if not asking.over:
                self._line(asking.label).asks.append(asking)

    def _next(self) -> tuple[_Line, _Asking] | None:
        """Who is next: of the line whose share has had least."""
        found = [(line, asking) for line in self._lines.values() if (asking := line.first()) is not None]
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=lambda each: (self.budget.tag(each[0].share), each[1].number))

    def _lend(self, asking: _Asking, slot: Slot) -> None:
        asking.granted.append(slot)
        self._lent.setdefault((asking.holder, asking.label), deque()).append(slot)

    def _line(self, label: str) -> _Line:
        if label not in self._lines:
            self._lines[label] = _Line(self.budget.share(label))
        return self._lines[label]

    # ------------------------------------------------------------------------------------------ what was lent

    def _returned(self, holder: str, label: str, requests: int, tokens: int) -> None:
        """Take back what was not used: never more than what was lent of late."""
        lent, now = self._lent.get((holder, label)), self._clock()
        while lent and lent[0].moment < now - KEPT:
            lent.popleft()
        if not lent or not (requests or tokens):
            return
        oldest, wanted, rest = lent[0].moment, (requests, tokens), []
        while lent and (requests or tokens):
            slot = lent.pop()  # the newest: what is to come is not returned once more when its holder ends
            less = min(slot.requests, requests), min(slot.tokens, tokens)
            requests, tokens = requests - less[0], tokens - less[1]
            left = replace(slot, requests=slot.requests - less[0], tokens=slot.tokens - less[1])
            if left.requests or left.tokens:
                rest.append(left)
        lent.extend(reversed(rest))
        back = wanted[0] - requests, wanted[1] - tokens
        self.budget.give_back(self._line(label).share, *back, oldest)

    # -------------------------------------------------------------------------------------------------- terms

    def _grant(self, slots: list[Slot], came: float) -> Grant:
        now = self._clock()
        slots.sort(key=lambda slot: slot.moment)
        until = max(now, self._until)
        return Grant(slots=tuple(slots), came=came, made=now, until=until, terms=self._terms(now))

    def _terms(self, now: float) -> Terms:
        rpm, tpm = self.budget.allowed
        pause = self.budget.pause_left(now)
        return Terms(
            version=self._version,
            rpm=rpm,
            tpm=tpm,
            pause=pause,
            holders=len(self._holders),
            round=self.round,
        )

    def _changed(self) -> None:
        """The budget is another."""
        self._version += 1
        for heard in self._listening:
            if not heard.done():
                heard.set_result(None)


def _wanted(ask: Ask, now: float, round_s: float, bundles: int) -> Iterator[_Wanted]:
    """The requests of an ask: those that wait at once, those that are likely to come spread over a round."""
    first = now + min(max(0.0, ask.travel), LONGEST_TRAVEL)
    for tokens in ask.costs:
        yield _Wanted(first, 1, tokens)
    bundle = math.ceil(ask.more / bundles)
    begin = max(first, now + ask.after)
    for done in range(0, ask.more, bundle or 1):
        requests = min(bundle, ask.more - done)
        yield _Wanted(begin + round_s * done / ask.more, requests, requests * ask.typical)
