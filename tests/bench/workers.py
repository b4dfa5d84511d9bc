"""What workers are worth on two processors: full HellaSwag against the endpoint that answers at once.

    python -m tests.bench.workers --shared ../shared [--only plain,local,ray] [--repeat 3] [--tables]

A run without workers, one with two workers of this machine, and one with two on Ray take turns. Client (all
its processes, Ray's among them) and endpoint share both processors, so two workers can at best be 2c/(c+s)
times as fast as one that has a processor for itself, with c and s what a request costs client and endpoint
in that very run. All is measured while a run sends steadily: between a fifth and four fifths of its
requests. `--tables` has four endpoints asked on a Ray cluster of two nodes, and compares all files with
those of one process.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pyarrow import parquet

from tests.bench.measuring import Bench, Failed, Instant, machine, table
from tests.ray.processes import below, content

WAYS = {
    "plain": [],
    "local": ["--workers", "2"],
    "ray": ["--engine", "ray", "--workers", "2"],
}
"""Flags by the name of a way to run."""
PROCESSORS = 2
BAR = 0.85
"""Of 2c/(c+s)."""
LOOK = 0.25
"""Seconds between two looks."""
STEADY = 0.2, 0.8
"""Parts of all requests between which is measured."""
TABLES = ("scores.csv", "items.csv", "items.parquet", "prompts.txt")
_TICK = os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """How far a run is."""

    at: float
    """Seconds of a clock."""
    requests: int
    client: float
    """Seconds that its processes have worked."""
    server: float
    machine: float
    """Seconds that the processors have worked, for whomever."""


class Pace(NamedTuple):
    """How fast a run was, and what a request cost."""

    a_second: float
    client: float
    """Seconds of processor time a request."""
    server: float
    others: float
    """Part of both processors that others used: where it is much, nothing was measured."""

    @property
    def used(self) -> float:
        """Part of both processors that was used."""
        return self.a_second * (self.client + self.server) / PROCESSORS

    @property
    def best(self) -> float:
        """How many times as fast as one client with a processor for itself this can be."""
        return PROCESSORS * self.client / (self.client + self.server)


def worked(pids: set[int], seen: dict[int, float]) -> float:
    """Seconds that processes have worked, with those that have ended since."""
    for pid in pids:
        fields = content(pid, "stat").rpartition(b")")[2].split()
        if len(fields) > 12:
            seen[pid] = (int(fields[11]) + int(fields[12])) / _TICK
    return sum(seen.values())


def busy() -> float:
    """Seconds that the processors of the machine have worked."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / _TICK


def looks(command: Sequence[str], endpoint: Instant) -> list[Look]:
    """Run a command to its end, and look at it now and then.

    Raises:
        Failed: the command ended with another exit code than 0.
    """
    endpoint.forget()
    found, seen = list[Look](), dict[int, float]()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            counts = endpoint.counts()
            client = worked(below(process.pid), seen)
            now = time.monotonic()
            found.append(Look(now, counts["requests"], client, counts["processor"], busy()))
            time.sleep(LOOK)
        said.seek(0)
        if process.returncode:
            raise Failed(f"{' '.join(command)}\nexit {process.returncode}\n{said.read()[-4000:].decode()}")
    return found


def steady(found: Sequence[Look]) -> Pace:
    """The pace between the first and the last look of the steady part."""
    whole = found[-1].requests
    part = [each for each in found if STEADY[0] * whole <= each.requests <= STEADY[1] * whole]
    if len(part) < 3:
        raise Failed("the run was too short to be measured")
    first, last = part[0], part[-1]
    seconds, requests, client, server, machine = (b - a for a, b in zip(first, last, strict=True))
    others = (machine - client - server) / seconds / PROCESSORS
    return Pace(requests / seconds, client / requests, server / requests, others)


