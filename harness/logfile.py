"""The log file: every event of a run as a line of JSON, added to what earlier sessions wrote.

It takes whatever reaches the root of `logging`: the run's own events, and what libraries complain about. A
thread of its own writes, so that a slow disk stops nobody; what waits for it is bounded. `results/README.md`
specifies the lines.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.events import LOGGER
from harness.failures import one_line
from harness.redacting import in_a_line, redacted

MOST_WAITING = 10_000
"""Lines that wait to be written; more are counted and dropped. Some mebibytes."""
LONGEST_END = 5.0
"""Seconds that the end of a run waits for the last lines: a disk may hang for ever."""
LONGEST_TEXT = 2000
"""Characters of a text."""
BEGINS = b'{"time":'
"""What every line begins with, and so every log file."""
OTHERS = "log"
"""What a record of a library is called."""


class LogFile(logging.Handler):
    """Writes records to a file, from a thread of its own."""

    def __init__(self, file: Path, session: str, warn: Callable[[str], None]) -> None:
        """Open the file, which goes on where an earlier session left it.

        Args:
            file: its folder is made where it is not there.
            session: stands in every line.
            warn: told once, if nothing can be written any more; from the writing thread.

        Raises:
            UsageError: it cannot be opened, or holds something else: that may be worth more than a log.
        """
        super().__init__()
        self._file = file
        self._always = {"session": session, "pid": os.getpid()}
        self._warn = warn
        self._warned = False
        self._lost = 0
        self._waiting: list[bytes] = []
        self._changed = threading.Condition()
        self._ended = False
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _opened(file)
        except OSError as error:
            raise UsageError(f"--log-file {file}: {error.strerror or error}; choose another file") from error
        self._thread = threading.Thread(target=self._write_all, name="log file", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over to the thread."""
        try:
            line = line_of(record, self._always)
        except Exception:  # a library's arguments that do not fit its message: no reason to end a run
            self.handleError(record)
            return
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._lost += 1
                return
            self._waiting.append(line)
            self._changed.notify()
        if record.name != LOGGER.name and logging.getLogger().handlers == [self]:
            _say_as_before(record)

    def close(self) -> None:
        """Write what waits, but wait no longer for it than `LONGEST_END`."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(LONGEST_END)
        super().close()

    # ---------------------------------------------------------------------------------- the writing thread

    def _write_all(self) -> None:
        while lines := self._next():
            try:
                _write(self._descriptor, b"".join(lines))
            except OSError as error:
                self._broken(len(lines), error)
        os.close(self._descriptor)

    def _next(self) -> list[bytes]:
        """Wait for lines; empty when the file is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            lines, self._waiting = self._waiting, []
            if lines and self._lost:
                lines.insert(0, self._told_lost())
            return lines

    def _told_lost(self) -> bytes:
        """A line about those that could not be written; it begins anew, as one of them may have been cut."""
        count, self._lost = self._lost, 0
        fields = {"lines": count}
        record = logging.makeLogRecord({"levelname": "WARNING", "event": "lines_lost", "fields": fields})
        return (b"\n" if self._warned else b"") + line_of(record, self._always)

    def _broken(self, lines: int, error: OSError) -> None:
        with self._changed:
            self._lost += lines
        if not self._warned:
            self._warned = True
            self._warn(f"--log-file {self._file}: {error.strerror or error}; the run goes on, lines are lost")


@contextmanager
def logging_to(file: Path | None, session: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Write what is logged to a file meanwhile, if there is to be one; raises as `LogFile` does."""
    if file is None:
        yield
        return
    handler = LogFile(file, session, warn)
    root, before = logging.getLogger(), LOGGER.level
    root.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
        root.removeHandler(handler)
        handler.close()


def line_of(record: logging.LogRecord, always: Mapping[str, Any]) -> bytes:
    """A record as a line of JSON, in ASCII: nothing in it can move a terminal's cursor.

    Args:
        record: an event's, or that of a library, of whose error one line is kept.
        always: fields that every line has.

    No secret that is known by now stands in it, and no text longer than `LONGEST_TEXT`.
    """
    name = getattr(record, "event", "")
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    said: dict[str, Any] = {
        "time": f"{moment}.{int(record.created % 1 * 1000):03d}Z",
        "level": record.levelname.lower(),
        "event": name or OTHERS,
        **always,
    }
    if endpoint := getattr(record, "endpoint", ""):
        said["endpoint"] = endpoint
    if name:
        said.update(getattr(record, "fields", {}))
    else:
        said["logger"] = record.name
        said["message"] = record.getMessage()
        if error := _error(record):
            said["error"] = error
    return json.dumps(_plain(said), separators=(",", ":")).encode() + b"\n"


def _error(record: logging.LogRecord) -> str:
    """What went wrong by a library's record, in one line; empty where nothing did."""
    if record.exc_info and record.exc_info[1] is not None:
        return in_a_line(record.exc_info[1])
    return str(getattr(record, "error", ""))  # as `redacting` makes records


def _plain(value: Any) -> Any:
    """A value that JSON has; texts are without secrets, short and on one line."""
    match value:
        case str():
            return one_line(redacted(value), LONGEST_TEXT)
        case float():
            return value if math.isfinite(value) else None
        case bool() | int() | None:
            return value
        case Mapping():
            return {_plain(str(name)): _plain(each) for name, each in value.items()}
        case Sequence():
            return [_plain(each) for each in value]
    return _plain(str(value))


def _opened(file: Path) -> int:
    """A descriptor that adds to the file; a line that was cut short by a kill is ended first.

    Raises:
        OSError: it cannot be opened, or is no log file.
    """
    # A pipe without a reader would block here, and is an error with O_NONBLOCK.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    os.set_blocking(descriptor, True)
    if os.fstat(descriptor).st_size:
        with file.open("rb") as written:
            lines = written.read(64).split(b"\n")
            if not all(BEGINS.startswith(line[: len(BEGINS)]) for line in lines):
                os.close(descriptor)
                raise OSError(None, "it holds something else than a log")
            written.seek(-1, os.SEEK_END)
            if written.read(1) != b"\n":
                _write(descriptor, b"\n")
    return descriptor


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _say_as_before(record: logging.LogRecord) -> None:
    """What Python does with a warning of a library if nobody listens: print it. A log file hides none."""
    last = logging.lastResort
    if last is not None and record.levelno >= last.level:
        last.handle(record)
