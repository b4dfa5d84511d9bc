"""Items of a run and their scores; pure.

A record says what a run asked of one item. With the replies it is enough for every metric: neither data set
nor tokenizer is needed again. This module does not know where records and replies are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.exchange import Failure, Reply

NOT_TRIED = "not tried"
"""Why an item without an outcome for each of its choices is unscored."""

_DETAIL = 200
"""Characters of a failure's detail that are kept in the reason of an item."""

Answer = float | Failure
"""What came of one request: the summed log-probability of its continuation in nats, or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRecord:
    """What a run asked of one item."""

    ordinal: int
    """Position in the run: tasks in the order given, items in the order of their split."""
    task: str
    subject: str
    shots: int
    index: int
    id: str
    gold: tuple[int, ...]
    cluster: str
    n_chars: tuple[int, ...]
    """Characters of each choice, the delimiter not counted."""
    n_bytes: tuple[int, ...]
    """UTF-8 bytes of each choice, the delimiter not counted."""
    prompt_hash: str = ""
    """SHA-256 of the first context, hexadecimal."""
    context_sha256: tuple[str, ...] = ()
    """SHA-256 of the context of each choice, hexadecimal."""
    keys: tuple[bytes, ...] = ()
    """The key of the request of each choice; empty where the item is not planned."""
    n_tokens: tuple[int, ...] = ()
    """Forced tokens of each choice."""
    problem: str = ""
    """Why it can never be scored ("bad row: ...", "longer than --max-length ..."), or empty."""


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What came of one item: a sum for each choice, or the reason why there are none."""

    record: ItemRecord
    sums: tuple[float, ...]
    """Summed log-probability of each choice in nats; empty where the item is unscored."""
    unscored: str = ""
    """The reason; empty where the item is scored."""


def summed(reply: Reply) -> float:
    """The log-probability of a whole continuation in nats, rounded once."""
    return math.fsum(reply.token_logprobs)


def score_item(record: ItemRecord, answers: Mapping[bytes, Answer]) -> ItemScore:
    """Put the answers to an item's requests together; without all of them it is unscored.

    Args:
        record: the item.
        answers: by request key; others may be among them.
    """
    if record.problem:
        return ItemScore(record, (), record.problem)
    found = [answers.get(key) for key in record.keys]
    for answer in found:
        if isinstance(answer, Failure):
            return ItemScore(record, (), _reason(answer))
    sums = tuple(answer for answer in found if isinstance(answer, float))
    if not sums or len(sums) < len(found):
        return ItemScore(record, (), NOT_TRIED)
    return ItemScore(record, sums)


def _reason(failure: Failure) -> str:
    detail = " ".join(failure.detail.split())
    if len(detail) > _DETAIL:
        detail = detail[: _DETAIL - 3] + "..."
    return f"{failure.reason}: {detail}" if detail else failure.reason
