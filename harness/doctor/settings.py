"""What a person can set of `doctor`, one field a flag; and the run whose parts it uses to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harness.errors import UsageError
from harness.modes import Bos
from harness.settings import FILES, PACE, TEXT, WHAT, RunSettings

QUESTIONS = "sample_mmlu:cloze"
"""The task that ships with the program, whose items are asked."""
MOST_AT_ONCE = 1024


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """The flags of `doctor`; those that `run` has too are called as there."""

    tokenizer: Annotated[
        tuple[str, ...],
        Parameter(
            group=WHAT,
            negative="",
            consume_multiple=False,
            metavar="[NAME=]PATH_OR_HUB_ID",
            show_default=False,
        ),
    ] = ()
    """The tokenizer that a run would be given, as of run; embedded has its own."""
    ca_file: Annotated[Path | None, Parameter(group=WHAT, metavar="FILE")] = None
    """Certificate authorities (PEM) to believe besides those that the system knows."""
    bos: Annotated[Bos, Parameter(group=TEXT)] = "auto"
    """Beginning-of-sequence token: what the tokenizer itself does, always, or never."""
    max_length: Annotated[int | None, Parameter(group=TEXT)] = None
    """Tokens that must fit, context plus continuation; without it up to 8,192 are tried."""
    concurrency: Annotated[int, Parameter(group=PACE)] = 16
    """Requests in flight that a run would have."""
    rpm: Annotated[float | None, Parameter(group=PACE)] = None
    """Requests a minute that the account allows."""
    tpm: Annotated[float | None, Parameter(group=PACE)] = None
    """Tokens a minute (prompt and forced) that the account allows."""
    timeout: Annotated[float, Parameter(group=PACE)] = 60.0
    """Seconds one attempt may take."""
    attempts: Annotated[int, Parameter(group=PACE)] = 4
    """How often one request is sent before it counts as failed."""
    patience: Annotated[float, Parameter(group=PACE)] = 30.0
    """Seconds to wait for an endpoint that is down."""
    wake: Annotated[float, Parameter(group=PACE)] = 900.0
    """Seconds that a sleeping dedicated endpoint may take to wake up."""
    json: Annotated[bool, Parameter(group=FILES, negative="", show_default=False)] = False
    """Print all findings as JSON on stdout, for programs."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant; what `run` checks too is checked there."""
        if not 1 <= self.concurrency <= MOST_AT_ONCE:
            raise UsageError(f"--concurrency {self.concurrency}: must be between 1 and {MOST_AT_ONCE:,}")
        if not 0 <= self.wake < float("inf"):
            raise UsageError(f"--wake {self.wake:g}: must be 0 or more seconds")

    def as_run(self, specs: Sequence[str]) -> RunSettings:
        """The run that would be prepared: its endpoints, secrets and tokenizers are those of `doctor`.

        Raises:
            UsageError: a value is refused there, or no endpoint is given.
        """
        if not specs:
            raise UsageError("no endpoint given: doctor SPEC [--tokenizer ...], as of run --endpoint")
        own = {each.name for each in fields(self)} & {each.name for each in fields(RunSettings)}
        same = {name: getattr(self, name) for name in own - {"json"}}
        return RunSettings(
            **same, endpoint=tuple(specs), tasks=QUESTIONS, out=Path("never-written"), shortcut=False
        )
