"""OLMES, a standard for evaluating base language models: what its forms of ten tasks have in common.

Paper: Gu et al., "OLMES: A Standard for Language Model Evaluations", 2024, arXiv:2406.08446
Code: https://github.com/allenai/olmes (Apache 2.0), regime OLMES-v0.1

`TASK:olmes` is the standard's cloze form: the texts of the answers are scored, normalised as it says for the
task. `TASK:olmes_mc` is its lettered form. It counts the better of the two. Five shots, which its authors
chose out of the train split by hand: they are named by id here, their texts come from the data set. (MMLU has
its own five of each subject.)

Not taken over: it draws 1,000 items of a split of more than 1,500, here all are asked; its score of MMLU is
the mean of 57 subjects, here the task's row counts items alike and each subject has a row; its limit of
2,048 tokens is `--max-length 2048`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from harness import Item, Row, Shots, Task

VERSION = "0.1"
SHOTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a row asks, from which both forms are made."""

    question: str
    answers: Sequence[str]
    gold: int
    gold_field: str
    """The column that gold was read from."""
    id: str
    cluster: str = ""
    ending: str = "\nAnswer:"
    """What follows the question where no answers are shown."""
    heading: str = ""
    """What follows the question where they are, before them."""

    def cloze(self, row: Row) -> Item:
        """The question without its answers, whose texts are scored.

        The space before an answer counts as one of its characters, as the standard has it.
        """
        choices = [f" {answer}" for answer in self.answers]
        return row.item(
            context=self.question + self.ending,
            choices=choices,
            continuations=choices,
            gold=self.gold,
            gold_field=self.gold_field,
            id=self.id,
            cluster=self.cluster,
        )

    def lettered(self, row: Row) -> Item:
        """The question with lettered answers.

        A space stands before each letter, so that it is the same token in the list and as the answer.
        """
        return row.lettered(
            question=self.question + self.heading,
            answers=self.answers,
            gold=self.gold,
            gold_field=self.gold_field,
            line=" {}. {}",
            id=self.id,
            cluster=self.cluster,
        )


def fingerprint(*texts: str) -> str:
    """An id for rows that have none of their own: 12 hexadecimal digits of the hash of their texts."""
    return sha256("\n".join(texts).encode()).hexdigest()[:12]


def chosen(*ids: str) -> Shots:
    """The shots that the authors of the standard chose, in their order."""
    return Shots(split="train", draw="listed", ids=ids, default=SHOTS)


def variants(
    task: Task,
    ask: Callable[[Row], Asked],
    *,
    metrics: tuple[str, ...],
    shots: Shots,
    cloze: Callable[[Row], Item] | None = None,
) -> tuple[Task, Task]:
    """Both forms of a task.

    Args:
        task: what they are made from.
        ask: a row to what it asks.
        metrics: of the cloze form, the standard's choice first; the lettered form has acc alone.
        shots: how solved examples are chosen.
        cloze: a row to an item of the cloze form, where that is not `Asked.cloze`.
    """
    own = cloze or (lambda row: ask(row).cloze(row))
    return (
        _variant(task, "olmes", own, metrics, shots),
        _variant(task, "olmes_mc", lambda row: ask(row).lettered(row), ("acc",), shots),
    )


def _variant(
    task: Task, form: str, item: Callable[[Row], Item], metrics: tuple[str, ...], shots: Shots
) -> Task:
    return replace(
        task,
        name=f"{task.name}:{form}",
        version=VERSION,
        item=item,
        metrics=metrics,
        shots=shots,
        groups={f"{name}_{form}": subjects for name, subjects in task.groups.items()},
    )
