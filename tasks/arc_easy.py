"""ARC, easy set: science questions of school exams, of which simple methods answer some.

Data: https://huggingface.co/datasets/allenai/ai2_arc (CC BY-SA 4.0)
Paper: Clark et al., "Think you have Solved Question Answering? Try ARC, the AI2 Reasoning Challenge", 2018,
  arXiv:1803.05457
Prompt and scoring: lm-evaluation-harness 0.4.13, task `arc_easy`, version 1.0.
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
    name="arc_easy",
    version="1.0",
    dataset=Dataset(
        hub="allenai/ai2_arc",
        config="ARC-Easy",
        folder="arc_easy",
        columns=("question", "choices", "answerKey"),
        splits={
            "test": Split(2_376),
            "validation": Split(570, "80b666f5a62d4a8fd80232d157b01699332b8ae8f6ec1193f61f97bba44900a5"),
            "train": Split(2_251),
        },
    ),
    split="test",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    example={
        "id": "e1",
        "question": "Which of these gives off light of its own?",
        "choices": {
            "text": ["a mirror", "a star", "a moon", "a window"],
            "label": ["A", "B", "C", "D"],
        },
        "answerKey": "B",
    },
)
