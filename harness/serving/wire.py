"""What crosses the wire: requests, replies and error bodies; it knows no model and no HTTP library.

A request is checked here as far as its own fields go. What is not honoured is refused by name and never
ignored; a null is a field that was not given.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

MAX_TOP = 100
"""The most alternatives a position: a reply grows with them."""

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
SomeIds = Annotated[list[TokenId], msgspec.Meta(min_length=1)]


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a completion that are honoured."""

    model: str | None = None
    prompt: str | Annotated[list[TokenId | str | SomeIds], msgspec.Meta(min_length=1)] | None = None
    """A text or the ids of one; or some of either, all alike."""
    tokens: SomeIds | None = None
    forced_output_tokens: SomeIds | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stream: bool | None = None
    echo: bool | None = None
    """The output begins with the prompt: the way in which OpenAI-style clients ask for its values."""


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A text to be encoded."""

    model: str | None = None
    prompt: str


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ids to be decoded."""

    model: str | None = None
    tokens: list[TokenId]


AnyRequest = TypeVar("AnyRequest", CompletionRequest, TokenizeRequest, DetokenizeRequest)


class Logprobs(msgspec.Struct, frozen=True):
    """Of each output token."""

    text_offset: list[int]
    """Characters of the output in front of it."""
    token_logprobs: list[float | None]
    """Null for the first token of an echoed prompt, before which there is nothing."""
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class Choice(msgspec.Struct, frozen=True):
    """One output."""

    index: int
    text: str
    seed: int
    finish_reason: Literal["stop", "length"]
    tokens: list[int]
    logprobs: Logprobs | None


class PromptDetails(msgspec.Struct, frozen=True):
    """Where the prompt's tokens came from."""

    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Tokens in and out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CompletionReply(msgspec.Struct, frozen=True):
    """The body of a completion's 200."""

    id: str
    object: Literal["text_completion"]
    model: str
    choices: list[Choice]
    usage: Usage


class TokenizeReply(msgspec.Struct, frozen=True):
    """The body of a tokenization's 200."""

    tokens: list[int]


class DetokenizeReply(msgspec.Struct, frozen=True):
    """The body of a detokenization's 200."""

    text: str


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one field."""

    loc: list[str | int]
    """The way to it: `["body", "max_tokens"]`."""
    msg: str
    type: str


class Problems(msgspec.Struct, frozen=True):
    """The body of a 422."""

    detail: list[Problem]


class Message(msgspec.Struct, frozen=True):
    """The body of every other error."""

    message: str


class Refused(Exception):
    """A request that gets an error body instead of a reply."""

    def __init__(self, status: int, body: Problems | Message) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def refused(status: int, message: str) -> Refused:
    """A refusal that is about the request as a whole."""
    return Refused(status, Message(message))


def invalid(field: str, message: str, *, kind: str = "value_error") -> Refused:
    """A 422 about one field of the body."""
    return Refused(422, Problems([Problem(["body", field], message, kind)]))


def parse(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """The request in a body.

    Raises:
        Refused: 400 where it is no JSON, 422 where a field is missing, wrong, or not honoured.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(400, f"the body is no JSON ({error})") from None
    if not isinstance(raw, dict):
        raise Refused(422, Problems([Problem(["body"], "a JSON object is expected", "type_error")]))
    given: dict[str, Any] = {name: value for name, value in raw.items() if value is not None}
    for name in sorted(given.keys() - set(kind.__struct_fields__)):
        raise invalid(name, "this field is not honoured by this endpoint; leave it out", kind="unsupported")
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Refused(422, Problems([_problem(str(error))])) from None


def _problem(text: str) -> Problem:
    """msgspec's sentence, whose end says where, as a problem with its place."""
    message, _, path = text.partition(" - at `")
    missing = re.match(r"Object missing required field `(.+)`$", message)
    if missing:
        return Problem(["body", missing[1]], "this field is required", "missing")
    field = re.match(r"\$\.(\w+)", path)
    return Problem(["body", *([field[1]] if field else [])], message, "value_error")
