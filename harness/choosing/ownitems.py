"""Rows of a set of one's own to items: a template for the prompt, and one rule for answers; pure.

Columns are `question`, `choices`, `answer`, and `subject`, `context`, `id`, `cluster` where there are such.
White space around questions, contexts, choices and answers is dropped. This module does not know where rows
come from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from reprlib import repr as short
from string import Formatter, ascii_uppercase
from typing import Literal

from harness.errors import FieldError, UsageError, did_you_mean
from harness.items import Item, Row

NEEDED = ("question", "choices", "answer")
OPTIONAL = ("subject", "context", "id", "cluster")
PLACEHOLDERS = ("context", "question", "choices", "subject")
"""What a template may hold, in braces."""

AnswerRule = Literal["auto", "index", "letter", "text"]
"""How an answer is read; `auto`: every reading that fits, and they must agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnForm:
    """How rows are asked; called with a row it gives the item, or raises `FieldError`."""

    lettered: bool
    """What is forced: the letter of a choice, or its text."""
    prompt: str
    """As `checked_template` passes it."""
    delimiter: str
    """What stands between context and choice."""
    answer: AnswerRule
    settings: str
    """The name of the file where `answer` can be set, for messages."""

    def __call__(self, row: Row) -> Item:
        """The item of a row."""
        _check_columns(tuple(row.values))
        choices, gold = self._choices(row)
        subject = _optional_text(row, "subject")
        context = _optional_text(row, "context")
        listed = self.lettered or "{choices}" in self.prompt
        if listed:
            if len(choices) > len(ascii_uppercase):
                raise FieldError("choices", f"{len(choices)} of them; there are letters for 26")
            choices, (gold,) = row.ordered(choices, gold)
        lines = zip(ascii_uppercase, choices, strict=False) if listed else ()
        template = _without_empty(self.prompt, bool(context), bool(subject))
        forced = ascii_uppercase[: len(choices)] if self.lettered else choices
        return row.item(
            context=template.format(
                question=row.text("question").strip(),
                context=context,
                subject=subject,
                choices="\n".join([f"{letter}. {choice}" for letter, choice in lines]),
            ),
            choices=forced,
            continuations=[self.delimiter + each for each in forced],
            gold=gold,
            gold_field="answer",
            id=row.optional("id"),
            cluster=row.optional("cluster"),
        )

    def _choices(self, row: Row) -> tuple[Sequence[str], int]:
        """The texts of the choices, no two of them alike, and the position of the right one."""
        choices = row.texts("choices", clean=str.strip)
        if len(choices) < 2:
            raise FieldError("choices", f"{len(choices)} of them; an item needs two at least")
        if len(set(choices)) < len(choices):
            again = next(at for at, each in enumerate(choices) if each in choices[:at])
            first = choices.index(choices[again])
            raise FieldError(f"choices[{again}]", f"is the same as choices[{first}], {short(choices[first])}")
        return choices, answer_position(row, choices, self.answer, self.settings)


def answer_position(row: Row, choices: Sequence[str], rule: AnswerRule, settings: str) -> int:
    """The position of the right choice, from 0.

    A number is an index, from 0. A text is read as an index ("2"), as a letter ("C" or "c") and as the text
    of a choice; where more than one reading fits, they must mean the same choice. A rule other than `auto`
    allows but one reading, of numbers too.

    Raises:
        FieldError: no reading fits, or two mean different choices.
    """
    found = row.value("answer")
    if isinstance(found, float) and found.is_integer():
        found = int(found)  # integers of a column with nulls are often stored as floats
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise FieldError("answer", f"expected an index, a letter or a choice's text, found {short(found)}")
    if isinstance(found, int) and rule == "auto":
        rule = "index"
    said = str(found).strip()
    readings = _readings(said, choices)
    if rule != "auto":
        readings = {name: at for name, at in readings.items() if name == rule}
    if len(set(readings.values())) > 1:
        both = " and ".join(f"the {name} of choices[{at}]" for name, at in readings.items())
        rules = " or ".join(f'answer = "{name}"' for name in readings)
        raise FieldError("answer", f"{short(said)} is {both}; say which is meant with {rules} in {settings}")
    if not readings:
        raise FieldError("answer", f"{short(said)} is {_not_found(rule, len(choices))}")
    return next(iter(readings.values()))


def checked_template(text: str, place: str, known: Sequence[str] = PLACEHOLDERS) -> str:
    """A template as `OwnForm` takes it: placeholders are names in braces and nothing more.

    White space at the end is dropped: the delimiter stands there.

    Raises:
        UsageError: a placeholder is not known, or a brace stands alone; the text begins with `place`.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"{place}: {error}; a brace that is meant is written twice") from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or name not in known):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            hint = did_you_mean(name, known)
            raise UsageError(f"{place}: no placeholder {{{shown}}}. {hint} A brace is written twice.")
    return text.rstrip()


def _readings(said: str, choices: Sequence[str]) -> dict[str, int]:
    """What an answer may mean, by the name of the reading."""
    readings: dict[str, int] = {}
    index = next((at for at in range(len(choices)) if str(at) == said), None)
    if index is not None:
        readings["index"] = index
    letter = ascii_uppercase.find(said.upper()) if len(said) == 1 else -1
    if 0 <= letter < len(choices):
        readings["letter"] = letter
    if said in choices:
        readings["text"] = choices.index(said)
    return readings


def _not_found(rule: AnswerRule, count: int) -> str:
    words = {
        "index": f"no index from 0 to {count - 1}",
        "letter": f"no letter from A to {ascii_uppercase[min(count, 26) - 1]}",
        "text": "the text of no choice",
    }
    return words[rule] if rule != "auto" else ", ".join(words.values())


def _optional_text(row: Row, column: str) -> str:
    """The text of a column that need not be there."""
    return "" if row.values.get(column) is None else row.text(column, empty=True).strip()


@lru_cache(maxsize=64)
def _without_empty(template: str, context: bool, subject: bool) -> str:
    """The template without the lines that would hold nothing but an empty context or subject."""
    empty = {"{context}"} if not context else set()
    empty |= {"{subject}"} if not subject else set()
    return "\n".join(line for line in template.split("\n") if line.strip() not in empty)


@lru_cache(maxsize=64)
def _mistyped(columns: tuple[str, ...]) -> tuple[str, str] | None:
    """A column that is not known and looks like one that is missing, and that one."""
    missing = [each for each in (*NEEDED, *OPTIONAL) if each not in columns]
    for column in columns:
        if column not in NEEDED and column not in OPTIONAL:
            near = get_close_matches(str(column).strip().lower(), missing, n=1, cutoff=0.85)
            if near:
                return column, near[0]
    return None


def _check_columns(columns: tuple[str, ...]) -> None:
    found = _mistyped(columns)
    if found:
        raise FieldError(found[0], f"not a column that is read; call it {found[1]!r} or something else")


def unused_placeholders(template: str, wanted: Collection[str]) -> list[str]:
    """Those of the wanted placeholders that a template lacks."""
    there = {name for _, name, _, _ in Formatter().parse(template)}
    return [each for each in wanted if each not in there]
