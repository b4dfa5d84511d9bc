"""Whole runs against the embedded endpoint while it does wrong whatever `--faults` can, several at once.

A mix is drawn by hypothesis, or from a number (the long ones). The run is the real one with its default
patience, the endpoint the real application around a model that is a table; both live in a loop whose waits
cost nothing. What a run comes to is held against the same run without faults: each item has the same sums to
the bit, or none, for a reason that the mix explains.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from aiohttp import ClientSession
from hypothesis import strategies as st
from pyarrow import parquet
from yarl import URL

from harness.client import Client
from harness.runner import RunResult
from harness.serving.app import Service, create_app
from harness.serving.faults.plan import DETAILS, read_faults, rows
from harness.serving.server import listening
from harness.tokenizing import load_tokenizer
from harness.watching.judging import wrong
from tests.decoded import Table
from tests.running import Bench, write_rows
from tests.rushed_time import LoopsEngine, rushed_now

# ----------------------------------------------------------------------------------------------- the model

_VOCABULARY = 96
_ROWS: npt.NDArray[np.float32] = np.random.default_rng(8).normal(0, 3, (997, _VOCABULARY)).astype(np.float32)


class Wide(Table):
    """A table that reads whole prompts at once."""

    max_length = 8000
    block = 4096

    def __init__(self, salt: int) -> None:
        """Different salts are different models: the base, and an adapter."""

        def logits(ids: Sequence[int]) -> Any:
            state = salt
            for each in ids[-6:]:
                state = 31 * state + each
            return _ROWS[(31 * state + len(ids)) % len(_ROWS)]

        super().__init__(logits)


# ---------------------------------------------------------------------------------------------- the mixes

FAULTS = tuple(name for name, _, _ in rows() if name not in DETAILS)

SILENT = frozenset(
    {"ignore_adapter", "bos", "shortened", "drift", "order", "crowded", "chain", "flat"},
)
"""Faults of which no single reply shows anything: no mix has them; what finds them has its own tests."""

MIXED = tuple(name for name in FAULTS if name not in SILENT)

_DOWN = tuple(f"{seconds}@{begin}" for seconds, begin in product((3, 60, 1500), (0, 0.01, 0.05)))
_VALUES: Mapping[str, Sequence[object]] = {
    "blackout": _DOWN,
    "outage": _DOWN,
    "rpm": (300, 60, 20),
    "tpm": (40_000, 6_000, 2_000),
    "capacity": (5, 2, 1),
    "queue": (5, 2, 1),
    "context": (200, 90, 60),
    "top": (5, 1),
    **dict.fromkeys(("401", "403"), (0.02,)),
    **dict.fromkeys(("tokenizer", "no_tokenize", "no_prompt", "moved_by_sampling"), ("true",)),
}
"""What a fault that is no share of requests may be set to, the mildest first."""
_LEAST = 20
"""Thousandths of the requests that a fault strikes at least, where it is a share of them."""
_RETRY_AFTER, _SLOW_SECONDS = (0, 1, 7), (1, 90, 150)
_DIALECTS, _ROUTES = ("", "", "openai+"), ("", "tuned")
_CONCURRENCY: tuple[int | str, ...] = (1, 8, "auto")
_TASKS = ("mmlu", "hellaswag", "hellaswag,mmlu", "hellaswag,mmlu", "hellaswag,mmlu")
"""Both of them mostly; a mix that fails comes down to the fewest items."""

_REASONS: Mapping[str, frozenset[str]] = {
    "blackout": frozenset({"connection"}),
    "outage": frozenset({"503"}),
    **dict.fromkeys(("rpm", "tpm", "capacity", "429", "429_date", "429_bare"), frozenset({"429"})),
    **{status: frozenset({status}) for status in ("500", "502", "503", "504")},
    "leak": frozenset({"500"}),
    "not_json": frozenset({"cut body"}),
    "hang": frozenset({"timeout"}),
    "slow": frozenset({"timeout"}),
    "reset": frozenset({"connection"}),
    "reset_midway": frozenset({"connection", "cut body"}),
    "cut": frozenset({"cut body"}),
    "context": frozenset({"422"}),
    **dict.fromkeys(("zero", "count", "positive", "null", "nan", "other_ids"), frozenset({"protocol"})),
}
"""For which reasons an item may be unscored where a fault is on; none: a fault that costs no item."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What goes wrong in a run, and how it is run."""

    seed: int
    faults: str
    """As `--faults` takes it."""
    dialect: str
    """What stands in front of the URL."""
    route: str
    """Of the adapter that is asked; empty: the base model."""
    concurrency: int | str
    probe: bool = False
    """The run asks beside its items too."""
    tasks: str = "hellaswag,mmlu"
    limit: int | None = None
    """Items of each task; of each subject."""

    @property
    def names(self) -> frozenset[str]:
        """Of the faults."""
        return frozenset(read_faults([self.faults]).on())


