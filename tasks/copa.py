"""COPA: the more likely cause or effect of what happened.

Data: https://huggingface.co/datasets/aps/super_glue (BSD 2-clause)
Paper: Roemmele et al., "Choice of Plausible Alternatives", 2011, AAAI Spring Symposium
Prompt and scoring: lm-evaluation-harness 0.4.13, task `copa`, version 1.0.
"""

from __future__ import annotations

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task

CONNECTIVES = {"cause": "because", "effect": "therefore"}


def item(row: Row) -> Item:
    """The premise without its full stop, and a connective; each alternative begins in lower case.

    An alternative has a leading space of its own, so that two spaces are forced: the reference's way.
    """
    asked = row.text("question")
    if asked not in CONNECTIVES:
        raise FieldError("question", f"{asked!r} is neither {' nor '.join(map(repr, CONNECTIVES))}")
    alternatives = (row.text("choice1"), row.text("choice2"))
    return row.item(
        context=f"{row.text('premise').strip()[:-1]} {CONNECTIVES[asked]}",
        choices=tuple(f" {each[0].lower()}{each[1:]}" for each in alternatives),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("idx"),
    )


TASK = Task(
    name="copa",
    version="1.0",
    dataset=Dataset(
        hub="aps/super_glue",
        config="copa",
        folder="copa",
        columns=("premise", "choice1", "choice2", "question", "label"),
        splits={
            "validation": Split(100),
        },
    ),
    split="validation",
    item=item,
    metrics=("acc",),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "premise": "The lamp went dark.",
        "choice1": "Its bulb had burnt out.",
        "choice2": "Its shade was green.",
        "question": "cause",
        "idx": 4,
        "label": 0,
    },
)
