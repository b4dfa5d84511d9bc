"""Items of a run and their scores; pure.

A record says what a run asked of one item. With the replies it is enough for every metric: neither data set
nor tokenizer is needed again. This module does not know where records and replies are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.exchange import Failure, Reply

NOT_TRIED = "not tried"
"""Why an item without an outcome for each of its choices is unscored."""
NOT_ASKED = "not asked: decided without it"
"""Likewise, where a comparison was decided before its turn; no failure, and not counted as one."""

_DETAIL = 200
"""Characters of a failure's detail that are kept in the reason of an item."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What an endpoint said of one continuation."""

    total: float
    """Its summed log-probability, nats."""
    greedy: bool | None = None
    """Whether each of its tokens is the likeliest of all; None where the endpoint did not say."""


Answer = Answered | Failure
"""What came of one request, or why nothing did."""


@dataclass(frozen=True, slots=True)
class AsideRecord:
    """What a run asked beside an item's own prompt: its choices again, in another way."""

    name: str
    """As in `harness.scoring.asides`."""
    keys: tuple[bytes, ...]
    """The key of the request of each choice; empty where nothing can be asked."""
    problem: str = ""
    """Why nothing can be, or empty."""


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
    """Characters of each choice, the delimiter not counted; where choices stand in the contexts, of what is
    forced after them. Bytes and words likewise."""
    n_bytes: tuple[int, ...]
    """UTF-8 bytes of each choice, the delimiter not counted."""
    n_words: tuple[int, ...] = ()
    """Words of each choice: runs of what is no white space, at least 1."""
    prompt_hash: str = ""
    """SHA-256 of the first context, hexadecimal."""
    context_sha256: tuple[str, ...] = ()
    """SHA-256 of the context of each choice, hexadecimal."""
    keys: tuple[bytes, ...] = ()
    """The key of the request of each choice; empty where the item is not planned."""
    n_tokens: tuple[int, ...] = ()
    """Forced tokens of each choice."""
    mode: str = ""
    """How its choices are asked (`plan.FORCED`, `plan.SINGLE`); empty where the item is not planned."""
    problem: str = ""
    """Why it can never be scored ("bad row: ...", "longer than --max-length ..."), or empty."""
    asides: tuple[AsideRecord, ...] = ()

    def all_keys(self) -> list[bytes]:
        """The keys of everything that is asked for the item, each once, its own choices first."""
        beside = (key for aside in self.asides for key in aside.keys)
        return list(dict.fromkeys((*self.keys, *beside)))


@dataclass(frozen=True, slots=True)
class AsideScore:
    """What came of an aside: a sum for each choice, or the reason why there are none."""

    sums: tuple[float, ...]
    unscored: str = ""


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What came of one item: a sum for each choice, or the reason why there are none."""

    record: ItemRecord
    sums: tuple[float, ...]
    """Summed log-probability of each choice in nats; empty where the item is unscored."""
    unscored: str = ""
    """The reason; empty where the item is scored."""
    greedy: tuple[bool | None, ...] = ()
    """Whether each choice is the greedy continuation; None where the endpoint did not say."""
    asides: Mapping[str, AsideScore] = field(default_factory=dict)
    """By name; only those that were planned."""


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
    found, unscored = _complete(record.keys, answers)
    if unscored:
        return ItemScore(record, (), unscored)
    return ItemScore(
        record,
        tuple([each.total for each in found]),
        greedy=tuple([each.greedy for each in found]),
        asides={aside.name: _score_aside(aside, answers) for aside in record.asides},
    )


def _score_aside(aside: AsideRecord, answers: Mapping[bytes, Answer]) -> AsideScore:
    if aside.problem:
        return AsideScore((), aside.problem)
    found, unscored = _complete(aside.keys, answers)
    return AsideScore(() if unscored else tuple(each.total for each in found), unscored)


def _complete(keys: Sequence[bytes], answers: Mapping[bytes, Answer]) -> tuple[list[Answered], str]:
    """The answers to all of these, or why there are not all."""
    told = [answer for key in keys if isinstance(answer := answers.get(key), Answered)]
    if told and len(told) == len(keys):
        return told, ""
    failures = (answer for key in keys if isinstance(answer := answers.get(key), Failure))
    failure = next(failures, None)
    return [], _reason(failure) if failure else NOT_TRIED


def _reason(failure: Failure) -> str:
    detail = " ".join(failure.detail.split())
    if len(detail) > _DETAIL:
        detail = detail[: _DETAIL - 3] + "..."
    return f"{failure.reason}: {detail}" if detail else failure.reason