@st.composite
def mixes(draw: st.DrawFn, leading: str, *, most: int = 4, largest: float = 0.3) -> Mix:
    """Mixes that have a certain fault; the simplest has no other, strikes seldom, and asks few items.

    Args:
        draw: of hypothesis.
        leading: the fault.
        most: faults beside it.
        largest: share of requests that one of them strikes.
    """
    others = draw(st.lists(st.sampled_from(MIXED), max_size=most, unique=True))
    values = {name: draw(_values(name, largest)) for name in FAULTS if name in {leading, *others}}
    seed = draw(st.integers(0, 10**6))
    return Mix(
        seed,
        _said(values, seed, draw(st.sampled_from(_RETRY_AFTER)), draw(st.sampled_from(_SLOW_SECONDS))),
        draw(st.sampled_from(_DIALECTS)),
        draw(st.sampled_from(_ROUTES)),
        draw(st.sampled_from(_CONCURRENCY)),
        draw(st.sampled_from((False, False, False, True))),
        draw(st.sampled_from(_TASKS)),
        draw(st.sampled_from((1, None, None))),
    )


def _values(name: str, largest: float) -> st.SearchStrategy[object]:
    if name in _VALUES:
        return st.sampled_from(_VALUES[name])
    return st.integers(_LEAST, round(1000 * largest)).map(lambda share: share / 1000)


def drawn(seed: int, *, most: int, largest: float) -> Mix:
    """A mix from a number; those that follow one another lead with one fault after another.

    Args:
        seed: the number.
        most: faults beside the leading one.
        largest: share of requests that one of them strikes.
    """
    chance = random.Random(seed)
    names = {MIXED[seed % len(MIXED)], *chance.sample(MIXED, chance.randint(0, most))}
    values = {
        name: chance.choice(_VALUES.get(name) or (round(chance.uniform(_LEAST / 1000, largest), 3),))
        for name in FAULTS
        if name in names
    }
    return Mix(
        seed,
        _said(values, seed, chance.choice(_RETRY_AFTER), chance.choice(_SLOW_SECONDS)),
        chance.choice(_DIALECTS),
        chance.choice(_ROUTES),
        chance.choice(_CONCURRENCY),
        chance.random() < 0.25,
    )


def _said(values: Mapping[str, object], seed: int, retry_after: int, slow_seconds: int) -> str:
    """As `--faults` takes it."""
    details = {"seed": seed, "retry_after": retry_after, "slow_seconds": slow_seconds}
    return ",".join(f"{name}={value}" for name, value in {**values, **details}.items())


# ------------------------------------------------------------------------------------------------ the runs

Sums = Mapping[tuple[str, str, int], tuple[tuple[float, ...], str | None]]
"""Of each item, by task, subject and index: its sums, and why it has none."""


@dataclass(frozen=True, slots=True)
class Came:
    """What a run came to."""

    result: RunResult
    sums: Sums
    struck: Counter[str]
    """How often each fault struck."""
    seconds: float
    """That passed in the loop."""
    port: int


def mixing(folder: Path) -> Bench:
    """Where mixes are run: few items, so that many mixes are."""
    bench = Bench(folder)
    write_rows(bench.data, hellaswag=2, mmlu=1)
    return bench


