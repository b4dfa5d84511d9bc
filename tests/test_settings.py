"""Values of flags that cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from harness import UsageError
from harness.serve_settings import ServeSettings
from harness.settings import RunSettings


def settings(**changes: Any) -> RunSettings:
    """Settings that are right but for the changes."""
    return RunSettings(**{"endpoint": ("http://127.0.0.1/v1",), "tasks": "hellaswag", **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": " , "}, "--tasks: none given"),
        ({"limit": 0}, "--limit 0: must be at least 1; leave it out to take all items"),
        ({"sample": -1}, "--sample -1: must be at least 1"),
        ({"limit": 1, "sample": 1}, "--limit and --sample exclude each other"),
        ({"shots": -1}, "--shots -1: must be 0 or more"),
        ({"max_length": 1}, "--max-length 1: must be at least 2"),
        ({"concurrency": 0}, "--concurrency 0: must be auto, or at least 1"),
        ({"attempts": 0}, "--attempts 0: must be at least 1"),
        ({"rpm": 0.0}, "--rpm 0: must be a number above 0"),
        ({"tpm": float("nan")}, "--tpm nan: must be a number above 0"),
        ({"timeout": float("inf")}, "--timeout inf: must be a number above 0"),
        ({"patience": -1.0}, "--patience -1: must be 0 or more seconds"),
    ],
)
def test_values_that_cannot_be_meant(changes: dict[str, Any], says: str) -> None:
    """A wrong value is one line that names the flag."""
    with pytest.raises(UsageError) as caught:
        settings(**changes)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_tasks_are_taken_once_in_order() -> None:
    """Names are split at commas, blanks do not matter, and a name given twice counts once."""
    assert settings(tasks="mmlu, hellaswag,mmlu,").task_names == ("mmlu", "hellaswag")


def test_port_out_of_range() -> None:
    """A port that does not exist is named."""
    with pytest.raises(UsageError, match="--port 70000"):
        ServeSettings(model=__file__, port=70000)  # type: ignore[arg-type]
