"""What is going to be sent, counted before it is, and how that compares with what was; pure.

Requests are counted as they would be put into the pool: equal ones once, and where other choices are read off
a request's alternatives, that request alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.caps import Volume
from harness.exchange import ScoreRequest
from harness.saying import money, tokens
from harness.sending import BLOCK, Chain, chain

WINDOW = 2**17
"""Tokens of beginnings that are remembered at least, the last that were met: memory stays flat, and no server
is trusted to keep much more."""
GENERATION = 2**18
"""Requests that are remembered at least, and twice as many at most, to count equal ones once."""


@dataclass(slots=True)
class Forecast:
    """What an endpoint is going to be asked, as far as that is planned."""

    volume: Volume = field(default_factory=Volume)
    read: int = 0
    """Choices that are to be read off the alternatives of these requests."""
    whole: bool = False
    """Everything is planned."""

    def add(self, requests: Iterable[ScoreRequest]) -> None:
        """Count requests as they will be sent."""
        volume = self.volume
        for each in requests:
            volume.requests += 1
            volume.prompt_tokens += len(each.context_ids)
            volume.forced_tokens += len(each.forced_ids)
            self.read += len(each.also)


class Prefixes:
    """What a server with a prefix cache need not compute again, if it is asked in this order.

    It keeps blocks of 16 tokens; the one that a prompt ends in is computed for every request.
    """

    def __init__(self, window: int = WINDOW) -> None:
        """Remember so many tokens at least, and about twice as many at most."""
        self._most = window // BLOCK
        self._lately: set[int] = set()
        self._before: set[int] = set()
        self._last: tuple[Sequence[int], Chain] = (), ()

    def spared(self, context_ids: Sequence[int]) -> int:
        """Tokens of a context that have been computed before; all of it has been from now on."""
        lately, before, blocks = self._lately, self._before, self._blocks(context_ids)
        usable = max(0, len(context_ids) - 1) // BLOCK
        unknown = (at for at, each in enumerate(blocks[:usable]) if each not in lately and each not in before)
        depth = next(unknown, usable)
        lately.update(blocks)
        if len(lately) > self._most:
            self._lately, self._before = set(), lately
        return depth * BLOCK

    def _blocks(self, context_ids: Sequence[int]) -> Chain:
        """The beginnings that later prompts may share, the whole too if it ends with a block."""
        ids, blocks = self._last
        if ids is not context_ids:
            whole = len(context_ids) % BLOCK == 0
            blocks = chain((*context_ids, 0)) if whole else chain(context_ids)
            self._last = context_ids, blocks
        return blocks


class Fresh:
    """Keeps equal requests from being counted twice; those with a quarter of a million others between them
    may be, so that memory stays flat."""

    def __init__(self, generation: int = GENERATION) -> None:
        """Remember at least so many."""
        self._generation = generation
        self._lately: set[bytes] = set()
        self._before: set[bytes] = set()

    def of(self, requests: Iterable[ScoreRequest]) -> list[ScoreRequest]:
        """Those that have not been met yet, each once."""
        found = []
        for each in requests:
            if each.key in self._lately:
                continue
            if each.key not in self._before:
                found.append(each)
            self._lately.add(each.key)
            if len(self._lately) >= self._generation:
                self._lately, self._before = set(), self._lately
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What one session sent to an endpoint, and what that said of it."""

    sent: Volume
    retries: int
    read: int
    """Choices that were read off alternatives."""
    counted: int | None
    """Prompt tokens, as the endpoint counted; None where it never said."""
    cached: int | None
    """Of these, those that it says it did not compute; likewise."""
    cost: float | None
    """None where prices are not known, or are those of hours."""


def compared(forecast: Forecast, fact: Fact, cost: float | None) -> str:
    """Forecast and fact in a line; of a plan that was broken off, the fact alone.

    Args:
        forecast: of what was left to send when the session began.
        fact: of the session.
        cost: of the forecast; None where it is not known.
    """
    parts = [f"sent {_amount(fact.sent)}{_why_more(forecast, fact) if forecast.whole else ''}"]
    if fact.counted is not None:
        cached = f", {tokens(fact.cached)} of them cached" if fact.cached is not None else ""
        parts.append(f"the endpoint counted {tokens(fact.counted)} prompt tokens{cached}")
    if fact.cost is not None:
        foreseen = f" (forecast {money(cost)})" if forecast.whole and cost is not None else ""
        parts.append(f"cost {money(fact.cost)}{foreseen}")
    return "; ".join([*([f"forecast {_amount(forecast.volume)}"] if forecast.whole else []), *parts])


def _why_more(forecast: Forecast, fact: Fact) -> str:
    """What was sent beside what was planned."""
    more = fact.sent.requests - forecast.volume.requests - fact.retries
    apart = min(max(0, forecast.read - fact.read), max(0, more))
    reasons = {
        "retries": fact.retries,
        "choices forced on their own": apart,
        "checks": more - apart,
    }
    told = [f"{name} {count:,}" for name, count in reasons.items() if count > 0]
    return f" ({', '.join(told)})" if told else ""


def _amount(volume: Volume) -> str:
    return f"{volume.requests:,} requests, {tokens(volume.prompt_tokens)} prompt tokens"
