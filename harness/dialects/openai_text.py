"""OpenAI-style completions for servers that take no token ids: the prompt goes as one text, and is echoed.

Where the continuation begins in the echo is found by `text_offset`, in characters, and held against the
text that was sent: the entries must begin with the prompt and end with the generated token, one of them must
begin exactly where the continuation does, the texts of the tokens must be those of the prompt, and the
continuation must have as many tokens as with our tokenizer. Two ways of counting are known, and told apart
by the texts: from the prompt's first character (a start token of the server's own then has no width), and
from the first character of a start token that the server puts in front, as vLLM does. Anything else, such
as SGLang's offsets of -1, is an error by name; it never scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from harness.dialects import Dialect
from harness.dialects._common import decode, error_message, usage_of
from harness.dialects._echo import GENERATED, IGNORED, Completion, Logprobs, build, cut, only_logprobs
from harness.errors import ReplyError
from harness.exchange import Reply, ScoreRequest


class _Logprobs(Logprobs, frozen=True):
    text_offset: list[int] | None = None
    tokens: list[str] | None = None


_DECODER = msgspec.json.Decoder(Completion[_Logprobs])
_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Za-z_]+\]")
"""What start tokens look like: <s>, <|begin_of_text|>, [BOS]."""
_FRAGMENT = re.compile("|bytes:.*|<0x[0-9A-F]{2}>", re.DOTALL)
"""How servers write a token that is a part of a character, beside U+FFFD."""
_RAW = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n", "\u0109": "\t"})
"""Signs that raw vocabulary pieces have for white space."""
_MOST_IN_FRONT = 2
"""Special tokens that a server may put before a prompt and show in the echo."""


class OpenAiText:
    """The dialect; it has no state."""

    name: str = "openai-text"
    variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    path: str = "completions"
    wants_text: bool = True
    names_tokens: bool = False  # alternatives would come with every token of the echoed prompt
    tokenize_route: Dialect | None = None

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body that asks for a score: text alone, special tokens are the server's business."""
        return build("".join(_text(request)), request.top, model)

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The checked reply: the values of the continuation's tokens, and of no others."""
        completion = decode(_DECODER, body)
        logprobs = only_logprobs(completion)
        usage = usage_of(completion.usage)
        context, continuation = _text(request)
        first = _found(logprobs, context, continuation)
        end = len(logprobs.token_logprobs) - GENERATED
        if end - first != len(request.forced_ids):
            raise ReplyError(
                f"the continuation has {end - first} tokens there and {len(request.forced_ids)} here:"
                " the server's tokenizer splits differently"
            )
        _check_usage(usage.prompt_tokens, end)
        return cut(request, logprobs, first, end, usage)

    def error_message(self, body: bytes) -> str:
        """What an error body says."""
        return error_message(body)


DIALECT: Dialect = OpenAiText()


def _text(request: ScoreRequest) -> tuple[str, str]:
    if request.text is None:
        raise ValueError("a request for this wire format was planned without its text")
    return request.text


def _check_usage(counted: int | None, echoed: int) -> None:
    """A start token may be counted and not be shown; more in front of the prompt would be another prompt."""
    if counted is not None and not 0 <= counted - echoed <= _MOST_IN_FRONT:
        raise ReplyError(
            f"the server counted {counted} prompt tokens and echoed {echoed}: it scored another prompt"
        )


# ---------------------------------------------------------------------------------- finding the continuation


def _found(logprobs: _Logprobs, context: str, continuation: str) -> int:
    """The position of the continuation's first token.

    Raises:
        ReplyError: the echo is none of this prompt and one token more, or it cannot be told.
    """
    offsets = _offsets(logprobs)
    tokens = logprobs.tokens
    prompt = context + continuation
    told = ""
    for lead in _leads(tokens):
        problem = _misfit(offsets, tokens, lead + prompt)
        if not problem:
            return _beginning(offsets, len(lead) + len(context))
        if not told or offsets[-1] == len(lead) + len(prompt):
            told = problem
    raise ReplyError(told)


def _offsets(logprobs: _Logprobs) -> list[int]:
    """One offset a value, in order."""
    found, offsets = len(logprobs.token_logprobs), logprobs.text_offset
    if found <= GENERATED:
        raise ReplyError(IGNORED)
    if not offsets:
        raise ReplyError("the reply has no text_offset: where the continuation begins cannot be told")
    for name, count in (("offsets", len(offsets)), ("texts", len(logprobs.tokens or offsets))):
        if count != found:
            raise ReplyError(f"{count} {name} of tokens for {found} log-probabilities")
    if min(offsets) < 0:
        raise ReplyError(f"text_offset is {min(offsets)} somewhere: the server does not give offsets")
    for position, (one, other) in enumerate(pairwise(offsets), 1):
        if other < one:
            raise ReplyError(f"text_offset goes back from {one} to {other} at position {position}")
    return offsets


def _leads(tokens: Sequence[str] | None) -> Iterator[str]:
    """What may stand before the prompt in the text that the server's offsets count: the likeliest first.

    Nothing; its special tokens; and the space that some tokenizers put before a text.
    """
    lead = ""
    for token in (*(tokens or [])[: _MOST_IN_FRONT + 1], ""):
        yield lead
        if token.translate(_RAW).startswith(" "):
            yield f"{lead} "
        if not _SPECIAL.fullmatch(token):
            return
        lead += token


def _misfit(offsets: Sequence[int], tokens: Sequence[str] | None, whole: str) -> str:
    """Why the entries are not those of the whole echoed text and one token more; empty where they are."""
    if offsets[0] != 0:
        return f"the first token begins at character {offsets[0]}: the beginning of the prompt is missing"
    if offsets[-1] < len(whole):
        return (
            f"the last token begins at character {offsets[-1]} of {len(whole)}: the generated token is"
            " missing, or the offsets do not count characters"
        )
    if offsets[-1] > len(whole) or offsets[-2] == len(whole):
        return (
            f"the last token begins at character {offsets[-1]} where the prompt ends at {len(whole)}: it is"
            " not the only one behind the prompt, or the offsets do not count characters"
        )
    for position, token in enumerate((tokens or [])[:-GENERATED]):
        piece = whole[offsets[position] : offsets[position + 1]]
        if token != piece and not _may_be(token, piece, position):
            return f"token {position} is {token!r} where the prompt has {piece[:40]!r}"  # cut by who keeps it
    return ""


def _may_be(token: str, piece: str, position: int) -> bool:
    """Whether a token's text can stand for a piece of the prompt that is written otherwise."""
    if "\ufffd" in token:
        return len(piece) <= len(token) and token.strip("\ufffd") in piece
    if _FRAGMENT.fullmatch(token):
        return len(piece) <= 1
    text = token.translate(_RAW)
    if position <= _MOST_IN_FRONT and (text == f" {piece}" or (not piece and _SPECIAL.fullmatch(token))):
        return True
    return text == piece


def _beginning(offsets: Sequence[int], start: int) -> int:
    """The first position at character `start`."""
    try:
        return offsets.index(start)
    except ValueError:
        raise ReplyError(
            f"no token begins at character {start}, where the continuation does:"
            " the server's tokenizer joins it with the context"
        ) from None
