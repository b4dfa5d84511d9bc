"""Nothing wrongly believed: whole runs among everything that `--faults` can do, several faults at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.manifest import Exit
from tests.ledger import note
from tests.mixes import (
    FAULTS,
    MIXED,
    SILENT,
    Came,
    Mix,
    Sums,
    came_of,
    drawn,
    mixing,
    rushed,
    without_faults,
    wrong_in,
)
from tests.running import Bench
from tests.rushed_time import in_rushed_time

MIXES = 200
PARTS = 8
SLOW = "slow,slow_seconds=1"
"""A run takes seconds, so that something can happen in its middle."""
IDLE = frozenset({"rpm", "tpm", "top", "tokenizer", "no_tokenize", "no_prompt", "moved_by_sampling"})
"""Faults that need not strike: our client is told the limits, and does not ask what they spoil."""

seen: Counter[str] = Counter()
"""How often each fault struck; and, as "mixes", how many there were."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Where they are run."""
    return mixing(tmp_path_factory.mktemp("mixes"))


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Clients and endpoints go by the loop's time."""
    with rushed():
        yield


class Truths:
    """What runs without faults come to, each asked once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._known: dict[tuple[str, str], Came] = {}

    async def of(self, mix: Mix) -> Came:
        """The same run as this one, on an endpoint that does nothing wrong."""
        which = mix.dialect, mix.route
        if which not in self._known:
            self._known[which] = await came_of(self._bench, without_faults(mix), f"truth{len(self._known)}")
        return self._known[which]

    async def sums(self, mix: Mix) -> Sums:
        """Its sums; none is missing."""
        came = await self.of(mix)
        assert came.result.exit == Exit.DONE
        return came.sums


@pytest.fixture(scope="module")
def truths(bench: Bench) -> Truths:
    """Of all mixes here."""
    return Truths(bench)


def test_every_fault_has_its_place() -> None:
    """Every fault that there is occurs in several mixes, or is known to show in no reply."""
    drawn_often = Counter(name for seed in range(MIXES) for name in drawn(seed).names)
    assert set(FAULTS) == {name for name in MIXED if drawn_often[name] >= 5} | SILENT


@pytest.mark.parametrize("part", range(PARTS))
def test_mixes_of_faults(part: int, bench: Bench, truths: Truths) -> None:
    """Each item has the sums of a run without faults, to the bit, or none, counted, for the right reason."""
    seeds = range(part, MIXES, PARTS)

    async def all_of_them() -> list[str]:
        found = []
        for seed in seeds:
            mix = drawn(seed)
            came = await came_of(bench, mix, f"run{seed}")
            found += wrong_in(came, await truths.sums(mix), mix)
            seen.update({"mixes": 1, **came.struck})
        return found

    wrong = in_rushed_time(all_of_them())
    note("runs among mixed faults", tried=len(seeds), lost=len(wrong), unit="mixes")
    assert not wrong


def test_every_fault_struck() -> None:
    """What occurs in the mixes has struck requests there."""
    if seen["mixes"] < MIXES:
        pytest.skip("needs all parts of the test before it")
    struck = {name for name in MIXED if seen[name]}
    note("faults that struck in them", tried=len(struck), lost=0, unit="faults")
    assert struck >= set(MIXED) - IDLE


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_the_same_command_mends_it(seed: int, bench: Bench, truths: Truths) -> None:
    """What faults left unscored is asked again by the same command; the tables are those without faults."""
    mix = drawn(seed, largest=0.8)

    async def twice() -> tuple[Came, Came, Came]:
        first = await came_of(bench, mix, f"again{seed}")
        second = await came_of(bench, without_faults(mix), f"again{seed}", port=first.port)
        return first, second, await truths.of(mix)

    first, second, true = in_rushed_time(twice())
    assert not wrong_in(first, true.sums, mix)
    assert second.result.exit == Exit.DONE
    assert second.sums == true.sums
    for name in ("scores.csv", "items.csv"):
        assert (second.result.folder / name).read_bytes() == (true.result.folder / name).read_bytes()
    note("runs mended by the same command", tried=1, lost=0, unit="runs")


@pytest.mark.parametrize("concurrency", [1, "auto"])
@pytest.mark.parametrize(
    "faults", ["outage=1700", f"blackout=1700@2,{SLOW}", f"outage=600,blackout=600@601,{SLOW}"]
)
def test_an_outage_is_sat_out(faults: str, concurrency: int | str, bench: Bench, truths: Truths) -> None:
    """An endpoint that is down for longer than all attempts last, at any time, costs no item."""
    mix = Mix(0, faults, "", "", concurrency)
    came, true = in_rushed_time(_both(bench, truths, mix))
    assert came.result.exit == Exit.DONE
    assert came.sums == true.sums
    assert came.struck.total() > 0
    assert 900 < came.seconds < 3600
    note("outages sat out", tried=1, lost=0, unit="outages")


def test_an_outage_beyond_all_patience(bench: Bench, truths: Truths) -> None:
    """An endpoint that stays down is given up after `--patience`; what was not asked is said to be that."""
    mix = Mix(0, f"outage=7000@2,{SLOW}", "", "", 8)
    came, true = in_rushed_time(_both(bench, truths, mix))
    assert came.result.exit == Exit.REFUSED
    assert "no success for 30 min (--patience): 503" in came.result.parts[0].refused
    assert {why for _, why in came.sums.values()} <= {None, "not tried"}
    assert all(sums == true.sums[item][0] for item, (sums, why) in came.sums.items() if why is None)


@pytest.mark.parametrize(
    ("faults", "said"),
    [("bos=5", r"replies count other prompts than were sent (+1 tokens)"), ("shortened=40", "(-")],
)
def test_another_prompt_is_told_by_its_count(faults: str, said: str, bench: Bench) -> None:
    """An endpoint that puts a token in front, or drops some, gives possible values: its own count tells."""
    came = in_rushed_time(came_of(bench, Mix(0, faults, "", "", 8), f"counted {faults}"))
    assert any(said in remark for remark in came.result.remarks)


def test_a_flat_output_is_not_believed(bench: Bench) -> None:
    """Of a longer continuation no endpoint finds all tokens equally likely to the last bit."""
    came = in_rushed_time(came_of(bench, Mix(0, "flat", "", "", 8), "flat"))
    assert {why.partition(":")[0] for _, why in came.sums.values() if why is not None} == {"protocol"}
    assert all(why is not None for (task, *_), (_, why) in came.sums.items() if task == "hellaswag")


def test_faults_that_do_not_concern_a_run(bench: Bench, truths: Truths) -> None:
    """No sampling field is sent, and no text: what spoils these changes nothing."""
    mix = Mix(0, "moved_by_sampling,tokenizer,no_tokenize,no_prompt", "", "tuned", 8)
    came, true = in_rushed_time(_both(bench, truths, mix))
    assert (came.result.exit, came.sums) == (Exit.DONE, true.sums)


async def _both(bench: Bench, truths: Truths, mix: Mix) -> tuple[Came, Came]:
    """What a mix comes to, and what it would without faults."""
    return await came_of(bench, mix, f"both {mix.faults} {mix.concurrency}"), await truths.of(mix)


def test_runs_leave_nothing_behind(bench: Bench) -> None:
    """No journal has a log of its own left beside it, once its run has ended."""
    assert not [*Path(bench.folder).rglob("*-wal"), *Path(bench.folder).rglob("*-shm")]
