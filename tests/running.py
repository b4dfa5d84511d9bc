"""A small but whole run: two tasks written to files, a character tokenizer, and the program or its inside."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers

from harness.patience import ClientSettings
from harness.prepare import prepare
from harness.runner import RunResult, evaluate
from harness.settings import RunSettings

ROOT = Path(__file__).parents[1]
SUBJECTS = ("anatomy", "virology", "world_religions")
REQUESTS = 4 * (12 + 3 * 4)
"""Of one endpoint, by a run of all items."""
LONGEST = 120.0
"""Seconds that a child process may take: one that hangs fails its test."""


def write_tokenizer(folder: Path) -> Path:
    """A real `tokenizer.json` with one id a character."""
    vocabulary = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_rows(folder: Path, *, hellaswag: int = 12, mmlu: int = 4) -> Path:
    """Rows of both tasks as JSON Lines: so many of HellaSwag, and of each of three MMLU subjects."""
    rows: dict[str, list[dict[str, Any]]] = {
        "hellaswag/validation": [
            {
                "ind": i,
                "activity_label": "Baking",
                "ctx_a": f"Somebody bakes cake number {i}.",
                "ctx_b": "she",
                "endings": [
                    f"{verb} it {'twice ' * j}on day {i}."
                    for j, verb in enumerate(("eats", "sells", "drops", "hides"))
                ],
                "source_id": f"activitynet~{i // 2}",
                "label": str(i % 4),
            }
            for i in range(hellaswag)
        ]
    }
    for split, n in (("test", mmlu), ("dev", 2)):
        rows[f"mmlu/{split}"] = [
            {
                "question": f"{subject} {split} {i}?",
                "subject": subject,
                "choices": ["a", "b", "c", "d"],
                "answer": i % 4,
            }
            for subject in SUBJECTS
            for i in range(n)
        ]
    for name, lines in rows.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class Bench:
    """Where a test's runs take place."""

    def __init__(self, folder: Path) -> None:
        """Write data and tokenizer below the folder."""
        self.folder = folder
        self.data = write_rows(folder / "data")
        self.tokenizer = write_tokenizer(folder)

    def settings(self, *urls: str, out: str = "run", **changes: Any) -> RunSettings:
        """Settings for these endpoints."""
        defaults: dict[str, Any] = {
            "endpoint": urls,
            "tasks": "hellaswag,mmlu",
            "tokenizer": (str(self.tokenizer),),
            "data_dir": self.data,
            "out": self.folder / out,
            "concurrency": 8,
            "probe": False,  # tests count requests, and say so where they want more
        }
        return RunSettings(**{**defaults, **changes})

    async def run(
        self,
        *urls: str,
        environ: Mapping[str, str] | None = None,
        stop: asyncio.Event | None = None,
        **changes: Any,
    ) -> RunResult:
        """A run inside this process."""
        prepared = prepare(self.settings(*urls, **changes), environ or {})
        return await evaluate(prepared, Console(file=io.StringIO()), stop)

    def command(self, *urls: str, out: str = "run", extra: Sequence[str] = ()) -> list[str]:
        """The same run as a command line."""
        arguments = [sys.executable, str(ROOT / "run_eval.py"), "run", "--tasks", "hellaswag,mmlu"]
        arguments += ["--tokenizer", str(self.tokenizer), "--data-dir", str(self.data), "--concurrency", "8"]
        arguments += ["--no-probe"]
        arguments += ["--out", str(self.folder / out), *extra]
        for url in urls:
            arguments += ["--endpoint", url]
        return arguments

    def scores(self, out: str = "run") -> bytes:
        """The bytes of a run's accuracy table."""
        return (self.folder / out / "scores.csv").read_bytes()

    def manifest(self, out: str = "run") -> dict[str, Any]:
        """A run's `run.json`."""
        found: dict[str, Any] = json.loads((self.folder / out / "run.json").read_text())
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose clients wait milliseconds where real ones wait seconds."""
    quick = partial(ClientSettings, backoff_base=0.001, backoff_cap=0.01, probe_wait=0.001)
    monkeypatch.setattr("harness.clients.ClientSettings", quick)
    return Bench(tmp_path)


# ----------------------------------------------------------------------------------- processes of their own


async def start(bench: Bench, url: str, *extra: str, out: str = "run") -> asyncio.subprocess.Process:
    """The run as a child process."""
    command = bench.command(f"it={url}", out=out, extra=extra)
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environ)


async def until(holds: Callable[[], bool]) -> None:
    """Look again and again until something holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - another process decides when
            await asyncio.sleep(0.002)


async def ended(child: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """What a child process says until it ends, on both its pipes; one that hangs is killed, and fails."""
    try:
        async with asyncio.timeout(LONGEST):
            out, said = await child.communicate()
    except TimeoutError:
        child.kill()
        pytest.fail(f"a process has not ended within {LONGEST:g} s")
    return out or b"", said or b""


def kept(folder: Path) -> int:
    """The replies that a run's journals hold."""
    found = 0
    for file in (folder / "journal").glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as journal, suppress(sqlite3.OperationalError):  # no tables yet
            found += journal.execute("SELECT count(sum) FROM replies").fetchone()[0]
    return found


def sent_again(bodies: Sequence[Mapping[str, Any]]) -> int:
    """Requests beyond the first of each kind."""
    kinds = Counter(json.dumps(body, sort_keys=True) for body in bodies)
    return kinds.total() - len(kinds)
