"""What to do about an attempt that failed: a table from status or fault to a decision, pure.

This module does not know about HTTP libraries, sleeping or counting; whoever acts on a decision does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

Action = Literal["retry", "fail", "stop"]
"""retry: send it again; fail: this request will never succeed; stop: no request to this endpoint will."""

Fault = Literal["connection", "timeout", "cut body", "protocol", "bad certificate"]
"""What went wrong where there is no status to go by.

connection: refused, reset, not resolved; timeout: our own patience with one attempt; cut body: it ended too
early; protocol: a whole reply that must not be believed; bad certificate: the host is not who it should be.
"""

TABLE: Mapping[int | Fault, Action] = {
    "connection": "retry",
    "timeout": "retry",
    "cut body": "retry",
    408: "retry",
    429: "retry",
    500: "retry",
    502: "retry",
    503: "retry",
    504: "retry",
    "protocol": "fail",
    400: "fail",
    422: "fail",
    "bad certificate": "stop",
    401: "stop",
    403: "stop",
    404: "stop",
}

UNLISTED: Mapping[int, Action] = {5: "retry"}
"""By hundreds. All else fails its request alone, redirects among it: none is followed with a token."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds; what an endpoint asks for beyond this is cut to it."""

LINE = 300
"""Characters of an endpoint's own words that are kept."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why."""

    action: Action
    reason: str
    """Short and stable, fit to be counted: the status or the fault."""
    retry_after: float | None = None
    """Seconds the endpoint asks us to wait, capped; only with "retry"."""


def classify(
    status: int | None, headers: Mapping[str, str], fault: Fault | None = None, *, now: float
) -> Decision:
    """Decide about one failed attempt.

    Args:
        status: of the reply, None where none came.
        headers: of the reply, in any case.
        fault: what went wrong besides; it counts more than the status.
        now: seconds since the epoch, to read a `Retry-After` date by.
    """
    cause = fault if fault is not None else status
    if cause is None:
        raise ValueError("an attempt without status and without fault did not fail")
    default: Action = "fail" if isinstance(cause, str) else UNLISTED.get(cause // 100, "fail")
    action = TABLE.get(cause, default)
    return Decision(action, str(cause), retry_after(headers, now=now) if action == "retry" else None)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that `retry-after-ms` or `Retry-After` (seconds or a date) ask for, capped.

    A date is held against the reply's own `Date` where it has one, as clocks differ. None where nothing
    is asked for or it cannot be read.
    """
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    milliseconds, asked = lowered.get("retry-after-ms", ""), lowered.get("retry-after", "")
    if _NUMBER.fullmatch(milliseconds):
        seconds = float(milliseconds) / 1000
    elif _NUMBER.fullmatch(asked):
        seconds = float(asked)
    else:
        until = moment(asked)
        if until is None:
            return None
        sent = moment(lowered.get("date", ""))
        seconds = max(0.0, until - (sent if sent is not None else now))
    return min(seconds, LONGEST_RETRY_AFTER)


def one_line(text: str, limit: int = LINE) -> str:
    """Foreign text made short and inert: control and formatting characters become spaces, spaces one."""
    shown = "".join(each if each.isprintable() else " " for each in text[: 4 * limit])
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def moment(text: str) -> float | None:
    """An HTTP date as seconds since the epoch; None where it is none."""
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
