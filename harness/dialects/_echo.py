"""What OpenAI-style wire formats share: a prompt that is echoed, and the continuation cut out of the echo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from harness.dialects._common import UsageField, check_top
from harness.errors import ReplyError
from harness.exchange import Reply, ScoreRequest, Usage, check_reply, is_greedy

GENERATED = 1
"""Tokens generated behind the prompt: none at all is refused by some servers, and ignored by others."""
IGNORED = "the server ignores 'echo': it gives log-probabilities of the generated token only"


class _Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str | None = None
    prompt: Sequence[int] | str
    max_tokens: int
    logprobs: int
    echo: bool


class Logprobs(msgspec.Struct, frozen=True):
    """The lists of `logprobs` that every such server gives, one entry a token."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


L = TypeVar("L", bound=Logprobs)


class Choice(msgspec.Struct, Generic[L], frozen=True):
    """The field `choices`, one entry of it."""

    logprobs: L | None = None


class Completion(msgspec.Struct, Generic[L], frozen=True):
    """The body of a 200."""

    choices: list[Choice[L]]
    usage: UsageField | None = None


_ENCODER = msgspec.json.Encoder()


def build(prompt: Sequence[int] | str, top: int, model: str | None) -> bytes:
    """The body that asks for the echo. No sampling field is sent: what is echoed is not sampled."""
    return _ENCODER.encode(
        _Body(model=model or None, prompt=prompt, max_tokens=GENERATED, logprobs=max(1, top), echo=True)
    )


def only_logprobs(completion: Completion[L]) -> L:
    """The lists of the only choice.

    Raises:
        ReplyError: there is none, or several, or the server says that it generated nothing: then the last
            position is one of the prompt, whatever the count.
    """
    if len(completion.choices) != 1:
        raise ReplyError(f"{len(completion.choices)} choices in a reply that must have one")
    logprobs = completion.choices[0].logprobs
    if logprobs is None:
        raise ReplyError("the reply has no log-probabilities, though they were asked for")
    if completion.usage is not None and completion.usage.completion_tokens == 0:
        raise ReplyError("the server generated no token, though one was asked for: the cut would be shifted")
    return logprobs


def cut(request: ScoreRequest, logprobs: Logprobs, first: int, end: int, usage: Usage) -> Reply:
    """The checked reply: the values of the positions from `first` to `end`, and of no others."""
    values = _values(logprobs.token_logprobs, first, end)
    top = _top(logprobs.top_logprobs, first, end) if request.top else None
    greedy = is_greedy(values, (logprobs.top_logprobs or [])[first:end])
    reply = Reply(list(request.forced_ids), values, top, usage, greedy)
    check_reply(request, reply)
    return reply


def _values(values: Sequence[float | None], first: int, end: int) -> list[float]:
    """The forced positions' values; only the first of all may be null, which has nothing before it."""
    for position, value in enumerate(values[:end]):
        if value is None and position > 0:
            raise ReplyError(f"no log-probability at position {position} of the echoed prompt")
    kept = [value for value in values[first:end] if value is not None]
    if len(kept) < end - first:
        raise ReplyError("the first token of all has no log-probability: a context is needed before it")
    return kept


def _top(top: Sequence[Mapping[str, float] | None] | None, first: int, end: int) -> list[Mapping[str, float]]:
    """The forced positions' alternatives."""
    kept = [each for each in (top or [])[first:end] if each is not None]
    check_top(kept, end - first)
    return kept
