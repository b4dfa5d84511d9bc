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
from harness.items import BadItem
from harness.plan import listed
from harness.scoring.metrics import acc
from harness.scoring.scores import ItemRecord, ItemScore

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
    acc: float | None = None
    """Whether the likeliest choice is right, as the file's writer saw it."""


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
    known = {(place.task, place.subject, place.shots) for place in records}
    scores: dict[Place, ItemScore] = {}
    for file in _files(path):
        task, subject, shots = _part(file, known)
        for line, sample in _lines(file):
            place, where = Place(task, shots, subject, sample.doc_id), f"{PREFIX}{file} line {line}"
            score = _score(sample, place, records.get(place), where)
            # Several filters of one evaluation log each item several times, with the same numbers.
            if scores.setdefault(place, score) != score:
                raise UsageError(f"{where}: item {sample.doc_id} stands here with other numbers than before")
    return columns_of_scores(label, list(scores.values()), metrics)


def _files(path: Path) -> list[Path]:
    if path == Path():
        raise UsageError(f"{PREFIX} a file or folder must follow, such as {PREFIX}samples_hellaswag.jsonl")
    try:
        there = path.exists()
    except OSError as error:  # a name that no file can have
        raise UsageError(f"{PREFIX}{path}: {error.strerror or error}") from error
    if not there:
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{PREFIX}{file} line {number}: is no sample of a multiple-choice task ({error})"
        ) from error


def _score(sample: Sample, place: Place, record: ItemRecord | None, where: str) -> ItemScore:
    """What a line says of an item. What cannot be the run's item is made to differ from it where it does."""
    contexts = _context_hashes(sample.arguments)
    prompt = sample.prompt_hash or next(iter(contexts), "")
    if not prompt:
        raise UsageError(f"{where}: has neither prompt_hash nor arguments: prompts cannot be checked")
    sums = tuple(_number(each, where) for each in sample.filtered_resps)
    if record is None:
        unknown = BadItem(place.task, place.subject, place.index, "not in the run")
        return ItemScore(replace(listed(unknown, 0, place.shots), prompt_hash=prompt), ())
    choices = len(record.n_bytes)
    if choices and len(sums) == 2 * choices:
        sums = sums[:choices]  # acc_mutual_info asks for each choice again, without a context
    if len(sums) != choices:
        return ItemScore(replace(record, prompt_hash=prompt, n_bytes=(0,) * len(sums)), ())
    pairs = zip(contexts, record.context_sha256, strict=False)
    differing = [theirs for theirs, ours in pairs if theirs != ours]
    greedy = tuple(map(_greedy, sample.filtered_resps[: len(sums)]))
    score = ItemScore(replace(record, prompt_hash=differing[0] if differing else prompt), sums, greedy=greedy)
    if choices > 1 and sample.acc in (0, 1) and acc(score).correct != bool(sample.acc):
        score = replace(score, record=replace(score.record, gold=()))  # right is something else there
    return score


def _number(reply: Sequence[str | float | bool], where: str) -> float:
    """The log-probability of one request: a finite number, in words or not."""
    try:
        value = float(reply[0])
    except (IndexError, ValueError) as error:
        raise UsageError(f"{where}: {reply!r} is no log-probability") from error
    if not value <= TOLERANCE or math.isinf(value):
        raise UsageError(f"{where}: log-probability {value} is not possible")
    return value


def _greedy(reply: Sequence[str | float | bool]) -> bool | None:
    """Whether a request is the greedy continuation, in words or not; None where the line does not say."""
    return {"True": True, "False": False}.get(str(reply[1])) if len(reply) > 1 else None


def _context_hashes(arguments: Any) -> list[str]:
    """The hash of each request's context, as far as the texts were logged."""
    found: list[str] = []
    while isinstance(arguments, dict):
        request = arguments.get(f"gen_args_{len(found)}")
        context = request.get("arg_0") if isinstance(request, dict) else None
        if not isinstance(context, str):
            break
        found.append(sha256(context.encode()).hexdigest())
    return found
