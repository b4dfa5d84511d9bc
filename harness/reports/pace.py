"""How fast a run went: latencies out of its journal, and its pace out of its log file, where there is one.

No time of a reply is stored: latencies are told in the order in which replies were. A log file (`run
--log-file`) has times, and may hold other runs beside this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from harness.columnar import journal_of
from harness.reports.records import Beat, Latencies
from harness.stored import Run

_TOLD = ("heartbeat", "endpoint_ended", "pace")
"""Events that say how fast it goes."""


class _Line(msgspec.Struct, frozen=True):
    """What of a line of the log file is read here."""

    time: str
    event: str
    session: str
    folder: str = ""
    endpoint: str = ""
    requests_a_second: float = float("nan")
    at_once: float = float("nan")
    reason: str = ""


_LINES = msgspec.json.Decoder(_Line)


def latencies_of(run: Run, label: str, *, called: str) -> Latencies:
    """How long the replies of an endpoint took; none where its journal is gone.

    Args:
        run: the run.
        label: the endpoint's, in the run.
        called: what it is called in the report.
    """
    with journal_of(run, label) as journal:
        rows = list(journal.latencies()) if journal else []
    told = np.array(rows, np.float64).reshape(-1, 2)
    return Latencies(called, told[:, 0], told[:, 1] > 1)


def beats_of(run: Run) -> Iterator[Beat]:
    """What the run's log file says of its pace, in its order; endpoints by their labels in the run.

    Nothing where the run had no log file, or it is not there any more.
    """
    named = run.manifest.get("settings", {}).get("log_file")
    file = Path(named) if isinstance(named, str) else None
    if file is None or not file.is_file():
        return
    begun: dict[str, datetime] = {}
    for line in _lines(file):
        if line.event == "run_begun" and Path(line.folder).resolve() == run.folder.resolve():
            begun[line.session] = _moment(line.time)
        elif line.event in _TOLD and line.session in begun:
            seconds = (_moment(line.time) - begun[line.session]).total_seconds()
            yield Beat(
                line.endpoint, line.session, seconds, line.requests_a_second, line.at_once, line.reason
            )


def _lines(file: Path) -> Iterator[_Line]:
    """The lines that can be read: a killed run may have left a half one."""
    try:
        with file.open("rb") as lines:
            for line in lines:
                try:
                    yield _LINES.decode(line)
                except msgspec.MsgspecError:
                    continue
    except OSError:
        return


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.min
