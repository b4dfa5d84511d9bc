"""Programs measured from outside, as processes of their own, against an instant endpoint; and tables of it.

Only the standard library: what a program's peak memory is said to be includes what its parent held when it
was started.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, str(ROOT / "run_eval.py"))
LONGEST_END = 60.0
"""Seconds that a run may take to end once it is interrupted."""
_LOOK = 0.1
"""Seconds between two looks at a run."""
_SHOWN = 4000
"""Bytes of what a failed program said."""


class Measured(NamedTuple):
    """What a program took."""

    wall: float
    """Seconds."""
    processor: float
    """Seconds, of all its threads, in user and system mode."""
    peak: float
    """Most resident memory at one time, in megabytes (10^6)."""
    requests: int = 0
    prompt_tokens: int = 0


class Figure(NamedTuple):
    """A line of the table of bars."""

    name: str
    value: str
    bar: str
    """Empty where there is none."""
    holds: bool = True


class Failed(Exception):
    """A program that is measured did not do what it should."""


class Instant:
    """An instant endpoint in a process of its own; a context manager."""

    def __init__(self, tokenizer: Path, *options: str) -> None:
        """Start nothing yet; `options` as of `tests.bench.instant`."""
        self._command = [sys.executable, "-m", "tests.bench.instant", "--tokenizer", str(tokenizer), *options]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate("")

    def counts(self) -> dict[str, Any]:
        """What it saw since `forget`."""
        with urlopen(f"{self.url.removesuffix('/v1')}/counts") as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def forget(self) -> None:
        """Count from zero."""
        with urlopen(Request(f"{self.url.removesuffix('/v1')}/counts", method="DELETE")):
            pass


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements share."""

    shared: Path
    """The shared test material."""
    scratch: Path
    repeat: int = 5
    lm_eval_repeat: int = 5
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of every measurement."""
        return self.shared / "tokenizers/gpt-neox-olmo/tokenizer.json"

    @property
    def hellaswag(self) -> Path:
        """The folder with all of HellaSwag's validation split."""
        return self.shared / "data/hellaswag_full"

    @property
    def data(self) -> Path:
        """A data folder in which `hellaswag` is the whole split."""
        folder = self.scratch / "data"
        folder.mkdir(exist_ok=True)
        for name, found in (("hellaswag", self.hellaswag), ("mmlu", self.shared / "data/mmlu")):
            if not (folder / name).exists():
                (folder / name).symlink_to(found)
        return folder

    def say(self, text: str) -> None:
        """Tell whoever waits how far it is; the tables alone go to standard output."""
        print(text, file=sys.stderr, flush=True)

    def run(self, url: str, tasks: str, *more: str, out: Path | None = None) -> list[str]:
        """The command of a run, into a folder of its own."""
        out = out or self.scratch / f"run{next(self._numbers)}"
        command = [*PROGRAM, "run", "--endpoint", f"bench={url}", "--tasks", tasks, "--out", str(out)]
        return [*command, "--tokenizer", str(self.tokenizer), "--data-dir", str(self.data), *more]


def measure(
    command: Sequence[str],
    endpoint: Instant | None = None,
    *,
    env: dict[str, str] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Measured:
    """Run a command to its end.

    Args:
        command: what is run.
        endpoint: whose requests are counted.
        env: variables beside those of this process.
        watch: called with the process id now and then.

    Raises:
        Failed: the command ended with another exit code than 0.
    """
    if endpoint is not None:
        endpoint.forget()
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = _started(command, said, env)
        try:
            used = _ended(process, watch)
        except BaseException:
            process.kill()
            raise
        wall = time.monotonic() - begun
        if process.returncode:
            raise Failed(f"{' '.join(command)}\nexit {process.returncode}\n{_end_of(said)}")
    counts = endpoint.counts() if endpoint is not None else {}
    return Measured(
        wall,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * 1024 / 1e6,
        counts.get("requests", 0),
        counts.get("prompt_tokens", 0),
    )


def watched(command: Sequence[str], endpoint: Instant, seconds: float) -> tuple[float, dict[str, Any]]:
    """Run a command until so many seconds after its first request, then interrupt it.

    Returns:
        Seconds from its start to its first request, and the endpoint's counts of those seconds.

    Raises:
        Failed: the command ended before.
    """
    endpoint.forget()
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = _started(command, said)
        try:
            while (first := endpoint.counts()["first"]) is None or time.monotonic() < first + seconds:
                if process.poll() is not None:
                    raise Failed(f"{' '.join(command)}\nended early\n{_end_of(said)}")
                time.sleep(_LOOK)
            return first - begun, endpoint.counts()
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(LONGEST_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ended(process: subprocess.Popen[bytes], watch: Callable[[int], None] | None) -> resource.struct_rusage:
    """Wait for a process, and reap it with what it has used."""
    while watch is not None:
        watch(process.pid)
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(_LOOK)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used


def _end_of(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read()[-_SHOWN:].decode(errors="replace")


def _started(
    command: Sequence[str], said: IO[bytes], env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    # Compiled code is kept, as where a program is started twice: else each process would compile all of ours.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, env={**kept, **(env or {})}
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as Markdown, the columns aligned for the eye; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *others])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def machine() -> str:
    """Date, processor and versions: what figures are worth nothing without."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores {model or platform.machine()},"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
