"""HellaSwag: which of four endings goes on with the scene?

Data: https://huggingface.co/datasets/Rowan/hellaswag (MIT licence)
Paper: Zellers et al., "HellaSwag: Can a Machine Really Finish Your Sentence?", 2019, arXiv:1905.07830
Prompt and scoring: lm-evaluation-harness 0.4.13, task `hellaswag`, version 1.0.
"""

from __future__ import annotations

import re

from harness import Dataset, Item, Row, Shots, Split, Task


def clean(text: str) -> str:
    """The text without WikiHow's markup, in the reference's order of steps.

    No strip at the end: an ending that began with a tag keeps a leading space, which is forced and counts
    as a character of the choice.
    """
    text = text.strip().replace(" [title]", ". ")
    text = re.sub(r"\[.*?\]", "", text)
    return text.replace("  ", " ")


def item(row: Row) -> Item:
    """The scene with its activity in front, and the four endings."""
    # str.capitalize also lowers everything after the first letter.
    scene = row.text("ctx_a") + " " + row.text("ctx_b", empty=True).capitalize()
    return row.item(
        context=clean(row.text("activity_label") + ": " + scene),
        choices=row.texts("endings", exactly=4, clean=clean),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("ind"),
        cluster=row.optional("source_id"),
    )


TASK = Task(
    name="hellaswag",
    version="1.0",
    dataset=Dataset(
        hub="Rowan/hellaswag",
        folder="hellaswag",
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        splits={"validation": Split(rows=10_042)},
    ),
    split="validation",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "ind": 7,
        "activity_label": "Home and Garden",
        "ctx_a": "[header] How to oil a squeaky hinge [title] Find the hinge that squeaks. [step] Swing the "
        "door slowly and listen at each of its hinges in turn.",
        "ctx_b": "",
        "endings": [
            "[substeps] Mark the noisy one with a piece of tape so that you find it again.",
            "The door will be easier to paint once all of its hinges are in the oven.",
            "[title] Ask the hinge to be quiet. [step] Use a firm voice.",
            "Close the door, and the squeak will turn into a different door.",
        ],
        "source_id": "wikihow~7",
        "split": "val",
        "split_type": "indomain",
        "label": "0",
    },
)
