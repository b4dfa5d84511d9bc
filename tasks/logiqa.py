"""LogiQA: what follows from a passage? Out of the exams of China's civil service, translated.

Data: https://huggingface.co/datasets/EleutherAI/logiqa (licence of its authors)
Paper: Liu et al., "LogiQA: A Challenge Dataset for Machine Reading Comprehension with Logical Reasoning",
  2020, arXiv:2007.08124
Prompt and scoring: lm-evaluation-harness 0.4.13, task `logiqa`, version 1.0: the choices stand in the prompt
behind letters, and their texts are scored. The variant `mc` scores the letters.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task

LETTERS = ("a", "b", "c", "d")


def question(row: Row) -> str:
    """Passage, question, and the line that announces the choices."""
    return f"Passage: {row.text('context')}\nQuestion: {row.text('question')}\nChoices:"


def right(row: Row) -> int:
    """The position of the right option."""
    label = row.text("label").strip()
    if label not in LETTERS:
        raise FieldError("label", f"expected a letter from a to d, found {label!r}")
    return LETTERS.index(label)


def lettered(row: Row) -> Item:
    """The question with its lettered options; what is forced is a letter."""
    return row.lettered(
        question=question(row),
        answers=row.texts("options", exactly=4),
        gold=right(row),
        gold_field="label",
    )


def item(row: Row) -> Item:
    """The same prompt; the texts of the options are scored."""
    options, gold = row.ordered(row.texts("options", exactly=4), right(row))
    return row.item(context=lettered(row).pairs[0].context, choices=options, gold=gold, gold_field="label")


TASK = Task(
    name="logiqa",
    version="1.0",
    dataset=Dataset(
        hub="EleutherAI/logiqa",
        config="logiqa",
        folder="logiqa",
        columns=("context", "question", "options", "label"),
        splits={"test": Split(651)},
    ),
    split="test",
    item=item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    example={
        "label": "c",
        "context": "Everyone in the choir can read music. No one who can read music joined the band. "
        "Some of the dancers sing in the choir.",
        "question": "If the statements above are true, which of the following must be true?",
        "options": [
            "Some of the dancers joined the band.",
            "Everyone who can read music sings in the choir.",
            "Some of the dancers did not join the band.",
            "No one in the band dances.",
        ],
    },
)
VARIANTS = (replace(TASK, name="logiqa:mc", item=lettered, metrics=("acc",)),)
