"""A suite to planned items, batch by batch: prompts, what is asked beside them, ids, requests, keys.

Nothing is sent here, and no journal is read. Batches come in the order of the run; memory follows the batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from harness.chatting.chat import Chat
from harness.encoding import Bound, EncodedItem, encode_prompts
from harness.exchange import ScoreRequest
from harness.items import BadItem
from harness.pairs import Tokenizes
from harness.plan import KeyMaker, PlannedItem, plan_item
from harness.prompts import Prompt
from harness.scoring.asides import asides
from harness.sharding import Piece
from harness.shards import PieceReader, firsts
from harness.suite import Suite

BATCH = 128
"""Items encoded at a time: large enough to fill the tokenizer's threads, small enough to start at once."""
LONGEST = 24
"""Characters of a choice that may be a single token."""
LEADING = 512
"""Items that are looked through, before a part of a run learns from its own."""

TopOf = Callable[[EncodedItem], int]
"""How many alternatives to ask for, so that the item's choices can be read off them; 0: each is forced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What decides how one endpoint is asked."""

    tokenizer: Tokenizes
    bound: Bound
    keys: KeyMaker
    chat: Chat | None = None
    """Prompts become chats; None: they are plain text."""
    as_text: bool = False
    """Requests bring their texts: the wire format wants them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring items of a run."""

    items: Sequence[PlannedItem]
    bad: int
    """Bad rows among them, for which nothing is planned."""


def planned(suite: Suite, asked: Asked, top_of: TopOf) -> Iterator[Batch]:
    """Everything that one endpoint is asked.

    Raises:
        UsageError: `--on-overflow fail` met an item that is too long.
    """
    needs = suite.needs
    for batch in suite.batches(BATCH):
        numbered = [(ordinal, prompt) for ordinal, prompt in batch if isinstance(prompt, Prompt)]
        bad = sum(isinstance(prompt, BadItem) for _, prompt in batch)
        beside = [asides(prompt, needs[prompt.item.task]) for _, prompt in numbered]
        every = [*(prompt for _, prompt in numbered), *(each for own in beside for each in own.values())]
        encoded = iter(
            encode_prompts(every, asked.tokenizer, asked.bound, chat=asked.chat, as_text=asked.as_text)
        )
        items = list(islice(encoded, len(numbered)))
        yield Batch(
            [
                plan_item(item, ordinal, asked.keys, {name: next(encoded) for name in own}, top_of)
                for (ordinal, _), item, own in zip(numbered, items, beside, strict=True)
            ],
            bad,
        )


def leading(whole: Suite, asked: Asked, pieces: Sequence[Piece] | None = None) -> Iterator[EncodedItem]:
    """The first items of a run whose choices may be single tokens, in its order.

    `pieces`: as `leading_pieces` gives them, where somebody has found them already.
    """
    reader = PieceReader(whole)
    for piece in leading_pieces(whole) if pieces is None else pieces:
        prompts = [each for _, each in reader.prompts(piece) if isinstance(each, Prompt)]
        yield from encode_prompts(
            prompts, asked.tokenizer, asked.bound, chat=asked.chat, as_text=asked.as_text
        )


def leading_pieces(whole: Suite) -> list[Piece]:
    """Where these items stand, one a piece: found by their lengths, so that no others are read."""
    starts, found = firsts(whole), []
    for ordinal in islice(whole.listing.short(LONGEST), LEADING):
        task = bisect_right(starts, ordinal) - 1
        at = ordinal - starts[task]
        found.append(Piece(task, at, at + 1))
    return found


def first_questions(suite: Suite, asked: Asked, items: int) -> list[ScoreRequest]:
    """What the first items ask, each choice on its own, equal ones once.

    Raises:
        UsageError, EndpointRefused, CancelledError: as planning does.
    """
    prompts = [prompt for _, prompt in islice(suite.prompts(), items) if isinstance(prompt, Prompt)]
    encoded = encode_prompts(prompts, asked.tokenizer, asked.bound, chat=asked.chat, as_text=asked.as_text)
    found = [each for at, item in enumerate(encoded) for each in plan_item(item, at, asked.keys).requests]
    return list({each.key: each for each in found}.values())
