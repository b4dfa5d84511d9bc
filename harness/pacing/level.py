"""How many requests an endpoint takes at once, found out from what comes back; pure, no clock.

Start low and double while all goes well. At the first 429 go back to the last level that was clean; from then
on feel upwards in steps of 5 %, each of which must be paid for: since the last refusal there were so many
clean replies that what the step costs if it fails is less than 1 % of them. An endpoint that lets requests
queue refuses none: there a level is kept only if it brought more replies a second than a lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

START = 4
"""Requests in flight at first."""

MOST = 256
"""And at most: servers that batch hardly gain beyond, and each is a connection."""

STEP = 0.05
"""Of a level, added where one has been refused before; one request at least."""

PRICE = 100
"""Clean replies since the last refusal, for each reply that a step costs if it fails: less than 1 %."""

WAITS = (1, 1, 2, 4)
"""Times that price, by the number of raises that have failed in a row."""

GAIN = 0.10
"""More replies a second that a doubled level must bring, else the endpoint only lets requests queue."""

TELLING = 1.5
"""Levels this many times apart are compared: less shows nothing beside chance."""

FEWEST = 16
"""Replies that a mean duration is taken of, at least; as many as the level where that is more."""


@dataclass(slots=True)
class _Burst:
    """The refusals that belong to one level."""

    level: int
    """At which the first one came."""
    in_flight: int
    clean: int
    """The last level that had held."""
    refused: int = 0
    pause: float = 0.0
    """Seconds that the endpoint asks for."""

    def add(self, pause: float) -> None:
        """Count one more."""
        self.refused += 1
        self.pause = max(self.pause, pause)

    @property
    def left(self) -> int:
        """The level to go on with: the last clean one, or less: what is still in flight, half at least."""
        return max(1, self.level // 2, min(self.clean, self.in_flight - self.refused))


class Level:
    """The number of requests that may be in flight, raised and cut as replies tell.

    Replies tell of the level under which their requests were sent, not of the present one. So whoever sends
    remembers `epoch`, and hands it in with what came back.

    Attributes:
        number: the level.
        epoch: counts levels.
    """

    def __init__(
        self, most: int = MOST, *, start: int = START, on_change: Callable[[int, str], None] | None = None
    ) -> None:
        """Start low.

        Args:
            most: the level is never above.
            start: where it begins.
            on_change: told each new level and its reason.
        """
        self.number = min(start, most)
        self.epoch = 1
        self.most = most
        self._on_change = on_change
        self._clean = self.number
        """The last level that held, or the first."""
        self._doubling = True
        self._queues = False
        """Doubling brought nothing when last tried."""
        self._failed = 0
        """Raises in a row that did not hold."""
        self._base: tuple[int, float] | None = None
        """A level and the replies a second that it brought, to compare higher ones with."""
        self._burst: _Burst | None = None
        self._cut = 0
        """The last epoch that a burst of refusals has ended; what was sent until then is the same burst's."""
        self._seconds = 0.0
        """Mean duration of a request, over the last whole round; 0: not known yet."""
        self._lost = 0.0
        """Replies that the pause cost which the last failed step brought."""
        self._paid = 0
        """Clean replies since the last raise that did not hold."""
        self._needed = 0
        """Of these before the next raise."""
        self._begin()

    # ---------------------------------------------------------------------------------------- what came back

    def answered(self, sent: int, seconds: float, *, loaded: bool) -> None:
        """A request got its reply; whatever it says, the endpoint could take it.

        Args:
            sent: the epoch in which it was sent.
            seconds: how long it took.
            loaded: as many are in flight as may be, and more wait; else the reply tells nothing of the level.
        """
        if self._burst is not None and sent > self._cut:
            self._settle(self._burst)
        if sent != self.epoch or not loaded:
            return
        if self._resting:
            self._resting -= 1
            return
        self._paid += 1
        self._count += 1
        if self._count > self.number:  # the first ones began when fewer were in flight
            self._measure(seconds)
        if self._count >= self.number + self._round and self._paid >= self._needed:
            self._held()

    def refused(self, sent: int, *, in_flight: int, pause: float = 0.0) -> None:
        """A request was answered "too busy".

        Args:
            sent: the epoch in which it was sent.
            in_flight: how many are, with this one.
            pause: seconds for which the endpoint asks everybody to wait.
        """
        burst = self._burst
        if sent <= self._cut:
            if burst is not None:
                burst.add(pause)
                self.number = burst.left
            return
        if burst is not None:
            self._settle(burst)
        burst = _Burst(self.number, min(self.number, in_flight), self._clean)
        burst.add(pause)
        self._burst, self._cut = burst, self.epoch
        self._doubling = self._queues = False
        self.number = burst.left
        self.epoch += 1

    def troubled(self) -> None:
        """A request met a fault of the endpoint: no raise before as many as are in flight have gone well."""
        self._resting = self.number

    # ----------------------------------------------------------------------------------------------- changes

    def _held(self) -> None:
        """Enough replies have come at this level: go on to the next, or back where it is of no use."""
        rate = self.number / self._seconds if self._seconds else 0.0  # Little's law
        if self._base is not None and self._brought_nothing(rate, *self._base):
            self._return_to(self._base[0])
            return
        if self._base is None or not self._base[0] < self.number < TELLING * self._base[0]:
            self._base = self.number, rate
        if self.number > self._clean:
            self._failed = 0
        self._clean = self.number
        self._doubling |= self._queues
        self._queues = False
        if self.number < self.most:
            step = self.number if self._doubling else _step(self.number)
            self._set(min(self.most, self.number + step), f"all went well with {self.number}")
        self._needed = 0 if self._doubling else round(PRICE * (_step(self.number) + self._lost))
        self._begin()

    def _return_to(self, level: int) -> None:
        """A higher one was of no use: the next try is to be paid for as if all that it adds were refused."""
        self._queues, self._doubling = True, False
        self._clean = level
        self._set(level, f"{self.number} brought hardly more replies a second: they only queue")
        self._failed_at(level)

    def _brought_nothing(self, rate: float, lower: int, before: float) -> bool:
        """Whether a lower level brought about as many replies a second as this one does."""
        return self.number >= TELLING * lower and rate < before * (1 + GAIN * (self.number / lower - 1))

    def _settle(self, burst: _Burst) -> None:
        """What was sent after a cut comes back: the burst is over."""
        self._burst = None
        self._clean = min(self._clean, self.number)
        step = _step(self.number)
        if burst.clean < burst.level <= burst.clean + _step(burst.clean):  # a step, as the next one will be
            self._lost = burst.pause * self.number / self._seconds if self._seconds else 0.0
            self._failed_at(max(step, burst.refused) + self._lost)
        else:
            self._failed = 0
            self._paid, self._needed = 0, PRICE * step
            self._begin()
        self._told(f"{burst.refused} of {burst.in_flight} were refused with 429")

    def _failed_at(self, price: float) -> None:
        """A raise did not hold; `price`: replies that it costs if it fails again."""
        self._failed += 1
        self._paid = 0
        self._needed = round(PRICE * price * WAITS[min(self._failed, len(WAITS) - 1)])
        self._begin()

    def _set(self, number: int, reason: str) -> None:
        self.number = number
        self.epoch += 1
        self._told(reason)

    def _told(self, reason: str) -> None:
        if self._on_change is not None:
            self._on_change(self.number, reason)

    # ------------------------------------------------------------------------------------------ the evidence

    def _begin(self) -> None:
        """Count anew."""
        self._count = self._resting = self._measured = 0
        self._sum = 0.0

    @property
    def _round(self) -> int:
        return max(FEWEST, self.number)

    def _measure(self, seconds: float) -> None:
        """Take the mean duration of the last whole round."""
        self._sum += seconds
        self._measured += 1
        if self._measured >= self._round:
            self._seconds = self._sum / self._measured
            self._sum, self._measured = 0.0, 0


def _step(level: int) -> int:
    return max(1, round(STEP * level))
