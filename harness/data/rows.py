"""Rows of a split, from a folder of files or from the hub, with places, subjects and indices.

The source of a split can be read as often as needed: once to check it, once to run it. This module does
not know what an item is; pyarrow and datasets are imported where they are first needed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from harness.choosing.registry import shipped_rows
from harness.data.hub import offline_if_unreachable, why_not
from harness.data.rowfiles import BATCH_ROWS, READERS, Record, Records, row_place
from harness.errors import UsageError, did_you_mean
from harness.items import Row
from harness.task import Task

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What stands between the cells of files that are not quite CSV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource:
    """The rows of one split, in file order; each iteration reads them anew."""

    task: str
    subject_field: str | None
    name: str
    """What messages call it: "mmlu/test.parquet", "cais/mmlu (all) test"."""
    source: str
    """The path of the file, or the name on the hub."""
    revision: str
    """"sha256:" and the hash of the file, or the commit that the hub resolved; empty where unknown."""
    records: Records

    def __iter__(self) -> Iterator[Row]:
        """The rows; raises `UsageError` where the source turns out to be unreadable.

        Subjects stand in all rows or in none, as the first row has it: a row that differs is broken.
        """
        seen: Counter[str] = Counter()
        first: tuple[str, str] | None = None
        for record in self.records():
            subject, broken = self._subject(record) if not record.broken else ("", record.broken)
            if not broken:
                first = first or (record.place, subject)
                broken = self._unlike(subject, *first)
            if broken:
                subject = ""
            place = f"{self.name} {record.place}"
            yield Row(record.values, place, self.task, subject, seen[subject], broken=broken)
            seen[subject] += 1

    def _subject(self, record: Record) -> tuple[str, str]:
        """The subject, empty where there is none; and what is wrong with it, if anything is."""
        found = record.values.get(self.subject_field) if self.subject_field else None
        if found is not None and not isinstance(found, str):
            return "", f"field {self.subject_field!r}: expected text, found {short(found)}"
        return found if found and found.strip() else "", ""

    def _unlike(self, subject: str, first_place: str, first_subject: str) -> str:
        """What is wrong with a subject beside the first row's; empty where both are there, or neither."""
        if bool(subject) == bool(first_subject):
            return ""
        if first_subject:
            return f"field {self.subject_field!r}: missing or empty; {first_place} has one: all or none"
        return f"field {self.subject_field!r}: is there, and {first_place} has none: all or none"


def open_rows(task: Task, split: str, data_dir: Path | None) -> RowSource:
    """The rows of a split: from `data_dir`, or from the hub where that is None.

    Looked for, in this order: `<data_dir>/<folder>/<split>.parquet`, `.jsonl`, `.csv`. Rows that ship with
    the program are taken from there where `data_dir` is None or has no such folder. A data set with files of
    its own is read from these.

    Raises:
        UsageError: nothing is there, it cannot be read, or a column is missing from all of it.
    """
    dataset = task.dataset
    if dataset.files:
        return _open_own(task, split)
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir}: no such folder")
    if dataset.hub is not None:
        return _open_hub(task, split, dataset.hub) if data_dir is None else _open_file(task, split, data_dir)
    if data_dir is not None and (data_dir / dataset.folder).is_dir():
        return _open_file(task, split, data_dir)
    if not (shipped_rows() / dataset.folder).is_dir():
        first, *others = (f"{dataset.folder}/{split}{suffix}" for suffix in READERS)
        raise UsageError(
            f"--tasks {task.name}: its rows neither ship with the program nor are on the hub; pass --data-dir"
            f" DIR, with DIR/{first} (or {', '.join(others)})"
        )
    return _open_file(task, split, shipped_rows())


def _open_file(task: Task, split: str, data_dir: Path) -> RowSource:
    dataset = task.dataset
    folder = data_dir / dataset.folder
    try:
        there = [suffix for suffix in READERS if (folder / f"{split}{suffix}").is_file()]
        if not there:
            raise UsageError(_nothing_there(dataset.folder, split, data_dir))
        path = folder / f"{split}{there[0]}"
        return _opened(task, path, f"{dataset.folder}/{path.name}")
    except OSError as error:
        raise UsageError(f"--data-dir: {error.filename} cannot be read: {error.strerror}") from error


