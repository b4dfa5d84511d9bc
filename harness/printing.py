"""What commands say at their end: tables to stdout, for people or programs; all else to stderr or to CI."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from harness.errors import StoreError, UsageError
from harness.terminal import print_table, reader_may_leave, say

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from harness.compare_settings import CompareSettings, ReportSettings
    from harness.compared import Comparison
    from harness.comparison.gate import Check
    from harness.doctor.settings import DoctorSettings
    from harness.runner import RunResult
    from harness.settings import RunSettings

NAME = "forced-choice"


def print_result(result: RunResult, *, as_json: bool) -> None:
    """The accuracy table for people, or for programs; what must be known beside it goes to stderr."""
    from harness.showing import closing_lines

    print_accuracy(result.accuracy, as_json=as_json)
    console = Console(stderr=True)
    for line in closing_lines(result, program=program()):
        say(console, line)


def print_outlook(settings: RunSettings) -> None:
    """What a run would take, for people, or as JSON for programs; what is assumed goes to stderr.

    Raises:
        UsageError: settings or data are wrong, or the run's folder cannot be read.
    """
    from harness.earlier import earlier
    from harness.foretold import outlook_table, remarks
    from harness.outlook import foreseen
    from harness.prepare import prepare

    prepared = prepare(settings, send=False)
    try:
        outlook, spent = foreseen(prepared), earlier(prepared.folder)
    except StoreError as error:
        raise UsageError(str(error)) from error
    lines = list(remarks(prepared, outlook, spent))
    if settings.json:
        sys.stdout.write(json.dumps({**outlook.document(), "remarks": lines}, indent=2) + "\n")
    else:
        print_table(outlook_table(outlook))
    for line in lines:
        say(Console(stderr=True), line)


def print_examined(specs: Sequence[str], settings: DoctorSettings) -> bool:
    """Examine endpoints and print what is found of them; whether all are fit to be scored on.

    Raises:
        UsageError: settings are wrong; nothing was sent.
        EndpointRefused: the endpoints are to tokenize for themselves, and none does.
    """
    from harness.doctor.examining import examine
    from harness.doctor.findings import fit
    from harness.doctor.reporting import closing_line, document, print_finding
    from harness.foreground import run_async
    from harness.prepare import prepare

    prepared, waiting = prepare(settings.as_run(specs)), Console(stderr=True)
    shown = waiting if settings.json else Console()
    with reader_may_leave():
        found = run_async(
            examine(prepared, settings, waiting, lambda label, each: print_finding(shown, label, each))
        )
        if settings.json:
            sys.stdout.write(document(found) + "\n")
        say(waiting, closing_line(found))
    return all(map(fit, found.values()))


def print_accuracy(accuracy: pd.DataFrame, *, as_json: bool) -> None:
    """The accuracy table alone."""
    from harness.showing import accuracy_table

    if as_json:
        sys.stdout.write(accuracy.to_json(orient="records", indent=2) + "\n")
    else:
        print_table(accuracy_table(accuracy))


def print_compared(sources: Sequence[str], settings: CompareSettings) -> bool:
    """Compare, write the files and print what came of it; whether it passes the gate, if there is one.

    Raises:
        UsageError: a source cannot be read, or a file cannot be written.
    """
    from harness.compared import compare
    from harness.comparison.gate import passed
    from harness.policy import policy_of

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
        raise UsageError(f"{error}{_way_out(error, settings)}") from error
    with reader_may_leave():
        _print_comparison(comparison, settings, folder, checks)
    return checks is None or passed(checks)


def print_report(sources: Sequence[str], settings: ReportSettings) -> None:
    """Write a report; where it is, and what had no room in it, goes to stderr.

    Raises:
        UsageError: a run cannot be read, or a file cannot be written.
    """
    from harness.reports.writing import write_report

    if not sources:
        raise UsageError("report: give a run's folder, as the run named it at its end: results/...")
    try:
        found = write_report(sources, out=settings.out, baseline=settings.baseline, margin=settings.margin)
    except StoreError as error:
        raise UsageError(f"{error}{_way_out(error, settings)}") from error
    console = Console(stderr=True)
    for line in found.left_out:
        say(console, line)
    plots = f"{len(found.plots) // 2} plots in {found.folder}/" if found.plots else "no plots"
    say(console, f"Report: {found.file} ({found.size / 1e6:.1f} MB); {plots}")


def _way_out(error: StoreError, settings: CompareSettings | ReportSettings) -> str:
    """What to do about a run's folder that cannot be written."""
    unwritable = isinstance(error.__cause__, PermissionError) and settings.out is None
    return "; choose another place with --out" if unwritable else ""


def _print_comparison(
    comparison: Comparison, settings: CompareSettings, folder: Path, checks: Sequence[Check] | None
) -> None:
    """The table and the verdicts; what must be known beside them goes to stderr, and so do the checks."""
    from harness.comparison.matching import mismatch_summary
    from harness.comparison.words import families
    from harness.exports import FORMATS
    from harness.showing import comparison_table, shift_table

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


def program() -> str:
    """How this program can be called again."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return "python -m harness"
    if called.endswith(".py"):
        return f"python {called}"
    return NAME if shutil.which(NAME) == called else called
