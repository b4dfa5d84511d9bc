"""The flags of `compare` and `report`, one field a flag, checked before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from harness.errors import UsageError, check_margin
from harness.settings import FILES

COMPARED = Group("What to compare", sort_key=1)
GATE = Group("Gate", sort_key=5)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """The flags of `compare`."""

    baseline: Annotated[str | None, Parameter(group=COMPARED, metavar="LABEL")] = None
    """The endpoint that the others are compared with; by default the first."""
    common_only: Annotated[bool, Parameter(group=COMPARED, negative="", show_default=False)] = False
    """Compare the items that can be joined, and list the others in mismatches.csv, instead of refusing."""
    margin: Annotated[float | None, Parameter(group=COMPARED)] = None
    """A difference below this does not matter in practice; by default 0.01, which is one point, or what the \
run had with --compare-until-decided."""
    engines: Annotated[bool, Parameter(group=COMPARED, negative="", show_default=False)] = False
    """The endpoints serve one model in different ways (bf16 and fp8, say): write how the log-probabilities \
of tokens shift (shifts.csv, worst.csv), and whether near-ties explain the predictions that differ \
(drift.csv)."""
    fail_if_worse_than: Annotated[float | None, Parameter(group=GATE, metavar="MARGIN")] = None
    """Exit 1 unless each endpoint is shown to be worse by less than this on each task."""
    gate: Annotated[Path | None, Parameter(group=GATE, metavar="FILE")] = None
    """Exit 1 unless each endpoint passes the policy in a TOML file: margins, required tasks, coverage."""
    junit: Annotated[Path | None, Parameter(group=GATE, metavar="FILE")] = None
    """Write the gate's checks as JUnit XML."""
    summary: Annotated[Path | None, Parameter(group=GATE, metavar="FILE")] = None
    """Append the gate's Markdown summary to a file, such as "$GITHUB_STEP_SUMMARY" (if set)."""
    out: Annotated[Path | None, Parameter(group=FILES)] = None
    """Folder for comparison.csv and flips.csv; by default that of the second run, or of the only one."""
    format: Annotated[Literal["text", "markdown", "latex"], Parameter(group=FILES)] = "text"
    """How the table is printed on stdout."""
    subjects: Annotated[bool, Parameter(group=FILES, negative="", show_default=False)] = False
    """Show a row for each subject too."""
    json: Annotated[bool, Parameter(group=FILES, negative="", show_default=False)] = False
    """Print all rows of comparison.csv as JSON on stdout, for programs."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        for flag, value in (("--margin", self.margin), ("--fail-if-worse-than", self.fail_if_worse_than)):
            if value is not None:
                check_margin(flag, value)
        if self.fail_if_worse_than is not None and self.gate is not None:
            raise UsageError(
                "--gate and --fail-if-worse-than exclude each other; put the margin into the file"
            )
        if self.junit == Path():
            raise UsageError("--junit: no file given")
        if (self.junit or self.summary) and self.fail_if_worse_than is None and self.gate is None:
            flag = "--junit" if self.junit else "--summary"
            raise UsageError(f"{flag} needs a gate: give --fail-if-worse-than or --gate")
        if self.json and self.format != "text":
            raise UsageError(f"--json and --format {self.format} exclude each other; choose one")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """The flags of `report`."""

    baseline: Annotated[str | None, Parameter(group=COMPARED, metavar="LABEL")] = None
    """The endpoint that the others are compared with; by default the first."""
    margin: Annotated[float | None, Parameter(group=COMPARED)] = None
    """A difference below this does not matter in practice; by default 0.01, which is one point, or what the \
run had with --compare-until-decided."""
    out: Annotated[Path | None, Parameter(group=FILES, metavar="FILE")] = None
    """The page; by default report.html in the folder of the second run, or of the only one. Plots go into \
plots/ beside it, those of another file, page.html, into page-plots/."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if self.margin is not None:
            check_margin("--margin", self.margin)
        if self.out is not None and (not self.out.name or self.out.is_dir()):
            raise UsageError(f"--out {self.out}: is a folder; name the file, as {self.out / 'report.html'}")
