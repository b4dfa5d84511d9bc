"""What happens while an endpoint is down: everybody waits, and one of them probes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from harness.errors import EndpointRefused
from harness.exchange import ScoreRequest
from harness.saying import duration

IN_A_ROW = 20
"""Failures without a success between that make an endpoint suspect."""

LONGEST_PROBE_WAIT = 60.0
"""Seconds between two probes of an endpoint that is down."""

SLEPT = 10.0
"""Seconds by which no wait is late unless nobody was there to end it."""

AWAY = frozenset({"connection", "502", "503", "504"})
"""Reasons that speak of the endpoint rather than of a request: believed even before anything succeeded."""

BUSY = "429"
"""The one reason that alone says nothing about an endpoint's health until all workers met it twice."""


class Outage:
    """The bar in front of one endpoint: down while too many attempts in a row fail.

    While it is down all workers wait, and one of them probes with a request that succeeded before (its
    own, where none did) after growing waits. If the first probe succeeds there was no outage, or it has just
    ended: the requests that failed are to blame themselves, but for one attempt more (`client`).

    Attributes:
        suspected: the bar is down.
        ended: how many outages have ended: who waited in one deserves fresh attempts.
        successes: how many requests have succeeded.
    """

    def __init__(
        self,
        *,
        patience: float,
        first_wait: float,
        at_once: Callable[[], int],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        report: Callable[[str], None],
    ) -> None:
        """Take what time is, and where changes of state are told; an empty text: all is well again.

        Args:
            patience: seconds without a success after which the endpoint is given up.
            first_wait: seconds between the first two probes; doubled from probe to probe.
            at_once: requests in flight; "too busy" counts only when each of them has got it twice in a row.
            clock: seconds, from any origin.
            sleep: waits so many seconds; may raise to end the waiting.
            report: told each change.
        """
        self.suspected = False
        self.ended = 0
        self.successes = 0
        self._patience = patience
        self._first_wait = first_wait
        self._at_once = at_once
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
        if self._broken >= IN_A_ROW or self._failures >= max(IN_A_ROW, 2 * self._at_once()):
            self._close()

    def doubt(self, successes: int, reason: str) -> None:
        """A request used up its attempts; suspicious where nothing else succeeded meanwhile either.

        Few workers use up the attempts of several requests before as many as `IN_A_ROW` have failed.

        Args:
            successes: how many requests had succeeded when this one failed first.
            reason: of its last failure. Where nothing ever succeeded there is only this request to probe
                with, which must not be to blame itself.
        """
        if successes == self.successes and (self._good is not None or reason in AWAY):
            self._close()

    async def wait(self, own: ScoreRequest, probe: Callable[[ScoreRequest], Awaitable[str]]) -> None:
        """Wait until the bar is up, probing when it is this worker's turn.

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
                    self._excuse(self._clock() - self._next_probe)
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

    def _excuse(self, late: float) -> None:
        """A wait took longer than it should: the machine itself slept, which is no matter of patience."""
        if late > SLEPT:
            self._since += late

    def _probe_failed(self, failure: str) -> None:
        now = self._clock()
        left = self._since + self._patience - now
        if left <= 0:
            self._refusal = f"no success for {duration(now - self._since)} (--patience): {failure}"
            return
        pause = min(self._first_wait * 2.0**self._probes, LONGEST_PROBE_WAIT, left)
        self._probes += 1
        self._failures += 1
        self._next_probe = now + pause
        self._report(
            f"{self._failures} failures in a row ({failure}); waiting, next try in {duration(pause)},"
            f" giving up in {duration(left)} (--patience)"
        )
