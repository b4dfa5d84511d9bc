"""What stands at the end of a run: the table, and what became of unscored items."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from rich.console import Console

from harness.manifest import Exit
from harness.showing import accuracy_table, closing_lines
from tests.fake_endpoint import FakeEndpoint, Status, first
from tests.running import Bench, bench

__all__ = ["bench"]

ROW = {
    **{
        "endpoint": "it",
        "task": "toy",
        "subject": "",
        "shots": 5,
        "metric": "acc",
        "value": 0.25,
        "unit": "fraction",
    },
    **{
        "stderr": 0.0125,
        "ci_low": 0.2,
        "ci_high": 0.3,
        "n": 1200,
        "unscored": 0,
        "low_bound": 0.25,
        "high_bound": 0.25,
    },
}


RETRY = "Not every item is scored; the same command tries the others again."


async def closing(bench: Bench, endpoint: FakeEndpoint, **changes: Any) -> list[str]:
    """The last lines of a run of HellaSwag on an endpoint."""
    result = await bench.run(f"{endpoint.base_url}#m", tasks="hellaswag", attempts=1, **changes)
    lines = list(closing_lines(result, program="forced-choice"))
    return lines[[line.startswith("Files: ") for line in lines].index(True) + 1 :]


def spoil_a_row(bench: Bench) -> None:
    """Make a row of HellaSwag no item."""
    file = bench.data / "hellaswag/validation.jsonl"
    file.write_text(file.read_text().replace('"label": "3"', '"label": "7"', 1))


async def test_what_no_further_try_can_score(bench: Bench) -> None:
    """Where all that is unscored stays so, the reasons are told, and no other try is promised."""
    spoil_a_row(bench)
    async with FakeEndpoint() as endpoint:
        lines = await closing(bench, endpoint, skip_bad_rows=True)
        assert lines == [
            "m: 1 item cannot be scored, and the same command will not change that: 1 × bad row"
            " (unscored in items.csv)"
        ]
        assert lines == await closing(bench, endpoint, skip_bad_rows=True)
        lines = await closing(
            bench, endpoint, out="short", skip_bad_rows=True, max_length=40, on_overflow="skip"
        )
    assert lines == [
        "m: 12 items cannot be scored, and the same command will not change that:"
        " 11 × longer than --max-length; 1 × bad row (unscored in items.csv)"
    ]


async def test_what_a_further_try_may_score(bench: Bench) -> None:
    """What an endpoint failed is tried again, and is told apart from what never can be scored."""
    async with FakeEndpoint(first(2, Status(400))) as endpoint:
        assert await closing(bench, endpoint) == [RETRY]
        assert await closing(bench, endpoint) == []
    spoil_a_row(bench)
    async with FakeEndpoint(first(2, Status(400))) as endpoint:
        for_good, again = await closing(bench, endpoint, out="both", skip_bad_rows=True)
    assert "1 × bad row" in for_good
    assert again == RETRY


async def test_endpoints_with_the_same_reasons_share_a_line(bench: Bench) -> None:
    """Items that no endpoint can be asked are told once."""
    spoil_a_row(bench)
    async with FakeEndpoint() as endpoint:
        urls = [f"{name}={endpoint.base_url}#{name}" for name in ("a", "b")]
        result = await bench.run(*urls, tasks="hellaswag", skip_bad_rows=True)
    *_, last = closing_lines(result, program="forced-choice")
    assert last.startswith("a, b: 1 item cannot be scored")


async def test_metrics_that_lack_items(bench: Bench) -> None:
    """Where every item is scored and only a metric lacks some, no other try is promised either."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(f"{endpoint.base_url}#m", tasks="hellaswag")
    *_, last = closing_lines(replace(result, exit=Exit.UNSCORED), program="forced-choice")
    assert (
        last == "Some metrics lack items (unscored in scores.csv), and the same command cannot change that."
    )


def drawn(*changes: Mapping[str, object]) -> str:
    """The table of these rows as text."""
    console = Console(file=io.StringIO(), width=120)
    console.print(accuracy_table(pd.DataFrame([{**ROW, **change} for change in changes])))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_endpoints_stand_side_by_side() -> None:
    """One line a task and metric, one column an endpoint, value and standard error."""
    text = drawn({}, {"endpoint": "that", "value": 0.5})
    (line,) = [line for line in text.splitlines() if "toy" in line]
    assert line.split() == ["toy", "5", "acc", "1,200", "0.2500", "±", "0.0125", "0.5000", "±", "0.0125"]


def test_unscored_items_stand_beside_the_number() -> None:
    """No number without what it leaves out; without any scored item no number."""
    text = drawn(
        {"unscored": 3},
        {"endpoint": "that", "value": float("nan"), "stderr": float("nan"), "unscored": 1203, "n": 0},
    )
    assert "(3 unscored)" in text
    assert "(1,203 unscored)" in text
    assert "nan" not in text


def test_labels_are_shown_as_they_are() -> None:
    """A label may be the name of a column, markup, or an emoji code."""
    labels = ("task", "metric", "subject", "items", "[red]x", ":x:")
    text = drawn(*[{"endpoint": label} for label in labels])
    head = text.splitlines()[2]
    assert head.split() == [
        "task",
        "shots",
        "metric",
        "items",
        "task",
        "metric",
        "subject",
        "items",
        "[red]x",
        ":x:",
    ]


def test_subjects_stay_in_the_file() -> None:
    """The terminal shows tasks and groups; single subjects stand in `scores.csv`."""
    assert "virology" not in drawn({}, {"subject": "virology"})
