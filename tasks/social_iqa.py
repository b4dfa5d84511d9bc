"""Social IQa: what people want, feel and do next.

Data: https://huggingface.co/datasets/lighteval/siqa (CC BY 4.0)
Paper: Sap et al., "Social IQa: Commonsense Reasoning about Social Interactions", 2019, arXiv:1904.09728
Prompt and scoring: lm-evaluation-harness 0.4.13, task `social_iqa`, version 0.0.
Variants: `mc` with lettered answers; `olmes` and `olmes_mc` as in `_olmes.py`, with the words
"Question:" and "Answer:"; as its rows have no ids, those are fingerprints there.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

from . import _olmes


def question(row: Row) -> str:
    """What happened, and what is asked about it."""
    return f"{row.text('context')} {row.text('question')}"


def answers(row: Row) -> tuple[str, ...]:
    """The three answers."""
    return tuple(row.text(f"answer{letter}") for letter in "ABC")


def right(row: Row) -> int:
    """The position of the right answer; labels count from 1."""
    return row.integer("label") - 1


def item(row: Row) -> Item:
    """What happened and the question; the texts of the three answers are scored."""
    return row.item(
        context=f"Q: {question(row)}\nA:", choices=answers(row), gold=right(row), gold_field="label"
    )


def lettered(row: Row) -> Item:
    """The question with its lettered answers; what is forced is a letter."""
    return row.lettered(
        question=f"Q: {question(row)}", answers=answers(row), gold=right(row), gold_field="label"
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks. The same question is asked with several sets of answers: its id is of all."""
    return _olmes.Asked(
        question=f"Question: {question(row)}",
        answers=answers(row),
        gold=right(row),
        gold_field="label",
        id=_olmes.fingerprint(row.text("context"), row.text("question"), *answers(row)),
    )


TASK = Task(
    name="social_iqa",
    version="0.0",
    dataset=Dataset(
        hub="lighteval/siqa",
        folder="social_iqa",
        columns=("context", "question", "answerA", "answerB", "answerC", "label"),
        splits={
            "validation": Split(1_954, "bb745b100c12a5799af9b2f0df14e3d5ed501a554f7a6af16d40512342f755d5"),
        },
    ),
    split="validation",
    item=item,
    metrics=("acc",),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "context": "Ada carried her neighbour's shopping up the stairs.",
        "question": "How would the neighbour feel about her?",
        "answerA": "afraid",
        "answerB": "thankful",
        "answerC": "hungry",
        "label": "2",
    },
)
VARIANTS = (
    replace(TASK, name="social_iqa:mc", item=lettered),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc_norm", "acc", "acc_token"),
        shots=_olmes.chosen("63bd8c1022b1", "588da034b914", "58137ae19f1a", "7e508008338f", "595ad620dc29"),
    ),
)
