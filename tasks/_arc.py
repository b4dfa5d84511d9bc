"""ARC, as its easy and its challenge set are asked: three to five answers, labelled A, B, ... or 1, 2, ..."""

from __future__ import annotations

from harness import Item, Row

from . import _olmes


def item(row: Row) -> Item:
    """The question alone; the texts of its answers are scored."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.item(
        context=f"Question: {row.text('question')}\nAnswer:",
        choices=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


def lettered(row: Row) -> Item:
    """The question with its lettered answers; what is forced is a letter."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.lettered(
        question=f"Question: {row.text('question')}",
        answers=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks."""
    answers, gold = row.labelled("choices", "answerKey")
    return _olmes.Asked(
        question=f"Question: {row.text('question')}",
        answers=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )
