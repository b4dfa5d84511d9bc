"""Rows and items: the first step of the pipeline, pure.

A *row* is one record of a data set as it was found; an *item* is one question with its choices and its
gold. This module does not know where rows come from, nor what a prompt or a token is.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import FieldError

LETTERS = "ABCDEFGHIJ"
"""Of lettered answers; no benchmark has more."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One choice of an item, ready to be scored."""

    context: str
    """What stands before the choice, without description and shots."""
    continuation: str
    """What is forced: usually the delimiter and the choice."""
    choice: str
    """The choice alone: its length normalises scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question: a pair a choice, and which of them are right."""

    task: str
    subject: str
    """Empty where the task has no subjects."""
    index: int
    """Position in the split, counted within the subject, from 0."""
    id: str
    """The data set's own id, or the empty string."""
    pairs: tuple[Pair, ...]
    gold: tuple[int, ...]
    """Indices into `pairs`; more than one where several choices are right."""
    cluster: str = ""
    """Items of one cluster share a source (a passage, a video) and are not independent."""


@dataclass(frozen=True, slots=True)
class BadItem:
    """A row that is no item; counted as unscored where bad rows are skipped."""

    task: str
    subject: str
    index: int
    problem: str


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data set, its place, and typed access that names what is wrong.

    Every accessor raises `FieldError` for a missing column, a null, or a value of the wrong kind.
    """

    values: Mapping[str, Any]
    place: str
    """For people: "mmlu/test.parquet row 17", "my.jsonl line 3"."""
    task: str = ""
    subject: str = ""
    index: int = 0
    shift: int = 0
    """By how many places lettered choices stand later than the row has them, in a circle: 0 but where other
    orders are asked too."""
    broken: str = ""
    """Why there is nothing to read, such as "not JSON: ..."; empty for all rows that can be read."""

    def value(self, field: str) -> Any:
        """The value as found, never null."""
        found = self.values.get(field)
        if found is not None:
            return found
        if field in self.values:
            raise FieldError(field, "is null")
        there = ", ".join(map(repr, self.values)) or "no columns"
        raise FieldError(field, f"missing; the row has {there}")

    def text(self, field: str, *, empty: bool = False) -> str:
        """A text; an empty one (or only white space) is an error unless `empty` allows it."""
        found = self.value(field)
        if problem := _no_text(found, empty=empty):
            raise FieldError(field, problem)
        return str(found)

    def texts(
        self, field: str, *, exactly: int | None = None, clean: Callable[[str], str] = str
    ) -> tuple[str, ...]:
        """A list of texts, each as `clean` makes it, none of them empty then.

        In a CSV cell the list is written as a JSON or Python list.
        """
        found = self.value(field)
        if isinstance(found, str):
            found = list_from_text(found)
            if found is None:
                shown = _short(self.values[field])
                raise FieldError(field, f'expected a list such as ["yes", "no"], found {shown}')
        if not isinstance(found, list | tuple):
            raise FieldError(field, f"expected a list of texts, found {_short(found)}")
        if exactly is not None and len(found) != exactly:
            raise FieldError(field, f"expected {exactly} texts, found {len(found)}")
        texts = []
        for position, each in enumerate(found):
            problem = _no_text(each) or _no_text(text := clean(each))
            if problem:
                raise FieldError(f"{field}[{position}]", problem)
            texts.append(text)
        return tuple(texts)

    def integer(self, field: str) -> int:
        """An integer, also where it is written as text ("3"), as HellaSwag's labels are."""
        found = self.value(field)
        if isinstance(found, bool):
            raise FieldError(field, f"expected an integer, found {found!r}")
        if isinstance(found, int):
            return found
        if isinstance(found, str):
            try:
                return int(found)
            except ValueError:
                pass
        raise FieldError(field, f"expected an integer, found {_short(found)}")

    def letter(self, field: str) -> int:
        """The position that a letter says: 0 for "A"."""
        found = self.text(field)
        if found not in tuple(LETTERS):
            raise FieldError(
                field, f"expected a letter from {LETTERS[0]} to {LETTERS[-1]}, found {_short(found)}"
            )
        return LETTERS.index(found)

    def labelled(self, field: str, answer_field: str) -> tuple[tuple[str, ...], int]:
        """Choices with labels, `{"text": [...], "label": ["A", ...]}`, and the position of the right one.

        In a CSV cell the record is written as JSON.

        Args:
            field: the column of the choices.
            answer_field: the column that holds the right one's label.
        """
        choices = self.record(field)
        labels = choices.texts(f"{field}.label")
        texts = choices.texts(f"{field}.text", exactly=len(labels))
        answer = self.text(answer_field).strip()
        if answer not in labels:
            raise FieldError(answer_field, f"{answer!r} is none of the labels {', '.join(labels)}")
        return texts, labels.index(answer)

    def record(self, field: str) -> Row:
        """The fields of a record in a column, named "choices.text"; in a CSV cell it is written as JSON."""
        found = self.value(field)
        if isinstance(found, str):
            try:
                found = json.loads(found)
            except (ValueError, RecursionError):
                found = None
        if not isinstance(found, Mapping):
            shown = _short(self.values[field])
            raise FieldError(field, f'expected a record such as {{"text": [...]}}, found {shown}')
        return replace(self, values={f"{field}.{name}": value for name, value in found.items()})

    def optional(self, field: str) -> str:
        """A value as text, empty where the column is missing or null: for ids and clusters."""
        found = self.values.get(field)
        if isinstance(found, float) and found.is_integer():
            found = int(found)  # integers of a column with nulls are often stored as floats
        return "" if found is None else str(found)

    def ordered(self, answers: Sequence[str], gold: int | Sequence[int]) -> tuple[list[str], list[int]]:
        """Answers and gold in the order in which they are to be asked: for prompts that list them."""
        count = len(answers)
        golds = (gold,) if isinstance(gold, int) else gold
        if not count:
            return [], list(golds)
        moved = [answers[(at - self.shift) % count] for at in range(count)]
        return moved, [(each + self.shift) % count if 0 <= each < count else each for each in golds]

    def lettered(
        self,
        *,
        question: str,
        answers: Sequence[str],
        gold: int | Sequence[int],
        gold_field: str,
        line: str = "{}. {}",
        choice: str = "{}",
        id: str = "",
        cluster: str = "",
    ) -> Item:
        """The item of a question with its answers behind letters; what is forced is a letter.

        As MMLU has it: the question, a line "A. ..." an answer, and "Answer:".

        Args:
            question: all that stands before the answers, without the line break.
            answers: their texts, in the row's order.
            gold: index or indices of the right ones.
            gold_field: the column that gold was read from, named when it is out of range.
            line: how a letter and its answer are written, as `str.format` takes it.
            choice: how the letter is written that is forced.
            id: the data set's own id of the row.
            cluster: what makes items dependent on one another.

        Raises:
            FieldError: gold is out of range, or there are more answers than letters.
        """
        if len(answers) > len(LETTERS):
            raise FieldError(gold_field, f"{len(answers)} answers; there are letters for {len(LETTERS)}")
        answers, gold = self.ordered(answers, gold)
        letters = LETTERS[: len(answers)]
        lines = (line.format(letter, answer) for letter, answer in zip(letters, answers, strict=True))
        return self.item(
            context="\n".join([question, *lines, "Answer:"]),
            choices=[choice.format(letter) for letter in letters],
            gold=gold,
            gold_field=gold_field,
            id=id,
            cluster=cluster,
        )

    def item(
        self,
        *,
        context: str | Sequence[str],
        choices: Sequence[str],
        gold: int | Sequence[int],
        continuations: Sequence[str] | None = None,
        gold_field: str,
        id: str = "",
        cluster: str = "",
    ) -> Item:
        """The item of this row.

        Args:
            context: one text for all choices, or one a choice.
            choices: the choice texts; as many as contexts and continuations.
            gold: index or indices of the right ones.
            continuations: what is forced, by default a space and the choice.
            gold_field: the column that gold was read from, named when it is out of range.
            id: the data set's own id of the row.
            cluster: what makes items dependent on one another.

        Raises:
            FieldError: gold is out of range.
        """
        golds = (gold,) if isinstance(gold, int) else tuple(gold)
        for each in golds:
            if not 0 <= each < len(choices):
                raise FieldError(gold_field, f"gold {each} is out of range for {len(choices)} choices")
        if not golds:
            raise FieldError(gold_field, "no choice is right")
        contexts = [context] * len(choices) if isinstance(context, str) else context
        forced = continuations if continuations is not None else [f" {choice}" for choice in choices]
        return Item(
            task=self.task,
            subject=self.subject,
            index=self.index,
            id=id,
            pairs=tuple([Pair(*three) for three in zip(contexts, forced, choices, strict=True)]),
            gold=golds,
            cluster=cluster,
        )


def list_from_text(text: str) -> list[Any] | None:
    """The list that a text spells in JSON or as a Python literal, or None where it spells none."""
    if not text.lstrip().startswith("[") or not text.rstrip().endswith("]"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prose in brackets may hold what Python calls a doubtful escape
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: deep brackets
                continue
            return found if isinstance(found, list) else None
    return None


def _no_text(found: object, *, empty: bool = False) -> str:
    """Why a value is no text that can be asked; empty where it is one."""
    if not isinstance(found, str):
        return "is null" if found is None else f"expected text, found {_short(found)}"
    if not empty and not found.strip():
        return "is empty"
    if not found.isascii():  # which is known without a look at the text
        try:
            found.encode()
        except UnicodeEncodeError:
            return f"holds half a character (a lone surrogate): {_short(found)}"
    return ""


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
