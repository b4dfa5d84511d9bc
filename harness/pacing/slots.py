"""The slots that a holder has, and how far the keeper's clock is off its own; pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from harness.pacing.allowance import ROUNDING
from harness.pacing.lending import LATE, ROUND, Grant

DRIFT = 1e-4
"""Seconds a second by which two clocks may drift apart."""

SMOOTH = 0.05
"""Weight of a request in the mean size of requests."""


class Recent:
    """What has been sent of late; pure.

    Attributes:
        typical: mean tokens of a request.
        span: seconds of which it is remembered.
    """

    def __init__(self) -> None:
        """Nothing."""
        self.typical = 0.0
        self.span = ROUND
        self._round = 0
        self._now = self._before = 0

    def add(self, tokens: int, now: float) -> None:
        """A request is sent."""
        self._turn(now)
        self._now += 1
        self.typical += (tokens - self.typical) * (SMOOTH if self.typical else 1.0)

    def requests(self, now: float) -> float:
        """How many there were within about the last span."""
        self._turn(now)
        return self._now + self._before * (1 - now / self.span % 1)

    def remember(self, span: float, now: float) -> None:
        """Remember another span; until it has passed it is taken that the pace was what it is."""
        if span != self.span:
            pace = self.requests(now) / self.span
            self.span = span
            self._round, self._now, self._before = int(now // span), 0, round(pace * span)

    def _turn(self, now: float) -> None:
        if (number := int(now // self.span)) != self._round:
            self._before = self._now if number == self._round + 1 else 0
            self._round, self._now = number, 0


class Clocks:
    """How far the keeper's clock is behind or ahead of ours, as far as answers tell; pure.

    Attributes:
        least: our clock less the keeper's is this at least.
        most: and this at most.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self.least, self.most = -math.inf, math.inf
        self._heard = 0.0

    def heard(self, asked: float, arrived: float, grant: Grant) -> None:
        """A grant was asked for and has arrived, at these moments of our clock."""
        drift = DRIFT * max(0.0, arrived - self._heard)
        least, most = asked - grant.came, arrived - grant.made
        self.least, self.most = max(self.least - drift, least), min(self.most + drift, most)
        if self.least > self.most:  # the keeper is another one
            self.least, self.most = least, most
        self._heard = arrived


@dataclass(slots=True)
class _Held:
    """A slot, on our clock."""

    moment: float
    expires: float
    requests: int
    tokens: int


class Slots:
    """The slots that one share holds; pure.

    Attributes:
        requests: that have lapsed unused, and are to be given back.
        tokens: likewise.
    """

    def __init__(self) -> None:
        """None."""
        self.requests = self.tokens = 0
        self._held: deque[_Held] = deque()

    def add(self, grant: Grant, clocks: Clocks) -> None:
        """Take a grant."""
        for slot in grant.slots:
            expires = slot.moment + clocks.least + LATE
            self._held.append(_Held(slot.moment + clocks.most, expires, slot.requests, slot.tokens))
        if len(self._held) > len(grant.slots):  # what others gave back may come before what was planned
            self._held = deque(sorted(self._held, key=lambda each: each.moment))

    def take(self, tokens: int, now: float, counted: tuple[bool, bool]) -> bool:
        """Use up what a request takes; whether there is so much by now.

        Args:
            tokens: of the request.
            now: on our clock.
            counted: whether requests are limited, and whether tokens are.
        """
        self.lapse(now)
        live = list(takewhile(lambda each: each.moment <= now + ROUNDING, self._held))
        needed = int(counted[0]), tokens if counted[1] else 0
        if sum(each.requests for each in live) < needed[0] or sum(each.tokens for each in live) < needed[1]:
            return False
        self._use(live, *needed)
        while (
            self._held
            and not (self._held[0].requests and counted[0])
            and not (self._held[0].tokens and counted[1])
        ):
            self._held.popleft()
        return True

    def lapse(self, now: float) -> None:
        """Take out what is too late to be used."""
        while self._held and self._held[0].expires <= now:
            self._forget(self._held.popleft())

    def drop(self) -> None:
        """Nothing of it will be used."""
        while self._held:
            self._forget(self._held.popleft())

    def unused(self) -> tuple[int, int]:
        """Requests and tokens to be given back: they are, from now on."""
        found = self.requests, self.tokens
        self.requests = self.tokens = 0
        return found

    def when(self, tokens: int, counted: tuple[bool, bool]) -> float | None:
        """The moment from which a request can go, if nobody goes before; None: never."""
        live: deque[_Held] = deque()
        for each in self._held:
            live.append(each)
            while live[0].expires <= each.moment:
                live.popleft()
                if not live:
                    break
            if not live:
                continue
            enough = sum(held.tokens for held in live) >= tokens or not counted[1]
            if enough and (any(held.requests for held in live) or not counted[0]):
                return each.moment
        return None

    def left(self) -> tuple[int, int]:
        """Requests and tokens that are not used yet, whenever they may be."""
        return sum(each.requests for each in self._held), sum(each.tokens for each in self._held)

    def _use(self, live: list[_Held], requests: int, tokens: int) -> None:
        for each in live:
            less = min(each.requests, requests), min(each.tokens, tokens)
            each.requests, each.tokens = each.requests - less[0], each.tokens - less[1]
            requests, tokens = requests - less[0], tokens - less[1]

    def _forget(self, held: _Held) -> None:
        self.requests += held.requests
        self.tokens += held.tokens
