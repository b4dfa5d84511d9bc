"""Long runs among mixed faults: a part of `make soak`.

    python -m tests.bench.mixed [--mixes 1000] [--first 10000] [--ledger]

As `tests/test_mixes.py`, with more items, more faults at once, and more often; each mix is another one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tests import ledger
from tests.ledger import note
from tests.mixes import Mix, Sums, came_of, drawn, mixing, rushed, without_faults, wrong_in
from tests.running import Bench, write_rows
from tests.rushed_time import in_rushed_time

MOST = 6
"""Faults beside the leading one."""
LARGEST = 0.25
"""Share of requests that one of them strikes."""
_AT_ONCE = 20
"""Mixes in one event loop."""


class Soak:
    """Runs mixes, and adds up what they came to."""

    def __init__(self, folder: Path) -> None:
        self.bench: Bench = mixing(folder)
        write_rows(self.bench.data, hellaswag=20, mmlu=4)
        self.truths: dict[tuple[str, str], Sums] = {}
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, seeds: range) -> None:
        """Run these mixes."""
        for seed in seeds:
            mix = drawn(seed, most=MOST, largest=LARGEST)
            truth = await self._truth(mix)
            came = await came_of(self.bench, mix, f"run{seed}")
            self.wrong += wrong_in(came, truth, mix)
            unscored = sum(why is not None for _, why in came.sums.values())
            shutil.rmtree(came.result.folder)
            self.seen.update(mixes=1, items=len(came.sums), unscored=unscored, struck=came.struck.total())

    async def _truth(self, mix: Mix) -> Sums:
        which = mix.dialect, mix.route
        if which not in self.truths:
            self.truths[which] = (await came_of(self.bench, without_faults(mix), f"true{which}")).sums
        return self.truths[which]


def soak(folder: Path, seeds: range) -> bool:
    """Run them all; whether no score was wrong."""
    begun, made = time.monotonic(), Soak(folder)
    with rushed():
        for start in range(seeds.start, seeds.stop, _AT_ONCE):
            in_rushed_time(made.run(range(start, min(start + _AT_ONCE, seeds.stop))))
    seen = made.seen
    print(
        f"{seen['mixes']:,} mixes in {time.monotonic() - begun:.0f} s, struck {seen['struck']:,} times: of"
        f" {seen['items']:,} items {seen['unscored']:,} unscored and counted, {len(made.wrong)} wrong"
    )
    for each in made.wrong[:20]:
        print(each)
    note("long runs among mixed faults", tried=seen["mixes"], lost=len(made.wrong), unit="mixes")
    return not made.wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mixes", type=int, default=1000)
    parser.add_argument("--first", type=int, default=10_000, help="number of the first; another one: others")
    parser.add_argument("--ledger", action="store_true", help="renew the table in tests/README.md")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        held = soak(Path(folder), range(given.first, given.first + given.mixes))
    if held and given.ledger:
        ledger.write()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
