"""Small items and tasks that tests make for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness import Dataset, Item, Row, Shots, Task
from harness.data.listing import Listing
from harness.prompts import Prompt
from harness.scoring.scores import ItemRecord, ItemScore


def item_of(row: Row) -> Item:
    """An item out of the columns `question`, `choices`, `answer`."""
    choices = row.texts("choices")
    return row.item(
        context=f"Q: {row.text('question')}\nA:",
        choices=choices,
        gold=row.integer("answer"),
        gold_field="answer",
    )


def make_task(**changes: Any) -> Task:
    """A task over `item_of`, with whatever is to differ."""
    settings: dict[str, Any] = {
        "name": "toy",
        "version": "1",
        "dataset": Dataset(hub="none/toy", folder="toy", columns=("question", "choices", "answer")),
        "split": "test",
        "item": item_of,
        "metrics": ("acc",),
        "shots": Shots(split="dev", draw="first_n"),
        "example": {"question": "One and one?", "choices": ["two", "three"], "answer": 0},
    }
    return Task(**{**settings, **changes})


def make_rows(n: int, *, subjects: Sequence[str] = ("",), task: str = "toy", name: str = "test") -> list[Row]:
    """n rows of each subject, one subject after another."""
    return [
        Row(
            {"question": f"{name} {subject} {i}", "choices": [f"yes {i}", f"no {i}"], "answer": i % 2},
            f"{name} row {i}",
            task=task,
            subject=subject,
            index=i,
        )
        for subject in subjects
        for i in range(n)
    ]


def make_prompt(context: str, continuations: Sequence[str], *, prefix: str = "") -> Prompt:
    """A prompt with one context and some continuations."""
    item = Row({}, "made", task="toy").item(
        context=context,
        choices=[each.strip() or "x" for each in continuations],
        continuations=continuations,
        gold=0,
        gold_field="answer",
    )
    return Prompt(item, prefix, 0)


def listing_of(records: Iterable[ItemRecord]) -> Listing:
    """The list of what a run asks for."""
    listing = Listing()
    for record in records:
        listing.add(record)
    return listing


def comparable(index: int, sums: Sequence[float] | None, **changes: Any) -> ItemScore:
    """The score of an item whose first choice is gold; without sums it is unscored."""
    count = len(sums or (0.0, 0.0, 0.0))
    fields: dict[str, Any] = {
        "ordinal": index,
        "task": "toy",
        "subject": "",
        "shots": 0,
        "index": index,
        "id": f"id {index}",
        "gold": (0,),
        "cluster": "",
        "n_chars": (1,) * count,
        "n_bytes": (1,) * count,
        "n_tokens": (1,) * count,
        "prompt_hash": f"prompt {index}",
    }
    return ItemScore(ItemRecord(**{**fields, **changes}), tuple(sums or ()), "" if sums else "not tried")
