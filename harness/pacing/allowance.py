"""One allowance: so many units a minute, spread evenly; pure, and without a clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

AIM = 0.985
"""Share of an allowance that is used. With `BURST` on top a minute stays below 60 seconds' worth, with room
for half a second by which requests bunch up on their way: 0.985 * (60 + 0.5 + 0.4) < 60."""

BURST = 0.5
"""Seconds' worth of an allowance that may go out at once: what a late wake-up may make good."""

MINUTE = 60.4
"""Seconds in which no more than a minute's worth goes out: requests are under way for different times."""

GRAIN = 0.1
"""Seconds; what goes out within is kept as one sum."""

ROUNDING = 1e-9
"""Seconds; a clock that was slept on need not show the very number."""

AHEAD = 1.0
"""Seconds by which one moment that is asked about may lie before another that was asked about earlier: slots
are planned ahead."""


@dataclass(slots=True)
class Allowance:
    """One allowance of a budget: a schedule, on which every unit that is let through takes its time, and the
    last minute, which may hold no more than a minute's worth. Only large units ever meet the second."""

    a_minute: float
    """Units."""
    slack: float
    """Seconds by which a unit may go out ahead of the schedule."""
    due: float = float("-inf")
    """When the schedule has caught up with all that was let through."""
    sent: deque[tuple[float, float]] = field(default_factory=deque)
    """What went out in the last minute: when, and how much."""
    total: float = 0
    """Of these."""

    @property
    def rate(self) -> float:
        """Units a second."""
        return AIM * self.a_minute / 60

    def earliest(self, since: float, now: float, cost: float) -> float:
        """When `cost` units may go out; more than the slack's worth has to be saved up first.

        Args:
            since: when these units became the next to go: from then on is saved up.
            now: not before `since`.
            cost: how many.
        """
        return max(max(self.due, since) + cost / self.rate - self.slack, self._room(now, cost))

    def take(self, since: float, now: float, cost: float) -> None:
        """Let `cost` units out now, which is not before `earliest`."""
        seconds = cost / self.rate
        self.due = max(max(self.due, since) + seconds, now + min(seconds, self.slack))
        self.total += cost
        if self.sent:
            now = max(now, self.sent[-1][0])  # kept in order; a little longer than need be
            if now // GRAIN == self.sent[-1][0] // GRAIN:
                cost += self.sent.pop()[1]
        self.sent.append((now, cost))

    def give_back(self, since: float, cost: float) -> None:
        """`cost` units that were let out at `since` or later have not gone, and never will."""
        self.due -= cost / self.rate
        for at, (moment, units) in enumerate(self.sent):
            if moment >= since - GRAIN:  # the oldest first: what stays in the window counts for longer
                less = min(units, cost)
                self.sent[at] = moment, units - less
                self.total -= less
                cost -= less

    def _room(self, now: float, cost: float) -> float:
        """When the last minute has room for `cost` units; if they are more than fit in, once it is empty."""
        while self.sent and self.sent[0][0] + MINUTE + AHEAD <= now:
            self.total -= self.sent.popleft()[1]
        over = self.total + cost - self.a_minute
        room = now
        for at, units in self.sent:
            if over <= 0:
                break
            over -= units
            room = max(now, at + MINUTE)
        return room


def slack(a_minute: float, smallest: float) -> float:
    """Seconds by which units may go out ahead of the schedule: a burst, or the time of the smallest."""
    return max(BURST, smallest * 60 / (AIM * a_minute))
