"""WinoGrande: to whom or what does a gap refer?

Data: https://huggingface.co/datasets/allenai/winogrande (CC BY)
Paper: Sakaguchi et al., "WinoGrande: An Adversarial Winograd Schema Challenge at Scale", 2019,
  arXiv:1907.10641
Prompt and scoring: lm-evaluation-harness 0.4.13, task `winogrande`, version 1.0. The sentence
is scored behind the gap (partial evaluation).
"""

from __future__ import annotations

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task

GAP = "_"


def item(row: Row) -> Item:
    """Two contexts, the sentence with either option in its gap; what follows is scored after each."""
    before, gap, after = row.text("sentence").partition(GAP)
    if not gap:
        raise FieldError("sentence", "has no gap (_)")
    options = (row.text("option1"), row.text("option2"))
    ending = after.strip()
    return row.item(
        context=[before + option for option in options],
        choices=options,
        continuations=[f" {ending}"] * len(options),
        gold=row.integer("answer") - 1,  # answers count from 1
        gold_field="answer",
    )


TASK = Task(
    name="winogrande",
    version="1.0",
    dataset=Dataset(
        hub="allenai/winogrande",
        config="winogrande_xl",
        folder="winogrande",
        columns=("sentence", "option1", "option2", "answer"),
        splits={
            "validation": Split(1_267, "54f0173915b58f5bd1f3bf8f312e88909f2bb0fcb13f36aeaae96c14236e1d16"),
            "train": Split(40_398),
        },
    ),
    split="validation",
    item=item,
    metrics=("acc",),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "sentence": "Ben lent Carl his coat because _ had come without one.",
        "option1": "Ben",
        "option2": "Carl",
        "answer": "2",
    },
)
