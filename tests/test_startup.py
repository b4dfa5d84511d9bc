"""What is imported when: nobody waits for a library that is not needed yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import descriptions, examples, reference
from harness.choosing.resolving import resolve
from harness.cli import main
from harness.collecting import BEGINNING, WORKING
from harness.commands.app import app

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
NOTHING = "import sys; print(*sys.modules)"
COMMANDS = sorted(name for name in app if not name.startswith("-"))
FOR_HELP = (
    "collecting",
    "descriptions",
    "errors",
    "examples",
    "inert",
    "redacting",
    "secrets",
    "terminal",
    "cli",
)
"""Modules of the program that its list of commands takes, beside `commands`."""
CYCLES = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 0))
from contextlib import redirect_stdout
from harness.cli import main
with redirect_stdout(None):
    main(["--help"])
print(gc.get_threshold()[0])
"""
AT_WORK = """
import asyncio, gc
from harness.foreground import run_async

async def work():
    await asyncio.sleep(0)
    print(gc.get_freeze_count() > 10_000, gc.get_threshold()[0])

run_async(work())
"""


def words(shown: str) -> str:
    """A text as it reads, however its lines are broken and framed."""
    return " ".join(shown.replace("│", " ").split())


def said(program: str, *arguments: str) -> list[str]:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout, done.stderr
    return done.stdout.split()


def test_help_waits_for_no_command() -> None:
    """The list of commands is printed without importing one of them or its flags: beside a few small modules
    it takes what the libraries that print it take."""
    found = set(said(HELP, "--help"))
    own = {each.removeprefix("harness.") for each in found if each.startswith("harness.")}
    assert own == {*FOR_HELP, "commands", "commands.app"}
    foreign = {each.partition(".")[0] for each in found - set(said(NOTHING))} - sys.stdlib_module_names
    assert foreign == {"attr", "attrs", "cyclopts", "docstring_parser", "harness", "rich"}
    assert not found & {*SLOW, "difflib"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_waits_for_no_library(command: str) -> None:
    """Help of a command prints without the others, and without anything that sends, reads data, counts or
    scores."""
    found = set(said(HELP, command, "--help"))
    assert not found & SLOW
    own = {each for each in found if each.startswith("harness.")}
    commands = {each for each in own if each.startswith("harness.commands.")}
    assert commands <= {"harness.commands.app", f"harness.commands.{command}"}
    assert len(own) < 20


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"completion"}))
def test_the_list_of_commands_says_what_their_help_says(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command stands in the list with the sentence that its own help begins with; examples end it."""
    text: str = getattr(descriptions, command.upper())
    assert main(["--help"]) == 0
    assert words(f"{command} {text.splitlines()[0]}") in words(capsys.readouterr().out)
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert words(text) in words(shown)
    assert shown.rstrip().endswith(getattr(examples, command.upper()))


def test_the_first_request_waits_for_no_table(tmp_path: Path) -> None:
    """What makes tables, comparisons and decisions is not imported before the first request, nor what sends
    again what failed, nor `datasets` where rows are local."""
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
    assert not found & {"datasets", "huggingface_hub", "jinja2", "pandas", "scipy", "tenacity"}
    assert not found & {"harness.comparison", "harness.deciding"}


def test_cycles_are_looked_for_seldom() -> None:
    """A command lets Python look for cycles once in very many new objects, not in 700, and not again when it
    ends; once it is at work, oftener, but never again in what was there before."""
    assert said(CYCLES) == [str(BEGINNING), "True"]
    assert said(AT_WORK) == ["True", str(WORKING)]
