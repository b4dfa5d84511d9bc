"""What a reply's headers say of an account: `X-RateLimit-{Limit,Remaining,Reset}-{Requests,Tokens}`.

The vendor does not say in which unit `Reset` is, so all usual ones are read: "1s", "6m0s", "250ms", a plain
number of seconds, and moments: seconds or milliseconds since the epoch, or an HTTP date. `Limit` is taken to
be of a minute; where it is of a longer time it holds nobody back, but that nothing is left still does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from harness.failures import LONGEST_RETRY_AFTER, moment

TELLING = (
    "X-RateLimit-Remaining-Requests",
    "X-RateLimit-Remaining-Tokens",
    "X-RateLimit-Limit-Requests",
    "X-RateLimit-Limit-Tokens",
)
"""A reply with none of these says nothing of limits."""

EPOCH = 10.0**9
"""A plain number from here on is a moment, not a duration: seconds since the epoch passed it in 2001."""

EPOCH_MS = 10.0**12
"""From here on it is in milliseconds."""

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_SPAN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|us|µs|ns|[dhms])")
_SPANS = re.compile(rf"(?:{_SPAN.pattern})+")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Limit(NamedTuple):
    """What a reply says of requests, or of tokens; None where it does not say it."""

    allowed: float | None = None
    """In a minute."""
    left: float | None = None
    """Before the reset."""
    reset: float | None = None
    """Seconds until there is more."""

    @property
    def wait(self) -> float:
        """Seconds to send nothing: until the reset where nothing is left, and it is said when that is."""
        return self.reset or 0.0 if self.left == 0 else 0.0


class Limits(NamedTuple):
    """What a reply says of the limits of its account."""

    requests: Limit
    tokens: Limit

    @property
    def wait(self) -> float:
        """Seconds to send nothing."""
        return max(self.requests.wait, self.tokens.wait)

    @property
    def exhausted(self) -> bool:
        """Whether a refusal is due to a rate, not to how much is asked at once."""
        return self.requests.left == 0 or self.tokens.left == 0


def limits_of(headers: Mapping[str, str], *, now: float) -> Limits:
    """What the headers say; what cannot be read counts as not said.

    Args:
        headers: of a reply, in a mapping that does not mind the case of names.
        now: seconds since the epoch, for a reset that is a moment; the reply's own `Date` goes before it.
    """
    return Limits(_limit("Requests", headers, now), _limit("Tokens", headers, now))


def _limit(kind: str, headers: Mapping[str, str], now: float) -> Limit:
    allowed = _number(headers.get(f"X-RateLimit-Limit-{kind}", ""))
    return Limit(
        allowed or None,  # an account that allows nothing would not have answered: this means something else
        _number(headers.get(f"X-RateLimit-Remaining-{kind}", "")),
        _until(headers.get(f"X-RateLimit-Reset-{kind}", ""), headers, now),
    )


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _until(text: str, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until a reset, capped as a `Retry-After` is."""
    text = text.strip()
    number = _number(text)
    if number is not None and number < EPOCH:
        seconds = number
    elif number is not None or (number := moment(text)) is not None:
        sent = moment(headers.get("Date", ""))  # clocks differ
        at = number if number < EPOCH_MS else number / 1000
        seconds = max(0.0, at - (sent if sent is not None else now))
    elif _SPANS.fullmatch(text):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _SPAN.findall(text))
    else:
        return None
    return min(seconds, LONGEST_RETRY_AFTER)
