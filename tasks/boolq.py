"""BoolQ: yes or no, according to a passage.

Data: https://huggingface.co/datasets/aps/super_glue (CC BY-SA 3.0)
Paper: Clark et al., "BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions", 2019,
  arXiv:1905.10044
Prompt and scoring: lm-evaluation-harness 0.4.13, task `boolq`, version 2.0.
Variants: `mc` with the answers behind letters; `olmes` and `olmes_mc` as in `_olmes.py`, "yes" before "no".
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

from . import _olmes


def question(row: Row) -> str:
    """The passage and the question about it."""
    return f"{row.text('passage')}\nQuestion: {row.text('question')}?"


def item(row: Row) -> Item:
    """The question; "no" and "yes" are scored."""
    return row.item(
        context=f"{question(row)}\nAnswer:",
        choices=("no", "yes"),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("idx"),
    )


def lettered(row: Row) -> Item:
    """The question with "no" and "yes" behind letters, which are scored."""
    return row.lettered(
        question=question(row),
        answers=("no", "yes"),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("idx"),
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks; "yes" comes before "no"."""
    return _olmes.Asked(
        question=question(row),
        answers=("yes", "no"),
        gold=1 - row.integer("label"),
        gold_field="label",
        id=row.optional("idx"),
    )


TASK = Task(
    name="boolq",
    version="2.0",
    dataset=Dataset(
        hub="aps/super_glue",
        config="boolq",
        folder="boolq",
        columns=("question", "passage", "label"),
        splits={
            "validation": Split(3_270, "1277a43ba6888f695524b0cadbb1407b6e92dd10079575de164d5afb8bdf6e71"),
            "train": Split(9_427),
        },
    ),
    split="validation",
    item=item,
    metrics=("acc",),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "question": "is the bridge open at night",
        "passage": "The bridge -- The bridge was built for walkers. It is closed from sunset to sunrise.",
        "idx": 3,
        "label": 0,
    },
)
VARIANTS = (
    replace(TASK, name="boolq:mc", item=lettered),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc",),
        shots=_olmes.chosen("0", "1", "7", "11", "3"),
    ),
)
