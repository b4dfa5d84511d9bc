"""Prompts to token ids, within the bound on their length; pure but for the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.chatting.chat import Chat, Sent, as_sent
from harness.errors import UsageError
from harness.modes import Overflow
from harness.pairs import EncodedPair, Encodes, NoIds, Pairs, split_seam
from harness.prompts import Prompt


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
    prefixes = {
        context: prompt.prefix
        for prompt, item in zip(prompts, seams, strict=True)
        if prompt.prefix
        for context, _ in item
    }
    pairs = Pairs([each for item in seams for each in item], prefixes, tokenizer)

    def item(prompt: Prompt, one: Sent, seam: Sequence[tuple[str, str]]) -> EncodedItem:
        if one.problem:
            return EncodedItem(prompt, one.contexts, (), one.problem)
        try:
            encoded = _bounded(
                EncodedItem(prompt, one.contexts, tuple(pairs.pair(*each) for each in seam)), bound
            )
        except NoIds as error:
            return EncodedItem(prompt, one.contexts, (), str(error), passing=True)
        own_start = "" if chat is None or prompt.bare else chat.start
        return _with_texts(encoded, seam, own_start) if as_text else encoded

    return [item(*each) for each in zip(prompts, sent, seams, strict=True)]


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
