"""How long and how often an endpoint is asked, and what a request that failed has used up of it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.exchange import ScoreRequest
from harness.pacing import BUSY
from harness.transport import Attempt

MOST_REFILLS = 3
"""How often a request gets fresh attempts because an outage used up its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How long and how often one endpoint is asked; seconds throughout."""

    timeout: float = 120.0
    """For one attempt, until the last byte."""
    connect_timeout: float = 10.0
    attempts: int = 8
    """For one request; those answered 429 do not count."""
    deadline: float = 900.0
    """For one request: attempts and the waits between them, not waits for the budget or an outage."""
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    probe_wait: float = 1.0
    """Between the first two probes of an endpoint that is down; doubled from probe to probe."""
    patience: float = 1800.0
    """Without a success, until the endpoint is given up."""


@dataclass(slots=True)
class Case:
    """A request that failed at least once, and what has been spent on it."""

    request: ScoreRequest
    body: bytes
    last: Attempt
    successes: int
    """Of the endpoint, when this request had failed first, or was refilled."""
    seen: bool = False
    """Tenacity has been shown the attempt that opened the case."""
    sent: int = 0
    """Attempts in all; those below count since the last refill."""
    attempts: int = 0
    busy: int = 0
    """Of them, answered "too busy": they lengthen the waits, and use up time alone."""
    spent: float = 0.0
    """Seconds."""
    wait: float = 0.0
    """Seconds before the next attempt."""
    refills: int = 0
    spare: bool = True
    """An attempt beyond these is left to it, for an outage that ended just when it had used up its own."""

    def add(self, attempt: Attempt, wait: float, timeout: float) -> None:
        """Count an attempt, and set the wait before the next.

        None takes longer than its time-out, but by a clock that goes on while the machine sleeps.
        """
        self.last = attempt
        self.sent += 1
        self.attempts += 1
        self.busy += attempt.reason == BUSY
        self.spent += min(attempt.seconds, timeout)
        self.wait = wait

    def refill(self, successes: int) -> None:
        """The attempts so far fell into an outage: begin anew, so many times."""
        if self.refills < MOST_REFILLS:
            self.refills += 1
            self.successes = successes
            self.attempts, self.busy, self.spent, self.wait = 0, 0, 0.0, 0.0

    def exhausted(self, settings: ClientSettings) -> bool:
        """Whether no further attempt is left to it."""
        tried = self.attempts - self.busy
        return tried >= settings.attempts or self.spent + self.wait > settings.deadline
