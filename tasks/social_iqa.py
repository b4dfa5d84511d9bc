"""Social IQa: what people want, feel and do next.

Data: https://huggingface.co/datasets/lighteval/siqa (CC BY 4.0)
Paper: Sap et al., "Social IQa: Commonsense Reasoning about Social Interactions", 2019, arXiv:1904.09728
Prompt and scoring: lm-evaluation-harness 0.4.13, task `social_iqa`, version 0.0.
"""

from __future__ import annotations

from harness import Dataset, Item, Row, Shots, Split, Task


def item(row: Row) -> Item:
    """What happened and the question; the texts of the three answers are scored."""
    return row.item(
        context=f"Q: {row.text('context')} {row.text('question')}\nA:",
        choices=tuple(row.text(f"answer{letter}") for letter in "ABC"),
        gold=row.integer("label") - 1,  # labels count from 1
        gold_field="label",
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
