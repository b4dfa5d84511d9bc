"""Runs that tests of reports make up: a folder as `run` leaves it, without a run, of any number of items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from harness.files import ParquetFile
from harness.scoring.scores import ItemRecord, ItemScore
from harness.tables import TaskTable, write_results
from harness.texts import TEXT_TYPES

LABELS = ("base", "tuned")
SUBJECTS = ("anatomy", "virology", "world_religions")
TOKENIZER = "a" * 64
CHOICES = 4


def record_of(number: int, *, subjects: Sequence[str] = SUBJECTS) -> ItemRecord:
    """An item: every third of `plain`, which has no subjects, the others of `sorted`."""
    plain = number % 3 == 0
    return ItemRecord(
        ordinal=number,
        task="plain" if plain else "sorted",
        subject="" if plain else subjects[number % len(subjects)],
        shots=0 if plain else 2,
        index=number,
        id=f"id-{number}",
        gold=(number % CHOICES,),
        cluster="",
        n_chars=(8,) * CHOICES,
        n_bytes=(8,) * CHOICES,
        n_words=(2,) * CHOICES,
        prompt_hash=sha256(str(number).encode()).hexdigest(),
        context_sha256=(sha256(str(number).encode()).hexdigest(),) * CHOICES,
        n_tokens=(2,) * CHOICES,
        mode="forced",
    )


def scores_of(items: int, position: int, **changes: Any) -> Iterator[ItemScore]:
    """What an endpoint makes of them: the second is a little better; every 50th item is unscored."""
    shared, own = np.random.default_rng(0), np.random.default_rng(position + 1)
    for number in range(items):
        sums = -np.abs(shared.normal(9, 2, CHOICES) + own.normal(0, 0.6, CHOICES)) - 0.1
        sums[number % CHOICES] += 1.5 + 0.4 * position
        record = record_of(number, **changes)
        if number % 50 == 49 and position:
            yield ItemScore(record, (), "timeout (the endpoint took too long)")
        else:
            yield ItemScore(record, tuple(np.minimum(-0.01, sums).round(6).tolist()), "")


def made_run(
    folder: Path,
    items: int,
    *,
    labels: Sequence[str] = LABELS,
    subjects: Sequence[str] = SUBJECTS,
    question: str = "What is the number of item {number}?",
    words: int = 30,
    texts: bool = True,
    **changes: Any,
) -> Path:
    """Write a run's folder: `run.json`, tables, texts; it has no journal.

    Args:
        folder: where.
        items: how many.
        labels: of the endpoints.
        subjects: of the items.
        question: the last paragraph of each context, with {number}.
        words: before it.
        texts: whether they are stored.
        changes: other keys of `run.json`.
    """
    folder.mkdir(parents=True)
    tasks = [TaskTable("plain", 0, ("acc", "ece", "margin")), TaskTable("sorted", 2, ("acc_norm", "acc"))]
    scores = {label: scores_of(items, at, subjects=subjects) for at, label in enumerate(labels)}
    write_results(folder, scores, tasks)
    if texts:
        file = ParquetFile(folder / "texts.parquet", TEXT_TYPES, 512)
        for number in range(items):
            record = record_of(number, subjects=subjects)
            shots = " ".join(f"word{number % 97 + each}" for each in range(words))
            context = f"{shots}\n\n{question.format(number=number)}\nAnswer:"
            choices = [f"choice {each} of {number}" for each in range(CHOICES)]
            place = (record.task, record.subject, record.index)
            file.add(
                [*place, [context] * CHOICES, choices, [[1, 2]] * CHOICES, [[7, 8]] * CHOICES, TOKENIZER]
            )
        file.close()
    (folder / "run.json").write_text(json.dumps({**manifest(tasks, labels), **changes}))
    return folder


def manifest(tasks: Sequence[TaskTable], labels: Sequence[str]) -> dict[str, Any]:
    """What `run.json` says."""
    return {
        "program": "forced-choice 0.1.0",
        "status": "complete",
        "settings": {"tasks": "plain,sorted", "seed": 0, "limit": None},
        "suite": "0123abcd",
        "tasks": {
            task.name: {"metrics": task.metrics, "shots": task.shots, "hash": "0" * 16, "version": "1"}
            for task in tasks
        },
        "endpoints": [
            {
                "label": label,
                "identity": label,
                "replicate": 0,
                "dialect": "friendli",
                "base_url": "http://127.0.0.1:1/v1",
                "model": label,
                "tokenizer_sha256": TOKENIZER,
            }
            for label in labels
        ],
        "counts": {label: {"requests_sent": 5, "retries": {"429": 2}} for label in labels},
        "remarks": ["each context begins with token 0 (--bos auto)"],
        "timings": {"begun": "2026-11-27T12:00:00Z", "sending_s": 75.0, "whole_s": 80.0},
        "versions": {"python": "3.11.7"},
        "identity": {"tasks": {task.name: "1" for task in tasks}},
    }
