"""Nothing leaves the process with a secret in it: what is logged, warned of, or said when it breaks down.

The secrets are those of the environment and of the endpoints of a run, as far as they are known yet. A shell
calls `install` once: every record of every logger (of libraries too) is then made without secrets, whatever
handlers there are, and so are tracebacks. Where lines are written beside `logging`, `redacted` is their last
step. In a program that only calls the package, nothing of its own is changed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from harness.secrets import SHORTEST, Secret, redact, secrets_of

_known: dict[str, Secret] = {}


def keep(secrets: Iterable[Secret]) -> None:
    """Look for these from now on; very short ones would be found by accident everywhere."""
    _known.update((each.reveal(), each) for each in secrets if len(each.reveal()) >= SHORTEST)


def keep_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Look for the values of all variables that are called like secrets."""
    keep(secrets_of(environ))


def redacted(text: str) -> str:
    """The text without any secret that is known."""
    return redact(text, list(_known.values()))


def in_a_line(error: BaseException) -> str:
    """An exception's kind and what it says, in one line without any secret that is known."""
    return " ".join(redacted("".join(traceback.format_exception_only(error))).split())


def install(environ: Mapping[str, str] = os.environ) -> None:
    """Keep secrets out of all records and tracebacks of this process from now on; once is enough."""
    keep_environment(environ)
    if logging.getLogRecordFactory() is not _record:
        logging.setLogRecordFactory(_record)
    if sys.excepthook is sys.__excepthook__:  # who has put another one there knows what for
        sys.excepthook = _broke_down
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_broke_down
    if warnings.formatwarning is not _warning:
        warnings.formatwarning = _warning


def _record(*given: Any, **named: Any) -> logging.LogRecord:
    """A record whose words are final: formatted and clean, the traceback too."""
    record = logging.LogRecord(*given, **named)
    try:
        said = record.getMessage()
    except Exception as error:  # arguments that do not fit: logging would print them
        said = f"{record.msg!s} (arguments do not fit: {error})"
    record.msg, record.args = redacted(said), None
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = redacted("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        record.error = in_a_line(record.exc_info[1])
    record.exc_info = None
    if record.stack_info:
        record.stack_info = redacted(record.stack_info)
    return record


def _say(lines: Iterable[str]) -> None:
    """To stderr, as Python itself does; there may be none."""
    if sys.stderr is not None:
        sys.stderr.write(redacted("".join(lines)))
        sys.stderr.flush()


def _broke_down(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _say(traceback.format_exception(kind, error, trace))


def _thread_broke_down(given: threading.ExceptHookArgs) -> None:
    if given.exc_type is not SystemExit:
        name = given.thread.name if given.thread is not None else "?"
        told = traceback.format_exception(given.exc_type, given.exc_value, given.exc_traceback)
        _say([f"Exception in thread {name}:\n", *told])


def _unraisable(given: Any) -> None:
    told = traceback.format_exception(given.exc_type, given.exc_value, given.exc_traceback)
    _say([f"{given.err_msg or 'Exception ignored in'}: {given.object!r}\n", *told])


_formatwarning = warnings.formatwarning


def _warning(*given: Any, **named: Any) -> str:
    return redacted(_formatwarning(*given, **named))
