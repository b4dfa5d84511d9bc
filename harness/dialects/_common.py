"""What the wire formats have in common: JSON read strictly, usage, error bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from harness.errors import ReplyError, TruncatedReply
from harness.exchange import TOLERANCE, Usage
from harness.failures import one_line

_T = TypeVar("_T")


class CacheDetails(msgspec.Struct, frozen=True):
    """Where the prompt's tokens came from."""

    cached_tokens: int | None = None


class UsageField(msgspec.Struct, frozen=True):
    """The field `usage` of a reply."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CacheDetails | None = None


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """The body of a 200.

    Raises:
        TruncatedReply: it is cut or no JSON.
        ReplyError: it is of another form.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ReplyError(f"the reply is not of the expected form: {error}") from None
    except msgspec.DecodeError as error:
        raise _not_json(body, error) from None
    except UnicodeDecodeError as error:
        raise TruncatedReply(f"{len(body)} bytes that are no JSON: no UTF-8, {error.reason}") from None
    except RecursionError:
        raise ReplyError("the reply is nested too deeply") from None


def _not_json(body: bytes, error: msgspec.DecodeError) -> ReplyError:
    """A cut body, or one that only a lenient reader takes: NaN and Infinity are how Python writes them."""
    constants: list[str] = []
    try:
        json.loads(body, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return TruncatedReply(f"{len(body)} bytes that are no JSON: {error}")
    if constants:
        return ReplyError("the reply holds NaN or Infinity, which is no JSON and no log-probability")
    return ReplyError("the reply is JSON in no UTF-8, or holds half a character (a lone surrogate)")


def usage_of(found: UsageField | None) -> Usage:
    """Tokens as the endpoint counted them."""
    if found is None:
        return Usage()
    details = found.prompt_tokens_details
    return Usage(
        found.prompt_tokens, found.completion_tokens, details.cached_tokens if details is not None else None
    )


def check_top(top: Sequence[Mapping[str, float]], forced: int) -> None:
    """Raise `ReplyError` unless there are possible alternatives at each forced position."""
    if len(top) != forced:
        raise ReplyError(f"top log-probabilities at {len(top)} positions for {forced} forced tokens")
    for position, values in enumerate(top):
        highest = max(values.values(), default=0.0)
        if highest > TOLERANCE:
            raise ReplyError(f"top log-probability {highest} at position {position} is above 0")


def error_message(body: bytes) -> str:
    """The message in any of the five known shapes of error bodies, else the beginning of the body."""
    try:
        said = _said(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = ""
    return one_line(said or body.decode(errors="replace"))


def _said(body: object) -> str:
    """The message of a decoded error body, or the empty string."""
    match body:
        case {"error": {"message": str(text)}} | {"message": str(text)} | {"detail": str(text)}:
            return text
        case {"detail": [*problems]}:
            return "; ".join(_problem(problem) for problem in problems[:5])
        case {"error_description": str(text)} | {"error": str(text)}:
            return text
    return ""


def _problem(problem: object) -> str:
    """One entry of a validation error: where, and what is wrong there."""
    match problem:
        case {"loc": [*where], "msg": str(text)}:
            return f"{'.'.join(map(str, where))}: {text}"
        case {"msg": str(text)}:
            return text
    return str(problem)
