"""Friendli's completions: dedicated, serverless and container speak it alike but for `model`.

Flat `tokens`, flat `forced_output_tokens`, integer `logprobs`; no sampling field is ever sent, as whether
log-probabilities are taken before or after temperature is not documented. Ids are matched by
`choices[].tokens`, never by the texts in `logprobs`. Its tokenize route takes one text, and has no option for
special tokens: whether they are added is a setting of the endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from harness.dialects import Dialect
from harness.dialects._common import UsageField, check_top, decode, error_message, usage_of
from harness.errors import ReplyError
from harness.exchange import Reply, ScoreRequest, check_reply, is_greedy, likeliest

# ---------------------------------------------------------------------------------------------- the wire


class _Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str | None = None
    tokens: Sequence[int]
    forced_output_tokens: Sequence[int]
    logprobs: int
    max_tokens: int


class _Logprobs(msgspec.Struct, frozen=True):
    token_logprobs: list[float]
    top_logprobs: Any = msgspec.Raw(b"null")


class _PlainLogprobs(_Logprobs, frozen=True):
    top_logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _TopLogprobs(_Logprobs, frozen=True):
    top_logprobs: list[dict[str, float]] | None = None
    tokens: list[str] | None = None


_L = TypeVar("_L", bound=_Logprobs)


class _Choice(msgspec.Struct, Generic[_L], frozen=True):
    tokens: list[int]
    logprobs: _L | None = None


class _Completion(msgspec.Struct, Generic[_L], frozen=True):
    choices: list[_Choice[_L]]
    usage: UsageField | None = None


class _Text(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str | None = None
    prompt: str


class _Tokens(msgspec.Struct, frozen=True):
    tokens: list[Annotated[int, msgspec.Meta(ge=0, lt=2**32)]]


_ENCODER = msgspec.json.Encoder()
_PLAIN = msgspec.json.Decoder(_Completion[_PlainLogprobs])
_WITH_TOP = msgspec.json.Decoder(_Completion[_TopLogprobs])
_POSITIONS = msgspec.json.Decoder(list[msgspec.Raw])
_ALTERNATIVES = msgspec.json.Decoder(dict[str, float])
_TOKENS = msgspec.json.Decoder(_Tokens)


# ------------------------------------------------------------------------------------------- the dialect


class FriendliTokenize:
    """The tokenize route; it has no state."""

    name: str = "friendli tokenize"
    variables: tuple[str, ...] = ("FRIENDLI_TOKEN", "FRIENDLI_TEAM")
    path: str = "tokenize"
    wants_text: bool = True
    names_tokens: bool = False
    tokenize_route: Dialect | None = None

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body that asks for the ids of the request's text."""
        return _ENCODER.encode(_Text(model=model or None, prompt="".join(request.text or ())))

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The ids, with the special tokens that the endpoint adds."""
        return Reply(decode(_TOKENS, body).tokens, ())

    def error_message(self, body: bytes) -> str:
        """What an error body says."""
        return error_message(body)


class Friendli:
    """The dialect; it has no state."""

    name: str = "friendli"
    variables: tuple[str, ...] = ("FRIENDLI_TOKEN", "FRIENDLI_TEAM")
    path: str = "completions"
    wants_text: bool = False
    names_tokens: bool = True
    tokenize_route: Dialect | None = FriendliTokenize()

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
        """What an error body says."""
        return error_message(body)


DIALECT: Dialect = Friendli()


def _read(body: bytes) -> Reply:
    completion = decode(_PLAIN, body)
    choice, logprobs = _only_choice(completion)
    values = logprobs.token_logprobs
    return Reply(
        choice.tokens,
        values,
        None,
        usage_of(completion.usage),
        _greedy(values, logprobs.top_logprobs),
    )


def _read_with_top(body: bytes, forced: int) -> Reply:
    completion = decode(_WITH_TOP, body)
    choice, logprobs = _only_choice(completion)
    values, top = logprobs.token_logprobs, logprobs.top_logprobs
    if top is not None:  # without them the value itself can still be believed
        check_top(top, forced)
    greedy = is_greedy(values, top)
    return Reply(choice.tokens, values, top, usage_of(completion.usage), greedy, logprobs.tokens or ())


def _greedy(values: Sequence[float], raw: msgspec.Raw) -> bool | None:
    """As `is_greedy`, but decoded only up to the first token that is not the likeliest, which is soon.

    None too where the alternatives are unreadable: nobody asked for more than whether they are likelier.
    """
    try:
        positions = _POSITIONS.decode(raw)
        if len(positions) != len(values):
            return None
        found = map(_ALTERNATIVES.decode, positions)
        for position, (value, alternatives) in enumerate(zip(values, found, strict=True)):
            if not alternatives:
                return None
            if not likeliest(value, alternatives, position):
                return False
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return True


def _only_choice(completion: _Completion[_L]) -> tuple[_Choice[_L], _L]:
    if len(completion.choices) != 1:
        raise ReplyError(f"{len(completion.choices)} choices in a reply that must have one")
    choice = completion.choices[0]
    if choice.logprobs is None:
        raise ReplyError("the reply has no log-probabilities, though they were asked for")
    return choice, choice.logprobs