@contextmanager
def rushed() -> Iterator[None]:
    """While it lasts, clients go by the loop's time, and endpoints compute in the loop."""
    with (
        patch("harness.clients.Client", partial(Client, clock=rushed_now)),
        patch("harness.serving.app.Engine", LoopsEngine),
        # What takes time of its own while hours pass, and is no matter here.
        patch("harness.choosing.owncode.entry_points", lambda **group: ()),
        patch("harness.heartbeat.SIGN_SECONDS", 600.0),
        patch("harness.progress.PLAIN_SECONDS", 600.0),
    ):
        yield


async def came_of(bench: Bench, mix: Mix, out: str, *, port: int = 0, **changes: Any) -> Came:
    """Run a mix in a rushed loop; of equal ports runs go on where those before them ended."""
    begun = rushed_now()
    tokenizer = load_tokenizer(str(bench.tokenizer))
    service: Service[Any] = Service(
        model=Wide(1),
        adapters={"tuned": Wide(2)},
        tokenizer=tokenizer,
        name="table",
        faults=read_faults([mix.faults]),
        clock=rushed_now,
    )
    async with listening(create_app(service), port=port) as url:
        spec = f"it={mix.dialect}{url}#base{':' + mix.route if mix.route else ''}"
        result = await bench.run(
            spec,
            out=out,
            **{
                "concurrency": mix.concurrency,
                "probe": mix.probe,
                "tasks": mix.tasks,
                "limit": mix.limit,
                **changes,
            },
        )
        async with ClientSession() as session, session.get(url.removesuffix("/v1") + "/admin") as reply:
            struck = (await reply.json())["faults"]
    seconds, at = rushed_now() - begun, URL(url).port
    return Came(result, sums_of(result.folder), Counter(struck), seconds, at or 0)


def sums_of(folder: Path) -> Sums:
    """What a run's items are."""
    return {
        (row["task"], row["subject"], row["index"]): (tuple(row["sums"]), row["unscored"])
        for row in parquet.read_table(folder / "items.parquet").to_pylist()
    }


def without_faults(mix: Mix) -> Mix:
    """The same run of an endpoint that does nothing wrong."""
    return replace(mix, faults="", probe=False)


# ---------------------------------------------------------------------------------------------- the verdict


def wrong_in(came: Came, truth: Sums, mix: Mix) -> list[str]:
    """Everything that must not be: a score that is not the true one, a reason that nothing explains."""
    found = []
    reasons = frozenset[str]().union(*(_REASONS.get(name, frozenset()) for name in mix.names))
    if came.sums.keys() != truth.keys():
        found.append(f"{len(came.sums)} items of {len(truth)}")
    for item, (sums, unscored) in came.sums.items():
        if unscored is None and sums != truth[item][0]:
            found.append(f"{item}: {sums}, where {truth[item][0]} is true")
        if unscored is not None and not explained(unscored, reasons, came):
            found.append(f"{item}: unscored for {unscored!r}")
    return [f"{each} [seed {mix.seed}: {mix.faults}]" for each in [*found, *_miscounted(came)]]


def explained(unscored: str, reasons: frozenset[str], came: Came) -> bool:
    """Whether an item may be unscored for this."""
    refused = any(part.refused for part in came.result.parts)
    return any(unscored == each or unscored.startswith(f"{each}:") for each in reasons) or (
        refused and unscored == "not tried"
    )


def _miscounted(came: Came) -> list[str]:
    """Where the counts beside the numbers, or the exit code, do not say how many items are unscored."""
    unscored = Counter(item[0] for item, (_, why) in came.sums.items() if why is not None)
    frame = came.result.accuracy
    whole = frame[(frame["subject"] == "") & frame["task"].isin({item[0] for item in came.sums})]
    found = [
        f"{row['task']} {row['metric']}: {row['unscored']} unscored in the table, {unscored[row['task']]} are"
        for row in whole.to_dict("records")
        if row["metric"] != "greedy" and row["unscored"] != unscored[row["task"]]
    ]
    refused = any(part.refused or wrong(part.findings) for part in came.result.parts)
    code = 4 if refused else 3 if unscored else 0
    if int(came.result.exit) != code:
        found.append(f"exit {int(came.result.exit)}, where {code} is right")
    return found
