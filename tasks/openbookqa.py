"""OpenBookQA: elementary science, answered with a fact and some common sense.

Data: https://huggingface.co/datasets/allenai/openbookqa (licence of its authors)
Paper: Mihaylov et al., "Can a Suit of Armor Conduct Electricity?", 2018, arXiv:1809.02789
Prompt and scoring: lm-evaluation-harness 0.4.13, task `openbookqa`, version 1.0.
Variants: `mc` with lettered answers; `olmes` and `olmes_mc` as in `_olmes.py`, with the words
"Question:" and "Answer:".
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

from . import _olmes


def item(row: Row) -> Item:
    """The stem of the question and nothing else; the texts of the four answers are scored."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.item(
        context=row.text("question_stem"),
        choices=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


def lettered(row: Row) -> Item:
    """The stem with its lettered answers; what is forced is a letter."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.lettered(
        question=row.text("question_stem"),
        answers=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks: its stem as a question."""
    answers, gold = row.labelled("choices", "answerKey")
    return _olmes.Asked(
        question=f"Question: {row.text('question_stem')}",
        answers=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


TASK = Task(
    name="openbookqa",
    version="1.0",
    dataset=Dataset(
        hub="allenai/openbookqa",
        config="main",
        folder="openbookqa",
        columns=("question_stem", "choices", "answerKey"),
        splits={
            "test": Split(500, "bf06c78af30a5816e124f545e29f25dc2ad434b96776301e933dc7e1002cbdd3"),
            "validation": Split(500, "355411442b92e44fd03b0b1d43adc4f314b8eed903e6a15a192adfe189ecaa26"),
            "train": Split(4_957),
        },
    ),
    split="test",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    example={
        "id": "7-1",
        "question_stem": "A puddle in the yard is gone by noon because the water",
        "choices": {
            "text": ["turned into stone", "went into the air", "was never there", "became heavier"],
            "label": ["A", "B", "C", "D"],
        },
        "answerKey": "B",
    },
)
VARIANTS = (
    replace(TASK, name="openbookqa:mc", item=lettered, metrics=("acc",)),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc_pmi", "acc", "acc_norm", "acc_token"),
        shots=_olmes.chosen("7-584", "7-870", "9-732", "9-782", "8-72"),
    ),
)