def rounds(bench: Bench, ways: Sequence[str]) -> dict[str, list[Pace]]:
    """The paces of each way, round by round."""
    paces: dict[str, list[Pace]] = {way: [] for way in ways}
    with Instant(bench.tokenizer) as endpoint:
        looks(bench.run(endpoint.url, "hellaswag"), endpoint)  # the endpoint learns what it says
        for number in range(bench.repeat):
            for way in ways:
                pace = steady(looks(bench.run(endpoint.url, "hellaswag", *WAYS[way]), endpoint))
                paces[way].append(pace)
                said = f"{pace.a_second:,.0f} a second, {pace.used:.2f} used, others {pace.others:.2f}"
                bench.say(f"  {number + 1}. {way}: {said}")
    return paces


def _row(way: str, paces: Sequence[Pace], plain: Sequence[Pace]) -> tuple[str, ...]:
    faster = [one.a_second / other.a_second for one, other in zip(paces, plain, strict=False)]
    reached = median(each.used for each in paces)
    return (
        " ".join(["run", *WAYS[way]]),
        f"{median(each.a_second for each in paces):,.0f}",
        f"{median(each.client for each in paces) * 1e6:.0f}",
        f"{median(each.server for each in paces) * 1e6:.0f}",
        f"{median(faster):.2f}" if faster else "",
        f"{median(each.best for each in paces):.2f}",
        f"{reached:.2f}",
        f"{median(each.others for each in paces):.2f}",
        "" if way == "plain" else "yes" if reached >= BAR else "NO",
    )


HEAD = (
    "full HellaSwag",
    "requests/s",
    "c, µs",
    "s, µs",
    "over `run`",
    "2c/(c+s)",
    "reached of it",
    "others",
    f"at least {BAR}",
)


@contextmanager
def _cluster() -> Iterator[str]:
    """The address of a cluster of two nodes."""
    from tests.ray.nodes import Cluster, set_up

    set_up()
    cluster = Cluster()
    try:
        yield cluster.address
    finally:
        cluster.close()


def tables(bench: Bench) -> list[str]:
    """The files in which a run of four endpoints on two nodes differs from one in one process."""
    with Instant(bench.tokenizer) as one, Instant(bench.tokenizer) as two, _cluster() as address:
        more = [f"--endpoint=b={two.url}", f"--endpoint=c={one.url}#c", f"--endpoint=d={two.url}#d"]
        outs = [bench.scratch / name for name in ("alone", "spread")]
        flags: list[list[str]] = [[], ["--engine", "ray", "--ray-address", address, "--workers", "2"]]
        for out, each in zip(outs, flags, strict=True):
            begun = time.monotonic()
            subprocess.run(bench.run(one.url, "hellaswag", *more, *each, out=out), check=True)
            counts = one.counts()["requests"] + two.counts()["requests"]
            bench.say(f"  {out.name}: {time.monotonic() - begun:.0f} s, {counts:,} requests")
            one.forget()
            two.forget()
    alone, spread = outs
    different = [name for name in TABLES if not filecmp.cmp(alone / name, spread / name, shallow=False)]
    texts = [parquet.read_table(out / "texts.parquet") for out in outs]  # their rows count, not their groups
    return [*different, *([] if texts[0].equals(texts[1]) else ["texts.parquet"])]


def main() -> int:
    """Measure, print; 1 where a bar was missed or a table differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="the shared test material")
    parser.add_argument("--only", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--tables", action="store_true", help="compare the tables of four endpoints instead")
    given = parser.parse_args()
    ways = given.only.split(",")
    if unknown := [way for way in ways if way not in WAYS]:
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(WAYS)}")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # everything here is on loopback
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(given.shared.resolve(), Path(scratch), given.repeat)
        print(f"Measured {machine()}.\n", flush=True)
        if given.tables:
            different = tables(bench)
            print(f"differ: {', '.join(different)}" if different else "All tables are the same.")
            return 1 if different else 0
        paces = rounds(bench, ways)
    print(table(HEAD, [_row(way, each, paces.get("plain", ())) for way, each in paces.items()]))
    return 0 if all(_holds(paces[way]) for way in ways if way != "plain") else 1


def _holds(paces: Sequence[Pace]) -> bool:
    return median(each.used for each in paces) >= BAR


if __name__ == "__main__":
    sys.exit(main())
