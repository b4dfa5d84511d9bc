"""OpenAI-style completions (vLLM and kin): the prompt is echoed with its log-probabilities.

Context and continuation go together as the ids of one prompt, one more token is generated because servers
want one, and the continuation's log-probabilities are cut out of the echo. Replies name no ids, so the cut
is by count: every position has to be there, and nothing but the first may be without a value. A server that
does not do this is found out here; it never scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from harness.dialects import Dialect
from harness.dialects._common import UsageField, check_top, decode, error_message, usage_of
from harness.errors import ReplyError
from harness.exchange import Reply, ScoreRequest, check_reply

GENERATED = 1
"""Tokens generated behind the prompt: none at all is refused by some servers, and ignored by others."""


class _Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str | None = None
    prompt: Sequence[int]
    max_tokens: int
    logprobs: int
    echo: bool


class _Logprobs(msgspec.Struct, frozen=True):
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct, frozen=True):
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: UsageField | None = None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Completion)


class OpenAi:
    """The dialect; it has no state."""

    name: str = "openai"
    variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    path: str = "completions"

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body that asks for a score. No sampling field is sent: what is echoed is not sampled."""
        return _ENCODER.encode(
            _Body(
                model=model or None,
                prompt=[*request.context_ids, *request.forced_ids],
                max_tokens=GENERATED,
                logprobs=max(1, request.top),
                echo=True,
            )
        )

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The checked reply: the values of the forced positions, and of no others."""
        completion = decode(_DECODER, body)
        if len(completion.choices) != 1:
            raise ReplyError(f"{len(completion.choices)} choices in a reply that must have one")
        logprobs = completion.choices[0].logprobs
        if logprobs is None:
            raise ReplyError("the reply has no log-probabilities, though they were asked for")
        usage = usage_of(completion.usage)
        first, end = len(request.context_ids), len(request.context_ids) + len(request.forced_ids)
        _check_count(len(logprobs.token_logprobs), end, usage.prompt_tokens)
        values = _values(logprobs.token_logprobs, first, end)
        top = _top(logprobs.top_logprobs, first, end) if request.top else None
        reply = Reply(list(request.forced_ids), values, top, usage)
        check_reply(request, reply)
        return reply

    def error_message(self, body: bytes) -> str:
        """What an error body says."""
        return error_message(body)


DIALECT: Dialect = OpenAi()


def _check_count(found: int, prompt: int, counted: int | None) -> None:
    """Raise `ReplyError` unless there is a value for each token of the prompt and the generated one.

    Args:
        found: positions in the reply.
        prompt: tokens that were sent.
        counted: what the server counted, where it says.
    """
    if found == prompt + GENERATED and counted in (None, prompt):
        return
    if found <= GENERATED < prompt:
        raise ReplyError("the server ignores 'echo': it gives log-probabilities of the generated token only")
    if found == prompt:
        raise ReplyError(
            f"{found} log-probabilities for {prompt} prompt tokens and the generated one: which of them is"
            " missing cannot be told"
        )
    said = f", and counted {counted} of them" if counted not in (None, prompt) else ""
    raise ReplyError(
        f"{found} log-probabilities for {prompt} prompt tokens and the generated one{said};"
        " does the server add a token of its own?"
    )


def _values(values: Sequence[float | None], first: int, end: int) -> list[float]:
    """The forced positions' values; only the first of all may be null, which has nothing before it."""
    for position, value in enumerate(values[:end]):
        if value is None and position > 0:
            raise ReplyError(f"no log-probability at position {position} of the echoed prompt")
    cut = [value for value in values[first:end] if value is not None]
    if len(cut) < end - first:
        raise ReplyError("the first token of all has no log-probability: a context is needed before it")
    return cut


def _top(top: Sequence[Mapping[str, float] | None] | None, first: int, end: int) -> list[Mapping[str, float]]:
    """The forced positions' alternatives."""
    cut = [each for each in (top or [])[first:end] if each is not None]
    check_top(cut, end - first)
    return cut
