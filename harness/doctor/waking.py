"""A dedicated endpoint that sleeps is woken and waited for, visibly.

Its management API is beta and may need more rights than scoring does. So whatever goes wrong with it says
nothing about the endpoint: how it is is not known then, and whoever asks goes on. Only a status by which it
will never answer ends the matter.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import msgspec

from harness.failures import one_line
from harness.saying import duration
from harness.transport import Called

UP = ("RUNNING", "READY")
GONE = ("FAILED", "STOPPING", "TERMINATING", "TERMINATED")
"""Statuses by which no request will be answered, however long one waits."""
FIRST_LOOK, LONGEST_LOOK = 1.0, 15.0
"""Seconds between two looks: doubled from look to look."""

Call = Callable[[str, str], Awaitable[Called]]
"""Method and URL to what came back."""

_DEDICATED = re.compile(r"(.+/dedicated)/v1")


class _Said(msgspec.Struct, frozen=True):
    status: str
    phase: str | None = None
    error_code: str | None = msgspec.field(default=None, name="errorCode")


_SAID = msgspec.json.Decoder(_Said)


@dataclass(frozen=True, slots=True)
class Awake:
    """How it was found, and how it is now."""

    state: Literal["awake", "woken", "down", "unknown"]
    told: str
    """What it said, or why nothing is known."""
    seconds: float = 0.0
    """That waking it took."""


class _Unknown(Exception):
    """Raised where the status cannot be had; says why."""


def management_url(base_url: str, model: str) -> str | None:
    """Where a dedicated endpoint is managed, adapters apart; None where it is none, or has no name."""
    found = _DEDICATED.fullmatch(base_url)
    return f"{found[1]}/beta/endpoint/{quote(model, safe='')}" if found and model else None


async def awake(
    url: str,
    call: Call,
    say: Callable[[str], object],
    *,
    patience: float,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> Awake:
    """See whether an endpoint is awake; wake it, and wait until it is.

    Args:
        url: of `management_url`.
        call: sends with the endpoint's own credentials.
        say: told when it is woken, and of each phase.
        patience: seconds to wait at most.
        clock: seconds, from any origin.
        sleep: waits so many seconds; what it raises passes through.
    """
    begun, look, asked, before = clock(), FIRST_LOOK, False, ""
    while True:
        try:
            said = await _status(url, call)
            if said.status == "SLEEPING" and not asked:
                say("it is asleep; waking it up, which may take minutes")
                await _answered("PUT", f"{url}/wake", call)
                asked = True
                continue
        except _Unknown as error:
            return Awake("unknown", str(error), clock() - begun)
        told, seconds = _told(said), clock() - begun
        if said.status in UP:
            if before:
                say(f"awake after {duration(seconds)}")
            return Awake("woken" if before else "awake", told, seconds)
        if said.status in GONE:
            return Awake("down", told, seconds)
        if seconds >= patience:
            return Awake("down", f"{told} still, after {duration(seconds)}", seconds)
        if told != before:
            say(f"it is {told}; waiting, {duration(patience - seconds)} at most")
            before = told
        await sleep(min(look, patience - seconds))
        look = min(2 * look, LONGEST_LOOK)


async def stated_length(url: str, call: Call) -> int | None:
    """How many tokens it says it takes, input and output; None where it does not say."""
    try:
        body = msgspec.json.decode(await _answered("GET", url, call))
    except (_Unknown, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = body.get("maxContextLength") if isinstance(body, dict) else None
    return found if type(found) is int and found > 0 else None


async def _status(url: str, call: Call) -> _Said:
    try:
        return _SAID.decode(await _answered("GET", f"{url}/status", call))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unknown("its status route does not answer with a status") from error


async def _answered(method: str, url: str, call: Call) -> bytes:
    came = await call(method, url)
    if came.status is None or not 200 <= came.status < 300:
        status = f"{came.status} from " if came.status is not None else ""
        raise _Unknown(f"{status}its management route ({came.detail or 'no reason given'})")
    return came.body


def _told(said: _Said) -> str:
    """Status, phase and error in a few words; they are the endpoint's, and may be anything."""
    more = [each for each in (said.phase, said.error_code) if each]
    return one_line(f"{said.status} ({', '.join(more)})" if more else said.status, 100)
