"""How long `compare` takes, and how much memory, on a run of many items and four endpoints.

    python -m tests.bench.comparing [--items 60000]

Two thirds of the items are like HellaSwag's (four choices of some thirty tokens, three items a source), one
third like MMLU's (57 subjects, single tokens). The run is made up, but written by the program's own journal
and tables; `compare` then runs as a process of its own, on files that the system has just written.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from harness.choosing.registry import load_task
from harness.exchange import Outcome, Reply, ScoreRequest
from harness.files import ParquetFile
from harness.journal import Journal
from harness.scoring.scores import ItemRecord
from harness.tables import TaskTable, write_results
from harness.texts import TEXT_TYPES

ENDPOINTS = ("base", "again", "tuned", "other")
SECONDS, MEBIBYTES = 20.0, 1000.0
"""What `compare` may take."""


def identity(label: str) -> dict[str, str | int]:
    """What tells endpoints apart: "again" is "base" asked once more."""
    return {"identity": "base", "replicate": 1} if label == "again" else {"identity": label, "replicate": 0}


def records(items: int) -> Iterator[ItemRecord]:
    """The items, not yet with keys: those of HellaSwag first."""
    generator = np.random.default_rng(0)
    subjects = [subject for group in load_task("mmlu").groups.values() for subject in group]
    first = items * 2 // 3
    for i in range(items):
        scene = i < first
        tokens = tuple(generator.integers(5, 50, 4).tolist()) if scene else (1, 1, 1, 1)
        prompt = sha256(str(i).encode()).hexdigest()
        yield ItemRecord(
            ordinal=i,
            task="hellaswag" if scene else "mmlu",
            subject="" if scene else subjects[(i - first) * len(subjects) // (items - first)],
            shots=0,
            index=i,
            id=str(i),
            gold=(i % 4,),
            cluster=f"source {i // 3}" if scene else "",
            n_chars=tuple(4 * each for each in tokens),
            n_bytes=tuple(4 * each for each in tokens),
            prompt_hash=prompt,
            context_sha256=(prompt,) * 4,
            n_tokens=tokens,
        )


def write_journal(path: Path, label: str, items: int) -> None:
    """An endpoint's journal: base log-probabilities that depend on the item, and some of its own."""
    own = np.random.default_rng(ENDPOINTS.index(label))
    width = {"base": 0.0, "again": 0.0}.get(label, 0.3)
    journal = Journal(path, meta={name: str(value) for name, value in identity(label).items()})
    planned = []
    for record in records(items):
        keys = tuple(os.urandom(16) for _ in range(4))
        shared = np.random.default_rng(record.ordinal)
        for key, count in zip(keys, record.n_tokens, strict=True):
            values = np.minimum(-0.001, shared.normal(-3, 2, count) + own.normal(0, width, count))
            ids = list(range(count))
            journal.put(Outcome(ScoreRequest(key, [1], ids), Reply(ids, values.tolist()), None, 0.1, 1))
        fields = {name: getattr(record, name) for name in record.__slots__}
        planned.append(ItemRecord(**{**fields, "keys": keys}))
    journal.plan(planned)
    journal.close()


def write_texts(path: Path, items: int) -> None:
    """What is asked: scenes of some hundred characters, questions of some thousands with their shots."""
    file = ParquetFile(path, TEXT_TYPES, 128)
    for record in records(items):
        words = f"{record.index} " * (60 if record.task == "hellaswag" else 600)
        choices = [f"choice {i} of {record.index}" for i in range(4)]
        ids = [list(range(each)) for each in record.n_tokens]
        place = (record.task, record.subject, record.index)
        file.add([*place, [words] * 4, choices, [[1, 2, 3]] * 4, ids, "tokenizer"])
    file.close()


def write_run(folder: Path, items: int) -> None:
    """A whole run, as `run` leaves it."""
    (folder / "journal").mkdir(parents=True)
    tables = [
        TaskTable(name=task.name, shots=0, metrics=task.metrics, groups=task.groups)
        for task in (load_task("hellaswag"), load_task("mmlu"))
    ]
    journals = {}
    for label in ENDPOINTS:
        path = folder / f"journal/{label}.sqlite"
        write_journal(path, label, items)
        journals[label] = Journal(path, meta={name: str(value) for name, value in identity(label).items()})
    write_results(folder, {label: journal.scores() for label, journal in journals.items()}, tables)
    for journal in journals.values():
        journal.close()
    write_texts(folder / "texts.parquet", items)
    manifest = {
        "status": "complete",
        "remarks": [],
        "identity": {"tasks": {}},
        "tasks": {
            each.name: {"metrics": each.metrics, "groups": {k: list(v) for k, v in each.groups.items()}}
            for each in tables
        },
        "endpoints": [{"label": label, **identity(label)} for label in ENDPOINTS],
    }
    (folder / "run.json").write_text(json.dumps(manifest))


def main() -> int:
    """Make the run, compare, and say what it took; 1 where it took more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=60_000)
    items: int = parser.parse_args().items
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        print(f"writing {items:,} items on {len(ENDPOINTS)} endpoints ...", flush=True)
        write_run(folder, items)
        begun = time.perf_counter()
        command = [sys.executable, "-m", "harness", "compare", str(folder)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - begun
        lines = (folder / "comparison.csv").read_text().count("\n")
    mebibytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"compare: exit {done.returncode}, {seconds:.1f} s, {mebibytes:.0f} MiB, {lines:,} rows")
    return int(bool(done.returncode) or seconds > SECONDS or mebibytes > MEBIBYTES)


if __name__ == "__main__":
    sys.exit(main())
