"""The program: its commands, one module each in `harness.commands`, and what becomes of errors.

A command is imported when it is called. What people read goes to the terminal through rich; data goes to
files or, with `--json`, to stdout.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from cyclopts import App, CycloptsError

from harness import __version__, descriptions, examples
from harness.errors import EndpointRefused, HarnessError, StoreError
from harness.redacting import install
from harness.terminal import say, show_other_signs

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection

NEW_OBJECTS = 50_000
"""After so many Python looks for cycles among them. Hardly any are made here, and to look after every 700, as
it does by itself, takes a tenth of a run's processor time."""

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are one line on stderr, never a traceback."""
    gc.set_threshold(NEW_OBJECTS)
    install()
    show_other_signs()
    try:
        code = app(
            arguments if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        return _fail(str(error))
    except StoreError as error:  # files that could be written at first: the run is kept as far as it is
        return _fail(f"{error}. Then the same command continues.", code=3)
    except EndpointRefused as error:
        return _fail(str(error), code=4)
    except HarnessError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of output, mostly: a full disk
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    return code if isinstance(code, int) else 0


def _fail(message: str, *, code: int = 2) -> int:
    from rich.console import Console

    say(Console(stderr=True), f"forced-choice: {message}")
    return code
