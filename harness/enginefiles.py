"""What serving a model otherwise changes, as files: `drift.csv`, `shifts.csv`, `worst.csv`.

`results/README.md` specifies them. This module does not know where scores come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from harness.comparison.drifting import Drifts
from harness.comparison.engines import SUMMARIES, ShiftRow, WorstItem
from harness.comparison.nearties import Drift
from harness.files import file_errors, replacing, write_csv

if TYPE_CHECKING:
    import pandas as pd

DRIFT_COLUMNS = tuple(field.name for field in fields(Drift))
SHIFT_COLUMNS = (
    *(field.name for field in fields(ShiftRow) if field.name != "summaries"),
    *SUMMARIES,
)
_PLACE = ("task", "subject", "shots", "index")
WORST_COLUMNS = (
    *("baseline", "endpoint", *_PLACE, "id"),
    *(field.name for field in fields(WorstItem)[4:]),
)
FILES = ("drift.csv", "shifts.csv", "worst.csv")


def frames(found: Drifts) -> Mapping[str, pd.DataFrame]:
    """The rows of each file, by its name."""
    import pandas as pd

    drift = [[getattr(each, name) for name in DRIFT_COLUMNS] for each in found.predictions]
    shifts = [
        [*(getattr(each, name) for name in SHIFT_COLUMNS[: -len(SUMMARIES)]), *each.summaries.values()]
        for each in found.shifts
    ]
    worst = [[_cell(each, name) for name in WORST_COLUMNS] for each in found.worst]
    rows: tuple[tuple[Sequence[str], list[list[object]]], ...] = (
        (DRIFT_COLUMNS, drift),
        (SHIFT_COLUMNS, shifts),
        (WORST_COLUMNS, worst),
    )
    return {
        name: pd.DataFrame(cells, columns=list(columns))
        for name, (columns, cells) in zip(FILES, rows, strict=True)
    }


def write_drifts(folder: Path, found: Drifts) -> None:
    """Write all three.

    Raises:
        StoreError: a file cannot be written.
    """
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in frames(found).items():
            with replacing(folder / name) as path:
                write_csv(frame, path)


def _cell(item: WorstItem, name: str) -> object:
    return getattr(item.place if name in _PLACE else item, name)