def _open_own(task: Task, split: str) -> RowSource:
    """The rows of a file that the data set names."""
    path = task.dataset.files.get(split)
    if path is None or not path.is_file():
        where = f", which would stand in {path}" if path else ""
        raise UsageError(f"--tasks {task.name}: there are no {split}{where}")
    if path.suffix not in READERS:
        raise UsageError(f"--tasks {task.name}: {path} ends in none of {', '.join(READERS)}")
    try:
        return _opened(task, path, path.name)
    except OSError as error:
        raise UsageError(f"--tasks {task.name}: {path} cannot be read: {error.strerror}") from error


def _opened(task: Task, path: Path, name: str) -> RowSource:
    opened = READERS[path.suffix](path, name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if opened.columns is not None:
        _require(task.dataset.columns, opened.columns, name)
    return RowSource(
        task=task.name,
        subject_field=task.subject_field,
        name=name,
        source=str(path),
        revision=f"sha256:{digest}",
        records=opened.records,
    )


def _nothing_there(folder: str, split: str, data_dir: Path) -> str:
    """What was looked for below `data_dir`, and what is there instead."""
    tried = ", ".join(f"{folder}/{split}{suffix}" for suffix in READERS)
    inside = data_dir / folder
    if inside.is_dir():
        there = ", ".join(sorted(each.name for each in inside.iterdir())) or "nothing"
        return f"--data-dir {data_dir}: none of {tried}; {folder} holds {there}"
    folders = sorted(each.name for each in data_dir.iterdir() if each.is_dir())
    hint = did_you_mean(folder, folders) if folders else "It holds no folders."
    return f"--data-dir {data_dir}: none of {tried}. {hint}"


def _open_hub(task: Task, split: str, hub: str) -> RowSource:
    dataset = task.dataset
    name = hub + (f" ({dataset.config})" if dataset.config else "")
    try:
        revision, table = _load(hub, dataset.config, split)
    except Exception as error:  # datasets, huggingface_hub and httpx raise dozens of kinds here
        said = why_not(error, "pass --data-dir to read a local copy")
        raise UsageError(
            f"--tasks {task.name}: {name}, split {split}, cannot be loaded from the hub: {said}"
        ) from error
    _require(dataset.columns, table.column_names, f"{name} {split}")

    def records() -> Iterator[Record]:
        number = 0
        for batch in table.with_format("arrow").iter(batch_size=BATCH_ROWS):
            for values in batch.to_pylist():
                yield Record(row_place(number), values)
                number += 1

    return RowSource(
        task=task.name,
        subject_field=task.subject_field,
        name=f"{name} {split}",
        source=name,
        revision=revision,
        records=records,
    )


def _load(hub: str, config: str | None, split: str) -> tuple[str, Any]:
    """The commit and the memory-mapped table of a split, downloaded where the cache lacks it.

    What `datasets.load_dataset` does, in its three steps, as only the builder tells the commit: its `hash`
    is the commit for anything that came from the hub, now or earlier into the cache. A data set that is a
    program is refused by the library, which runs no code from the hub.
    """
    import datasets

    with offline_if_unreachable(datasets.config):
        builder = datasets.load_dataset_builder(hub, config)
        builder.download_and_prepare()
    commit = builder.hash or ""
    return commit if re.fullmatch("[0-9a-f]{40}", commit) else "", builder.as_dataset(split=split)


def _require(needed: Sequence[str], found: Sequence[str], name: str) -> None:
    """Raise `UsageError`, once for the whole source, where a column is missing or there twice."""
    shown = ", ".join(map(repr, found)) or "no columns"
    missing = [column for column in needed if column not in found]
    if separator := _other_separator(needed, found):
        raise UsageError(f"{name}: its cells are separated by {separator}; save it with commas")
    if missing:
        raise UsageError(f"{name}: no column {' and no '.join(map(repr, missing))}; it has {shown}")
    if len(set(found)) < len(found):
        raise UsageError(f"{name}: a column is there twice; it has {shown}")


def _other_separator(needed: Sequence[str], found: Sequence[str]) -> str:
    """What separates cells where the only column is called as several together; empty elsewhere."""
    if len(found) != 1:
        return ""
    seen = (words for each, words in SEPARATORS.items() if set(needed) & set(found[0].split(each)[1:]))
    return next(seen, "")
