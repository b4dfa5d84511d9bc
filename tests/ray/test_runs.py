"""Whole runs on a cluster of two nodes: the numbers of a run from one process, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from tests.bench.instant import Limits
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Status
from tests.ray.nodes import Cluster
from tests.ray.processes import parent
from tests.ray.running import (
    AT_ONCE,
    FIRST,
    Held,
    done,
    half_way,
    interrupted,
    kept,
    no_child_left,
    started,
    until,
    whole,
    workers,
    write_many,
)
from tests.running import Bench, bench, ended, sent_again, write_rows
from tests.test_workers import assert_same

__all__ = ["bench", "no_child_left"]


def on(cluster: Cluster, *more: str) -> list[str]:
    """The flags that put a run on the cluster."""
    return ["--engine=ray", f"--ray-address={cluster.address}", "--workers=2", *more]


async def test_several_endpoints(bench: Bench, cluster: Cluster) -> None:
    """Four endpoints on two nodes, with a probe, looks and another metric: each table is that of one process,
    byte for byte, and Ray has said nothing."""
    async with FakeEndpoint() as one, FakeEndpoint() as two:
        urls = [f"a={one.base_url}", f"b={two.base_url}", f"c={one.base_url}#m", f"d={two.base_url}#m"]
        more = "--probe", "--metrics=acc_pmi"
        await whole(bench, urls, *more, out="alone")
        said = await whole(bench, urls, *more, *on(cluster))
    assert_same(bench, "alone", "run")
    assert b"ray" not in said.lower()


@pytest.mark.parametrize("lost", ["a worker", "a node"])
async def test_a_loss_half_way(bench: Bench, cluster: Cluster, lost: str) -> None:
    """A worker is killed, or its node with it: others do what it had, the tables are the same, and only
    what it had in flight is sent again."""
    write_many(bench)
    log = bench.folder / "log"
    async with Held() as endpoint:
        urls = [f"it={endpoint.base_url}"]
        child = await started(bench, urls, *on(cluster, f"--log-file={log}"))
        await half_way(bench, endpoint, log)
        there = [pid for pid in workers(log) if parent(pid) == cluster.other_raylet]
        assert len(there) == 1
        if lost == "a node":
            await asyncio.to_thread(cluster.kill, cluster.other)
        else:
            os.kill(there[0], signal.SIGKILL)
        await until(lambda: not parent(there[0]))
        endpoint.go_on()
        said = await done(child)
        assert b"is lost" in said
        endpoint.assert_sent_again(AT_ONCE)
        await bench.run(*urls, out="alone", shortcut=False)
    assert_same(bench, "alone", "run")


async def test_a_loss_at_full_speed(bench: Bench, cluster: Cluster) -> None:
    """A worker is killed among thousands of requests: at most what it had in flight is sent again."""
    write_many(bench)
    log = bench.folder / "log"
    async with FakeEndpoint() as endpoint:
        urls = [f"it={endpoint.base_url}"]
        child = await started(bench, urls, *on(cluster, f"--log-file={log}"))
        await until(lambda: len(workers(log)) == 2 and len(endpoint.bodies) > 200)
        os.kill(workers(log)[0], signal.SIGKILL)
        in_flight = len(endpoint.bodies) - kept(bench)
        said = await done(child)
        assert b"is lost" in said
        assert sent_again(endpoint.bodies) <= in_flight + AT_ONCE
        await bench.run(*urls, out="alone", shortcut=False)
    assert_same(bench, "alone", "run")


async def test_a_killed_run(bench: Bench, cluster: Cluster) -> None:
    """The run itself is killed: its workers end, and the same command goes on: only what was in flight is
    sent again."""
    write_many(bench)
    log = bench.folder / "log"
    async with Held() as endpoint:
        urls = [f"it={endpoint.base_url}"]
        child = await started(bench, urls, *on(cluster, f"--log-file={log}"))
        await half_way(bench, endpoint, log)
        child.kill()
        await ended(child)
        await until(lambda: not any(map(parent, workers(log))))
        endpoint.go_on()
        await whole(bench, urls, *on(cluster))
        endpoint.assert_sent_again(2 * AT_ONCE)
        await bench.run(*urls, out="alone", shortcut=False)
    assert_same(bench, "alone", "run")


@pytest.mark.parametrize("first", ["one process", "Ray"])
async def test_begun_one_way_and_finished_the_other(bench: Bench, cluster: Cluster, first: str) -> None:
    """Ctrl-C ends a run with 130 and keeps what came; what began on Ray goes on in one process, and the
    other way round."""
    ways = [[], on(cluster)] if first == "one process" else [on(cluster), []]
    async with Held() as endpoint:
        urls = [f"it={endpoint.base_url}"]
        child = await started(bench, urls, *ways[0])
        await until(lambda: kept(bench) == FIRST and len(endpoint.bodies) >= FIRST + AT_ONCE)
        await interrupted(child)
        endpoint.go_on()
        _, said = await ended(child)
        assert child.returncode == 130
        assert b"Traceback" not in said
        assert b"the same command continues" in said
        assert bench.manifest()["status"] == "interrupted"
        await whole(bench, urls, *ways[1])
        endpoint.assert_sent_again(0)
        await bench.run(*urls, out="alone", shortcut=False)
    assert_same(bench, "alone", "run")


async def test_a_budget_for_all(bench: Bench, cluster: Cluster) -> None:
    """Two workers on two nodes, asking two adapters of one account, send what it allows together: an endpoint
    that counts refuses nothing, and next to nothing of the allowance is left unused."""
    write_rows(bench.data, hellaswag=20, mmlu=8)
    limits, at, refused = Limits(rpm=120, window=5), list[float](), list[float]()

    def script(number: int, body: Body) -> Fault | None:
        at.append(time.monotonic())
        if limits.admit(at[-1]):
            return None
        refused.append(at[-1])
        return Status(429)

    async with FakeEndpoint(script) as endpoint:
        urls = [f"a={endpoint.base_url}#m:x", f"b={endpoint.base_url}#m:y"]
        await whole(bench, urls, *on(cluster, "--rpm=1200"))
        assert not refused
        sent, seconds = len(at), at[-1] - at[0]
        assert sent > 300
        assert sent / seconds > 0.9 * 1200 / 60
        first = [body["model"] for body in endpoint.bodies[: sent // 2]]
        assert 0.4 < first.count("m:x") / len(first) < 0.6


async def test_ctrl_c_twice(bench: Bench, cluster: Cluster) -> None:
    """A second Ctrl-C drops what is in flight and ends at once; no worker is left."""
    write_many(bench)
    log = bench.folder / "log"
    async with Held() as endpoint:
        child = await started(bench, [f"it={endpoint.base_url}"], *on(cluster, f"--log-file={log}"))
        await half_way(bench, endpoint, log)
        await interrupted(child)
        child.send_signal(signal.SIGINT)
        _, said = await ended(child)
        assert child.returncode == 130
        assert b"Traceback" not in said
        await until(lambda: not any(map(parent, workers(log))))
    assert kept(bench) == FIRST
