"""What README.md shows of Slurm and Kubernetes does what it says: script and manifest are run here."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.sharding import parse_shard
from tests.fake_endpoint import FakeEndpoint
from tests.running import ROOT, Bench, bench, ended

__all__ = ["bench"]

README = (ROOT / "README.md").read_text()
SUITE = """
tasks = "hellaswag,mmlu"
tokenizer = "{tokenizer}"
data_dir = "{data}"
probe = false

[[endpoints]]
name = "it"
spec = "{url}"
"""


def block(kind: str) -> str:
    """The only block of README.md in this language."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return str(found)


def stubs(folder: Path) -> Path:
    """A folder of programs that stand for those which the blocks call: srun, and this one."""
    folder.mkdir()
    programs = {
        "srun": 'exec "$@"',
        "forced-choice": f'exec {shlex.quote(sys.executable)} {shlex.quote(str(ROOT / "run_eval.py"))} "$@"',
    }
    for name, does in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    return folder


async def shell(command: list[str], folder: Path, path: Path, variables: Mapping[str, str]) -> int | None:
    """The exit code of a command in a folder, with programs from a path before all others."""
    environ = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **variables}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdout=pipe, stderr=pipe)
    _, said = await ended(child)
    sys.stderr.write(said.decode())
    return child.returncode


async def test_both_ways(bench: Bench) -> None:
    """The array's tasks and the job's pods, of two shards each, make the tables of one machine."""
    yaml = pytest.importorskip("yaml")
    path = stubs(bench.folder / "bin")
    job = yaml.safe_load(block("yaml"))["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == 16
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="one")
        suite = SUITE.format(tokenizer=bench.tokenizer, data=bench.data, url=endpoint.base_url)
        (bench.folder / "suite.toml").write_text(suite)
        for number in (1, 2):
            script = block("bash").replace("SHARDS=16", "SHARDS=2").replace("/data/run", "slurm")
            (bench.folder / "shards.sh").write_text(script)
            variables = {"SLURM_ARRAY_TASK_ID": str(number)}
            assert await shell(["bash", "shards.sh"], bench.folder, path, variables) == 0
            (args,) = container["args"]
            args = args.replace("/16", "/2").replace("/data/run", "kubernetes").replace("/data/", "")
            variables = {"JOB_COMPLETION_INDEX": str(number - 1)}
            assert await shell([*container["command"], args], bench.folder, path, variables) == 0
        for out in ("slurm", "kubernetes"):
            assert await shell(["forced-choice", "merge", out], bench.folder, path, {}) == 0
            assert bench.scores(out) == bench.scores("one")


def test_the_numbers_of_shards_agree() -> None:
    """The array has as many tasks as the script says, the job as many pods: each is a shard, and no other."""
    script, manifest = block("bash"), block("yaml")
    first, last = re.findall(r"--array=(\d+)-(\d+)", script)[0]
    (shards,) = re.findall(r"SHARDS=(\d+)", script)
    assert [str(parse_shard(f"{number}/{shards}")) for number in (first, last)] == ["1/16", "16/16"]
    assert re.findall(r"\$\(\(JOB_COMPLETION_INDEX \+ 1\)\)/(\d+)", manifest) == ["16"]
