"""How fast the program is, and how kind to the endpoint: `make bench`.

    python -m tests.bench.speed --shared ../shared [--only hellaswag,help] [--repeat 5]

Everything is measured in one run, as processes of their own, and compared as ratios: seconds mean little on
another machine. A ratio is the median of those of the rounds. What each part is stands in the README beside.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import figures, leases, memory, paced, whole
from tests.bench.measuring import Bench, Failed, Figure, machine, table

SECTIONS: dict[str, Callable[[Bench], list[Figure]]] = {
    "hellaswag": whole.section,
    "help": figures.help_section,
    "start": figures.start_section,
    "mmlu": figures.mmlu_section,
    "batching": figures.batching_section,
    "rpm": paced.rpm_section,
    "leases": leases.section,
    "capacity": paced.capacity_section,
    "memory": memory.section,
}


def bars(found: list[Figure]) -> str:
    """The figures beside what they must reach."""
    return table(
        ("figure", "measured", "bar", "holds"),
        [(name, value, bar, ("yes" if holds else "NO") if bar else "") for name, value, bar, holds in found],
    )


def main() -> int:
    """Measure, print the tables as Markdown; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the shared test material")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; medians are shown")
    parser.add_argument("--lm-eval-repeat", type=int, default=1, help="of them with lm-evaluation-harness")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(SECTIONS)}")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # everything here is on loopback
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given.shared.resolve(), Path(scratch), given.repeat, given.lm_eval_repeat)
        for needed in (bench.tokenizer, bench.hellaswag):
            if not needed.exists():
                parser.error(f"--shared {given.shared}: {needed.relative_to(bench.shared)} is not there")
        found: list[Figure] = []
        print(f"Measured {machine()}.\n", flush=True)
        for name in names:
            bench.say(f"{name} ...")
            try:
                found += SECTIONS[name](bench)
            except Failed as error:
                found.append(Figure(name, "failed", "must run", holds=False))
                bench.say(str(error))
    print(bars(found))
    return 0 if all(figure.holds for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
