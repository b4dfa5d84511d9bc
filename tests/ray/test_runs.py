"""Whole runs on a cluster of two nodes: the numbers of a run from one process, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fake_endpoint import Body, FakeEndpoint, Fault, Status
from tests.ray.conftest import Cluster
from tests.running import Bench, bench, ended, sent_again, start, until, write_rows
from tests.test_workers import assert_same, kept

__all__ = ["bench"]

AT_ONCE = 8
"""Requests in flight of an endpoint at each worker."""
READY = 60.0
"""Seconds that workers may take to begin, on a busy machine."""
MANY = {"hellaswag": 300, "mmlu": 50}
"""Items; enough for a run to last some seconds."""


def on(cluster: Cluster, *more: str) -> list[str]:
    """Flags that put a run on the cluster."""
    return ["--engine=ray", f"--ray-address={cluster.address}", "--workers=2", "--no-shortcut", *more]


async def to_hold(holds: Any, seconds: float = READY) -> None:
    """Look again and again until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def workers_of(log: Path) -> list[int]:
    """The process ids of the workers of a run, by its log file."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line["pid_there"] for line in lines if line["event"] == "worker_ready"]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


async def whole(bench: Bench, urls: Sequence[str], *extra: str, out: str) -> bytes:
    """A run as a child process, to its end; what it said."""
    child = await asyncio.create_subprocess_exec(
        *bench.command(*urls, out=out, extra=extra),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out_said, said = await ended(child)
    assert child.returncode == 0, said
    return out_said + said


async def test_several_endpoints(bench: Bench, cluster: Cluster) -> None:
    """Four endpoints on two nodes, with shots, looks, a probe and more metrics: all tables are those of one
    process, byte for byte, and nobody but us has said a word."""
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        urls = [f"a={one.base_url}", f"b={two.base_url}", f"c={one.base_url}#m:x", f"d={two.base_url}#m:y"]
        more = ["--probe", "--metrics=acc_pmi", "--tasks=hellaswag,mmlu@1"]
        await whole(bench, urls, *more, out="alone")
        asked = len(one.bodies) + len(two.bodies)
        said = await whole(bench, urls, *on(cluster), "--shortcut", *more, out="run")
        assert abs(len(one.bodies) + len(two.bodies) - 2 * asked) < 0.05 * asked
    assert_same(bench, "alone", "run")
    assert b"ray" not in said.lower().replace(b"tests/ray", b""), said
