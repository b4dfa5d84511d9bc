"""WinoGrande: to whom or what does a gap refer?

Data: https://huggingface.co/datasets/allenai/winogrande (CC BY)
Paper: Sakaguchi et al., "WinoGrande: An Adversarial Winograd Schema Challenge at Scale", 2019,
  arXiv:1907.10641
Prompt and scoring: lm-evaluation-harness 0.4.13, task `winogrande`, version 1.0. The sentence
is scored behind the gap (partial evaluation).
Variants: `openllm` has the shots of the reference's group `openllm`, the first Open LLM Leaderboard, which
names their split: n are drawn, where `winogrande` draws n + 1 and drops one (the quirk that `hellaswag.py`
tells of). `mc` with both options behind letters; `olmes` and `olmes_mc` as in `_olmes.py`; as its rows have
no ids, those are fingerprints there.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task

from . import _olmes

GAP = "_"


def halves(row: Row) -> tuple[str, str]:
    """What stands before the gap, and after it."""
    before, gap, after = row.text("sentence").partition(GAP)
    if not gap:
        raise FieldError("sentence", "has no gap (_)")
    return before, after


def options(row: Row) -> tuple[str, str]:
    """Both options for the gap."""
    return row.text("option1"), row.text("option2")


def right(row: Row) -> int:
    """The position of the right option; answers count from 1."""
    return row.integer("answer") - 1


def item(row: Row) -> Item:
    """Two contexts, the sentence with either option in its gap; what follows is scored after each."""
    before, after = halves(row)
    return row.item(
        context=[before + option for option in options(row)],
        choices=options(row),
        continuations=[f" {after.strip()}"] * 2,
        gold=right(row),
        gold_field="answer",
    )


def blank(row: Row) -> str:
    """The sentence with a line in its gap, and what is to be done with it."""
    return "Fill in the blank: " + "___".join(halves(row))


def lettered(row: Row) -> Item:
    """The sentence with its gap, and both options behind letters; what is forced is a letter."""
    return row.lettered(question=blank(row), answers=options(row), gold=right(row), gold_field="answer")


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks where the options are shown."""
    return _olmes.Asked(
        question=blank(row),
        answers=options(row),
        gold=right(row),
        gold_field="answer",
        id=_olmes.fingerprint(row.text("sentence"), *options(row)),
    )


def olmes_cloze(row: Row) -> Item:
    """As `item`, with an id."""
    return replace(item(row), id=olmes(row).id)


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
VARIANTS = (
    replace(TASK, name="winogrande:openllm", shots=Shots(split="train", draw="random", default=5)),
    replace(TASK, name="winogrande:mc", item=lettered),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc",),
        shots=_olmes.chosen("246e96fcb008", "6f389a30cc3d", "044c3544d7ae", "ee6c949b2589", "92ec5ca6323b"),
        cloze=olmes_cloze,
    ),
)
