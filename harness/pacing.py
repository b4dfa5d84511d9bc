"""How fast an account may be asked, and what happens while an endpoint is down.

`Budget` spreads requests and tokens over the minute; `Outage` holds all workers back while one of them
probes. Neither knows what a request looks like on the wire. Time is an argument or an injected clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from harness.errors import EndpointRefused
from harness.exchange import ScoreRequest

AIM = 0.985
"""Share of an allowance that is used. With `BURST` on top a minute stays below 60 seconds' worth, with room
for half a second by which requests bunch up on their way: 0.985 * (60 + 0.5 + 0.4) < 60."""

BURST = 0.5
"""Seconds' worth of an allowance that may go out at once: what a late wake-up may make good."""

IN_A_ROW = 20
"""Failures without a success between that make an endpoint suspect."""

LONGEST_PROBE_WAIT = 60.0
"""Seconds between two probes of an endpoint that is down."""

BUSY = "429"
"""The one reason that alone says nothing about an endpoint's health until all workers met it twice."""


# ------------------------------------------------------------------------------------------------- budget


@dataclass(slots=True)
class _Allowance:
    """One allowance of a budget as a schedule: every unit that is let through takes its time of it."""

    rate: float
    """Units a second."""
    slack: float
    """Seconds by which a unit may go out ahead of the schedule."""
    due: float = float("-inf")
    """When the schedule has caught up with all that was let through."""

    def earliest(self, now: float, cost: float) -> float:
        """When `cost` units may go out; more than the slack's worth has to be saved up first."""
        return max(self.due, now) + cost / self.rate - self.slack

    def take(self, now: float, cost: float, start: float) -> None:
        """Let `cost` units out at `start`, which is not before `earliest`."""
        seconds = cost / self.rate
        self.due = max(max(self.due, now) + seconds, start + min(seconds, self.slack))


class Budget:
    """Requests and tokens a minute of one account, shared by its endpoints; without limits just a pause.

    Every request reserves its place and is told how long to wait: first come, first served, nobody polls.
    (aiolimiter refuses a cost above its capacity, lets a whole capacity out at once, and reads the clock
    itself.)
    """

    def __init__(self, rpm: float | None = None, tpm: float | None = None) -> None:
        """Take the allowances a minute; None: no limit."""
        # A request cannot be split: where one is more than a burst, it may still go out at once.
        self._requests = _allowance(rpm, smallest=1)
        self._tokens = _allowance(tpm, smallest=0)
        self._last = float("-inf")
        self._paused_until = float("-inf")

    def reserve(self, now: float, tokens: int) -> float:
        """Reserve one request of so many tokens; seconds until it may be sent.

        In any stretch of s seconds at most (s + BURST) seconds' worth goes out, or, where a single request
        is more than that, this request beyond s seconds' worth.
        """
        costs = [
            (allowance, cost)
            for allowance, cost in ((self._requests, 1), (self._tokens, tokens))
            if allowance is not None
        ]
        start = max(now, self._last, self._paused_until)
        for allowance, cost in costs:
            start = max(start, allowance.earliest(now, cost))
        for allowance, cost in costs:
            allowance.take(now, cost, start)
        self._last = start
        return start - now

    def pause(self, until: float) -> None:
        """Let nothing out before `until`, on the clock that `reserve` is called with."""
        self._paused_until = max(self._paused_until, until)

    def paused(self, now: float) -> bool:
        """Whether a pause is on: who wakes up in one must reserve again."""
        return now < self._paused_until


def _allowance(a_minute: float | None, smallest: float) -> _Allowance | None:
    if a_minute is None:
        return None
    rate = AIM * a_minute / 60
    return _Allowance(rate, max(BURST, smallest / rate))


# ------------------------------------------------------------------------------------------------- outage


