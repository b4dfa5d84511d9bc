"""One request, its reply, and the checks between them, whatever the wire.

Invariant: a reply is believed only after `check_reply`. Anything else is a protocol error, never a score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import ReplyError

TOLERANCE = 1e-4
"""Nats a log-probability may lie above 0: rounding in the server's float32 softmax."""
MOST_SHARE = 1.1
"""What probabilities of alternatives may add up to where one is certain: 1, and half precision's rounding."""
ALIKE = 6
"""So many tokens are not equally likely to the last bit by chance, not even in half precision."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Score one continuation after one context, both as token ids."""

    key: bytes
    """16 bytes that mean exactly this question put to exactly this endpoint (see `plan.KeyMaker`)."""
    context_ids: Sequence[int]
    forced_ids: Sequence[int]
    top: int = 0
    """How many alternatives a position the scoring reads; 0: none, and none are stored."""
    text: tuple[str, str] | None = None
    """Context and continuation as text, only for wire formats that send text. A text to be tokenized is a
    continuation after nothing, and has no ids yet."""
    also: tuple[ScoreRequest, ...] = ()
    """Other single tokens after the same context, to be read off the alternatives that the reply names."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the endpoint counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint said of one request."""

    token_ids: Sequence[int]
    """The ids it says it put out."""
    token_logprobs: Sequence[float]
    """Natural logarithms, one a forced token."""
    top_logprobs: Sequence[Mapping[str, float]] | None = None
    """The likeliest alternatives a position, by text; only where `ScoreRequest.top` asked for them."""
    usage: Usage = Usage()
    greedy: bool | None = None
    """Whether each forced token is the likeliest of all; None where the endpoint did not say."""
    token_texts: Sequence[str] = ()
    """What the endpoint calls each forced token; only where alternatives were asked for, and it says so."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no believable reply: its item stays unscored."""

    reason: str
    """Short and stable, fit to be counted: "400", "429", "timeout", "connection", "protocol"."""
    detail: str = ""
    """One line of what the endpoint said, secrets removed."""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended for good: exactly one of `reply` and `failure` is there."""

    request: ScoreRequest
    reply: Reply | None = None
    failure: Failure | None = None
    latency: float = 0.0
    """Seconds from sending to the last byte, of the last attempt."""
    attempts: int = 1
    """How often it was sent; 0: never, it was read off the reply to another."""
    read_from: bytes | None = None
    """The key of that other request."""


def check_reply(request: ScoreRequest, reply: Reply) -> None:
    """Raise `ReplyError` unless the reply answers exactly the request with possible values."""
    forced, values = request.forced_ids, reply.token_logprobs
    if len(values) != len(forced):
        raise ReplyError(f"{len(values)} log-probabilities for {len(forced)} forced tokens", "count")
    if list(reply.token_ids) != list(forced):
        raise ReplyError(
            f"the endpoint put out {_some(reply.token_ids)} where {_some(forced)} was forced", "ids"
        )
    if all(map(math.isfinite, values)) and (most := max(values, default=0.0)) <= TOLERANCE:
        if len(values) >= ALIKE and most < -TOLERANCE and min(values) == most:
            raise ReplyError(f"all {len(values)} log-probabilities are {most}")
        return
    for position, value in enumerate(values):
        if not math.isfinite(value):
            raise ReplyError(f"log-probability {value} at position {position} is not finite", "values")
        if value > TOLERANCE:
            raise ReplyError(f"log-probability {value} at position {position} is above 0", "values")


def is_greedy(values: Sequence[float], top: Sequence[Mapping[str, float] | None] | None) -> bool | None:
    """Whether each token is as likely as the likeliest alternative at its position.

    Args:
        values: log-probabilities of the forced tokens.
        top: the alternatives that the endpoint names at each position, one at least; the forced token may be
            among them.

    Returns:
        None where a position has none. Of level ones each counts as the likeliest.

    Raises:
        ReplyError: as `likeliest`, up to the first token that is not.
    """
    if top is None or len(top) != len(values) or not all(top):
        return None
    for position, (value, each) in enumerate(zip(values, top, strict=True)):
        if each and not likeliest(value, each, position):
            return False
    return True


def likeliest(value: float, alternatives: Mapping[str, float], position: int) -> bool:
    """Whether a token is as likely as the likeliest alternative at its position.

    Raises:
        ReplyError: it is certain, and others are likely as well: neither is believed.
    """
    if value >= -TOLERANCE and sum(math.exp(min(each, 0.0)) for each in alternatives.values()) > MOST_SHARE:
        raise ReplyError(f"the token at position {position} is certain, and alternatives to it are likely")
    return value >= max(alternatives.values())


def _some(ids: Sequence[int]) -> str:
    return f"{list(ids[:6])}{'...' if len(ids) > 6 else ''} ({len(ids)} ids)"
