"""PIQA: which of two ways reaches a practical goal?

Data: https://huggingface.co/datasets/baber/piqa (AFL 3.0)
Paper: Bisk et al., "PIQA: Reasoning about Physical Commonsense in Natural Language", 2020, arXiv:1911.11641
Prompt and scoring: lm-evaluation-harness 0.4.13, task `piqa`, version 1.0.
Variants: `mc` with both ways behind letters; `olmes` and `olmes_mc` as in `_olmes.py`, with "Goal:"; as its
rows have no ids, those are fingerprints there.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

from . import _olmes


def ways(row: Row) -> tuple[str, str]:
    """Both ways to the goal."""
    return row.text("sol1"), row.text("sol2")


def item(row: Row) -> Item:
    """The goal; both ways are scored as they are."""
    return row.item(
        context=f"Question: {row.text('goal')}\nAnswer:",
        choices=ways(row),
        gold=row.integer("label"),
        gold_field="label",
    )


def lettered(row: Row) -> Item:
    """The goal with both ways behind letters; what is forced is a letter."""
    return row.lettered(
        question=f"Question: {row.text('goal')}",
        answers=ways(row),
        gold=row.integer("label"),
        gold_field="label",
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks."""
    return _olmes.Asked(
        question=f"Goal: {row.text('goal')}",
        answers=ways(row),
        gold=row.integer("label"),
        gold_field="label",
        id=_olmes.fingerprint(row.text("goal"), *ways(row)),
    )


TASK = Task(
    name="piqa",
    version="1.0",
    dataset=Dataset(
        hub="baber/piqa",
        folder="piqa",
        columns=("goal", "sol1", "sol2", "label"),
        splits={
            "validation": Split(1_838, "1ab505fd3fb555a285c72d0c5f114d8ad159a193636971d4897394f12c5d7301"),
            "train": Split(16_113),
        },
    ),
    split="validation",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "goal": "To keep a door from slamming in the wind,",
        "sol1": "put a wedge under it.",
        "sol2": "put a wedge on top of the roof.",
        "label": 0,
    },
)
VARIANTS = (
    replace(TASK, name="piqa:mc", item=lettered, metrics=("acc",)),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc_norm", "acc", "acc_token"),
        shots=_olmes.chosen("86f460e9bfef", "bd037b9ea39e", "d202e150ff3d", "5a7bf002974a", "20e777c9545f"),
    ),
)
