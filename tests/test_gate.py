"""The gate: its policy, its checks, and the forms that CI systems read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.comparison.columns import TaskFacts, columns_of_scores
from harness.comparison.comparing import compare_columns
from harness.comparison.findings import Findings
from harness.comparison.gate import Check, Policy, TaskPolicy, check
from harness.errors import StoreError, UsageError
from harness.junit import append_summary, write_junit
from harness.policy import EXAMPLE, read_policy
from tests.making import comparable
from tests.running import ROOT

RIGHT, WRONG = (-1.0, -2.0, -3.0), (-2.0, -1.0, -3.0)
METRICS = {"toy": ("acc", "acc_norm")}
FACTS = [TaskFacts("toy", ("acc", "acc_norm"), {})]


def compared(
    *, gained: int = 0, lost: int = 0, n: int = 1_000, unscored: int = 0, cut: int = 0, label: str = "tuned"
) -> Findings:
    """A baseline and an endpoint that differ in so many items; some it did not score, some it lacks."""
    before: Sequence[Sequence[float]] = [WRONG] * gained + [RIGHT] * (n - gained)
    after: list[Sequence[float] | None] = list([RIGHT] * gained + [WRONG] * lost)
    after += [RIGHT] * (n - gained - lost)
    after = [*after[: n - unscored], *[None] * unscored][: n - cut]
    sides: Sequence[tuple[str, Sequence[Sequence[float] | None]]] = (("base", before), (label, after))
    return compare_columns(
        [columns_of_scores(x, [comparable(i, s) for i, s in enumerate(y)], METRICS) for x, y in sides],
        FACTS,
        margin=0.01,
    )


def failed(checks: Sequence[Check]) -> list[str]:
    """What failed, in words."""
    return [f"{each.name}: {each.message}" for each in checks if not each.passed]


def test_shown_to_be_no_worse() -> None:
    """An endpoint that equals the baseline on a thousand items passes a gate of a point."""
    checks = check(compared(), Policy(margin=0.01))
    assert [each.name for each in checks] == [
        "toy acc is worse by less than 1 point",
        "toy has 99 % of its items scored on both",
    ]
    assert failed(checks) == []


def test_worse() -> None:
    """One that loses five points fails, and is told by how much."""
    [why] = failed(check(compared(lost=50), Policy(margin=0.01)))
    assert why.startswith(
        "toy acc is worse by less than 1 point: worse by more than that: \N{MINUS SIGN}5.00 points"
    )


def test_not_shown_is_not_passed() -> None:
    """A few items show nothing: no difference found is no proof of none; it is said how many would do."""
    [why] = failed(check(compared(n=50, gained=1, lost=1), Policy(margin=0.01)))
    assert "not shown: +0.00 points" in why
    assert "items would show it" in why


def test_unscored_items_do_not_pass() -> None:
    """An endpoint that leaves five of a hundred items unscored has not been shown to be as good."""
    [why] = failed(check(compared(unscored=50), Policy(margin=0.01)))
    assert why == "toy has 99 % of its items scored on both: 950 of 1,000 items (95.00 %)"


def test_left_out_items_do_not_pass() -> None:
    """Items that could not be joined count as not scored."""
    [why] = failed(check(compared(cut=100), Policy(margin=0.01)))
    assert why.endswith("900 of 1,000 items (90.00 %)")


def test_required_tasks() -> None:
    """A task that the policy names and the comparison lacks fails; a name that comes near is offered."""
    policy = Policy(margin=0.01, required=("mmlu",), tasks={"toys": TaskPolicy()})
    assert failed(check(compared(), policy)) == [
        "mmlu is compared: no such task is compared. Known: toy.",
        "toys is compared: no such task is compared. Did you mean toy?",
    ]


def test_a_task_that_only_the_baseline_has() -> None:
    """What the baseline was asked is asked of everyone: an endpoint without it does not pass."""
    metrics = {"toy": ("acc",), "more": ("acc",)}
    before = [comparable(i, RIGHT, task=task) for task in metrics for i in range(1_000)]
    sides = (columns_of_scores("base", before, metrics), columns_of_scores("tuned", before[:1_000], metrics))
    facts = [TaskFacts(task, ("acc",), {}) for task in metrics]
    [why] = failed(check(compare_columns(sides, facts, margin=0.01), Policy(margin=0.01)))
    assert why == "more is compared: tuned has no item of more in common with base"


def test_a_task_of_its_own() -> None:
    """A task may have its own margin, coverage and metric; an unknown metric fails."""
    own = Policy(margin=0.001, tasks={"toy": TaskPolicy(margin=0.05, coverage=0.5, metric="acc_norm")})
    checks = check(compared(lost=20, unscored=100), own)
    assert [each.name for each in checks] == [
        "toy acc_norm is worse by less than 5 points",
        "toy has 50 % of its items scored on both",
    ]
    assert failed(checks) == []
    [why] = failed(check(compared(), Policy(margin=0.01, tasks={"toy": TaskPolicy(metric="f1")})))
    assert why == "toy f1 is compared: the comparison has no f1 of toy on both"


def test_policy_file(tmp_path: Path) -> None:
    """A whole policy, as README.md shows it."""
    assert EXAMPLE in (ROOT / "README.md").read_text()
    file = tmp_path / "gate.toml"
    file.write_text(EXAMPLE)
    assert read_policy(file) == Policy(
        margin=0.01, coverage=0.99, required=("hellaswag",), tasks={"mmlu": TaskPolicy(margin=0.02)}
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("coverage = 1", "missing required field `margin`"),
        ("margin = 'a point'", "Expected `float`, got `str` - at `$.margin`"),
        ("margin = 0.01\nmagrin = 2", "unknown field `magrin`"),
        ("margin = 0.01\n[tasks.mmlu]\nmetrics = 'acc'", "unknown field `metrics` - at `$.tasks[...]`"),
        ("margin = 5", "margin 5: must be between 0 and 1"),
        ("margin = 0.01\n[tasks.mmlu]\ncoverage = 99", "coverage 99: must be between 0 and 1"),
        ("margin: 1", "Expected"),
    ],
)
def test_wrong_policy(text: str, says: str, tmp_path: Path) -> None:
    """A policy that cannot be meant names the file and the field; nothing unknown is passed over."""
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"gate\.toml") as found:
        read_policy(file)
    assert says in str(found.value)


def test_no_policy_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(UsageError, match=r"--gate .*nowhere\.toml: No such file"):
        read_policy(tmp_path / "nowhere.toml")


def test_junit(tmp_path: Path) -> None:
    """One test case a check, one suite an endpoint, totals that agree; any name can be written."""
    checks = check(compared(lost=50, label="a<b>&\x00\ud800"), Policy(margin=0.01))
    write_junit(tmp_path / "gate.xml", checks)
    root = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (root.tag, root.attrib["tests"], root.attrib["failures"]) == ("testsuites", "2", "1")
    [suite] = root
    assert suite.attrib["name"] == "a<b>&\ufffd\ufffd"
    assert [case.find("failure") is None for case in suite] == [False, True]


def test_summary(tmp_path: Path) -> None:
    """The Markdown summary is appended: other steps' summaries stay."""
    file = tmp_path / "summary.md"
    file.write_text("# Before\n")
    found = compared(lost=50)
    append_summary(file, found, check(found, Policy(margin=0.01)))
    text = file.read_text()
    assert text.startswith(
        "# Before\n## forced-choice gate: failed\n\n1 of 2 checks passed against base.\n- :x: tuned"
    )
    assert "| toy" in text


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is missing is made; where there can be none it is one clear line."""
    found = compared()
    write_junit(tmp_path / "new/gate.xml", check(found, Policy(margin=0.01)))
    append_summary(tmp_path / "newer/gate.md", found, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_junit(tmp_path / "file/gate.xml", check(found, Policy(margin=0.01)))
    with pytest.raises(StoreError, match="file"):
        append_summary(tmp_path / "file/gate.md", found, [])


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    """A link is followed, a pipe or a device written to: nothing takes their place."""
    checks = check(compared(), Policy(margin=0.01))
    (tmp_path / "link.xml").symlink_to(tmp_path / "real.xml")
    write_junit(tmp_path / "link.xml", checks)
    assert (tmp_path / "link.xml").is_symlink()
    assert (tmp_path / "real.xml").read_text().startswith("<?xml")
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        reading = pool.submit((tmp_path / "pipe").read_text)
        write_junit(tmp_path / "pipe", checks)
        assert reading.result() == (tmp_path / "real.xml").read_text()
    assert (tmp_path / "pipe").is_fifo()
