"""A run that starts a cluster of its own, and runs that find none."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.workers.onray import RayEngine
from tests.fake_endpoint import FakeEndpoint
from tests.ray.processes import below, content, parent
from tests.ray.running import (
    AT_ONCE,
    FIRST,
    Held,
    half_way,
    interrupted,
    kept,
    no_child_left,
    started,
    until,
    workers,
    write_many,
)
from tests.ray.toys import echo
from tests.running import Bench, bench, ended

__all__ = ["bench", "no_child_left"]

TOKEN = "flp_aZ81kWq0Yt77PlantedForTheTests42"


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a folder."""
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


async def test_a_cluster_for_the_run_and_no_secret_in_it(bench: Bench) -> None:
    """Without an address a cluster is started for the run, and ends with it. The token that the endpoint asks
    for stands in no process of it, and in none of the files that Ray leaves."""
    seen: dict[int, bytes] = {}
    leaked: list[bytes] = []
    async with FakeEndpoint(token=TOKEN) as endpoint:
        child = await create_subprocess_exec(
            *bench.command(f"it={endpoint.base_url}", extra=["--engine=ray", "--workers=2"]),
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, "FRIENDLI_TOKEN": TOKEN},
        )
        ending = asyncio.create_task(ended(child))
        while not ending.done():
            now = {each: content(each, "cmdline") for each in await asyncio.to_thread(below, child.pid)}
            seen |= now
            others = now.keys() - {child.pid}
            leaked += [now[each] for each in others if TOKEN.encode() in content(each, "environ") + now[each]]
            await asyncio.sleep(0.2)
        _, said = await ending
        assert child.returncode == 0, said
        assert endpoint.bodies
    assert any(line.startswith(b"ray::WorkerActor") for line in seen.values())
    assert not leaked
    assert not [each for each in seen if content(each, "cmdline") == seen[each] != b""]
    sessions = set(re.findall(rb"/[\w/]*/session_[\w-]+", b" ".join(seen.values())))
    assert len(sessions) == 1
    files = contents(Path(sessions.pop().decode()))
    assert files
    assert not [name for name, content in files.items() if TOKEN.encode() in content]


async def test_ctrl_c_in_a_terminal(bench: Bench) -> None:
    """A terminal interrupts all that a command has started: a cluster of the run's own goes on until what is
    in flight has come back."""
    write_many(bench)
    log = bench.folder / "log"
    async with Held() as endpoint:
        urls = [f"it={endpoint.base_url}"]
        flags = "--engine=ray", "--workers=2", f"--log-file={log}"
        child = await started(bench, urls, *flags, alone=True)
        await half_way(bench, endpoint, log)
        await interrupted(child, lambda: os.killpg(child.pid, signal.SIGINT))
        endpoint.go_on()
        _, said = await ended(child)
        assert child.returncode == 130, said
        assert b"is lost" not in said
        assert kept(bench) == len(endpoint.bodies) >= FIRST + 2 * AT_ONCE
        await until(lambda: not any(map(parent, workers(log))))


async def test_nobody_at_the_address() -> None:
    """An address at which nothing listens is refused at once, with one line that names the flag."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(UsageError, match=f"--ray-address {address}: nothing answers at 127.0.0.1"):
        async with RayEngine(echo, address=address):
            pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("somewhere", "HOST:PORT, or auto"),
        ("ray://127.0.0.1:10001", "start the run on a node of the cluster"),
    ],
)
async def test_no_address(address: str, said: str) -> None:
    """What cannot be an address is refused with the way out."""
    with pytest.raises(UsageError, match=f"--ray-address {address}: .*{said}"):
        async with RayEngine(echo, address=address):
            pass
