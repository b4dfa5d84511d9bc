"""What requests cost, what a run has sent, and whether its caps allow more; pure.

A cap holds exactly: who is about to send asks first, and what is allowed counts as sent from then on,
answered or not. The first "no" is the last word: nothing is allowed after it. Prices are numbers of any
currency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MILLION = 1_000_000
"""Tokens that prices are told for."""
HOUR = 3600.0
"""Seconds."""
ROUNDING = 1e-9
"""Share of `--max-cost` that sums of fractions may be off by."""


@dataclass(slots=True)
class Volume:
    """So many requests, of so many tokens in all."""

    requests: int = 0
    prompt_tokens: int = 0
    forced_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Of both kinds."""
        return self.prompt_tokens + self.forced_tokens

    def __add__(self, other: Volume) -> Volume:
        return Volume(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.forced_tokens + other.forced_tokens,
        )

    def beyond(self, other: Volume) -> Volume:
        """What this has more than another; never less than nothing."""
        return Volume(
            max(0, self.requests - other.requests),
            max(0, self.prompt_tokens - other.prompt_tokens),
            max(0, self.forced_tokens - other.forced_tokens),
        )


@dataclass(frozen=True, slots=True)
class Amount:
    """What caps are about."""

    requests: int = 0
    tokens: int = 0
    """Prompt and forced."""
    money: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.requests + other.requests, self.tokens + other.tokens, self.money + other.money)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.requests - other.requests, self.tokens - other.tokens, self.money - other.money)

    def times(self, factor: float) -> Amount:
        """So many times as much; requests and tokens in whole numbers, rounded down."""
        return Amount(int(self.requests * factor), int(self.tokens * factor), self.money * factor)

    def at_least(self, other: Amount) -> Amount:
        """The greater of each."""
        return Amount(
            max(self.requests, other.requests), max(self.tokens, other.tokens), max(self.money, other.money)
        )

    def holds(self, other: Amount) -> bool:
        """Whether another fits in; sums of fractions may be a little off."""
        money = other.money <= self.money + ROUNDING * max(self.money, other.money)
        return other.requests <= self.requests and other.tokens <= self.tokens and money


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an endpoint takes; None: not known."""

    prompt: float | None = None
    """For a million tokens of prompts."""
    forced: float | None = None
    """For a million tokens that are forced."""
    generated: float = 0.0
    """For a million requests: where each puts out a token of its own besides, the price of a million such."""
    hour: float | None = None
    """For an hour of the endpoint, whatever it is asked."""

    @property
    def by_token(self) -> bool:
        """Whether what is sent can be told in money."""
        return self.prompt is not None and self.forced is not None

    @property
    def known(self) -> bool:
        """Whether it can, when the hours are known too."""
        return self.by_token or self.hour is not None

    def of(self, sent: Volume) -> float:
        """What so much costs, hours apart; 0 where prices are not known."""
        tokens = sent.prompt_tokens * (self.prompt or 0.0) + sent.forced_tokens * (self.forced or 0.0)
        return (tokens + sent.requests * self.generated) / MILLION


FREE = Price(prompt=0.0, forced=0.0)
"""Of what runs on one's own machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a run may send and spend at most, over all its sessions; None: no bound."""

    requests: int | None = None
    """Attempts: what is sent again counts again."""
    tokens: int | None = None
    """Of prompts, and forced."""
    cost: float | None = None

    def beyond(self, requests: int, tokens: int, cost: float) -> str:
        """The flag of a cap that so much is beyond, or nothing."""
        if self.requests is not None and requests > self.requests:
            return f"--max-requests {self.requests:,}"
        if self.tokens is not None and tokens > self.tokens:
            return f"--max-tokens {self.tokens:,}"
        if self.cost is not None and cost > self.cost * (1 + ROUNDING):
            return f"--max-cost {self.cost:g}"
        return ""


class AnySpending(Protocol):
    """What meters ask: a run's `Spending`, or what it has allotted to this process."""

    capped: bool
    """Whether there is a cap to ask about."""
    reason: str
    """The cap that was reached, as its flag; empty: none yet."""

    def meter(self, price: Price) -> Meter:
        """What one endpoint asks before it is sent anything."""

    def admit(self, tokens: int, money: float) -> bool:
        """Whether one more attempt may be made; if so it counts."""

    def leaves(self, sent: Volume, money: float) -> bool:
        """Whether the caps leave so much; nothing counts as sent."""

    async def more(self, tokens: int, money: float) -> bool:
        """After a no: whether the attempt may be made after all; if so it counts."""


