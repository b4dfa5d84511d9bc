"""`doctor`: endpoints examined before money is spent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from harness.doctor.settings import DoctorSettings

_DEFAULTS = DoctorSettings()


def doctor(
    *spec: Annotated[str, Parameter(metavar="SPEC", show_default=False)],
    settings: DoctorSettings = _DEFAULTS,
) -> int:
    """Examine, and print what is found.

    Args:
        spec: An endpoint, as run --endpoint takes it: [NAME=]SPEC.
    """
    from harness.manifest import Exit

    return int(Exit.DONE if print_examined(spec, settings) else Exit.REFUSED)


def print_examined(specs: Sequence[str], settings: DoctorSettings) -> bool:
    """Examine endpoints and print what is found of them; whether all are fit to be scored on.

    Raises:
        UsageError: settings are wrong; nothing was sent.
        EndpointRefused: the endpoints are to tokenize for themselves, and none does.
    """
    from rich.console import Console

    from harness.doctor.examining import examine
    from harness.doctor.findings import fit
    from harness.doctor.reporting import closing_line, document, print_finding
    from harness.foreground import run_async
    from harness.prepare import prepare
    from harness.terminal import reader_may_leave, say

    prepared, waiting = prepare(settings.as_run(specs)), Console(stderr=True)
    shown = waiting if settings.json else Console()
    with reader_may_leave():
        found = run_async(
            examine(prepared, settings, waiting, lambda label, each: print_finding(shown, label, each))
        )
        if settings.json:
            sys.stdout.write(document(found) + "\n")
        say(waiting, closing_line(found))
    return all(map(fit, found.values()))
