"""ARC, challenge set: science questions of school exams that simple methods get wrong.

Data: https://huggingface.co/datasets/allenai/ai2_arc (CC BY-SA 4.0)
Paper: Clark et al., "Think you have Solved Question Answering? Try ARC, the AI2 Reasoning Challenge", 2018,
  arXiv:1803.05457
Prompt and scoring: lm-evaluation-harness 0.4.13, task `arc_challenge`, version 1.0.
"""

from __future__ import annotations

from harness import Dataset, Item, Row, Shots, Split, Task


def item(row: Row) -> Item:
    """The question alone; the texts of its answers, three to five of them, are scored."""
    answers, gold = row.labelled("choices", "answerKey")
    return row.item(
        context=f"Question: {row.text('question')}\nAnswer:",
        choices=answers,
        gold=gold,
        gold_field="answerKey",
        id=row.optional("id"),
    )


TASK = Task(
    name="arc_challenge",
    version="1.0",
    dataset=Dataset(
        hub="allenai/ai2_arc",
        config="ARC-Challenge",
        folder="arc_challenge",
        columns=("question", "choices", "answerKey"),
        splits={
            "test": Split(1_172),
            "validation": Split(299, "d973b9ef417649731fc4e96ddcfdde54e764bfa25b10de3694798f16d5515e58"),
            "train": Split(1_119),
        },
    ),
    split="test",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    example={
        "id": "c1",
        "question": "A wet towel dries faster on a windy day. What does the wind do?",
        "choices": {
            "text": [
                "It cools the towel until the water freezes.",
                "It carries moist air away from the towel.",
                "It presses the water out of the towel.",
                "It makes the water in the towel lighter.",
            ],
            "label": ["1", "2", "3", "4"],
        },
        "answerKey": "2",
    },
)
