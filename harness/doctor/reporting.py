"""What `doctor` says: a line a finding for people as they come, or all of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from harness.doctor.findings import Finding, fit
from harness.inert import inert
from harness.redacting import redacted

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "wrong": "bold red", "not checked": "dim"}
WIDTH = max(map(len, STYLES))


def print_finding(console: Console, label: str, finding: Finding) -> None:
    """One line; what an endpoint said is in it, and is neither markup nor cut."""
    verdict = Text(finding.verdict.ljust(WIDTH), STYLES[finding.verdict])
    line = inert(redacted(f"  {label}: {finding.line()}"))
    console.print(Text.assemble(verdict, line), soft_wrap=True, highlight=False)


def document(found: Mapping[str, Sequence[Finding]]) -> str:
    """All findings as JSON, one object each."""
    rows = [{"endpoint": label, **each.document()} for label, findings in found.items() for each in findings]
    return redacted(json.dumps(rows, indent=2))


def closing_line(found: Mapping[str, Sequence[Finding]]) -> str:
    """What it comes to."""
    unfit = [label for label, findings in found.items() if not fit(findings)]
    if unfit:
        return f"{', '.join(unfit)}: do not score on this; what is wrong or unknown stands above."
    return f"{', '.join(found)}: fit to be scored on."
