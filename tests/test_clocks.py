"""Clocks that are set while a run goes on, and machines that sleep meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.manifest import Exit
from tests.fake_endpoint import Body, FakeEndpoint
from tests.ledger import note
from tests.mixes import Came, Mix, came_of, mixing, rushed, without_faults
from tests.running import Bench, bench  # noqa: F401
from tests.rushed_time import RushedLoop, in_rushed_time

HOUR = 3600.0
NIGHT = 8 * HOUR
SLOW = "slow,slow_seconds=1"
"""A run takes seconds, so that something can happen in its middle."""


# --------------------------------------------------------------------------------------- a clock that is set


@pytest.mark.parametrize("hours", [1, -1, -24])
async def test_a_clock_that_is_set(hours: int, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The time of day may be set in the middle of a run: same tables, and what took how long stays true."""
    true_time, shift = time.time, 0.0

    def script(number: int, body: Body) -> None:
        nonlocal shift
        shift = hours * HOUR if 30 < number < 60 else 0.5 * hours * HOUR if number >= 60 else 0.0

    monkeypatch.setattr(time, "time", lambda: true_time() + shift)
    async with FakeEndpoint(script) as endpoint:
        result = await bench.run(f"it={endpoint.base_url}")
        shift = 0.0
        monkeypatch.setattr(time, "time", true_time)
        await bench.run(f"it={endpoint.base_url}", out="true")
    assert result.exit == Exit.DONE
    assert bench.scores() == bench.scores("true")
    timings = bench.manifest()["timings"]
    assert 0 <= timings["sending_s"] <= timings["whole_s"] < 600
    assert 0 <= result.sending <= result.seconds < 600
    note("clocks set, machines put to sleep", tried=1, lost=0, unit="runs")


# -------------------------------------------------------------------------------------- a machine that sleeps


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Where runs take place that cost no waiting."""
    return mixing(tmp_path_factory.mktemp("clocks"))


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Clients and endpoints go by the loop's time."""
    with rushed():
        yield


async def slept(small: Bench, mix: Mix, after: float, **changes: Any) -> tuple[Came, Came]:
    """A run during which the machine sleeps for a night, by a clock that goes on; and one without faults."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, RushedLoop)
    loop.call_later(after, loop.jump, NIGHT)
    came = await came_of(small, mix, f"slept {mix.faults} {after}", **changes)
    assert came.seconds > NIGHT
    return came, await came_of(small, without_faults(mix), f"awake {mix.faults} {after}")


@pytest.mark.parametrize("concurrency", [1, "auto"])
@pytest.mark.parametrize(
    "faults",
    ["slow,slow_seconds=20", "429=0.5,retry_after=30", "hang=0.3", f"outage=900@2,{SLOW}", "blackout=900"],
)
def test_a_laptop_that_sleeps(faults: str, concurrency: int | str, small: Bench, no_waits: None) -> None:
    """In the middle of slow replies, waits and outages a night passes at once: no item is lost by it."""
    came, true = in_rushed_time(slept(small, Mix(0, faults, "", "", concurrency), 10.0))
    assert came.result.exit == Exit.DONE, came.sums
    assert came.sums == true.sums
    note("clocks set, machines put to sleep", tried=1, lost=0, unit="runs")


def test_a_sleep_saves_up_no_budget(small: Bench, no_waits: None) -> None:
    """After a night nothing goes out faster than the account allows."""
    mix = Mix(0, "rpm=20", "", "", 8)
    came, true = in_rushed_time(slept(small, mix, 20.0, rpm=20.0))
    assert came.struck["rpm"] == 0
    assert came.seconds - NIGHT > 0.9 * 60 * (len(true.sums) * 4 - 2) / 20 - 30
    assert came.sums == true.sums
    note("clocks set, machines put to sleep", tried=1, lost=0, unit="runs")


def test_patience_is_not_used_up_asleep(small: Bench, no_waits: None) -> None:
    """An endpoint that does come back after the sleep is still waited for; one that does not is given up."""
    back, _ = in_rushed_time(slept(small, Mix(0, f"outage={NIGHT + 1500}@2,{SLOW}", "", "", 8), 100.0))
    assert back.result.exit == Exit.DONE
    gone, _ = in_rushed_time(slept(small, Mix(0, f"outage={NIGHT + 5000}@2,{SLOW}", "", "", 8), 100.0))
    assert gone.result.exit == Exit.REFUSED
    assert "(--patience)" in gone.result.parts[0].refused
    assert gone.seconds < NIGHT + 2500
