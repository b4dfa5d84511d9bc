"""A dedicated endpoint's life: running, asleep, waking up phase by phase. Pure; the time is an argument.

How long waking takes is simulated: the model is loaded all the while. Statuses and phases are those of the
vendor's management API.
"""

from __future__ import annotations

from typing import Literal

Status = Literal["RUNNING", "SLEEPING", "AWAKING"]
Phase = Literal["REQUESTING_VIRTUAL_MACHINE", "DOWNLOADING_MODEL", "ENGINE_INITIALIZING"]

_PHASES: tuple[Phase, ...] = ("REQUESTING_VIRTUAL_MACHINE", "DOWNLOADING_MODEL", "ENGINE_INITIALIZING")


class Lifecycle:
    """Times are seconds of one clock."""

    def __init__(
        self, now: float, *, startup: float = 0.0, sleep_after: float = 0.0, asleep: bool = False
    ) -> None:
        """Args:
        now: when it begins.
        startup: how long waking up takes, a third of it each phase.
        sleep_after: with no request to answer for so long it falls asleep; 0: never.
        asleep: it begins asleep.
        """
        self._startup = startup
        self._sleep_after = sleep_after
        self._awake_from: float | None = None if asleep else now
        self._used = now
        self._busy = 0
        self.changed = now
        """When it was put to sleep or woken last."""

    def status(self, now: float) -> tuple[Status, Phase | None]:
        """What it is doing, and which phase of waking up it is in."""
        if self._awake_from is None:
            return "SLEEPING", None
        if now < self._awake_from:
            done = 1 - (self._awake_from - now) / self._startup
            return "AWAKING", _PHASES[min(int(done * len(_PHASES)), len(_PHASES) - 1)]
        idle_since = max(self._used, self._awake_from)
        if self._sleep_after and not self._busy and now - idle_since >= self._sleep_after:
            self.sleep(now)
            return "SLEEPING", None
        return "RUNNING", None

    def wake(self, now: float) -> None:
        """Begin to wake up, unless it is awake or about to be."""
        if self.status(now)[0] == "SLEEPING":
            self._awake_from = now + self._startup
            self.changed = now

    def sleep(self, now: float) -> None:
        """Fall asleep at once."""
        if self._awake_from is not None:
            self._awake_from = None
            self.changed = now

    def come(self, now: float) -> tuple[Status, Phase | None]:
        """A request has come: who sleeps is woken by it. What it finds; `leave` follows in any case."""
        self.wake(now)
        found = self.status(now)
        self._used = now
        self._busy += 1
        return found

    def leave(self, now: float) -> None:
        """A request has been answered."""
        self._used = now
        self._busy -= 1
