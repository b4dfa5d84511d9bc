"""MMLU-Pro, scored by log-probability: exam questions with up to ten lettered answers.

Data: https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro (MIT licence)
Paper: Wang et al., "MMLU-Pro: A More Robust and Challenging Multi-Task Language Understanding Benchmark",
  2024, arXiv:2406.01574
Prompt and scoring: lm-evaluation-harness 0.4.13, task `leaderboard_mmlu_pro`, version 0.1: five shots, the
first of the validation split, for all categories. (The paper's own form lets the model reason in writing.)
The variant `cloze` shows no answers and scores their texts.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task


def item(row: Row) -> Item:
    """The question with its lettered answers; what is forced is a letter."""
    return row.lettered(
        question=row.text("question"),
        answers=row.texts("options"),
        gold=row.letter("answer"),
        gold_field="answer",
        id=row.optional("question_id"),
    )


def cloze(row: Row) -> Item:
    """The question alone; the texts of its options are scored."""
    return row.item(
        context=f"Question: {row.text('question')}\nAnswer:",
        choices=row.texts("options"),
        gold=row.letter("answer"),
        gold_field="answer",
        id=row.optional("question_id"),
    )


TASK = Task(
    name="leaderboard_mmlu_pro",
    version="0.1",
    dataset=Dataset(
        hub="TIGER-Lab/MMLU-Pro",
        folder="mmlu_pro",
        columns=("question", "options", "answer"),
        splits={"test": Split(12_032)},
    ),
    split="test",
    item=item,
    metrics=("acc",),
    chance=0.110864,  # 3 to 10 options: mean of one over their number, over the 12,032 items
    shots=Shots(split="validation", draw="first_n", default=5),
    example={
        "question_id": 11,
        "question": "A train covers 90 km in 45 minutes. What is its mean speed?",
        "options": ["60 km/h", "75 km/h", "90 km/h", "105 km/h", "120 km/h", "135 km/h", "150 km/h"],
        "answer": "E",
        "answer_index": 4,
        "category": "physics",
    },
)
VARIANTS = (
    replace(
        TASK,
        name="leaderboard_mmlu_pro:cloze",
        item=cloze,
        metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    ),
)
