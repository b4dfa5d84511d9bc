"""GPQA: questions of biology, physics and chemistry that experts wrote so that a search does not help.

Data: https://huggingface.co/datasets/Idavidrein/gpqa (CC BY 4.0; gated: its authors ask not to publish items)
Paper: Rein et al., "GPQA: A Graduate-Level Google-Proof Q&A Benchmark", 2023, arXiv:2311.12022
Prompt and scoring: lm-evaluation-harness 0.4.13, tasks `gpqa_main_zeroshot`, `gpqa_diamond_zeroshot`,
`gpqa_extended_zeroshot`, and `gpqa_*_n_shot` as the variants with `n_shot`, version 2.2.

The order of the choices is ours. The data set lists the right answer apart, so the answers must be shuffled.
The reference draws the orders from a generator that runs on from row to row (without shots: Python's global
one), so they depend on what was drawn before. Here each row's order is drawn by a generator that the row's
own text seeds: no option, no other task and no other row changes it. Single items therefore do not compare
with the reference's, and accuracies do. The order in which a row is a shot is that in which it is asked.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from harness import Dataset, Item, Row, Shots, Split, Task

ANSWERS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer")
SIZES = {"main": 448, "diamond": 198, "extended": 546}
EXPERTS = (
    "Here are some example questions from experts. Answer the final question yourself, following the format "
    "of the previous questions exactly.\n"
)


def clean(text: str) -> str:
    """The text without what the reference takes out of answers."""
    return text.strip().replace(" [title]", ". ").replace("  ", " ")


def lettered(row: Row, question: str) -> Item:
    """A question with four answers in the row's own order; "(A)" to "(D)" are scored."""
    answers = [clean(row.text(column)) for column in ANSWERS]
    order = list(range(len(answers)))
    Random("\n".join([row.text("Question"), *answers])).shuffle(order)
    return row.lettered(
        question=f"{question}{row.text('Question')}\nChoices:",
        answers=[answers[each] for each in order],
        gold=order.index(ANSWERS.index("Correct Answer")),
        gold_field="Correct Answer",
        id=row.optional("Record ID"),
        line="({}) {}",
        choice="({})",
    )


def item(row: Row) -> Item:
    """The question as it is asked without shots."""
    return lettered(row, "What is the correct answer to this question:")


def item_with_shots(row: Row) -> Item:
    """The question as it is asked with shots, and as a shot."""
    return lettered(row, "Question: ")


def dataset(part: str) -> Dataset:
    """The rows of a part: "main", "diamond", the hardest of them, or "extended", which has all."""
    return Dataset(
        hub="Idavidrein/gpqa",
        config=f"gpqa_{part}",
        folder=f"gpqa_{part}",
        columns=("Question", *ANSWERS),
        splits={"train": Split(SIZES[part])},
    )


TASK = Task(
    name="gpqa",
    version="2.2",
    dataset=dataset("main"),
    split="train",
    item=item,
    metrics=("acc", "acc_norm"),
    shots=Shots(split="train", draw="random", fixed=True),
    example={
        "Record ID": "rec1",
        "Question": "A cyclist rides 12 km at 24 km/h and the same way back at 8 km/h. What is her mean "
        "speed over the whole ride?",
        "Correct Answer": "12 km/h",
        "Incorrect Answer 1": "16 km/h",
        "Incorrect Answer 2": "10 km/h",
        "Incorrect Answer 3": "14 km/h",
        "Subdomain": "Physics (general)",
    },
)


def with_shots(name: str, part: str) -> Task:
    """A part as it is asked with shots. The item itself is none of them, so one more is drawn."""
    return replace(
        TASK,
        name=name,
        dataset=dataset(part),
        item=item_with_shots,
        shots=Shots(split="train", draw="random", without_own=True),
        description=lambda subject: EXPERTS,
    )


VARIANTS = (
    replace(TASK, name="gpqa:diamond", dataset=dataset("diamond")),
    replace(TASK, name="gpqa:extended", dataset=dataset("extended")),
    with_shots("gpqa:n_shot", "main"),
    with_shots("gpqa:diamond_n_shot", "diamond"),
    with_shots("gpqa:extended_n_shot", "extended"),
)
