"""CommonsenseQA: everyday questions with five lettered answers.

Data: https://huggingface.co/datasets/tau/commonsense_qa (MIT licence)
Paper: Talmor et al., "CommonsenseQA: A Question Answering Challenge Targeting Commonsense Knowledge", 2019,
  arXiv:1811.00937
Prompt and scoring: lm-evaluation-harness 0.4.13, task `commonsense_qa`, version 1.0.
"""

from __future__ import annotations

from harness import Dataset, Item, Row, Shots, Split, Task


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
