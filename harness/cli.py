"""The program: one command, and what becomes of errors. The commands are in `harness.commands`.

What people read goes to the terminal through rich; data goes to files or, with `--json`, to stdout.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.collecting import begin


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are one line on stderr, never a traceback."""
    begin()
    from cyclopts import CycloptsError

    from harness.commands.app import app
    from harness.errors import EndpointRefused, HarnessError, StoreError
    from harness.redacting import install
    from harness.terminal import show_other_signs

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

    from harness.terminal import say

    say(Console(stderr=True), f"forced-choice: {message}")
    return code
