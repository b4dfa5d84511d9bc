"""A gate's policy out of a TOML file, strictly: what it does not know it refuses."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.comparison.gate import COVERAGE, Policy, TaskPolicy
from harness.errors import UsageError

EXAMPLE = """\
margin = 0.01                # worse by less than a point
coverage = 0.99              # of the items, scored on both endpoints
required = ["hellaswag"]     # tasks that must have been compared

[tasks.mmlu]
margin = 0.02
"""
"""A whole policy: README.md shows it, its first line stands in messages."""


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    margin: float | None = None
    coverage: float | None = None
    metric: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    margin: float
    coverage: float = COVERAGE
    required: list[str] = []
    endpoints: list[str] = []
    tasks: dict[str, _Task] = {}


def read_policy(path: Path) -> Policy:
    """Read `gate.toml`.

    Raises:
        UsageError: it is missing, no TOML, or holds what no policy has; the text names the field.
    """
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise UsageError(f"--gate {path}: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        first = EXAMPLE.splitlines()[0].partition("#")[0].strip()
        raise UsageError(f"--gate {path}: {error}. The least that a policy says is: {first}") from error
    tasks = {name: TaskPolicy(each.margin, each.coverage, each.metric) for name, each in found.tasks.items()}
    try:
        return Policy(
            margin=found.margin,
            coverage=found.coverage,
            required=tuple(found.required),
            endpoints=tuple(found.endpoints),
            tasks=tasks,
        )
    except UsageError as error:
        raise UsageError(f"--gate {path}: {error}") from error


def policy_of(file: Path | None, margin: float | None) -> Policy | None:
    """What `--gate` or `--fail-if-worse-than` ask for; None where neither is given.

    Raises:
        UsageError: as `read_policy` does.
    """
    if file is not None:
        return read_policy(file)
    return None if margin is None else Policy(margin=margin)
