"""Files and tables of a comparison, and the page that specifies them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.comparison.columns import Columns, Place, TaskFacts, columns_of_scores
from harness.comparison.comparing import compare_columns
from harness.comparison.findings import Findings
from harness.errors import StoreError
from harness.exports import (
    COMPARISON_COLUMNS,
    FLIP_COLUMNS,
    FORMATS,
    MISMATCH_COLUMNS,
    Text,
    comparison_frame,
    write_comparison,
)
from tests.making import comparable
from tests.test_tables import section, table

RIGHT, WRONG = (-1.0, -2.0, -3.0), (-2.0, -1.0, -3.0)


def endpoint(label: str, sums: Sequence[Sequence[float] | None]) -> Columns:
    """An endpoint with these items of one task."""
    return columns_of_scores(label, [comparable(i, each) for i, each in enumerate(sums)], {"toy": ("acc",)})


def findings(first: str = "base", second: str = "tuned", *, extra: int = 0) -> Findings:
    """Two endpoints, of which the second has so many items more."""
    before = endpoint(first, [RIGHT, RIGHT, WRONG, None])
    after = endpoint(second, [RIGHT, WRONG, RIGHT, RIGHT] + [RIGHT] * extra)
    return compare_columns([before, after], [TaskFacts("toy", ("acc",), {})], margin=0.01)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("comparison.csv", COMPARISON_COLUMNS),
        ("flips.csv", FLIP_COLUMNS),
        ("mismatches.csv", MISMATCH_COLUMNS),
    ],
)
def test_readme_names_the_columns(file: str, columns: Sequence[str]) -> None:
    """The specification has exactly the columns that are written, in their order."""
    assert tuple(table(section(f"`{file}`"), "Column | Type | Meaning")) == columns


def test_readme_names_the_statistics() -> None:
    """Every statistic that is no metric is specified."""
    told = {row.statistic for row in findings().rows} - {"acc"}
    assert told < set(table(section("`comparison.csv`"), "`statistic` | Is, for each item"))


def test_files(tmp_path: Path) -> None:
    """Rows, flips and mismatches stand in files of their own; what flipped is shown with its question."""
    texts = {Place("toy", 0, "", 1): Text("Is it?", ("yes", "nö"))}
    write_comparison(tmp_path, findings(extra=2), texts)
    rows = read(tmp_path / "comparison.csv")
    assert tuple(rows[0]) == COMPARISON_COLUMNS
    acc = rows[0]
    assert (acc["n"], acc["unscored"], acc["headline"], acc["subject"]) == ("3", "1", "1", "")
    assert (acc["baseline_value"], acc["value"], acc["difference"]) == ("0.6666666667", "0.6666666667", "0")
    assert (acc["wrong_to_right"], acc["right_to_wrong"], acc["largest"]) == ("1", "1", "")
    flips = read(tmp_path / "flips.csv")
    assert [(each["index"], each["flip"]) for each in flips] == [
        ("1", "right to wrong"),
        ("2", "wrong to right"),
    ]
    assert (flips[0]["question"], flips[0]["choices"], flips[0]["gold"]) == ("Is it?", '["yes", "nö"]', "[0]")
    assert (flips[1]["question"], flips[1]["choices"]) == ("", "")
    lost = read(tmp_path / "mismatches.csv")
    assert [(each["index"], each["why"]) for each in lost] == [("4", "only in tuned"), ("5", "only in tuned")]


def test_no_mismatches_of_an_earlier_comparison(tmp_path: Path) -> None:
    """Where everything matches, a list of an earlier comparison goes."""
    write_comparison(tmp_path, findings(extra=1), {})
    write_comparison(tmp_path, findings(), {})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["comparison.csv", "flips.csv"]


def test_same_findings_same_bytes(tmp_path: Path) -> None:
    """The same items give the same files, byte for byte."""
    for name in ("a", "b"):
        write_comparison(tmp_path / name, findings(), {})
    for file in ("comparison.csv", "flips.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It is one clear line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_comparison(tmp_path / "file", findings(), {})


def test_frame_and_json_say_the_same() -> None:
    """Programs get what the file holds, with null for an empty cell."""
    found = findings()
    rows = json.loads(FORMATS["json"](found))
    assert [list(row) for row in rows] == [list(COMPARISON_COLUMNS)] * len(found.rows)
    written = comparison_frame(found).to_csv(index=False, float_format="%.10g")
    for row, text in zip(rows, csv.DictReader(io.StringIO(written)), strict=True):
        assert {name for name, value in row.items() if value is None} == {
            name for name, value in text.items() if value == "" and name not in ("subject", "test", "verdict")
        }


def test_markdown() -> None:
    """A table that GitHub draws, and the verdicts; names that hold markup stay names."""
    shown = FORMATS["markdown"](findings("base|line", "*tuned*"))
    lines = shown.splitlines()
    assert lines[0].startswith("| task")
    assert all(
        line.replace("\\|", "").count("|") == lines[0].replace("\\|", "").count("|") for line in lines[:3]
    )
    assert "base\\|line" in lines[0]
    assert "\\*tuned\\*" in lines[2]
    assert "- Undecided between \\*tuned\\* and base\\|line on toy (acc)" in shown


def test_latex() -> None:
    """A table for booktabs; what LaTeX would take for commands is escaped."""
    shown = FORMATS["latex"](findings("base_line", "50% & more"))
    assert "\\toprule" in shown
    assert "base\\_line" in shown
    assert "50\\% \\& more" in shown
    assert shown.startswith("% Undecided between 50% & more and base_line")
