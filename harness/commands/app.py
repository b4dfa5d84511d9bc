"""The program's commands: each is a module beside this one, which is imported when it is called."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from harness import __version__, descriptions, examples

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection

app = App(
    name=descriptions.NAME,
    version=f"forced-choice {__version__}",
    help=descriptions.PROGRAM,
    help_format="plaintext",
    help_epilogue=examples.PROGRAM,
)


def _suite_beneath(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Flags that were not typed have what the suite file says, if one was given."""
    from harness.suitefile import lay_beneath

    lay_beneath(arguments)


app.command(
    "harness.commands.run:run",
    usage=descriptions.RUN_USAGE,
    help=descriptions.RUN,
    help_epilogue=examples.RUN,
    config=_suite_beneath,
)
app.command(
    "harness.commands.plan:plan",
    usage=descriptions.PLAN_USAGE,
    help=descriptions.PLAN,
    help_epilogue=examples.PLAN,
    config=_suite_beneath,
)
app.command("harness.commands.compare:compare", help=descriptions.COMPARE, help_epilogue=examples.COMPARE)
app.command("harness.commands.rescore:rescore", help=descriptions.RESCORE, help_epilogue=examples.RESCORE)
app.command("harness.commands.merge:merge", help=descriptions.MERGE, help_epilogue=examples.MERGE)
app.command("harness.commands.report:report", help=descriptions.REPORT, help_epilogue=examples.REPORT)
app.command("harness.commands.view:view", help=descriptions.VIEW, help_epilogue=examples.VIEW)
app.command("harness.commands.tasks:tasks", help=descriptions.TASKS, help_epilogue=examples.TASKS)
app.command("harness.commands.doctor:doctor", help=descriptions.DOCTOR, help_epilogue=examples.DOCTOR)
app.command("harness.commands.serve:serve", help=descriptions.SERVE, help_epilogue=examples.SERVE)


@app.command(help=descriptions.COMPLETION)
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print a script for a shell.

    Args:
        shell: Whose script to print.
    """
    sys.stdout.write(app.generate_completion(shell=shell) + "\n")
    return 0
