"""MMLU: exam questions of 57 subjects, four lettered answers each.

Data: https://huggingface.co/datasets/cais/mmlu (MIT licence)
Paper: Hendrycks et al., "Measuring Massive Multitask Language Understanding", 2021, arXiv:2009.03300
Prompt, scoring and groups: lm-evaluation-harness 0.4.13, task `mmlu`, version 1.0. It counts anatomy as
STEM, the paper's own code as "other": the variant `original_groups` does as the paper.

Other variants: `cloze` shows no answers and scores their texts (the reference's `mmlu_continuation`); `olmes`
and `olmes_mc` as in `_olmes.py`, the question as it is found.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task

from . import _olmes

# fmt: off
GROUPS = {
    "mmlu_stem": (
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
        "college_computer_science", "college_mathematics", "college_physics", "computer_security",
        "conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology",
        "high_school_chemistry", "high_school_computer_science", "high_school_mathematics",
        "high_school_physics", "high_school_statistics", "machine_learning",
    ),
    "mmlu_other": (
        "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging",
        "management", "marketing", "medical_genetics", "miscellaneous", "nutrition",
        "professional_accounting", "professional_medicine", "virology",
    ),
    "mmlu_social_sciences": (
        "econometrics", "high_school_geography", "high_school_government_and_politics",
        "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
        "human_sexuality", "professional_psychology", "public_relations", "security_studies", "sociology",
        "us_foreign_policy",
    ),
    "mmlu_humanities": (
        "formal_logic", "high_school_european_history", "high_school_us_history",
        "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
        "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law",
        "world_religions",
    ),
}
# fmt: on
ORIGINAL_GROUPS = {
    f"{name}_original": tuple(subject for subject in subjects if subject != "anatomy")
    + (("anatomy",) if name == "mmlu_other" else ())
    for name, subjects in GROUPS.items()
}
SUBJECTS = frozenset(subject for subjects in GROUPS.values() for subject in subjects)


def description(subject: str) -> str:
    """The line before shots and question."""
    about = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {about}.\n\n"


def cloze_description(subject: str) -> str:
    """The line before shots and question, where no answers are shown."""
    return f"The following are questions (with answers) about {subject.replace('_', ' ')}.\n\n"


def question(row: Row) -> str:
    """The question as it is found, of a subject that there is."""
    subject = row.text("subject")
    if subject not in SUBJECTS:
        raise FieldError("subject", f"{subject!r} is none of the {len(SUBJECTS)} subjects")
    return row.text("question")


def item(row: Row) -> Item:
    """The question with its lettered answers; what is forced is a letter."""
    return row.lettered(
        question=question(row).strip(),
        answers=row.texts("choices", exactly=4),
        gold=row.integer("answer"),
        gold_field="answer",
    )


def cloze(row: Row) -> Item:
    """The question alone; the texts of its answers are scored."""
    return row.item(
        context=f"Question: {question(row).strip()}\nAnswer:",
        choices=row.texts("choices", exactly=4),
        gold=row.integer("answer"),
        gold_field="answer",
    )


def olmes(row: Row) -> _olmes.Asked:
    """What a row asks, as it is found."""
    return _olmes.Asked(
        question=f"Question: {question(row)}",
        answers=row.texts("choices", exactly=4),
        gold=row.integer("answer"),
        gold_field="answer",
        id="",
    )


TASK = Task(
    name="mmlu",
    version="1.0",
    dataset=Dataset(
        hub="cais/mmlu",
        config="all",
        folder="mmlu",
        columns=("question", "subject", "choices", "answer"),
        splits={
            "test": Split(14_042, "c029e60d56ef72b56cea2e58217f7576338dba7e6634dc567e50ccc78946b0c1"),
            "validation": Split(1_531, "2b0e30f8475e621772d7f061c01fa1e781800b0057f58c126bc1ec145bc59020"),
            "dev": Split(285, "4ac0ffb51a7adac85024094ba3b4103172bf5a44096994b983f607239d8274dd"),
        },
    ),
    split="test",
    item=item,
    metrics=("acc",),
    shots=Shots(split="dev", draw="first_n"),
    example={
        "question": "Which planet of the Solar System takes the least time to go around the Sun?",
        "subject": "astronomy",
        "choices": ["Venus", "Mercury", "Mars", "Neptune"],
        "answer": 1,
    },
    subject_field="subject",
    description=description,
    groups=GROUPS,
)
VARIANTS = (
    replace(TASK, name="mmlu:original_groups", groups=ORIGINAL_GROUPS),
    replace(
        TASK,
        name="mmlu:cloze",
        item=cloze,
        metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
        description=cloze_description,
        groups={f"{name}_cloze": subjects for name, subjects in GROUPS.items()},
    ),
    *_olmes.variants(
        TASK,
        olmes,
        metrics=("acc_norm", "acc", "acc_token"),
        shots=Shots(split="dev", draw="first_n", default=_olmes.SHOTS),
    ),
)
