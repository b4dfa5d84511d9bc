"""The engine by itself: workers that say everything again, on a cluster of two nodes."""

from __future__ import annotations

import asyncio
import os
import signal
from importlib import import_module
from pathlib import Path

import pytest

from harness import __version__
from harness.accounts import Allowance
from harness.errors import UsageError
from harness.pacing import Ask, LeasedBudget
from harness.workers.actors import Build
from harness.workers.channel import ChannelLost
from harness.workers.onray import RayEngine
from tests.ray.nodes import Cluster
from tests.ray.processes import named
from tests.ray.toys import echo, whereabouts


async def asked(engine: RayEngine, name: str, question: bytes) -> tuple[object, bytes]:
    """A new worker, and its answer."""
    channel = await engine.start(name)
    await channel.send(question)
    return channel, await channel.receive()


async def test_messages_of_any_size(cluster: Cluster) -> None:
    """What is sent comes back as it was, long or short, and in order."""
    sizes = (0, 1, 89_996, 90_000, 1_000_000, 3)
    async with RayEngine(echo, address=cluster.address, workers=1) as engine:
        channel = await engine.start("worker 1")
        messages = [os.urandom(size) for size in sizes]
        for each in messages:
            await channel.send(each)
        assert [await channel.receive() for _ in sizes] == messages


async def test_the_end_of_a_worker(cluster: Cluster) -> None:
    """A worker that has ended, or broken down, leaves a channel that says so."""
    async with RayEngine(echo, address=cluster.address, workers=2) as engine:
        for said, why in ((b"end", "the worker has ended"), (b"break", r"broke down \(ValueError\)")):
            channel = await engine.start("worker 1")
            await channel.send(said)
            with pytest.raises(ChannelLost, match=why):
                await channel.receive()
            await channel.close()


async def test_workers_are_spread(cluster: Cluster) -> None:
    """Two workers stand on two nodes; as many are wanted as the cluster has processors."""
    async with RayEngine(whereabouts, address=cluster.address) as engine:
        assert engine.workers == 2
        channels = await asyncio.gather(engine.start("worker 1"), engine.start("worker 2"))
        found = [(await each.receive()).decode().split() for each in channels]
    assert len({node for _, node in found}) == 2


async def test_a_killed_worker_is_noticed(cluster: Cluster) -> None:
    """SIGKILL of a worker ends its channel at once, and another can be started."""
    async with RayEngine(whereabouts, address=cluster.address, workers=2) as engine:
        channel = await engine.start("worker 1")
        pid = int((await channel.receive()).split()[0])
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            with pytest.raises(ChannelLost, match=r"its process has ended|it cannot be reached"):
                await channel.receive()
        await channel.close()
        again = await engine.start("worker 2")
        assert int((await again.receive()).split()[0]) != pid


async def test_a_killed_node_is_noticed(cluster: Cluster) -> None:
    """A node that is gone ends the channels of its workers within seconds, and only theirs."""
    async with RayEngine(whereabouts, address=cluster.address, workers=2) as engine:
        channels = await asyncio.gather(engine.start("worker 1"), engine.start("worker 2"))
        nodes = [(await each.receive()).decode().split()[1] for each in channels]
        lost, kept = channels if nodes[0] == cluster.other.node_id else reversed(channels)
        await asyncio.to_thread(cluster.kill, cluster.other)
        async with asyncio.timeout(30):
            with pytest.raises(ChannelLost):
                await lost.receive()
        await kept.send(b"still there?")
        assert await kept.receive() == b"still there?"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Build("0.0.7", "3.11.7", "0"), rf"forced-choice {__version__}, this is 0\.0\.7; install the same"),
        (Build(__version__, "3.11.7", "0"), rf"other files as version {__version__}, this is"),
    ],
)
async def test_another_program(cluster: Cluster, build: Build, said: str) -> None:
    """A node with another version of the program, or another state of it, is refused in one line."""
    async with RayEngine(echo, address=cluster.address, workers=1) as engine:
        engine.build = build
        with pytest.raises(UsageError, match=said):
            await engine.start("worker 1")


async def test_a_node_without_the_program(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a worker cannot import what it is to do, one line says what is missing, and the way out."""
    (tmp_path / "only_here.py").write_text("async def works(channel, lenders): pass\n")
    async with RayEngine(echo, address=cluster.address, workers=1) as engine:
        monkeypatch.syspath_prepend(tmp_path)  # once Ray has told workers where to look
        monkeypatch.setattr(engine, "_works", import_module("only_here").works)
        with pytest.raises(UsageError, match=r"No module named 'only_here'.*install forced-choice on every"):
            await engine.start("worker 1")


async def test_a_lost_keeper_of_a_budget(cluster: Cluster) -> None:
    """Where the keeper of an account's budget is killed, another answers in its place, and lets nothing out
    for a minute: nobody knows what has gone out in the last one."""
    allowances = {("host", "", ""): Allowance(rpm=600, tpm=None)}
    async with RayEngine(echo, address=cluster.address, workers=1, allowances=allowances) as engine:
        (budget,) = engine.budgets.values()
        assert isinstance(budget, LeasedBudget)
        before = await budget.lends.lease("a worker", "a", Ask(costs=(1, 1)))
        assert before.slots and not before.terms.pause
        for pid in named("ray::BudgetActor"):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            after = await budget.lends.news("a worker", -1)
        assert 50 < after.pause <= 61
