"""What a fault makes of the numbers and ids of a reply. Pure; the reply is changed in place.

Alternatives are changed with the values they belong to: a reader of either is misled alike. The first null of
an echoed prompt stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from harness.serving.faults.draws import Draw
from harness.serving.faults.plan import Faults

Logprobs = dict[str, Any]
"""The object `logprobs` of a choice."""

_ABOVE = 0.1
"""Nats by which `positive` is above 0, at the least: no rounding explains it."""
_TURN = (math.sqrt(5) - 1) / 2
"""Multiples of it are spread evenly over 0 to 1: `order` shifts each completion unlike its neighbours."""


def alter(reply: Any, faults: Faults, draw: Draw, before: int, *, crowded: bool = False) -> list[str]:
    """Change a completion's reply.

    Args:
        reply: the decoded body of a 200.
        faults: what can go wrong.
        draw: of the request.
        before: completions that came before it.
        crowded: others are in flight.

    Returns:
        The names of the faults that changed it.
    """
    choices = [each for each in _list(reply, "choices") if isinstance(each, dict)]
    scored = [each["logprobs"] for each in choices if _places(each.get("logprobs"))]
    struck = [name for name in _SHIFTS if scored and _shifts(name, faults, before, crowded)]
    shift = math.fsum(_shift(name, faults, before) for name in struck)
    for logprobs in scored if struck else ():
        _each(logprobs, lambda value: min(0.0, value + shift))
    if faults.chain is not None and any(len(_places(each)) > 1 for each in scored):
        for logprobs in scored:
            _lower(logprobs, faults.chain)
        struck.append("chain")
    for name, change in _CHANGES.items():
        possible = [each for each in scored if _places(each)]
        if possible and draw.strikes(name, faults.value(name)):
            for logprobs in possible:
                change(logprobs, draw)
            struck.append(name)
    if draw.strikes("other_ids", faults.other_ids) and _other_ids(choices):
        struck.append("other_ids")
    return struck


# ---------------------------------------------------------------------------------------------- by count

_SHIFTS = ("drift", "order", "crowded")


def _shifts(name: str, faults: Faults, before: int, crowded: bool) -> bool:
    if name == "crowded":
        return faults.crowded is not None and crowded
    if name == "drift":
        return faults.drift is not None and before + 1 >= faults.drift.first
    return faults.order is not None


def _shift(name: str, faults: Faults, before: int) -> float:
    """Nats that a fault adds to every log-probability."""
    if name == "drift":
        return 0.0 if faults.drift is None else faults.drift.shift
    if name == "crowded":
        return -(faults.crowded or 0.0)
    return 0.0 if faults.order is None else -faults.order * math.modf((before + 1) * _TURN)[0]


# --------------------------------------------------------------------------------------------- by chance


def _zero(logprobs: Logprobs, draw: Draw) -> None:
    _each(logprobs, lambda value: 0.0)


def _flat(logprobs: Logprobs, draw: Draw) -> None:
    first = logprobs["token_logprobs"][_places(logprobs)[0]]
    _each(logprobs, lambda value: first)


def _lower(logprobs: Logprobs, by: float) -> None:
    """Lower all but the first values, their alternatives with them."""
    values, top = logprobs["token_logprobs"], _list(logprobs, "top_logprobs")
    later = _places(logprobs)[1:]
    rest = {"token_logprobs": [values[place] for place in later]}
    rest["top_logprobs"] = [top[place] for place in later if place < len(top)]
    _each(rest, lambda value: value - by)
    for place, value in zip(later, rest["token_logprobs"], strict=True):
        values[place] = value


def _count(logprobs: Logprobs, draw: Draw) -> None:
    """One entry less in every list, or the last one twice."""
    less = draw.pick("count", 2) == 0
    for values in logprobs.values():
        if isinstance(values, list) and values:
            values[:] = values[:-1] if less else [*values, copy(values[-1])]


def _positive(logprobs: Logprobs, draw: Draw) -> None:
    place = _place(logprobs, draw, "positive")
    _put(logprobs, place, _ABOVE - logprobs["token_logprobs"][place])


def _null(logprobs: Logprobs, draw: Draw) -> None:
    _put(logprobs, _place(logprobs, draw, "null"), None)


def _nan(logprobs: Logprobs, draw: Draw) -> None:
    first = _place(logprobs, draw, "nan")
    for place in _places(logprobs):
        if place >= first:
            _put(logprobs, place, math.nan)


_CHANGES: dict[str, Callable[[Logprobs, Draw], None]] = {
    "zero": _zero,
    "flat": _flat,
    "count": _count,
    "positive": _positive,
    "null": _null,
    "nan": _nan,
}
"""In the order in which they change a reply that several of them strike: none undoes one before it."""


NAMES = frozenset((*_SHIFTS, *_CHANGES, "chain", "other_ids"))
"""Of the faults in this module."""


def _other_ids(choices: Iterable[dict[str, Any]]) -> bool:
    """Put the id before it in place of each, and values that may be its; whether there was any."""
    found = False
    for choice in choices:
        ids = choice.get("tokens")
        if isinstance(ids, list) and ids and all(type(each) is int for each in ids):
            choice["tokens"] = [each - 1 if each else 1 for each in ids]
            if _list(choice.get("logprobs"), "token_logprobs")[:1] != [None]:  # as in an echo
                _each(choice.get("logprobs") or {}, lambda value: value - 1.0 if value < 0 else value)
            found = True
    return found


# ------------------------------------------------------------------------------------------------- parts


def _list(body: Any, name: str) -> list[Any]:
    found = body.get(name) if isinstance(body, dict) else None
    return found if isinstance(found, list) else []


def _places(logprobs: Any) -> list[int]:
    """Where there is a possible log-probability: not null, nor what an earlier fault made of it."""
    return [
        n for n, value in enumerate(_list(logprobs, "token_logprobs")) if _is_number(value) and value <= 0
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _place(logprobs: Logprobs, draw: Draw, name: str) -> int:
    """One of the places, of which there is one at least."""
    places = _places(logprobs)
    return places[draw.pick(name, len(places))]


def _put(logprobs: Logprobs, place: int, value: float | None) -> None:
    """Say this of the token that was put out, among its alternatives too."""
    logprobs["token_logprobs"][place] = value
    top, texts = _list(logprobs, "top_logprobs"), _list(logprobs, "tokens")
    if (
        place < len(top)
        and place < len(texts)
        and isinstance(top[place], dict)
        and texts[place] in top[place]
    ):
        top[place][texts[place]] = value


def _each(logprobs: Logprobs, change: Callable[[float], float]) -> None:
    """Change every log-probability."""
    for place in _places(logprobs):
        logprobs["token_logprobs"][place] = change(logprobs["token_logprobs"][place])
    for entry in _list(logprobs, "top_logprobs"):
        for text, value in entry.items() if isinstance(entry, dict) else ():
            if _is_number(value):
                entry[text] = change(value)
