"""Files that are whole or not there: what is written to a Parquet file is what is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from harness.files import ParquetFile

NUMBERS = {
    "int8": st.integers(-(2**7), 2**7 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
}
PLAIN = {**NUMBERS, "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=5)}
WITHOUT_PANDAS = """
import sys
from pathlib import Path
from harness.files import ParquetFile
from harness.texts import TEXT_TYPES
file = ParquetFile(Path(sys.argv[1]), TEXT_TYPES, 2)
for index in range(3):
    file.add(["task", "", index, ["é"] * 2, ["a", "b"], [[1, 2], []], [[3], [4]], "hash"])
file.close()
print(*sys.modules)
"""


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """A type and values of it, with or without nulls among them and in their lists."""
    kind = draw(st.sampled_from([*PLAIN]))
    values: st.SearchStrategy[Any] = PLAIN[kind]
    for _ in range(draw(st.integers(0, 2))):
        kind, values = f"list<{kind}>", st.lists(values | st.none() if draw(st.booleans()) else values)
    return kind, draw(st.lists(values | st.none() if draw(st.booleans()) else values, min_size=1, max_size=9))


@given(columns(), st.integers(1, 4), st.sampled_from([None, (), ("x",)]))
def test_what_is_written_is_read(
    column: tuple[str, list[Any]], group: int, recurring: tuple[str, ...] | None
) -> None:
    """Any values come back as they were, nulls too, however they are stored."""
    kind, values = column
    with TemporaryDirectory() as folder:
        file = ParquetFile(Path(folder) / "x.parquet", {"x": kind}, group, recurring=recurring)
        for value in values:
            file.add([value])
        file.close()
        read = parquet.read_table(Path(folder) / "x.parquet")
    assert read["x"].to_pylist() == values


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_a_number_that_does_not_fit_is_refused(value: int, tmp_path: Path) -> None:
    """A number beyond the type of its column is no other number in the file."""
    file = ParquetFile(tmp_path / "x.parquet", {"x": "int32"}, 1)
    with pytest.raises(ValueError, match=r"not in range|out of bounds|too large"):
        file.add([value])


def test_texts_are_written_without_pandas(tmp_path: Path) -> None:
    """The columns of `texts.parquet`, which are written while requests are sent, import no pandas."""
    command = [sys.executable, "-c", WITHOUT_PANDAS, str(tmp_path / "x.parquet")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert "pyarrow" in found
    assert "pandas" not in found
