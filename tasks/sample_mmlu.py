"""Sample of MMLU's kind: 312 school questions of 8 subjects, four answers each, to try things out with.

Data: ships with the program (Apache-2.0), written for it; `harness/schooling` makes it.
Prompt and scoring: as `mmlu`; the variant `cloze` shows no choices and scores the texts of the answers.

The reference model that ships with the program was schooled on these very facts: its scores here show that
the harness works, and nothing more.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

GROUPS = {
    "sample_geography": ("nations", "physical_geography"),
    "sample_science": ("biology", "chemistry", "physics_and_astronomy"),
    "sample_culture": ("arts", "daily_life", "history"),
}


def description(subject: str) -> str:
    """The line before shots and question."""
    about = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {about}.\n\n"


def item(row: Row) -> Item:
    """The question with its lettered answers; what is forced is a letter."""
    return row.lettered(
        question=row.text("question"),
        answers=row.texts("choices", exactly=4),
        gold=row.integer("answer"),
        gold_field="answer",
    )


def cloze(row: Row) -> Item:
    """The question alone; what is forced is the text of an answer."""
    return row.item(
        context=f"Question: {row.text('question')}\nAnswer:",
        choices=row.texts("choices", exactly=4),
        gold=row.integer("answer"),
        gold_field="answer",
    )


TASK = Task(
    name="sample_mmlu",
    version="1.0",
    dataset=Dataset(
        hub=None,
        folder="sample_mmlu",
        columns=("question", "subject", "choices", "answer"),
        splits={"test": Split(312), "dev": Split(40)},
    ),
    split="test",
    item=item,
    metrics=("acc",),
    shots=Shots(split="dev", draw="first_n", default=5),
    example={
        "question": "In Peru, the capital city is called what?",
        "subject": "nations",
        "choices": ["Lima", "Nairobi", "Oslo", "Warsaw"],
        "answer": 0,
    },
    subject_field="subject",
    description=description,
    groups=GROUPS,
)
VARIANTS = (
    replace(
        TASK,
        name="sample_mmlu:cloze",
        item=cloze,
        metrics=("acc", "acc_norm"),
        description=lambda subject: "",
        groups={name.replace("sample_", "cloze_"): subjects for name, subjects in GROUPS.items()},
    ),
)