class Spending:
    """What a run has sent and spent in all, held against its caps. Not for several threads.

    Attributes:
        capped: whether there is a cap to ask about.
        reason: the cap that was reached, as its flag; empty: none yet.
    """

    def __init__(
        self,
        caps: Caps,
        *,
        hourly: float = 0.0,
        seconds: float = 0.0,
        clock: Callable[[], float] = lambda: 0.0,
        stop: Callable[[], object] = lambda: None,
    ) -> None:
        """The hour begins to count now.

        Args:
            caps: of the run.
            hourly: what all its endpoints together take for an hour.
            seconds: that earlier sessions took.
            clock: seconds, from any origin.
            stop: called once, when a cap is reached.
        """
        self.capped = caps != Caps()
        self.reason = ""
        self._caps = caps
        self._hourly = hourly
        self._begun = clock() - seconds
        self._clock = clock
        self._stop = stop
        self._requests = 0
        self._tokens = 0
        self._money = 0.0
        self._promised = Amount()

    def earlier(self, sent: Volume, price: Price) -> None:
        """Count what was sent before; that may be beyond a cap already."""
        self._count(sent.requests, sent.tokens, price.of(sent))

    def meter(self, price: Price) -> Meter:
        """What one endpoint asks before it is sent anything."""
        return Meter(self, price)

    def admit(self, tokens: int, money: float) -> bool:
        """Whether one more attempt may be made; if so it counts."""
        if self.reason:
            return False
        cost = self._money + money + (self._hours() if self._hourly else 0.0)
        self.reason = self._caps.beyond(self._requests + 1, self._tokens + tokens, cost)
        if self.reason:
            self._stop()
            return False
        self._count(1, tokens, money)
        return True

    def leaves(self, sent: Volume, money: float) -> bool:
        """Whether the caps leave so much beside all that they were said to leave before, so that many who ask
        at the same time do not get what there is for one; nothing counts as sent."""
        if self.reason:
            return False
        all_ = self._promised + Amount(sent.requests, sent.tokens, money)
        cost = self._money + all_.money + (self._hours() if self._hourly else 0.0)
        if self._caps.beyond(self._requests + all_.requests, self._tokens + all_.tokens, cost):
            return False
        self._promised = all_
        return True

    async def more(self, tokens: int, money: float) -> bool:
        """A no is the last word here."""
        return False

    def reserve(self, least: Amount, wish: Amount, parts: int = 1, seconds: float = 0.0) -> Amount | None:
        """Put something aside for another process; it counts as spent until it is given back.

        Args:
            least: do not trouble with less.
            wish: more than that is of no use.
            parts: processes that share what is left: each gets half of its part at most, or `least`.
            seconds: in which it is to be spent; the hours go on meanwhile.

        Returns:
            Between both; None: the caps do not leave `least` any more.
        """
        if self.reason:
            return None
        hours = self._hours() + self._hourly * seconds / HOUR if self._hourly else 0.0
        if self._caps.beyond(
            self._requests + least.requests, self._tokens + least.tokens, self._money + least.money + hours
        ):
            return None
        caps, share = self._caps, 0.5 / parts
        most = Amount(
            _part(wish.requests, caps.requests, self._requests, share),
            _part(wish.tokens, caps.tokens, self._tokens, share),
            min(wish.money, math.inf if caps.cost is None else share * (caps.cost - self._money - hours)),
        ).at_least(least)
        self._count(most.requests, most.tokens, most.money)
        return most

    def give_back(self, amount: Amount) -> None:
        """Of what was reserved this much was not spent."""
        self._count(-amount.requests, -amount.tokens, -amount.money)

    def _count(self, requests: int, tokens: int, money: float) -> None:
        self._requests += requests
        self._tokens += tokens
        self._money += money

    def _hours(self) -> float:
        """What the hours so far cost."""
        return self._hourly * (self._clock() - self._begun) / HOUR


def _part(wish: int, cap: int | None, spent: int, share: float) -> int:
    return wish if cap is None else min(wish, int(share * (cap - spent)))


class Meter:
    """One endpoint's share of the spending.

    Attributes:
        sent: in this session.
        price: of the endpoint.
    """

    def __init__(self, spending: AnySpending, price: Price) -> None:
        """Take what all endpoints share."""
        self.sent = Volume()
        self.price = price
        self._spending = spending

    @property
    def reason(self) -> str:
        """The cap that was reached; empty: none yet."""
        return self._spending.reason

    def leaves(self, sent: Volume) -> bool:
        """Whether the caps leave so much; nothing counts as sent."""
        return self._spending.leaves(sent, self.price.of(sent))

    def allows(self, prompt_tokens: int, forced_tokens: int) -> bool:
        """Ask right before each attempt, and send nothing at a no; a yes counts as sent."""
        if self._spending.capped:
            money = self.price.of(Volume(1, prompt_tokens, forced_tokens))
            if not self._spending.admit(prompt_tokens + forced_tokens, money):
                return False
        self._sends(prompt_tokens, forced_tokens)
        return True

    async def more(self, prompt_tokens: int, forced_tokens: int) -> bool:
        """Ask after a no, which need not be the last word where caps are kept elsewhere."""
        money = self.price.of(Volume(1, prompt_tokens, forced_tokens))
        if not await self._spending.more(prompt_tokens + forced_tokens, money):
            return False
        self._sends(prompt_tokens, forced_tokens)
        return True

    def _sends(self, prompt_tokens: int, forced_tokens: int) -> None:
        sent = self.sent
        sent.requests += 1
        sent.prompt_tokens += prompt_tokens
        sent.forced_tokens += forced_tokens


def told(reason: str, untried: int) -> str:
    """What a reader must know of a run that was stopped by a cap.

    Args:
        reason: of `Spending`.
        untried: items that have not been asked, or not to the end.
    """
    items = f"{untried:,} item{'s are' if untried != 1 else ' is'} not tried"
    return f"stopped at {reason}: {items}; raise it and give the same command again"
