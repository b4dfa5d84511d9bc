"""Sample files of lm-evaluation-harness (`--log_samples`) as columns to compare with a run's.

A file has a line an item, with the log-probability of each choice and the prompt's hash. Lengths of choices
and gold are the run's own, so that both sides are scored by the same rules. Layout: as version 0.4.13 writes
it (`loggers/evaluation_tracker.py`), where numbers are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from harness.comparison.columns import Columns, Place, columns_of_scores
from harness.errors import UsageError, did_you_mean
from harness.exchange import TOLERANCE
from harness.scores import ItemRecord, ItemScore

PREFIX = "lm-eval:"
"""What a sample file's name, or that of a folder of such files, begins with where runs are named."""

_NAME = re.compile(r"samples_(?P<task>.+?)(_\d{4}-\d\d-\d\dT[\d.-]+)?\.jsonl")


class Sample(msgspec.Struct):
    """One line: what of it matters here."""

    doc_id: int
    """The item's position in the evaluated split."""
    filtered_resps: list[list[str | float | bool]]
    """For each request its log-probability and whether it is the greedy choice."""
    prompt_hash: str = ""
    """SHA-256 of the first context."""
    arguments: Any = None
    """The texts of each request."""
    filter: str = "none"


_DECODER = msgspec.json.Decoder(Sample)


def read_samples(
    path: Path, records: Mapping[Place, ItemRecord], metrics: Mapping[str, Sequence[str]], *, label: str
) -> Columns:
    """Read a sample file, or all of a folder.

    Args:
        path: `samples_TASK_TIME.jsonl`, or a folder of such files, one a task or subject.
        records: the items of the run that it is compared with.
        metrics: by task, those to judge by.
        label: what it is called in the comparison.

    Raises:
        UsageError: no such file, not such a file, or a task that the run does not have.
    """
    subjects = {(place.task, place.subject, place.shots) for place in records}
    scores: dict[Place, ItemScore] = {}
    for file in _files(path):
        task, subject, shots = _part(file, subjects)
        for line, sample in _lines(file):
            place = Place(task, shots, subject, sample.doc_id)
            if place in scores:
                continue  # another filter of the same item: log-probabilities are the same
            scores[place] = _score(sample, place, records.get(place), f"{file} line {line}")
    return columns_of_scores(label, list(scores.values()), metrics)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UsageError(f"{PREFIX}{path}: no such file or folder")
    files = sorted(path.glob("**/samples_*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{PREFIX}{path}: holds no samples_*.jsonl (lm-eval writes them with --log_samples)")
    first: dict[str, Path] = {}
    for file in files:
        found = _NAME.fullmatch(file.name)
        if not found:
            raise UsageError(f"{PREFIX}{file}: its name tells its task; call it samples_TASK.jsonl")
        earlier = first.setdefault(found["task"], file)
        if earlier is not file:
            raise UsageError(f"{PREFIX}{path}: has {found['task']} twice, in {earlier} and {file}; name one")
    return files


def _part(file: Path, known: set[tuple[str, str, int]]) -> tuple[str, str, int]:
    """Task, subject and shots of a file: its name is the task's, with the subject behind an underscore."""
    found = _NAME.fullmatch(file.name)
    name = found["task"] if found else ""
    for task, subject, shots in known:
        if name == (f"{task}_{subject}" if subject else task):
            return task, subject, shots
    names = sorted(f"{task}_{subject}" if subject else task for task, subject, _ in known)
    raise UsageError(f"{PREFIX}{file}: the run has no task {name!r}. {did_you_mean(name, names)}")


def _lines(file: Path) -> Iterator[tuple[int, Sample]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _DECODER.decode(line)
    except OSError as error:
        raise UsageError(f"{PREFIX}{file}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{PREFIX}{file} line {number}: is no sample of a multiple-choice task ({error})"
        ) from error


def _score(sample: Sample, place: Place, record: ItemRecord | None, where: str) -> ItemScore:
    """What a line says of an item; where the run has no such item it stays as a mismatch to be told."""
    prompt = sample.prompt_hash or _hash_of_first(sample.arguments)
    if not prompt:
        raise UsageError(f"{PREFIX}{where}: has neither prompt_hash nor arguments: prompts cannot be checked")
    sums = tuple(_number(each, where) for each in sample.filtered_resps)
    if record is None:
        record = ItemRecord(
            ordinal=0,
            task=place.task,
            subject=place.subject,
            shots=place.shots,
            index=place.index,
            id="",
            gold=(),
            cluster="",
            n_chars=(),
            n_bytes=(),
        )
        return ItemScore(replace(record, prompt_hash=prompt), (), "not in the run")
    choices = len(record.n_tokens)
    if choices and len(sums) == 2 * choices:
        sums = sums[:choices]  # acc_mutual_info asks for each choice again, without a context
    told = replace(
        record, prompt_hash=prompt, n_tokens=record.n_tokens if len(sums) == choices else (0,) * len(sums)
    )
    return ItemScore(told, sums if len(sums) == choices else ())


def _number(reply: Sequence[str | float | bool], where: str) -> float:
    """The log-probability of one request: a finite number, in words or not."""
    try:
        value = float(reply[0])
    except (IndexError, ValueError) as error:
        raise UsageError(f"{PREFIX}{where}: {reply!r} is no log-probability") from error
    if not value <= TOLERANCE or math.isinf(value):
        raise UsageError(f"{PREFIX}{where}: log-probability {value} is not possible")
    return value


def _hash_of_first(arguments: Any) -> str:
    """The hash of the first context out of the texts of all requests, or nothing."""
    first: Any = arguments
    for key in ("gen_args_0", "arg_0"):
        first = first.get(key) if isinstance(first, dict) else None
    return sha256(first.encode()).hexdigest() if isinstance(first, str) else ""
