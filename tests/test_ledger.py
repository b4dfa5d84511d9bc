"""The table of what was tried: complete, nothing lost, and no session that lost something passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ledger
from tests.ledger import BEGIN, END, README, Row, known, renewed, written

EMPTY = f"before\n{BEGIN}\n{END}\nafter\n"


def test_the_readme_has_every_row() -> None:
    """The table has all rows that tests note and no other, in their order; nothing was lost in any.

    Rows that rooms below note alone are there once somebody has run them.
    """
    rows, names = written(README.read_text()), known()
    missing = [
        name for name, files in names.items() if any("/" not in file for file in files) and name not in rows
    ]
    assert not missing, "give `make ledger`"
    assert list(rows) == [name for name in names if name in rows]
    assert not [name for name, row in rows.items() if row.lost]
    assert all(row.tried > 0 for row in rows.values())


def test_a_table_is_read_as_it_was_written() -> None:
    """New rows stand in the order of the tests beside old ones; what no test notes any more is gone."""
    names = {"b": ["test_b.py"], "a": ["test_a.py", "test_d.py"]}
    first = renewed(
        EMPTY, {"a": Row(1_234_567, 0, "bytes"), "c": Row(1, 0, "runs")}, {**names, "c": ["test_c.py"]}
    )
    both = renewed(first, {"b": Row(2, 1, "kills")}, names)
    assert list(written(both).items()) == [("b", Row(2, 1, "kills")), ("a", Row(1_234_567, 0, "bytes"))]
    assert "| a | 1,234,567 bytes | 0 | `test_a.py`, `test_d.py` |" in both
    assert both.startswith("before\n")
    assert both.endswith("after\n")


def test_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What several tests note of a row is its sum, in one unit."""
    monkeypatch.setattr(ledger, "_noted", {})
    add = ledger.note
    add("a", tried=2, lost=0, unit="runs")
    add("a", tried=3, lost=1, unit="runs")
    assert ledger.noted() == {"a": Row(5, 1, "runs")}
    with pytest.raises(AssertionError, match="counts runs elsewhere"):
        add("a", tried=1, lost=0, unit="kills")


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 1)])
def test_a_session_that_lost_something_fails(lost: int, code: int, tmp_path: Path) -> None:
    """Tests that pass are not enough."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(
        "from tests import ledger\n"
        f"def test_it(): ledger.note('a row', tried=9, lost={lost}, unit='things')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--rootdir={tmp_path}", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=README.parents[1])
    assert ended.returncode == code, ended.stdout
    assert f"| a row | 9 things | {lost} |" in ended.stdout
