"""Requests and tokens a minute of one account, spread evenly and shared fairly by its endpoints.

Start-time fair queueing: each endpoint has a `Share`, and the next request is of the share that has had
least, however many wait there. What an idle share does not use goes to the others, and is not saved up.
(aiolimiter refuses a cost above its capacity, lets a whole capacity out at once, knows no shares, and reads
the clock itself.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, field
from typing import Protocol

from harness.pacing.allowance import ROUNDING, Allowance, slack
from harness.pacing.headers import Limits

SAME_PAUSE = 1.0
"""Seconds."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits."""

    number: int
    """In order of arrival, over all shares."""
    tokens: int
    called: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when it is let through, or is the next to be: then it watches the clock itself."""
    since: float | None = None
    """When it became the next."""
    through: bool = False

    def call(self) -> None:
        """Wake it up."""
        if not self.called.done():
            self.called.set_result(None)


class AnyShare(Protocol):
    """What a client asks of its endpoint's share."""

    @property
    def queue(self) -> Sized:
        """The requests that wait."""

    async def wait(
        self, tokens: int, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        """Wait until a request of so many tokens may be sent."""


class AnyBudget(Protocol):
    """What a client asks of its account's budget, wherever that is kept."""

    waiting: int
    """How many requests wait."""

    @property
    def open(self) -> bool:
        """Without limits and pauses; nobody need ask."""

    @property
    def allowed(self) -> tuple[float | None, float | None]:
        """Requests and tokens a minute by now; None: no limit."""

    def share(self, label: str = "") -> AnyShare:
        """A share for one more endpoint; a budget that is kept elsewhere tells shares by their labels."""

    def fastest(self, tokens: float) -> float | None:
        """Requests a second of so many tokens that may go out at most; None: no limit."""

    def pause(self, until: float) -> bool:
        """Let nothing out before `until`; whether that is news."""

    def paused(self, now: float) -> bool:
        """Whether a pause is on."""

    def follow(self, limits: Limits, now: float) -> bool:
        """Take the endpoint's word where it allows less; whether a pause is news."""

    def alone(self, tokens: int, now: float) -> float:
        """Seconds that a request waits which does not queue."""


class Budget:
    """What one account allows, and who of its endpoints is next.

    Attributes:
        open: without limits and pauses; nobody need ask.
        waiting: how many requests wait.
        on_change: called when a pause begins, and when the endpoint has told another allowance.
    """

    def __init__(self, rpm: float | None = None, tpm: float | None = None) -> None:
        """Take the allowances a minute; None: no limit."""
        self._said = rpm, tpm
        # A request cannot be split: where one is more than a burst, it may still go out at once.
        self._requests = _allowance(rpm, smallest=1)
        self._tokens = _allowance(tpm, smallest=0)
        self._paused_until = float("-inf")
        self._shares: list[Share] = []
        self._served = 0.0
        """The start tag of the request that was let through last: the virtual time of fair queueing."""
        self._arrived = 0
        self.on_change: Callable[[], object] = lambda: None
        self.waiting = 0
        self.open = rpm is None and tpm is None

    def share(self, label: str = "") -> Share:
        """A share for one more endpoint, whatever it is called."""
        share = Share(self)
        self._shares.append(share)
        return share

    @property
    def allowed(self) -> tuple[float | None, float | None]:
        """Requests and tokens a minute by now; None: no limit."""
        both = (self._requests, self._tokens)
        requests, tokens = (None if each is None else each.a_minute for each in both)
        return requests, tokens

    def fastest(self, tokens: float) -> float | None:
        """Requests a second of so many tokens that may go out at most, of all shares; None: no limit."""
        rates = [self._requests.rate] if self._requests is not None else []
        rates += [self._tokens.rate / tokens] if self._tokens is not None and tokens > 0 else []
        return min(rates, default=None)

    def pause(self, until: float) -> bool:
        """Let nothing out before `until`, on the clock that shares are asked with; whether that is news.

        What was sent at once is refused at once: a second more or less is the same pause.
        """
        news = until > self._paused_until + SAME_PAUSE
        self._paused_until = max(self._paused_until, until)
        self.open = False
        if news:
            self.on_change()
        return news

    def paused(self, now: float) -> bool:
        """Whether a pause is on."""
        return now < self._paused_until

    def pause_left(self, now: float) -> float:
        """Seconds that a pause still lasts; 0: none is on."""
        return max(0.0, self._paused_until - now)

    def follow(self, limits: Limits, now: float) -> bool:
        """Take the endpoint's word where it allows less than was said here; a pause where nothing is left, as
        `pause` has it."""
        before = self.allowed
        self._requests = _brought_down(self._requests, self._said[0], limits.requests.allowed, smallest=1)
        self._tokens = _brought_down(self._tokens, self._said[1], limits.tokens.allowed, smallest=0)
        if self._requests is not None or self._tokens is not None:
            self.open = False
        if self.allowed != before:
            self.on_change()
        return limits.wait > 0 and self.pause(now + limits.wait)

    def alone(self, tokens: int, now: float) -> float:
        """Seconds that a request waits which does not queue: its own time, or as long as a pause is on."""
        costs = ((self._requests, 1), (self._tokens, tokens))
        own = max((cost / allowance.rate for allowance, cost in costs if allowance is not None), default=0.0)
        return max(own, self._paused_until - now)

    # ---------------------------------------------------------------------------------------- letting through

    def let(self, share: Share, tokens: int, now: float, since: float, requests: int = 1) -> float:
        """Let a request of a share through, or some; seconds for which it has to wait instead, else 0.

        In any stretch of s seconds at most (s + BURST) seconds' worth goes out, or, where a single request
        is more than that, this request beyond s seconds' worth.
        """
        start = self._paused_until
        costs = [
            (allowance, cost)
            for allowance, cost in ((self._requests, requests), (self._tokens, tokens))
            if allowance is not None
        ]
        for allowance, cost in costs:
            start = max(start, allowance.earliest(since, now, cost))
        if start > now + ROUNDING:
            return start - now
        for allowance, cost in costs:
            allowance.take(since, now, cost)
        self._served = max(self._served, share.finish)
        share.finish = self._served + max((cost / allowance.rate for allowance, cost in costs), default=0.0)
        self.open = not costs
        return 0.0

    def give_back(self, share: Share, requests: int, tokens: int, since: float) -> None:
        """What was let through at `since` or later, and has not been sent, nor will be."""
        costs = [
            (allowance, cost)
            for allowance, cost in ((self._requests, requests), (self._tokens, tokens))
            if allowance is not None and cost
        ]
        for allowance, cost in costs:
            allowance.give_back(since, cost)
        share.finish -= max((cost / allowance.rate for allowance, cost in costs), default=0.0)

    def tag(self, share: Share) -> float:
        """What a share has had, beside others: the least is next; what it left unused while idle is lost."""
        return max(self._served, share.finish)

    def advance(self, now: float) -> float:
        """Let through all that is due, and call who is next; seconds until that one is due."""
        while (share := self._next()) is not None:
            waiter = share.queue[0]
            if waiter.since is None:
                waiter.since = now
            if wait := self.let(share, waiter.tokens, now, waiter.since):
                waiter.call()
                return wait
            waiter.through = True
            share.remove(waiter)
            waiter.call()
        return 0.0

    def arrived(self) -> int:
        """The number of a request that begins to wait."""
        self._arrived += 1
        return self._arrived

    def is_next(self, waiter: _Waiter) -> bool:
        """Whether a request is the next to be let through."""
        share = self._next()
        return share is not None and share.queue[0] is waiter

    def call_next(self) -> None:
        """Somebody has to watch the clock: who is next."""
        if (share := self._next()) is not None:
            share.queue[0].call()

    def _next(self) -> Share | None:
        """The share that has had least, of those where somebody waits."""
        waiting = [share for share in self._shares if share.queue]
        return min(waiting, key=self._tag) if waiting else None

    def _tag(self, share: Share) -> tuple[float, int]:
        return self.tag(share), share.queue[0].number


class Share:
    """One endpoint's share of a budget.

    Attributes:
        budget: of the account.
        finish: its finish tag, in seconds of the scarcer allowance: what it has been let have.
        queue: its requests that wait.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.finish = 0.0
        self.queue: deque[_Waiter] = deque()

    async def wait(
        self, tokens: int, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        """Wait until a request of so many tokens may be sent; each share is first come, first served.

        Who is next sleeps until it is due, and nobody else does. Whatever ends a wait, the others go on.

        Args:
            tokens: prompt and forced.
            clock: seconds, from any origin; the same for all shares of a budget.
            sleep: waits so many seconds; may raise to end the waiting.
        """
        budget = self.budget
        if not budget.waiting and not budget.let(self, tokens, now := clock(), now):
            return
        waiter = _Waiter(budget.arrived(), tokens)
        self.queue.append(waiter)
        budget.waiting += 1
        try:
            while True:
                delay = budget.advance(clock())
                if waiter.through:
                    return
                if budget.is_next(waiter):
                    await sleep(delay)
                else:
                    await waiter.called
                    if not waiter.through:
                        waiter.called = asyncio.get_running_loop().create_future()
        finally:
            if not waiter.through:
                self.remove(waiter)
            budget.call_next()

    def remove(self, waiter: _Waiter) -> None:
        """Have it wait no longer."""
        self.queue.remove(waiter)
        self.budget.waiting -= 1


def _allowance(a_minute: float | None, smallest: float) -> Allowance | None:
    if a_minute is None:
        return None
    return Allowance(a_minute, slack(a_minute, smallest))


def _brought_down(
    allowance: Allowance | None, said: float | None, told: float | None, smallest: float
) -> Allowance | None:
    """An allowance once the endpoint has told its own: the lower of both; what went out still counts."""
    if told is None:
        return allowance
    a_minute = told if said is None else min(said, told)
    if allowance is None:
        return _allowance(a_minute, smallest)
    allowance.a_minute, allowance.slack = a_minute, slack(a_minute, smallest)
    return allowance
