"""Prompts to token ids: the boundary rule, checked, and the bound on length; pure but for the tokenizer.

Boundary rule (lm-evaluation-harness 0.4.13, `api/model.py`): white space at the end of the context moves to
the front of the continuation; context and whole are encoded, and the continuation's ids are what the whole
has beyond the *count* of the context's ids. The reference does not look whether the context's ids are a
prefix of the whole; here every item where they are not is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from harness.chatting.chat import Chat, Sent, as_sent
from harness.errors import UsageError
from harness.prompts import Prompt

Overflow = Literal["truncate", "skip", "fail"]


@dataclass(frozen=True, slots=True)
class Unencoded:
    """A text that could not be turned into ids: of a tokenizer that is asked over a network."""

    why: str
    """Short, in words."""


class Encodes(Protocol):
    """What encoding needs of a tokenizer."""

    @property
    def start_id(self) -> int | None:
        """What stands for an empty context; None where nothing does."""

    def encode(self, texts: Sequence[str]) -> Sequence[list[int] | Unencoded]:
        """Ids with the leading special tokens."""

    def encode_plain(self, texts: Sequence[str]) -> Sequence[list[int] | Unencoded]:
        """Ids without special tokens."""


class Tokenizes(Encodes, Protocol):
    """What a run needs of a tokenizer."""

    @property
    def sha256(self) -> str:
        """Two tokenizers of equal hash encode alike."""

    @property
    def leading(self) -> list[int]:
        """Ids put in front of every text."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One choice as ids."""

    context_ids: Sequence[int]
    forced_ids: Sequence[int]
    shifted: bool = False
    """The context's ids are no prefix of the whole's: a merge across the seam moved the boundary."""
    dropped: int = 0
    """Ids the context lost on the left to fit `--max-length`."""
    text: tuple[str, str] | None = None
    """The same as text, split at the seam; only where it was asked for."""


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """One prompt as ids, or the reason why it cannot be scored."""

    prompt: Prompt
    contexts: tuple[str, ...]
    """The whole text before each choice as it is asked: where the endpoint is asked in chats, rendered."""
    pairs: tuple[EncodedPair, ...]
    problem: str = ""
    passing: bool = False
    """The problem is of this session: another may find the ids."""

    @property
    def shifted(self) -> bool:
        """Whether the boundary moved for any choice."""
        return any(pair.shifted for pair in self.pairs)

    @property
    def truncated(self) -> bool:
        """Whether any context lost tokens."""
        return any(pair.dropped for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Bound:
    """`--max-length` and `--on-overflow`: context plus continuation, in tokens; None: no bound."""

    max_length: int | None = None
    overflow: Overflow = "truncate"


def split_seam(context: str, continuation: str) -> tuple[str, str]:
    """Move white space at the end of the context to the front of the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Encodes,
    bound: Bound = Bound(),
    *,
    chat: Chat | None = None,
    as_text: bool = False,
) -> list[EncodedItem]:
    """Encode a batch of prompts; texts that occur more than once in it are encoded once.

    Args:
        prompts: the batch.
        tokenizer: of the endpoint that is asked.
        bound: on the length of each request.
        chat: the endpoint is asked in chats; None: in plain text.
        as_text: the endpoint is sent text: pairs bring theirs, and what no text can say is a problem.

    Raises:
        UsageError: an item is longer than the bound and `--on-overflow fail` was asked for.
    """
    sent = [as_sent(prompt, chat) for prompt in prompts]
    seams = [
        [split_seam(*each) for each in zip(one.contexts, one.continuations, strict=not one.problem)]
        for one in sent
    ]
    parts = {
        text for item in seams for context, rest in item if context for text in (context, context + rest)
    }
    ids = dict(zip(parts, tokenizer.encode(list(parts)), strict=True))
    bare = {rest for item in seams for context, rest in item if not context}
    plain = dict(zip(bare, tokenizer.encode_plain(list(bare)), strict=True)) if bare else {}

    def pair(context: str, rest: str) -> EncodedPair:
        if context:
            return _split(_known(ids[context]), _known(ids[context + rest]))
        return _after_nothing(_known(plain[rest]), tokenizer.start_id)

    def item(prompt: Prompt, one: Sent, seam: Sequence[tuple[str, str]]) -> EncodedItem:
        if one.problem:
            return EncodedItem(prompt, one.contexts, (), one.problem)
        try:
            encoded = _bounded(EncodedItem(prompt, one.contexts, tuple(pair(*each) for each in seam)), bound)
        except _NoIds as error:
            return EncodedItem(prompt, one.contexts, (), str(error), passing=True)
        own_start = "" if chat is None or prompt.bare else chat.start
        return _with_texts(encoded, seam, own_start) if as_text else encoded

    return [item(*each) for each in zip(prompts, sent, seams, strict=True)]


class _NoIds(Exception):
    """A text of the item could not be turned into ids."""


def _known(ids: list[int] | Unencoded) -> list[int]:
    if isinstance(ids, Unencoded):
        raise _NoIds(ids.why)
    return ids


def _split(context_ids: list[int], whole_ids: list[int]) -> EncodedPair:
    n = len(context_ids)
    return EncodedPair(context_ids, whole_ids[n:], shifted=whole_ids[:n] != context_ids)


def _after_nothing(ids: list[int], start_id: int | None) -> EncodedPair:
    """An empty context becomes the start token, or the continuation's own first id where that is it."""
    if start_id is None or ids[:1] == [start_id]:
        return EncodedPair(ids[:1], ids[1:])
    return EncodedPair([start_id], ids)


def _bounded(item: EncodedItem, bound: Bound) -> EncodedItem:
    """The item within the bound: its contexts cut on the left, or a problem named."""
    for position, pair in enumerate(item.pairs):
        if not pair.forced_ids:
            return _problem(item, f"choice {position} has no tokens of its own")
    if bound.max_length is None:
        return item
    longest = max(len(pair.context_ids) + len(pair.forced_ids) for pair in item.pairs)
    if longest <= bound.max_length:
        return item
    if bound.overflow == "fail":
        name = f"{item.prompt.item.task} {item.prompt.item.subject}".strip()
        raise UsageError(
            f"--on-overflow fail: {name} item {item.prompt.item.index} has {longest} tokens,"
            f" --max-length is {bound.max_length}"
        )
    if bound.overflow == "skip":
        return _problem(item, f"longer than --max-length ({longest} tokens)")
    if any(len(pair.forced_ids) >= bound.max_length for pair in item.pairs):
        return _problem(item, "a choice alone is longer than --max-length")
    pairs = tuple(_cut(pair, bound.max_length) for pair in item.pairs)
    return EncodedItem(item.prompt, item.contexts, pairs)


def _cut(pair: EncodedPair, max_length: int) -> EncodedPair:
    room = max_length - len(pair.forced_ids)
    dropped = max(0, len(pair.context_ids) - room)
    return EncodedPair(pair.context_ids[dropped:], pair.forced_ids, pair.shifted, dropped)


def _with_texts(item: EncodedItem, seams: Sequence[tuple[str, str]], own_start: str) -> EncodedItem:
    """The item with its texts, or why no text says the same as its ids.

    Args:
        item: as ids.
        seams: its texts, split where continuations begin.
        own_start: what a rendered chat begins with and the server puts in front by itself; empty: nothing.
    """
    if item.problem:
        return item
    if any(pair.dropped for pair in item.pairs):
        return _problem(item, "its context is cut to --max-length, and cannot be sent as text then")
    if not all(context for context, _ in seams):
        return _problem(item, "its context is empty, and the start token in its place cannot be sent as text")
    texts = [(context.removeprefix(own_start), rest) for context, rest in seams]
    pairs = tuple(replace(pair, text=text) for pair, text in zip(item.pairs, texts, strict=True))
    return EncodedItem(item.prompt, item.contexts, pairs)


def _problem(item: EncodedItem, problem: str) -> EncodedItem:
    return EncodedItem(item.prompt, item.contexts, (), problem)
