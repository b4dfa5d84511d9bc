"""RACE, high school part: a text and questions about it; the last one is scored.

Data: https://huggingface.co/datasets/EleutherAI/race (for research only, by its authors)
Paper: Lai et al., "RACE: Large-scale ReAding Comprehension Dataset From Examinations", 2017, arXiv:1704.04683
Prompt and scoring: lm-evaluation-harness 0.4.13, task `race`, version 3.0. A row is an article with all its
questions; those before the last stand in the prompt with their answers.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task

LETTERS = ("A", "B", "C", "D")
GAP = "  _  ."
"""How a question ends that is a sentence to be completed."""


def problems(row: Row) -> list[Mapping[str, Any]]:
    """The questions of an article: a list, or the text of one as Python writes it."""
    found = row.value("problems")
    try:
        read = ast.literal_eval(found) if isinstance(found, str) else found
        for each in read:
            each["question"], each["options"][LETTERS.index(each["answer"])]
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError, MemoryError):
        wanted = "expected a list of records with question, options and answer (A to D)"
        raise FieldError("problems", wanted) from None
    if not read:
        raise FieldError("problems", "holds no question")
    return list(read)


def answered(problem: Mapping[str, Any]) -> str:
    """An earlier question with its answer: in the gap of its sentence, or below it."""
    answer = problem["options"][LETTERS.index(problem["answer"])]
    question = problem["question"]
    if question.endswith(GAP):
        return f"{question[:-5]}{answer}\n"
    return f"Question: {question}\nAnswer: {answer}\n"


def item(row: Row) -> Item:
    """Article, earlier questions, and the bare last one; the texts of its options are scored."""
    *earlier, last = problems(row)
    if len(last["options"]) != 4:
        raise FieldError("problems", f"the last question has {len(last['options'])} options, not 4")
    before = "".join(answered(each) for each in earlier)
    return row.item(
        context=f"Article: {row.text('article')}\n\n{before}{last['question']}",
        choices=tuple(last["options"]),
        gold=LETTERS.index(last["answer"]),
        gold_field="problems",
    )


TASK = Task(
    name="race",
    version="3.0",
    dataset=Dataset(
        hub="EleutherAI/race",
        config="high",
        folder="race",
        columns=("article", "problems"),
        splits={"test": Split(1_045)},
    ),
    split="test",
    item=item,
    metrics=("acc",),
    shots=Shots(split="test", draw="random"),
    example={
        "article": "Mia waters the plants of three neighbours. She keeps a list, so that none is forgotten.",
        "problems": "[{'question': 'Mia waters the plants of  _  .', 'answer': 'B', "
        "'options': ['a school', 'three neighbours', 'a park', 'her aunt']}, "
        "{'question': 'Why does she keep a list?', 'answer': 'D', "
        "'options': ['To sell plants.', 'To learn names.', 'To draw a map.', 'To forget no plant.']}]",
    },
)
