"""What notebooks show of runs and comparisons, and the example at the top level."""

from __future__ import annotations

import os
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from harness import UsageError, charts, compare, load_run
from harness.richly import notes, table
from tests.reporting import LABELS, made_run

EXAMPLE = Path(__file__).parents[1] / "example.ipynb"
SECONDS = 60.0
"""In which the example runs."""
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


class Elements(HTMLParser):
    """The elements and the text of some HTML."""

    def __init__(self, text: str) -> None:
        """Read it."""
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Note an element."""
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)


def example() -> Any:
    """The notebook as it stands."""
    return nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]


def source(cell: Any) -> str:
    """What stands in a cell."""
    return str(cell["source"])


def test_a_run_is_shown_as_a_table(tmp_path: Path) -> None:
    """A notebook shows a run's accuracy, a column an endpoint, with its state, its remarks and its folder."""
    run = load_run(made_run(tmp_path / "run", 40))
    shown = Elements(run._repr_html_())
    assert f"run: {' and '.join(LABELS)}, complete" in shown.texts
    assert shown.names.count("table") == 1
    assert shown.names.count("tr") == 1 + 5  # three metrics of one task, two of the other
    assert {*LABELS, "plain", "sorted", "acc_norm", str(run.folder)} <= set(shown.texts)
    assert "each context begins with token 0 (--bos auto)" in shown.texts


def test_a_run_without_tables_says_so(tmp_path: Path) -> None:
    """A run whose first session goes on is shown without numbers, and without an error."""
    folder = made_run(tmp_path / "run", 10, status="running")
    (folder / "scores.csv").unlink()
    shown = Elements(load_run(folder)._repr_html_())
    assert "table" not in shown.names
    assert any("no tables yet" in each for each in shown.texts)


def test_a_comparison_is_shown_with_its_verdicts(tmp_path: Path) -> None:
    """A notebook shows a comparison's table, and what it means in words."""
    comparison = compare(made_run(tmp_path / "run", 120))
    shown = Elements(comparison._repr_html_())
    assert f"Compared with {LABELS[0]}" in shown.texts
    assert "verdict" in shown.texts
    assert set(comparison.verdicts) <= set(shown.texts)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Labels and remarks of a run folder that somebody made up become text, whatever is in them."""
    folder = made_run(tmp_path / "run", 60, labels=(HOSTILE, "other"), remarks=[HOSTILE])
    for html in (load_run(folder)._repr_html_(), compare(folder)._repr_html_()):
        assert "script" not in Elements(html).names
        assert "<script>alert(1)</script>␛[31m\ufffd" in "".join(Elements(html).texts)


def test_tables_escape_every_cell() -> None:
    """Whatever stands in a header or a cell is text."""
    shown = Elements(table([HOSTILE], [[HOSTILE]], [True]))
    assert [
        each for each in shown.names if each not in ("div", "table", "thead", "tbody", "tr", "th", "td")
    ] == []
    assert len(shown.texts) == 2


def test_many_notes_are_counted() -> None:
    """Of many sentences the first are shown, and the others counted."""
    assert Elements(notes(["a", "b", "c", "d"], most=2)).texts == ["a", "b", "and 2 more"]
    assert notes([], most=2) == ""


def test_charts_are_those_of_the_report(tmp_path: Path) -> None:
    """Each plot of a report is to be had as a chart of altair, in the report's look and of any width."""
    folder = made_run(tmp_path / "run", 90)
    wide, narrow = charts(folder), charts(folder, width=300)
    assert {"accuracy", "differences", "flips", "calibration", "margins"} <= set(wide)
    spec = wide["accuracy"].to_dict()
    assert spec["config"]["background"] == "transparent"
    assert spec != narrow["accuracy"].to_dict()
    with pytest.raises(UsageError, match="no endpoint 'tunde'"):
        charts(folder, baseline="tunde")


def test_the_example_holds_no_outputs() -> None:
    """What the example shows depends on the day, so the file holds what it does alone."""
    cells = example()["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example runs as it stands, within a minute: it shows a run, a comparison, frames and charts."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLE.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = example()
    begun = time.perf_counter()
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert time.perf_counter() - begun < SECONDS
    shown = {
        source(cell): [each.get("data", {}) for each in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    }
    run, comparison, chart = (
        next(data for text, data in shown.items() if text.endswith(end))
        for end in ("\nrun", "\ncomparison", '["differences"]')
    )
    assert "embedded:geography" in run[-1]["text/html"]
    assert "Compared with embedded" in comparison[-1]["text/html"]
    assert chart[-1]["image/svg+xml"].startswith("<svg")
    assert sum("text/html" in each for data in shown.values() for each in data) >= 5
    (folder,) = (tmp_path / "results").iterdir()
    assert load_run(folder).status == "complete"
