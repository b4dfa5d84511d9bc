"""`compare`: which endpoint is better, of one run or of several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from harness.compare_settings import CompareSettings
from harness.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.compared import Comparison
    from harness.comparison.gate import Check

_DEFAULTS = CompareSettings()


def compare(
    *source: Annotated[str, Parameter(metavar="SOURCE", show_default=False)],
    settings: CompareSettings = _DEFAULTS,
) -> int:
    """Compare, and print what came of it.

    Args:
        source: A run's folder; FOLDER#LABEL for one endpoint of it; lm-eval:FILE for a \
sample file of lm-evaluation-harness. The first endpoint is the baseline.
    """
    from harness.manifest import Exit

    passed = print_compared(source, settings)
    return int(Exit.DONE if passed else Exit.GATE_FAILED)


def print_compared(sources: Sequence[str], settings: CompareSettings) -> bool:
    """Compare, write the files and print what came of it; whether it passes the gate, if there is one.

    Raises:
        UsageError: a source cannot be read, or a file cannot be written.
    """
    from harness.compared import compare
    from harness.comparison.gate import passed
    from harness.policy import policy_of
    from harness.printing import way_out
    from harness.terminal import reader_may_leave

    try:
        policy = policy_of(settings.gate, settings.fail_if_worse_than)
        comparison = compare(
            *sources,
            margin=settings.margin,
            common_only=settings.common_only,
            baseline=settings.baseline,
            engines=settings.engines,
        )
        checks = None if policy is None else comparison.gate(policy)
        folder = comparison.write(settings.out)
        if checks is not None:  # before anything is printed: whoever reads that may go away
            _write_gate(comparison, checks, settings)
    except StoreError as error:  # a run that cannot be read is no run to compare
        raise UsageError(f"{error}{way_out(error, settings.out)}") from error
    with reader_may_leave():
        _print_comparison(comparison, settings, folder, checks)
    return checks is None or passed(checks)


def _print_comparison(
    comparison: Comparison, settings: CompareSettings, folder: Path, checks: Sequence[Check] | None
) -> None:
    """The table and the verdicts; what must be known beside them goes to stderr, and so do the checks."""
    from rich.console import Console

    from harness.comparison.matching import mismatch_summary
    from harness.comparison.words import families
    from harness.exports import FORMATS
    from harness.showing import comparison_table, shift_table
    from harness.terminal import print_table, say

    console, findings = Console(stderr=True), comparison.findings
    form = "json" if settings.json else settings.format
    if form == "text":
        print_table(comparison_table(findings, subjects=settings.subjects))
        if comparison.drifts:
            print_table(shift_table(comparison.drifts))
        for line in (families(findings), *comparison.verdicts):
            say(Console(), line)
    else:
        sys.stdout.write(FORMATS[form](findings, subjects=settings.subjects))
    files = ["comparison.csv", "flips.csv", *(["mismatches.csv"] if findings.mismatches else [])]
    files += ["drift.csv", "shifts.csv", "worst.csv"] if comparison.drifts else []
    for line in (*comparison.remarks, *mismatch_summary(findings.mismatches)):
        say(console, line)
    say(console, f"Files: {folder}/ ({', '.join(files)})")
    if checks is not None:
        failed = [each for each in checks if not each.passed]
        for each in failed:
            say(console, f"gate: {each.endpoint}: {each.name}: FAILED, {each.message}")
        say(console, f"gate: {len(checks) - len(failed)} of {len(checks)} checks passed")


def _write_gate(comparison: Comparison, checks: Sequence[Check], settings: CompareSettings) -> None:
    """Write what the gate found where CI systems look."""
    from harness.junit import append_summary, write_junit

    if settings.junit:
        write_junit(settings.junit, checks)
    if settings.summary and settings.summary.name:  # "$GITHUB_STEP_SUMMARY" is empty elsewhere
        append_summary(settings.summary, comparison.findings, checks)
