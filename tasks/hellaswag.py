"""HellaSwag: which of four endings goes on with the scene?

Data: https://huggingface.co/datasets/Rowan/hellaswag (MIT licence)
Paper: Zellers et al., "HellaSwag: Can a Machine Really Finish Your Sentence?", 2019, arXiv:1905.07830
Prompt and scoring: lm-evaluation-harness 0.4.13, task `hellaswag`, version 1.0.

The n + 1 quirk: asked for n shots, the reference draws n + 1 for each item, to drop the item itself or else
the last. It does so wherever a task names neither the split of its shots nor a test split. HellaSwag's shots
come from the train split, so the item is never among them, but others are drawn than n would be. Kept, as it
decides on every prompt with shots (`Shots.without_own`). The reference's group `openllm`, the first Open LLM
Leaderboard, names the split and draws n: the variant `openllm`, with ten shots and acc_norm first.

Other variants: `mc` with lettered endings; `olmes` and `olmes_mc` as in `_olmes.py`, where the full stop
before a " [title]" is not doubled. As `ind` numbers some rows of the train split alike, ids are fingerprints
there.
"""

from __future__ import annotations

import re
from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

from . import _olmes

IN_BRACKETS = re.compile(r"\[.*?\]")


def clean(text: str) -> str:
    """The text without WikiHow's markup, in the reference's order of steps.

    No strip at the end: an ending that began with a tag keeps a leading space, which is forced and counts
    as a character of the choice.
    """
    return untagged(text.strip().replace(" [title]", ". "))


def untagged(text: str) -> str:
    """The text without what stands in brackets, and with two spaces made one, once."""
    return IN_BRACKETS.sub("", text).replace("  ", " ")


def olmes_clean(text: str) -> str:
    """As `clean`, but a sentence that ends before a " [title]" keeps its one full stop."""
    return untagged(re.sub(r"\.? \[title\]", ". ", text.strip()))


def scene(row: Row) -> str:
    """The scene with its activity in front, markup and all."""
    # str.capitalize also lowers everything after the first letter.
    found = row.text("ctx_a") + " " + row.text("ctx_b", empty=True).capitalize()
    return row.text("activity_label") + ": " + found


def item(row: Row) -> Item:
    """The scene with its activity in front, and the four endings."""
    return row.item(
        context=clean(scene(row)),
        choices=row.texts("endings", exactly=4, clean=clean),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("ind"),
        cluster=row.optional("source_id"),
    )


def lettered(row: Row) -> Item:
    """The scene with its lettered endings; what is forced is a letter."""
    return row.lettered(
        question=f"{clean(scene(row))}\nChoose the best continuation:",
        answers=row.texts("endings", exactly=4, clean=lambda text: clean(text).strip()),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("ind"),
        cluster=row.optional("source_id"),
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks: without "Answer:", unless the endings are shown."""
    endings = row.texts("endings", exactly=4)
    return _olmes.Asked(
        question=olmes_clean(scene(row)),
        answers=row.texts("endings", exactly=4, clean=olmes_clean),
        gold=row.integer("label"),
        gold_field="label",
        id=_olmes.fingerprint(row.text("ctx_a"), row.text("ctx_b", empty=True), *endings),
        cluster=row.optional("source_id"),
        ending="",
        heading="\nChoose the best continuation:",
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
VARIANTS = (
    replace(
        TASK,
        name="hellaswag:openllm",
        metrics=("acc_norm", "acc", "acc_bytes", "acc_token"),
        shots=Shots(split="train", draw="random", default=10),
    ),
    replace(TASK, name="hellaswag:mc", item=lettered, metrics=("acc",)),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc_norm", "acc", "acc_token"),
        shots=_olmes.chosen("c12614a80936", "acce0eb8c5f0", "d05ff7b1aab0", "c5fe6c57fe71", "76cd59d905e8"),
    ),
)
