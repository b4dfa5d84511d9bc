"""What turns requests away by time or by count: outages, rate limits, capacity. Pure; time is an argument.

These are no chance: which requests they strike depends on when those come.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from harness.serving.faults.forms import Span
from harness.serving.faults.plan import Faults

MINUTE = 60.0
"""Seconds of the window that `rpm` and `tpm` count in."""


class Window:
    """At most so much within any 60 seconds. Nothing is saved up, and what was refused does not count."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._used = 0
        self._taken: deque[tuple[float, int]] = deque()
        """When, and how much; the oldest first."""

    def wait(self, now: float, amount: int) -> float:
        """Seconds until there is room for `amount`: 0 is now, infinity never."""
        self._forget(now)
        missing = self._used + amount - self._allowed
        if missing <= 0:
            return 0.0
        for then, taken in self._taken:
            missing -= taken
            if missing <= 0:
                return then + MINUTE - now
        return math.inf

    def take(self, now: float, amount: int) -> None:
        """Count it."""
        self._taken.append((now, amount))
        self._used += amount

    def headers(self, now: float, what: str) -> dict[str, str]:
        """How it stands; `Reset` is in whole seconds, until the oldest request leaves the window."""
        self._forget(now)
        reset = self._taken[0][0] + MINUTE - now if self._taken else 0.0
        return {
            f"X-RateLimit-Limit-{what}": str(self._allowed),
            f"X-RateLimit-Remaining-{what}": str(self._allowed - self._used),
            f"X-RateLimit-Reset-{what}": str(math.ceil(reset)),
        }

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0][0] + MINUTE <= now:
            self._used -= self._taken.popleft()[1]


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Why a request goes no further."""

    name: str
    """Of the fault."""
    wait: float | None = None
    """Seconds to wait before another attempt, where the reply says so; infinity: never."""


class Limits:
    """Holds every request against the clock and against the others."""

    def __init__(self, faults: Faults) -> None:
        self._spans = {"blackout": faults.blackout, "outage": faults.outage}
        self._windows = {
            name: Window(allowed) for name in ("rpm", "tpm") if (allowed := faults.value(name)) is not None
        }
        self._capacity = faults.capacity
        self._first: float | None = None

    def meet(self, now: float, *, tokens: int, others: int) -> TurnedAway | None:
        """Turn a request away, or count it.

        Args:
            now: seconds, by any clock.
            tokens: that the request may cost.
            others: requests in flight beside it.
        """
        self._first = now if self._first is None else self._first
        for name, span in self._spans.items():
            if span is not None and _within(span, now - self._first):
                return TurnedAway(name)
        costs = {"rpm": 1, "tpm": tokens}
        for name, window in self._windows.items():
            if wait := window.wait(now, costs[name]):
                return TurnedAway(name, wait)
        if self._capacity is not None and others >= self._capacity:
            return TurnedAway("capacity")
        for name, window in self._windows.items():
            window.take(now, costs[name])
        return None

    def headers(self, now: float) -> Mapping[str, str]:
        """What every reply says of the rate limits."""
        said: dict[str, str] = {}
        for name, what in (("rpm", "Requests"), ("tpm", "Tokens")):
            if name in self._windows:
                said |= self._windows[name].headers(now, what)
        return said


def _within(span: Span, since: float) -> bool:
    return span.start <= since < span.start + span.seconds
