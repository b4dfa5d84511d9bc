"""What is imported when: nobody waits for a library that is not needed yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import reference
from harness.choosing.resolving import resolve
from harness.cli import NEW_OBJECTS

LIBRARIES = (
    "aiohttp",
    "altair",
    "datasets",
    "itables",
    "jinja2",
    "msgspec",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "tokenizers",
)
SLOW = {*LIBRARIES, "asyncio", "http.client", "tenacity", "urllib.request"}
"""Modules that take long to import, each some hundredths of a second at least."""

HELP = """
import sys
from contextlib import redirect_stdout
from harness.cli import main
with redirect_stdout(None):
    main(sys.argv[1:])
print(*sys.modules)
"""
FIRST_REQUEST = """
import os, socket, sys, threading
listening = socket.create_server(("127.0.0.1", 0))

def wait():
    listening.accept()[0].recv(1)
    print(*sys.modules, flush=True)
    os._exit(0)

threading.Thread(target=wait, daemon=True).start()
from harness.cli import main
main(["run", "--endpoint", f"http://127.0.0.1:{listening.getsockname()[1]}/v1#m", *sys.argv[1:]])
"""
CYCLES = """
import gc
from contextlib import redirect_stdout
from harness.cli import main
with redirect_stdout(None):
    main(["--help"])
print(gc.get_threshold()[0])
"""


def said(program: str, *arguments: str) -> list[str]:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["plan"], ["compare"], ["rescore"], ["report"], ["view"], ["tasks"], ["doctor"], ["serve"]],
)
def test_help_waits_for_no_library(command: list[str]) -> None:
    """Help prints without anything that sends, reads data, counts or scores."""
    found = set(said(HELP, *command, "--help"))
    assert "harness.settings" in found
    assert not found & SLOW
    assert len([each for each in found if each.startswith("harness.")]) < 20


def test_the_first_request_waits_for_no_table(tmp_path: Path) -> None:
    """What makes tables is not imported before the first request, nor `datasets` where rows are local."""
    (task,) = (asked.task for asked in resolve(["hellaswag"]))
    file = tmp_path / "hellaswag" / "validation.parquet"
    file.parent.mkdir()
    parquet.write_table(pa.Table.from_pylist([dict(task.example)]), file)
    found = set(
        said(
            FIRST_REQUEST,
            *("--tasks", "hellaswag", "--data-dir", str(tmp_path)),
            *("--tokenizer", str(reference.FOLDER), "--out", str(tmp_path / "run")),
        )
    )
    assert found & SLOW >= {"aiohttp", "pyarrow"}
    assert not found & {"datasets", "huggingface_hub", "jinja2", "pandas", "scipy"}


def test_cycles_are_looked_for_seldom() -> None:
    """A command lets Python look for cycles once in tens of thousands of new objects, not in 700."""
    assert said(CYCLES) == [str(NEW_OBJECTS)]
