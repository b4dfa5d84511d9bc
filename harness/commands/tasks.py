"""`tasks`: what can be asked, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harness.errors import UsageError


def tasks(
    name: Annotated[str | None, Parameter(metavar="NAME", show_default=False)] = None,
    /,
    *,
    shots: int | None = None,
    data_dir: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Print all tasks and suites, or one task.

    Args:
        name: A task, a variant, a suite, or a set of your own (file:questions.jsonl), whose rows are all \
checked.
        shots: Solved questions in the prompt; by default the task's own number.
        data_dir: Take the prompt from the first row in DIR/<dataset>/, not from the example row.
        json: Print it as JSON, for programs.
    """
    from harness.choosing.taskpages import print_all, print_one
    from harness.terminal import reader_may_leave

    if name is None and (shots is not None or data_dir is not None):
        raise UsageError("--shots and --data-dir show the prompt of one task; name it")
    if shots is not None and shots < 0:
        raise UsageError(f"--shots {shots}: must be 0 or more")
    with reader_may_leave():
        if name is None:
            print_all(as_json=json)
        else:
            print_one(name, shots=shots, data_dir=data_dir, as_json=json)
    return 0
