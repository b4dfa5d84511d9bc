"""Nothing wrongly believed: whole runs among everything that `--faults` can do, several faults at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

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
    mixes,
    mixing,
    rushed,
    without_faults,
    wrong_in,
)
from tests.running import Bench
from tests.rushed_time import in_rushed_time

EACH = 6
"""Mixes that each fault leads: more than 200 in all."""
SLOW = "slow,slow_seconds=1"
"""A run takes seconds, so that something can happen in its middle."""
IDLE = frozenset({"rpm", "tpm", "top", "tokenizer", "no_tokenize", "no_prompt", "moved_by_sampling"})
"""Faults that need not strike: our client is told the limits, and does not ask what they spoil."""

seen: Counter[str] = Counter()
"""How often each fault struck; and, as "mixes", how many there were."""
had: Counter[str] = Counter()
"""How many mixes had each fault."""


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
        self._known: dict[tuple[object, ...], Came] = {}

    async def of(self, mix: Mix) -> Came:
        """The same run as this one, on an endpoint that does nothing wrong."""
        which = mix.dialect, mix.route, mix.tasks, mix.limit
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


def over(
    drawn: st.SearchStrategy[Mix],
    often: int,
    number: int,
    run: Callable[[Mix], Coroutine[None, None, list[str]]],
) -> int:
    """Run mixes, the same ones each time; how many they were.

    Args:
        drawn: what they are drawn from; one that fails is made simpler before it is told of.
        often: how many.
        number: another one draws others.
        run: says what is wrong with a mix, in a loop of its own.
    """
    tried = 0

    @seed(number)
    @settings(max_examples=often, database=None)
    @given(drawn)
    def each(mix: Mix) -> None:
        nonlocal tried
        assert not in_rushed_time(run(mix))
        tried += 1

    each()
    return tried


@pytest.mark.parametrize("leading", MIXED)
def test_mixes_of_faults(leading: str, bench: Bench, truths: Truths) -> None:
    """Each item has the sums of a run without faults, to the bit, or none, counted, for the right reason."""

    async def run(mix: Mix) -> list[str]:
        came = await came_of(bench, mix, f"run{seen['mixes']}")
        seen.update({"mixes": 1, **came.struck})
        had.update(mix.names)
        return wrong_in(came, await truths.sums(mix), mix)

    tried = over(mixes(leading), EACH, MIXED.index(leading), run)
    note("runs among mixed faults", tried=tried, lost=0, unit="mixes")


def test_every_fault_struck() -> None:
    """Every fault that there is was in several mixes and struck there, or is known to show in no reply."""
    if seen["mixes"] < EACH * len(MIXED):
        pytest.skip("needs all mixes of the test before it")
    assert set(FAULTS) == {name for name in MIXED if had[name] >= EACH} | SILENT
    struck = {name for name in MIXED if seen[name]}
    note("faults that struck in them", tried=len(struck), lost=0, unit="faults")
    assert struck >= set(MIXED) - IDLE


def test_the_same_command_mends_it(bench: Bench, truths: Truths) -> None:
    """What faults left unscored is asked again by the same command; the tables are those without faults."""
    runs = 0

    async def twice(mix: Mix) -> list[str]:
        nonlocal runs
        runs += 1
        first = await came_of(bench, mix, f"again{runs}")
        second = await came_of(bench, without_faults(mix), f"again{runs}", port=first.port)
        true = await truths.of(mix)
        assert second.result.exit == Exit.DONE
        assert second.sums == true.sums
        for name in ("scores.csv", "items.csv"):
            assert (second.result.folder / name).read_bytes() == (true.result.folder / name).read_bytes()
        return wrong_in(first, true.sums, mix)

    leading = st.sampled_from(MIXED).flatmap(lambda name: mixes(name, largest=0.8))
    tried = over(leading, 12, 1000, twice)
    note("runs mended by the same command", tried=tried, lost=0, unit="runs")


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
