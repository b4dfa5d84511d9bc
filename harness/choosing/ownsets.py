"""Sets of one's own, without code: a file of questions, its shots, and a TOML that says how they are asked.

    questions.jsonl         question, choices, answer; or .csv, .parquet
    questions.shots.jsonl   solved questions, in the same columns; if there are any
    questions.toml          prompt, description, delimiter, metrics, shots, ...; if they are to differ

The version of such a task holds a hash of all three, so that a changed file is another suite.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.choosing.checking import METRIC_NAMES
from harness.choosing.ownitems import NEEDED, AnswerRule, OwnForm, checked_template, unused_placeholders
from harness.choosing.tasklists import cut_at_comma
from harness.data.rowfiles import READERS
from harness.errors import FieldError, UsageError, did_you_mean
from harness.items import Row
from harness.scoring.metrics import METRICS
from harness.strict import read_toml, strict
from harness.task import Dataset, Shots, Task

PREFIX = "file:"
RULES = "own-1"
"""Of prompts and answers, as `harness.choosing.ownitems` has them; whoever changes those changes this."""


@dataclass(frozen=True, slots=True)
class _Form:
    prompt: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Description:
    """The text before shots and question, and the delimiter where no white space ends it."""

    text: str
    shot_delimiter: str

    def __call__(self, subject: str) -> str:
        said = self.text.format(subject=subject)
        return said if not said or said[-1].isspace() else said + self.shot_delimiter


FORMS: Mapping[str, _Form] = {
    "mc": _Form("{context}\n{question}\n{choices}\nAnswer:", ("acc",)),
    "cloze": _Form("{context}\nQuestion: {question}\nAnswer:", ("acc", "acc_norm")),
}
"""The forms of asking, the first by default: letters as MMLU has them, or the texts of the choices."""


class _Settings(msgspec.Struct):
    """Keys that either form may have of its own, in a table `[mc]` or `[cloze]`."""

    prompt: str | None = None
    description: str | None = None
    delimiter: str | None = None
    metrics: list[str] | None = None
    shots: int | None = None


class _File(_Settings):
    """The keys of `questions.toml`."""

    name: str | None = None
    shot_delimiter: str = "\n\n"
    draw: Literal["first_n", "random"] = "first_n"
    shots_file: str | None = None
    answer: AnswerRule = "auto"
    mc: dict[str, Any] = {}
    cloze: dict[str, Any] = {}


def load_own_set(given: str) -> Task:
    """The task of `file:PATH`, `file:PATH:mc` or `file:PATH:cloze`.

    Raises:
        UsageError: there is no such file or form, the file holds nothing or cannot be read, or the TOML
            beside it says what no set has.
    """
    place = f"--tasks {given}"
    path, form = _path_and_form(given.removeprefix(PREFIX), place)
    settings_file = path.with_suffix(".toml")
    file, own = _read_settings(settings_file, form, f"{place}: {settings_file.name}")
    shots = _shots_file(path, file.shots_file, place)
    name = re.sub(r"[^\w.-]+", "_", file.name or path.stem).strip("._-") or "questions"
    item = _item_form(form, file, own, settings_file.name)
    return Task(
        name=name if form == "mc" else f"{name}:{form}",
        version=f"{RULES}-{_digest(path, shots, settings_file)}",
        dataset=Dataset(hub=None, folder=name, columns=NEEDED, files={"questions": path, "shots": shots}),
        split="questions",
        item=item,
        metrics=FORMS[form].metrics if own.metrics is None else tuple(dict.fromkeys(own.metrics)),
        shots=Shots(split="shots", draw=file.draw, default=own.shots or 0, never_own=True),
        example=_example(path, item, place),
        subject_field="subject",
        description=_Description(own.description or "", file.shot_delimiter),
        shot_delimiter=file.shot_delimiter,
        delimiter=item.delimiter,
    )


def _item_form(form: str, file: _File, own: _Settings, settings: str) -> OwnForm:
    """How rows are asked; `settings` is the name of the TOML."""
    return OwnForm(
        lettered=form == "mc",
        prompt=FORMS[form].prompt if own.prompt is None else own.prompt,
        delimiter=" " if own.delimiter is None else own.delimiter,
        answer=file.answer,
        settings=settings,
    )


def _path_and_form(given: str, place: str) -> tuple[Path, str]:
    """The file that exists, and the form that is asked for."""
    path, form = Path(given).expanduser(), "mc"
    if not path.exists():
        before, colon, after = given.rpartition(":")
        shorter = Path(before).expanduser()
        if colon and after not in FORMS and shorter.is_file():
            raise UsageError(f"{place}: no form {after!r}. {did_you_mean(after, list(FORMS))}")
        if colon and after in FORMS:
            path, form = shorter, after
    if not path.is_file():
        raise UsageError(
            f"{place}: {path} is {'no file' if path.exists() else 'not there'}{cut_at_comma(path)}"
        )
    if path.suffix not in READERS:
        raise UsageError(f"{place}: {path.name} ends in none of {', '.join(READERS)}")
    return path, form


def _read_settings(path: Path, form: str, place: str) -> tuple[_File, _Settings]:
    """What the TOML says, if there is one: to all forms, and to this one."""
    found = read_toml(path, place) if path.exists() else {}
    file = strict(found, _File, place)
    tables = {name: strict(getattr(file, name), _Settings, f"{place}: [{name}]") for name in FORMS}
    merged = {**msgspec.structs.asdict(tables[form])}
    for key, value in merged.items():
        merged[key] = getattr(file, key) if value is None else value
    own = _Settings(**merged)
    if own.prompt is not None:
        own.prompt = checked_template(own.prompt, f"{place}: prompt")
        wanted = ("question", "choices") if form == "mc" else ("question",)
        for each in unused_placeholders(own.prompt, wanted):
            raise UsageError(f"{place}: prompt: {{{each}}} is missing, without which {form} cannot be asked")
    if own.description is not None:
        checked_template(own.description, f"{place}: description", ["subject"])
    if own.shots is not None and own.shots < 0:
        raise UsageError(f"{place}: shots {own.shots}: must be 0 or more")
    if own.metrics is not None and not own.metrics:
        raise UsageError(f"{place}: metrics: none given")
    for metric in own.metrics or ():
        if metric not in METRICS:
            raise UsageError(f"{place}: metrics: no metric {metric!r}. {did_you_mean(metric, METRIC_NAMES)}")
    return file, own


def _shots_file(path: Path, named: str | None, place: str) -> Path:
    """The file of solved questions: the one that is named, or the one that stands beside, if any does."""
    if named is not None:
        found = path.parent / Path(named).expanduser()
        if not found.is_file():
            raise UsageError(f"{place}: {path.stem}.toml: shots_file {named}: no such file")
        if found.suffix not in READERS:
            raise UsageError(f"{place}: shots_file {named} ends in none of {', '.join(READERS)}")
        return found
    beside = [path.with_suffix(f".shots{suffix}") for suffix in READERS]
    there = [each for each in beside if each.is_file()]
    if len(there) > 1:
        names = " and ".join(each.name for each in there)
        raise UsageError(f"{place}: {names} are there; keep one, or name it: shots_file in {path.stem}.toml")
    return there[0] if there else path.with_suffix(f".shots{path.suffix}")


def _digest(*paths: Path) -> str:
    """A hash of the bytes of those files that are there, each in its role."""
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UsageError(f"--tasks {PREFIX}{path}: cannot be read: {error.strerror}") from error
        whole.update(b"|")
    return whole.hexdigest()[:16]


def _example(path: Path, item: OwnForm, place: str) -> Mapping[str, Any]:
    """The first row that is an item; the first of all where none of the first many is one."""
    found: list[Mapping[str, Any]] = []
    for record in islice(READERS[path.suffix](path, path.name).records(), 100):
        found.append(record.values)
        with suppress(FieldError):
            item(Row(record.values, path.name))
            return record.values
    if not found:
        raise UsageError(f"{place}: no rows in {path.name}")
    return found[0]
