"""What the checks of a run found, for its files and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.files import csv_lines, file_errors, replacing, safe_cell
from harness.watching.judging import FIGURES, Finding

CHECK_COLUMNS = ("endpoint", "check", "when", "verdict", *FIGURES, "flips", "says")


def write_checks(folder: Path, found: Mapping[str, Sequence[Finding]]) -> None:
    """Write `checks.csv`, by label of the endpoint; none where nothing was ever checked, and none is there.

    Raises:
        StoreError: it cannot be written.
    """
    file = folder / "checks.csv"
    if not any(found.values()) and not file.exists():
        return
    with (
        file_errors(file),
        replacing(file) as path,
        path.open("w", newline="", encoding="utf-8", errors="replace") as text,
    ):
        write_row = csv_lines(text)
        write_row(CHECK_COLUMNS)
        for label, findings in found.items():
            for each in findings:
                write_row(_row(label, each))


def documented(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """As `run.json` has them."""
    return [
        {
            "check": each.check,
            "when": each.when,
            "verdict": each.verdict,
            **each.figures,
            **({"flips": dict(each.flips)} if each.flips else {}),
            "says": each.says,
        }
        for each in findings
    ]


def undocumented(said: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What `documented` was given."""
    return [
        Finding(
            check=each["check"],
            when=each["when"],
            verdict=each["verdict"],
            says=each["says"],
            figures={name: each[name] for name in FIGURES if name in each},
            flips=each.get("flips", {}),
        )
        for each in said
    ]


def told_findings(label: str, findings: Sequence[Finding]) -> list[str]:
    """What a reader must know of them beside the numbers, one sentence each."""
    return [f"{label}: {each.says}" for each in findings if each.telling]


def _row(label: str, found: Finding) -> list[object]:
    figures = [f"{found.figures[name]:.10g}" if name in found.figures else "" for name in FIGURES]
    flips = json.dumps(dict(found.flips)) if found.flips else ""
    return [safe_cell(label), found.check, found.when, found.verdict, *figures, flips, safe_cell(found.says)]
