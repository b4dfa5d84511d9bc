"""What a benchmark declares: one frozen `Task`, made by one file in `tasks/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.items import Item, Row


@dataclass(frozen=True, slots=True)
class Split:
    """What is known of a split as its authors published it, to recognise an altered copy."""

    rows: int
    sha256: str | None = None
    """Content hash as `survey.ContentHash` makes it, or None where no genuine copy was at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Where rows come from: the hub, or a folder of `--data-dir`."""

    hub: str | None
    """Repository on the hub, such as "cais/mmlu"; None where the rows ship with the program."""
    folder: str
    """Folder below `--data-dir`: `<folder>/<split>.parquet`, `.jsonl` or `.csv`. Rows that ship with the
    program stand in such a folder of `tasks/data`, and are read from there unless `--data-dir` has one."""
    columns: tuple[str, ...]
    """The columns that items are made of; the content hash covers these."""
    config: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    """Where the rows are in files of their own: the file of each split, read whatever `--data-dir` says."""
    splits: Mapping[str, Split] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shots:
    """How solved examples are chosen (lm-evaluation-harness 0.4.13, `api/samplers.py`)."""

    split: str
    """The split they come from; within the item's subject."""
    draw: Literal["first_n", "random", "listed"]
    """The first n in file order; or n at random, one generator consumed item after item; or the first n of
    `ids`, for all items."""
    ids: tuple[str, ...] = ()
    """For `draw="listed"`: the ids of the items that somebody chose, in his order."""
    without_own: bool = False
    """Draw one more and drop the item itself. The reference also does so for tasks that name neither a
    shots split nor a test split (HellaSwag), where the item cannot be among them: kept, as it changes
    which shots are drawn."""
    never_own: bool = False
    """Draw no more than are asked for; where the item itself is among them, others take its place. For rows
    of which nobody knows whether some are questions and shots at once."""
    default: int = 0
    fixed: bool = False
    """The default is final, as the task's own prompt has its examples: `--shots` changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One benchmark: its data, its prompt, its metrics. `item` is the only code it needs."""

    name: str
    version: str
    """Of prompt and scoring; a change of either changes it."""
    dataset: Dataset
    split: str
    """The split that is evaluated."""
    item: Callable[[Row], Item]
    """One row to one item; raises `FieldError`."""
    metrics: tuple[str, ...]
    """Names from `harness.scoring.metrics`; the first is the task's own headline."""
    shots: Shots
    example: Mapping[str, Any]
    """One real-looking row; a test converts it."""
    subject_field: str | None = None
    """The column that names an item's subject."""
    description: Callable[[str], str] = lambda subject: ""
    """The text before the shots, for a subject, with the white space that follows it."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Named unions of subjects, reported as rows of their own, pooled over items."""
    shot_delimiter: str = "\n\n"
    delimiter: str = " "
    """What a continuation begins with that is no part of the choice: the reference's `target_delimiter`. A
    chat template has its own place for the answer, and there it is left out."""
    chance: float | None = None
    """The mean share of right choices over the evaluated split, where items differ in their number of
    choices; None: that of the example, which is that of all items."""