class Outage:
    """The gate in front of one endpoint: closed while too many attempts in a row fail.

    While it is closed all workers wait, and one of them probes with a request that succeeded before (its
    own, where none did) after growing waits. If the first probe succeeds there was no outage: the requests
    that failed are to blame themselves.

    Attributes:
        suspected: the gate is closed.
        ended: how many outages have ended: who waited in one deserves fresh attempts.
        successes: how many requests have succeeded.
    """

    def __init__(
        self,
        *,
        patience: float,
        first_wait: float,
        concurrency: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        report: Callable[[str], None],
    ) -> None:
        """Take what time is, and where changes of state are told; an empty text: all is well again.

        Args:
            patience: seconds without a success after which the endpoint is given up.
            first_wait: seconds between the first two probes; doubled from probe to probe.
            concurrency: workers; replies "too busy" count only when all of them got two in a row.
            clock: seconds, from any origin.
            sleep: waits so many seconds; may raise to end the waiting.
            report: told each change.
        """
        self.suspected = False
        self.ended = 0
        self.successes = 0
        self._patience = patience
        self._first_wait = first_wait
        self._busy_in_a_row = max(IN_A_ROW, 2 * concurrency)
        self._clock = clock
        self._sleep = sleep
        self._report = report
        self._turn = asyncio.Lock()  # whoever holds it is the one that probes
        self._good: ScoreRequest | None = None
        self._failures = 0
        self._broken = 0
        self._probes = 0
        self._since = 0.0
        self._next_probe = 0.0
        self._refusal = ""

    def succeeded(self, request: ScoreRequest) -> None:
        """A request was answered and the answer believed."""
        self.successes += 1
        self._good = request
        self._failures = self._broken = 0
        if self.suspected:
            self._open()

    def failed(self, reason: str) -> None:
        """An attempt failed in a way that may be the endpoint's."""
        self._failures += 1
        self._broken += reason != BUSY
        if self._broken >= IN_A_ROW or self._failures >= self._busy_in_a_row:
            self._close()

    def doubt(self, successes: int) -> None:
        """A request used up its attempts; suspicious where nothing else succeeded meanwhile either.

        Few workers use up the attempts of several requests before as many as `IN_A_ROW` have failed.

        Args:
            successes: how many requests had succeeded when this one failed first.
        """
        if successes == self.successes and self._good is not None:
            self._close()

    async def wait(self, own: ScoreRequest, probe: Callable[[ScoreRequest], Awaitable[str]]) -> None:
        """Wait until the gate is open, probing when it is this worker's turn.

        Args:
            own: the request that waits.
            probe: sends a request; what failed, or the empty string where the endpoint answered.

        Raises:
            EndpointRefused: nothing succeeded for as long as our patience lasts.
        """
        async with self._turn:
            while self.suspected:
                if self._refusal:
                    raise EndpointRefused(self._refusal)
                if (pause := self._next_probe - self._clock()) > 0:
                    await self._sleep(pause)
                    continue
                failure = await probe(self._good if self._good is not None else own)
                if failure:
                    self._probe_failed(failure)
                elif self.suspected:  # a request that was in flight may have opened it meanwhile
                    self._open()

    def _close(self) -> None:
        if not self.suspected:
            self.suspected = True
            self._probes = 0
            self._refusal = ""
            self._since = self._next_probe = self._clock()

    def _open(self) -> None:
        self.suspected = False
        self._failures = self._broken = 0
        if self._probes:
            self.ended += 1
            self._report("")

    def _probe_failed(self, failure: str) -> None:
        now = self._clock()
        left = self._since + self._patience - now
        if left <= 0:
            self._refusal = f"no success for {_duration(now - self._since)} (--patience): {failure}"
            return
        pause = min(self._first_wait * 2.0**self._probes, LONGEST_PROBE_WAIT, left)
        self._probes += 1
        self._failures += 1
        self._next_probe = now + pause
        self._report(
            f"{self._failures} failures in a row ({failure}); waiting, next try in {_duration(pause)},"
            f" giving up in {_duration(left)} (--patience)"
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
