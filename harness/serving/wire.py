"""What crosses the wire: requests, replies and error bodies; it knows no model and no HTTP library.

What is not honoured is refused by name and never ignored; a null is a field that was not given. The fields of
a completion are in `asking`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text to be encoded."""

    model: str | None = None
    prompt: str


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ids to be decoded."""

    model: str | None = None
    tokens: list[TokenId]


AnyRequest = TypeVar("AnyRequest", bound=msgspec.Struct)


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
    choices: list[msgspec.Raw]
    """Each a `Choice`, encoded by itself: encoding holds the interpreter, and a reply may be large."""
    usage: Usage


class ChunkChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token of a stream, or the end of an output."""

    index: int
    text: str
    token: int | msgspec.UnsetType = msgspec.UNSET
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    """Seconds since 1970."""
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


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
        Refused: 400 where it is no JSON, 422 where a field is missing, wrong, or unknown.
    """
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            msgspec.json.decode(body)  # what is no JSON further on is no JSON first of all
            raise Refused(422, Problems([_problem(str(error))])) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(400, f"the body is no JSON ({error})") from None


def _problem(text: str) -> Problem:
    """msgspec's sentence, whose end says where, as a problem with its place."""
    message, _, path = text.partition(" - at `")
    missing = re.match(r"Object missing required field `(.+)`$", message)
    if missing:
        return Problem(["body", missing[1]], "this field is required", "missing")
    unknown = re.match(r"Object contains unknown field `(.+)`$", message)
    field = re.match(r"\$\.(\w+)", path)
    place = ["body", *([field[1]] if field else []), *([unknown[1]] if unknown else [])]
    if unknown:
        return Problem(place, "there is no such field; leave it out", "unsupported")
    return Problem(place, message, "value_error")
