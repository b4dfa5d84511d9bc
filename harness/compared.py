"""Compare runs, and what comes of it: frames, verdicts, tables, files, and the gate's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.comparison.columns import Place
from harness.comparison.comparing import compare_columns
from harness.comparison.drifting import Drifts, drift_columns
from harness.comparison.drifting import sentences as drift_sentences
from harness.comparison.findings import Findings
from harness.comparison.gate import Check, Policy, check
from harness.comparison.matching import mismatch_summary
from harness.comparison.words import families, sentences
from harness.enginefiles import write_drifts
from harness.errors import UsageError, check_margin, did_you_mean
from harness.exports import (
    Text,
    cells,
    comparison_frame,
    flip_frame,
    latex,
    markdown,
    mismatch_frame,
    write_comparison,
)
from harness.policy import read_policy
from harness.richly import note, notes, panel, table
from harness.sources import Source, resolve

if TYPE_CHECKING:
    import pandas as pd

_SENTENCES = 12
"""That a notebook shows."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Endpoints, item by item, against the first of them."""

    findings: Findings
    folder: Path
    """Where `write` puts its files unless it is told otherwise."""
    texts: Mapping[Place, Text] = field(default_factory=dict)
    """What flipped items ask, as far as it was stored."""
    drifts: Drifts | None = None
    """What serving the model otherwise changes, where that was asked for."""

    def __repr__(self) -> str:
        """Short: a notebook shows it."""
        return f"<Comparison of {' and '.join(self.findings.labels)}: {len(self.findings.rows):,} rows>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table with its verdicts, in numbers and in words."""
        shown = cells(self.findings)
        told = [each for each in (*sentences(self.findings), families(self.findings)) if each]
        flips = note(
            f"{len(self.findings.flips):,} items flipped: .flips lists them, .frame has every number"
        )
        parts = (table(shown.header, shown.rows, shown.numeric), notes(told, most=_SENTENCES), flips)
        return panel(
            f"Compared with {self.findings.labels[0]}", (*parts, notes(self.remarks, most=_SENTENCES))
        )

    @property
    def verdicts(self) -> list[str]:
        """One sentence a pair and task, for readers without statistics."""
        drifts = drift_sentences(self.drifts) if self.drifts else ()
        return [*sentences(self.findings), *drifts]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers, one sentence each."""
        return tuple(self.findings.remarks)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every pair, part and statistic: the rows of `comparison.csv`."""
        return comparison_frame(self.findings)

    @cached_property
    def flips(self) -> pd.DataFrame:
        """Every item answered differently, wrongly at least once: the rows of `flips.csv`."""
        return flip_frame(self.findings.flips, self.texts)

    @cached_property
    def mismatches(self) -> pd.DataFrame:
        """The items that could not be compared: the rows of `mismatches.csv`."""
        return mismatch_frame(self.findings.mismatches)

    def markdown(self) -> str:
        """The table and the verdicts in GitHub-flavoured Markdown."""
        return markdown(self.findings)

    def latex(self) -> str:
        """The table for LaTeX with booktabs."""
        return latex(self.findings)

    def write(self, folder: str | Path | None = None) -> Path:
        """Write `comparison.csv`, `flips.csv`, and `mismatches.csv` where there are any; the folder.

        Where engines were compared, `drift.csv`, `shifts.csv` and `worst.csv` too.

        Raises:
            StoreError: a file cannot be written.
        """
        where = self.folder if folder is None else Path(folder)
        write_comparison(where, self.findings, self.texts)
        if self.drifts:
            write_drifts(where, self.drifts)
        return where

    def gate(self, policy: Policy | float | str | Path) -> Sequence[Check]:
        """Hold the comparison against a policy, a policy's TOML file, or one margin for every task.

        The gate is passed where every check is, and there is one.

        Raises:
            UsageError: the policy cannot be meant, or names an endpoint that is not compared.
        """
        if isinstance(policy, str | Path):
            asked = read_policy(Path(policy))
        else:
            asked = policy if isinstance(policy, Policy) else Policy(margin=policy)
        others = self.findings.labels[1:]
        for name in asked.endpoints:
            if name not in others:
                hint = did_you_mean(name, others)
                raise UsageError(f"gate: no endpoint {name!r} is compared with the baseline. {hint}")
        return check(self.findings, asked)


def compare(
    *sources: Source,
    margin: float | None = None,
    common_only: bool = False,
    baseline: str | None = None,
    engines: bool = False,
) -> Comparison:
    """Compare endpoints item by item: those of one run, or of several.

    Args:
        sources: runs, as `Run` or by their folder; "FOLDER#LABEL" for one endpoint of a run;
            "lm-eval:FILE" for a sample file of lm-evaluation-harness.
        margin: a difference of a metric below this does not matter in practice; by default 0.01, which is one
            point, or what the runs were asked with that were to stop once decided.
        common_only: leave out items that cannot be joined, instead of refusing.
        baseline: the label of the endpoint that the others are compared with; by default the first.
        engines: the endpoints serve one model in different ways; compare them token by token too.

    Raises:
        UsageError: a source is no run, items do not match, or engines have no tokens in common.
        StoreError: a run's files cannot be read.
    """
    if margin is not None:
        check_margin("margin", margin)
    found = resolve(sources, baseline=baseline)
    columns = found.columns()
    findings = compare_columns(
        columns,
        found.tasks,
        margin=found.margin(margin),
        common_only=common_only,
        remarks=(*found.told_margin(margin), *found.remarks()),
        repeats=found.repeats(),
    )
    if not any(row.n for row in findings.rows):
        told = "; ".join(mismatch_summary(findings.mismatches)[:3])
        why = f": {told}" if told else ""
        raise UsageError(f"compare: {', '.join(found.labels)} have no scored item in common{why}")
    drifts = drift_columns(columns, found.tasks) if engines else None
    return Comparison(findings, found.folder, found.texts(findings.flips), drifts)
