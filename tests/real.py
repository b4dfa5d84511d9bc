"""The main job on real input: `make real`.

Serves the real tiny Llama of the shared material, runs all of its HellaSwag and MMLU items through HTTP
with the program as a person would, and holds the result against the reference's scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, str(ROOT / "run_eval.py")]
EXPECTED = {"hellaswag": 1_453, "mmlu": 14_042}
TOLERANCE = 1e-3
"""Nats a sum may differ from the reference's."""
LIMIT_SECONDS = 20 * 60.0


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


def golden_differences(shared: Path, items: pd.DataFrame) -> list[str]:
    """Where the run's items differ from the reference's scores of the same items."""
    by_place = {(row["task"], row["subject"], row["index"]): row for row in items.to_dict("records")}
    problems, compared = [], 0
    for line in (shared / "golden/scores_stories260k.jsonl").read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        task, _, subject = record["task"].partition("_")
        if task not in EXPECTED:
            continue
        row = by_place[task, subject, record["doc_id"]]
        compared += 1
        apart = max(abs(ours - theirs) for ours, theirs in zip(row["sums"], record["sums"], strict=True))
        norm = row["correct_acc_norm"] if task == "hellaswag" else row["correct_acc"]
        if apart > TOLERANCE or (row["correct_acc"], norm) != (record["acc"], record["acc_norm"]):
            problems.append(
                f"{record['task']} {record['doc_id']}: sums {apart:.2g} nats apart, or other answers"
            )
    print(f"compared with the reference: {compared} items, {len(problems)} differ")
    return problems


def main() -> int:
    """Run, check, and print what was seen; 0 where everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    shared = parser.parse_args().shared.resolve()
    model = shared / "models/stories260k"
    with tempfile.TemporaryDirectory() as folder, served(model) as url:
        out = Path(folder) / "run"
        begun = time.monotonic()
        command = [*PROGRAM, "run", "--endpoint", f"stories260k={url}", "--tasks", "hellaswag,mmlu"]
        command += ["--tokenizer", str(model), "--data-dir", str(shared / "data"), "--out", str(out)]
        code = subprocess.run(command, check=False).returncode
        seconds = time.monotonic() - begun
        manifest = json.loads((out / "run.json").read_text())
        items = pd.read_parquet(out / "items.parquet")
        problems = golden_differences(shared, items)
    found = items.groupby("task").size().to_dict()
    unscored = int(items["unscored"].notna().sum())
    print(f"{found}, {unscored} unscored, {seconds:.0f} s, status {manifest['status']}, exit {code}")
    checks = {
        "the program ends with 0": code == 0,
        "the run is complete": manifest["status"] == "complete",
        "all items are there": found == EXPECTED,
        "nothing is unscored": unscored == 0,
        f"within {LIMIT_SECONDS / 60:.0f} minutes": seconds <= LIMIT_SECONDS,
        "the reference's scores": not problems,
    }
    for problem in problems[:10]:
        print(problem)
    for what, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
