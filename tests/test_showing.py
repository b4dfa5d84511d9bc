from __future__ import annotations

import io
from collections.abc import Mapping

import pandas as pd
from rich.console import Console

from harness.showing import accuracy_table

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
