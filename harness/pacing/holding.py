"""What a holder knows of an account, and one endpoint's share of what it holds: asking, waiting, using."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from harness.pacing.allowance import ROUNDING
from harness.pacing.budget import Budget
from harness.pacing.headers import Limit, Limits
from harness.pacing.lending import LATE, Ask, Lends, Terms
from harness.pacing.slots import Clocks, Recent, Slots

AHEAD = 0.2
"""Seconds before the end of what is planned at which more is asked for."""

MARGIN = 1.25
"""Of the requests that come in a round, so many are asked for ahead; twice as many where they ran out."""

FOREVER = 3600.0
"""Seconds."""


class Holder:
    """What all shares of a leased budget have in common.

    Attributes:
        lends: the keeper.
        name: ours there.
        clock: that of clients.
        clocks: how far the keeper's is off.
        here: what is known of the account: only what it says of allowances and pauses is of use.
        open: without limits and pauses; nobody need ask.
        waiting: how many requests wait here.
    """

    def __init__(
        self,
        lends: Lends,
        holder: str,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the keeper, and what the account allows as far as is known.

        Args:
            lends: the keeper.
            holder: our name there; nobody else's.
            rpm: requests a minute; None: no limit.
            tpm: tokens a minute.
            clock: the one that clients have.
        """
        self.lends = lends
        self.name = holder
        self.clocks = Clocks()
        self.clock = clock
        self.waiting = 0
        self.open = rpm is None and tpm is None
        self._said = rpm, tpm
        self.here = Budget(rpm, tpm)
        self.shares: list[LeasedShare] = []
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def allowed(self) -> tuple[float | None, float | None]:
        """Requests and tokens a minute of the whole account by now; None: no limit."""
        return self.here.allowed

    def paused(self, now: float) -> bool:
        """Whether a pause is on."""
        return self.here.paused(now)

    def pause_left(self, now: float) -> float:
        """Seconds that a pause still lasts."""
        return self.here.pause_left(now)

    def hear(self, terms: Terms) -> None:
        """Take the keeper's terms."""
        now = self.clock()
        if self.here.allowed != (terms.rpm, terms.tpm):
            left = self.here.pause_left(now)
            self.here = Budget(*self._said)
            self.here.follow(Limits(Limit(terms.rpm), Limit(terms.tpm)), now)
            if left:
                self.here.pause(now + left)
        if terms.pause and self.here.pause(now + terms.pause):
            self.hold_back()
        if self.limited:
            self.open = False

    @property
    def limited(self) -> bool:
        """Whether there is any limit: else the keeper need not be asked."""
        return self.allowed != (None, None)

    def send(self, message: Coroutine[Any, Any, None]) -> None:
        """Tell the keeper something, and go on."""
        task = asyncio.get_running_loop().create_task(message)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def hold_back(self) -> None:
        """A pause: what may go now will not."""
        self.open = False
        for share in self.shares:
            share.drop()


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits."""

    tokens: int
    called: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def call(self) -> None:
        """It is the first now."""
        if not self.called.done():
            self.called.set_result(None)


class LeasedShare:
    """One endpoint's share of a leased holder.

    Attributes:
        queue: its requests that wait.
    """

    def __init__(self, holder: Holder, label: str) -> None:
        """`LeasedBudget.share` makes them."""
        self.queue: deque[_Waiter] = deque()
        self._holder = holder
        self._label = label
        self._slots = Slots()
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.Handle | None = None
        self._until = -math.inf
        """Up to which moment of our clock slots have been planned."""
        self._used = Recent()
        self._travel = 0.0

    async def wait(
        self, tokens: int, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        """Wait until a request of so many tokens may be sent; first come, first served.

        Args:
            tokens: prompt and forced.
            clock: seconds, from any origin; the budget's.
            sleep: waits so many seconds; may raise to end the waiting.
        """
        if not self.queue and self._take(tokens, clock()):
            return
        waiter = _Waiter(tokens)
        self.queue.append(waiter)
        self._holder.waiting += 1
        try:
            while True:
                if self.queue[0] is not waiter:
                    await waiter.called
                elif self._take(tokens, clock()):
                    return
                else:
                    await self._watch(tokens, clock(), sleep)
        finally:
            self.queue.remove(waiter)
            self._holder.waiting -= 1
            if self.queue:
                self.queue[0].call()

    def drop(self) -> None:
        """Give back what may go now, or soon."""
        self._slots.drop()
        self._give_back()

    def close(self) -> None:
        """Ask no more, and give back all."""
        for each in (self._timer, self._asking):
            if each is not None:
                each.cancel()
        self.drop()

    # --------------------------------------------------------------------------------------- using and asking

    @property
    def _counted(self) -> tuple[bool, bool]:
        rpm, tpm = self._holder.allowed
        return rpm is not None, tpm is not None

    def _take(self, tokens: int, now: float) -> bool:
        """Whether a request may go; then it has."""
        holder = self._holder
        if holder.pause_left(now) > ROUNDING:
            return False
        if not holder.limited:
            holder.open = True
            return True
        if not self._slots.take(tokens, now, self._counted):
            return False
        self._used.add(tokens, now)
        if now >= self._until - AHEAD:
            self._ask(now)
        return True

    async def _watch(self, tokens: int, now: float, sleep: Callable[[float], Awaitable[object]]) -> None:
        """The first that waits: until something has come that may let it go."""
        holder = self._holder
        if (pause := holder.pause_left(now)) > ROUNDING:
            await sleep(pause)
            return
        when = self._slots.when(tokens, self._counted)
        self._ask(now)
        if when is not None:
            await sleep(when - now)
        elif self._asking is not None:
            await _either(self._asking, sleep(FOREVER))

    def _ask(self, now: float) -> None:
        """Ask the keeper for what has no slot, and for what is likely to come, unless it is being asked."""
        if self._asking is not None:
            return
        covered = self._covered()
        costs, waiting = self._costs(covered), len(self.queue) - covered
        more = max(0, math.floor(self._used.requests(now) * (2 if costs else MARGIN)) - waiting)
        if not costs and not more:
            return
        self._slots.lapse(now)
        requests, tokens = self._slots.unused()
        ask = Ask(
            costs=costs,
            more=more,
            typical=math.ceil(self._used.typical),
            after=max(0.0, self._until - now),
            travel=self._travel,
            requests=requests,
            tokens=tokens,
        )
        self._asking = asyncio.get_running_loop().create_task(self._granted(ask, now))

    async def _granted(self, ask: Ask, asked: float) -> None:
        """Ask, and take what comes."""
        holder = self._holder
        try:
            grant = await holder.lends.lease(holder.name, self._label, ask)
        finally:
            self._asking = None
        now = holder.clock()
        holder.clocks.heard(asked, now, grant)
        holder.hear(grant.terms)
        self._used.remember(grant.terms.round, now)
        self._travel = max(0.0, now - grant.made - holder.clocks.most)
        self._until = grant.until + holder.clocks.most
        self._slots.add(grant, holder.clocks)
        if holder.paused(now):
            self.drop()
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self._until - now) + LATE
        self._timer = asyncio.get_running_loop().call_later(delay, self._sweep)
        if self.queue:
            self.queue[0].call()

    def _covered(self) -> int:
        """How many of the requests that wait have slots already."""
        counted = self._counted
        if not self.queue or self._slots.when(self.queue[0].tokens, counted) is None:
            return 0
        requests, tokens = self._slots.left()
        for number, waiter in enumerate(self.queue):
            requests, tokens = requests - 1, tokens - waiter.tokens
            if (requests < 0 and counted[0]) or (tokens < 0 and counted[1]):
                return number
        return len(self.queue)

    def _costs(self, covered: int) -> tuple[int, ...]:
        """Tokens of the requests that wait behind those that have slots: a second's worth at most."""
        rpm, tpm = self._holder.allowed
        most = (rpm or math.inf) / 60 + 1, (tpm or math.inf) / 60
        costs: list[int] = []
        tokens = 0
        for waiter in islice(self.queue, covered, None):
            if costs and (len(costs) >= most[0] or tokens >= most[1]):
                break
            costs.append(waiter.tokens)
            tokens += waiter.tokens
        return tuple(costs)

    def _sweep(self) -> None:
        """Nothing was asked for since the last grant: what has lapsed goes back by itself."""
        self._timer = None
        self._slots.lapse(self._holder.clock())
        self._give_back()

    def _give_back(self) -> None:
        requests, tokens = self._slots.unused()
        if requests or tokens:
            holder = self._holder
            holder.send(holder.lends.give_back(holder.name, self._label, requests, tokens))


async def _either(asking: asyncio.Task[None], sleeping: Awaitable[object]) -> None:
    """Until one of both is done; what it raises is raised."""
    sleeper = asyncio.ensure_future(sleeping)
    try:
        await asyncio.wait((asking, sleeper), return_when=asyncio.FIRST_COMPLETED)
        for each in (asking, sleeper):
            if each.done():
                each.result()
    finally:
        sleeper.cancel()
