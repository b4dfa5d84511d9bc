"""How the values of faults are written, alike on the command line and in TOML, and read. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DAY = 86_400.0
"""Seconds; no rehearsal lasts longer."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time: `5@20`."""

    seconds: float
    start: float = 0.0
    """Seconds after the first request."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A shift of log-probabilities from some completion on: `0.1@500`."""

    shift: float
    """Nats a token."""
    first: int = 1
    """Number of the first completion that is shifted, from 1."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value."""

    form: str
    """As the table shows it; empty for a switch."""
    must: str
    """What a value must be, to end the sentence "must be ..."."""
    read: Callable[[str], object]
    """The value of a text; raises `ValueError` where it is none."""
    bare: str | None = None
    """What the name alone stands for; None: it needs a value."""


def _number(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """A reader of numbers from `low` (`above`: more than that) to `high`."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high or (above and value == low):
            raise ValueError(text)
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _switch(text: str) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[text]


def _span(text: str) -> Span:
    seconds, at, start = text.partition("@")
    return Span(_number(0, DAY, above=True)(seconds), _number(0, DAY)(start if at else "0"))


def _drift(text: str) -> Drift:
    shift, at, first = text.partition("@")
    found = Drift(_number(-_MOST, _MOST)(shift), _whole(1, 2**63 - 1)(first if at else "1"))
    if not found.shift:
        raise ValueError(text)
    return found


_MOST = 1e3
"""Nats; beyond it no log-probability of a token lies."""

SHARE = Kind("SHARE", "a share of the requests, from 0 to 1", _number(0, 1), bare="1")
SWITCH = Kind("", "true or false", _switch, bare="true")
COUNT = Kind("N", "a whole number from 1 on", _whole(1, 2**63 - 1))
TOKEN = Kind("ID", "a token id, from 0 on", _whole(0, 2**31 - 1))
SEED = Kind("N", "a whole number", _whole(-(2**63), 2**63 - 1))
SECONDS = Kind("SECONDS", f"seconds, more than 0 and at most {DAY:.0f}", _number(0, DAY, above=True))
WHOLE_SECONDS = Kind("SECONDS", f"whole seconds, from 0 to {DAY:.0f}", _whole(0, int(DAY)))
NATS = Kind("D", f"nats, more than 0 and at most {_MOST:.0f}", _number(0, _MOST, above=True))
SPAN = Kind(
    "SECONDS@START", f"SECONDS, or SECONDS@START, of which SECONDS is more than 0, none over {DAY:.0f}", _span
)
DRIFT = Kind(
    "D@N", f"nats D, or D@N with the number N of a completion; D is not 0, nor beyond {_MOST:.0f}", _drift
)


def read(kind: Kind, text: str) -> object:
    """The value of a text.

    Raises:
        ValueError: it is none; the message says what it must be.
    """
    try:
        return kind.read(text.strip())
    except (ValueError, KeyError):
        raise ValueError(f"must be {kind.must}") from None
