"""SciQ: science questions, most with a paragraph that tells the answer.

Data: https://huggingface.co/datasets/allenai/sciq (CC BY-NC 3.0)
Paper: Welbl et al., "Crowdsourcing Multiple Choice Science Questions", 2017, arXiv:1707.06209
Prompt and scoring: lm-evaluation-harness 0.4.13, task `sciq`, version 1.0. The right answer is always the
last choice, which no prompt shows: there is no lettered variant, as its letter would always be D.
"""

from __future__ import annotations

from harness import Dataset, Item, Row, Shots, Split, Task

CHOICES = ("distractor1", "distractor2", "distractor3", "correct_answer")


def item(row: Row) -> Item:
    """The paragraph, which may be empty, and the question; the texts of the answers are scored."""
    support = row.text("support", empty=True).lstrip()
    return row.item(
        context=f"{support}\nQuestion: {row.text('question')}\nAnswer:",
        choices=[row.text(column) for column in CHOICES],
        gold=CHOICES.index("correct_answer"),
        gold_field="correct_answer",
    )


TASK = Task(
    name="sciq",
    version="1.0",
    dataset=Dataset(
        hub="allenai/sciq",
        folder="sciq",
        columns=("support", "question", *CHOICES),
        splits={"test": Split(1_000)},
    ),
    split="test",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    example={
        "question": "What do the roots of a plant take up from the soil?",
        "distractor3": "light",
        "distractor1": "oxygen",
        "distractor2": "sugar",
        "correct_answer": "water",
        "support": "Roots hold a plant in place. They also take up water, and the salts that are dissolved "
        "in it.",
    },
)
