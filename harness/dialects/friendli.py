"""Friendli's completions: dedicated, serverless and container speak it alike but for `model`.

Flat `tokens`, flat `forced_output_tokens`, integer `logprobs`; no sampling field is ever sent, as whether
log-probabilities are taken before or after temperature is not documented. Ids are matched by
`choices[].tokens`, never by the texts in `logprobs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from harness.dialects import Dialect
from harness.errors import ReplyError, TruncatedReply
from harness.exchange import TOLERANCE, Reply, ScoreRequest, Usage, check_reply
from harness.failures import one_line

# ---------------------------------------------------------------------------------------------- the wire


class _Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str | None = None
    tokens: Sequence[int]
    forced_output_tokens: Sequence[int]
    logprobs: int
    max_tokens: int


class _Logprobs(msgspec.Struct, frozen=True):
    token_logprobs: list[float]


class _TopLogprobs(_Logprobs, frozen=True):
    top_logprobs: list[dict[str, float]]


_L = TypeVar("_L", bound=_Logprobs)


class _Choice(msgspec.Struct, Generic[_L], frozen=True):
    tokens: list[int]
    logprobs: _L | None = None


class _CacheDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CacheDetails | None = None


class _Completion(msgspec.Struct, Generic[_L], frozen=True):
    choices: list[_Choice[_L]]
    usage: _Usage | None = None


_ENCODER = msgspec.json.Encoder()
_PLAIN = msgspec.json.Decoder(_Completion[_Logprobs])
_WITH_TOP = msgspec.json.Decoder(_Completion[_TopLogprobs])


# ------------------------------------------------------------------------------------------- the dialect


class Friendli:
    """The dialect; it has no state."""

    name: str = "friendli"
    path: str = "completions"

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body that asks for a score.

        `max_tokens` is the forced length: input and `max_tokens` together are held against the model's
        length, and without it the whole rest of that length would be reserved.
        """
        return _ENCODER.encode(
            _Body(
                model=model or None,
                tokens=request.context_ids,
                forced_output_tokens=request.forced_ids,
                logprobs=max(1, request.top),
                max_tokens=len(request.forced_ids),
            )
        )

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The checked reply; alternatives are decoded only where the request asked for them."""
        reply = _read_with_top(body, len(request.forced_ids)) if request.top else _read(body)
        check_reply(request, reply)
        return reply

    def error_message(self, body: bytes) -> str:
        """The message in any of the five known shapes of error bodies, else the beginning of the body."""
        try:
            said = _said(msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = ""
        return one_line(said or body.decode(errors="replace"))


DIALECT: Dialect = Friendli()


def _read(body: bytes) -> Reply:
    completion = _decode(_PLAIN, body)
    choice, logprobs = _only_choice(completion)
    return Reply(choice.tokens, logprobs.token_logprobs, None, _usage(completion.usage))


def _read_with_top(body: bytes, forced: int) -> Reply:
    completion = _decode(_WITH_TOP, body)
    choice, logprobs = _only_choice(completion)
    _check_top(logprobs.top_logprobs, forced)
    return Reply(choice.tokens, logprobs.token_logprobs, logprobs.top_logprobs, _usage(completion.usage))


def _decode(decoder: msgspec.json.Decoder[_Completion[_L]], body: bytes) -> _Completion[_L]:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ReplyError(f"the reply is not of the expected form: {error}") from None
    except msgspec.DecodeError as error:
        raise _not_json(body, error) from None
    except RecursionError:
        raise ReplyError("the reply is nested too deeply") from None


def _not_json(body: bytes, error: msgspec.DecodeError) -> ReplyError:
    """A cut body, or one that only a lenient reader takes: NaN and Infinity are how Python writes them."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return TruncatedReply(f"{len(body)} bytes that are no JSON: {error}")
    return ReplyError("the reply holds NaN or Infinity, which is no JSON and no log-probability")


def _only_choice(completion: _Completion[_L]) -> tuple[_Choice[_L], _L]:
    if len(completion.choices) != 1:
        raise ReplyError(f"{len(completion.choices)} choices in a reply that must have one")
    choice = completion.choices[0]
    if choice.logprobs is None:
        raise ReplyError("the reply has no log-probabilities, though they were asked for")
    return choice, choice.logprobs


def _usage(found: _Usage | None) -> Usage:
    if found is None:
        return Usage()
    details = found.prompt_tokens_details
    return Usage(
        found.prompt_tokens, found.completion_tokens, details.cached_tokens if details is not None else None
    )


def _check_top(top: Sequence[Mapping[str, float]], forced: int) -> None:
    if len(top) != forced:
        raise ReplyError(f"top log-probabilities at {len(top)} positions for {forced} forced tokens")
    for position, values in enumerate(top):
        highest = max(values.values(), default=0.0)
        if highest > TOLERANCE:
            raise ReplyError(f"top log-probability {highest} at position {position} is above 0")


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
