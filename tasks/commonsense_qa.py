"""CommonsenseQA: everyday questions with five lettered answers.

Data: https://huggingface.co/datasets/tau/commonsense_qa (MIT licence)
Paper: Talmor et al., "CommonsenseQA: A Question Answering Challenge Targeting Commonsense Knowledge", 2019,
  arXiv:1811.00937
Prompt and scoring: lm-evaluation-harness 0.4.13, task `commonsense_qa`, version 1.0.
Variants: `cloze` shows no answers and scores their texts; `olmes` and `olmes_mc` as in `_olmes.py`.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

from . import _olmes


def item(row: Row) -> Item:
    """The question with its lettered answers; what is forced is a letter."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.lettered(
        question=f"Question: {row.text('question').strip()}",
        answers=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


def cloze(row: Row) -> Item:
    """The question alone; the texts of its answers are scored."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.item(
        context=f"Question: {row.text('question').strip()}\nAnswer:",
        choices=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks, as it is found."""
    answers, gold = row.labelled("choices", "answerKey")
    return _olmes.Asked(
        question=f"Question: {row.text('question')}",
        answers=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


TASK = Task(
    name="commonsense_qa",
    version="1.0",
    dataset=Dataset(
        hub="tau/commonsense_qa",
        folder="commonsense_qa",
        columns=("question", "choices", "answerKey"),
        splits={
            "validation": Split(1_221, "865f660dfad817fc4a88fd9740467c1c3fe9c94ea2e36aa94e0130b767e4ad57"),
            "train": Split(9_741),
        },
    ),
    split="validation",
    item=item,
    metrics=("acc",),
    shots=Shots(split="train", draw="random", without_own=True),
    example={
        "id": "q1",
        "question": "Where would you look for a fork after the dishes are done?",
        "choices": {
            "label": ["A", "B", "C", "D", "E"],
            "text": ["garden", "drawer", "bathtub", "road", "letterbox"],
        },
        "answerKey": "B",
    },
)
VARIANTS = (
    replace(
        TASK,
        name="commonsense_qa:cloze",
        item=cloze,
        metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    ),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc_pmi", "acc", "acc_norm", "acc_token"),
        shots=_olmes.chosen(
            "61fe6e879ff18686d7552425a36344c8",
            "02e821a3e53cb320790950aab4489e85",
            "23505889b94e880c3e89cff4ba119860",
            "a76403b4921a9281b6ee2a7241a5ec9f",
            "6dc921840aa1e5dda3333b79007f630b",
        ),
    ),
)
