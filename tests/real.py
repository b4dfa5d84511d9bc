"""The main job on real input: `make real`, or `make real FULL=1` for every item of every task.

Serves the real tiny Llama of the shared material and runs, as a person would, every task whose rows are
there: first the items that the reference scored too, held against its scores; then each task whole, of the
long ones every k-th row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, str(ROOT / "run_eval.py")]
PLAIN = (
    *("arc_challenge", "arc_easy", "boolq", "commonsense_qa", "copa", "hellaswag", "lambada_openai"),
    *("openbookqa", "piqa", "social_iqa", "truthfulqa_mc1", "truthfulqa_mc2", "winogrande"),
)
"""Tasks of which the reference scored the first 25 items."""
TASKS = (*PLAIN, "mmlu", "leaderboard_mmlu_pro")
FOLDERS = {
    "truthfulqa_mc1": "truthful_qa",
    "truthfulqa_mc2": "truthful_qa",
    "leaderboard_mmlu_pro": "mmlu_pro",
}
ON_VALIDATION = (
    *("boolq", "commonsense_qa", "copa", "hellaswag", "piqa", "social_iqa", "truthful_qa", "winogrande"),
)
"""Folders whose validation split is evaluated."""
LONG = 1_000
"""Rows above which a task counts as long."""
MAX_LENGTH = 512
"""Tokens that the model takes."""
TOO_LONG = "a choice alone is longer than --max-length"
"""PIQA has some; a context can be cut, a choice cannot."""
TOLERANCE = 1e-3
"""Nats a sum may differ from the reference's."""
LIMIT_SECONDS = 20 * 60.0
CALLED = {("truthfulqa_mc2", "acc"): "value_mc2", ("lambada_openai", "acc"): "value_greedy"}
"""What the reference calls acc and is something else, by the column that has it here."""


@dataclass(frozen=True)
class Runner:
    """Runs the program on one endpoint."""

    url: str
    model: Path
    folder: Path

    def __call__(self, name: str, data: Path, tasks: Sequence[str], *more: str) -> tuple[int, pd.DataFrame]:
        """Exit code and items of a run."""
        out = self.folder / name
        command = [*PROGRAM, "run", "--endpoint", f"stories260k={self.url}", "--tasks", ",".join(tasks)]
        command += [
            "--tokenizer",
            str(self.model),
            "--data-dir",
            str(data),
            "--out",
            str(out),
            "--shots",
            "0",
        ]
        command += ["--max-length", str(MAX_LENGTH), *more]
        code = subprocess.run(command, check=False).returncode
        return code, pd.read_parquet(out / "items.parquet")


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The base URL of the embedded endpoint, serving a model while the body runs."""
    command = [*PROGRAM, "serve", "--model", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def thinned(data: Path, folder: Path) -> dict[str, int]:
    """Copies of the evaluated splits, of the long ones every k-th row; how many rows each folder has."""
    rows = {}
    for name in sorted({FOLDERS.get(task, task) for task in TASKS}):
        split = "validation" if name in ON_VALIDATION else "test"
        table = parquet.read_table(data / name / f"{split}.parquet")
        step = -(-table.num_rows // LONG)
        kept = table.take(list(range(0, table.num_rows, step)))
        (folder / name).mkdir(parents=True)
        parquet.write_table(kept, folder / name / f"{split}.parquet")
        rows[name] = kept.num_rows
    return rows


def golden_problems(shared: Path, items: pd.DataFrame) -> list[str]:
    """Where the run's items differ from the reference's scores; each must be there, scored or too long."""
    by_place = {(row["task"], row["subject"], row["index"]): row for row in items.to_dict("records")}
    problems: list[str] = []
    compared: Counter[str] = Counter()
    for line in (shared / "golden/scores_stories260k.jsonl").read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        name = record["task"]
        task, subject = ("mmlu", name.removeprefix("mmlu_")) if name.startswith("mmlu_") else (name, "")
        row = by_place[task, subject, record["doc_id"]]
        if isinstance(row["unscored"], str):
            compared[row["unscored"].split(" (")[0]] += 1
            continue
        apart = max(abs(ours - theirs) for ours, theirs in zip(row["sums"], record["sums"], strict=True))
        same = row["greedy"].tolist() == record["greedy"]
        same &= abs(row[CALLED.get((task, "acc"), "correct_acc")] - record["acc"]) < TOLERANCE
        same &= "acc_norm" not in record or row["correct_acc_norm"] == record["acc_norm"]
        if apart > TOLERANCE or not same:
            problems.append(f"{name} {record['doc_id']}: sums {apart:.2g} nats apart, or other answers")
        compared["compared"] += 1
    print(f"with the reference: {dict(compared)}, {len(problems)} differ")
    if set(compared) > {"compared", "longer than --max-length"}:
        problems.append(f"unscored for another reason than their length: {dict(compared)}")
    return problems


def main() -> int:
    """Run, check, and print what was seen; 0 where everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--full", action="store_true", help="every row of the long tasks too")
    options = parser.parse_args()
    shared = options.shared.resolve()
    model, data = shared / "models/stories260k", shared / "data"
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, served(model) as url:
        run = Runner(url, model, Path(folder))
        norm = ("--metrics", "acc_norm,greedy", "--on-overflow", "skip")
        _, plain = run("golden", data, PLAIN, "--limit", "25", *norm)
        _, mmlu = run("golden_mmlu", data, ["mmlu"], "--limit", "3", *norm)
        problems = golden_problems(shared, pd.concat([plain, mmlu]))
        less = Path(folder) / "data"
        rows = thinned(data, less)
        code, items = run("whole", data if options.full else less, TASKS)
        manifest = json.loads((Path(folder) / "whole/run.json").read_text())
    seconds = time.monotonic() - begun
    found = items.groupby("task").size().to_dict()
    asked = {task: manifest["tasks"][task]["rows"] for task in TASKS}
    unscored = items["unscored"].dropna().value_counts().to_dict()
    print(f"{found}, unscored {unscored}, {seconds:.0f} s, status {manifest['status']}, exit {code}")
    checks = {
        "the exit code says what is unscored": code == (3 if unscored else 0),
        "the run is as complete as can be": manifest["status"] == ("incomplete" if unscored else "complete"),
        "all items are there": found == asked,
        "all rows are there": options.full
        or all(asked[task] == rows[FOLDERS.get(task, task)] for task in TASKS),
        "only choices that the model cannot take are unscored": set(unscored) <= {TOO_LONG},
        f"within {LIMIT_SECONDS / 60:.0f} minutes": options.full or seconds <= LIMIT_SECONDS,
        "the reference's scores": not problems,
    }
    for problem in problems[:10]:
        print(problem)
    for what, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
