"""The log file: what its lines say, that they are specified, and that no disk stops a run."""

from __future__ import annotations

import ast
import errno
import io
import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness import logfile, redacting
from harness.errors import UsageError
from harness.events import LOGGER, event
from harness.logfile import LONGEST_TEXT, LogFile, line_of, logging_to
from harness.manifest import Exit
from harness.prepare import prepare
from harness.redacting import keep
from harness.runner import evaluate
from harness.runs import RunFolder
from harness.secrets import Secret
from tests.fake_endpoint import Body, FakeEndpoint, Fault, Status
from tests.running import ROOT, Bench, bench

__all__ = ["bench"]

COMMON = {"time", "level", "event", "session", "pid"}
SECTION = (ROOT / "results/README.md").read_text().split("## The log file")[1].split("\n## ")[0]


def specified() -> dict[str, set[str]]:
    """Of each event in the table its fields."""
    found: dict[str, set[str]] = {}
    table = SECTION.split("| Event |")[1]
    for name, cell in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table, re.MULTILINE):
        fields = re.findall(r"`(\w+)`", cell)
        found[name] = found[fields[0]] | {*fields[1:]} if cell.startswith("as `") else {*fields}
    return found


@cache
def calls() -> Sequence[tuple[str, ast.Call]]:
    """Every place of the program that tells of an event: its name, and the call."""
    files = {file: file.read_text() for file in (ROOT / "harness").rglob("*.py")}
    found = []
    for text in (text for text in files.values() if "event(" in text or "_tell" in text):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                at = {"event": 0, "_tell": 0, "_tell_of": 1}.get(called)
                if at is None or len(node.args) <= at:
                    continue
                name = node.args[at]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    found.append((name.value, node))
    return found


def lines_in(file: Path) -> list[dict[str, Any]]:
    """The lines of a log file."""
    return [json.loads(line) for line in file.read_text("ascii").splitlines() if line]


@contextmanager
def written_to(file: Path, warnings: list[str] | None = None) -> Iterator[None]:
    """A log file of the session "s"."""
    said = [] if warnings is None else warnings
    with logging_to(file, "s", said.append):
        yield


# --------------------------------------------------------------------------------------- the specification


def test_every_event_stands_in_the_table() -> None:
    """The table of `results/README.md` names all events that the program tells of, and no others."""
    told = {name for name, _ in calls()}
    assert told | {"log", "lines_lost"} == set(specified())
    assert COMMON | {"endpoint"} == set(re.findall(r"^\| `(\w+)` \|", SECTION.split("| Event |")[0], re.M))


def test_the_fields_of_events_stand_in_the_table() -> None:
    """Where an event is told of with its fields written out, these are the fields of its row."""
    checked = 0
    for name, call in calls():
        written = {each.arg for each in call.keywords} - {"endpoint", "level"}
        if isinstance(call.func, ast.Name) and len(call.args) == 1 and None not in written:
            assert written == specified()[name], name
            checked += 1
    assert checked >= 8


async def test_lines_of_runs_are_as_specified(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that meet all kinds of trouble write lines with exactly the specified fields; retries, failures,
    changes of pace, limits, pauses, outages, caps, heartbeats and both ends are all there."""
    monkeypatch.setattr("harness.heartbeat.LOG_SECONDS", 0.05)
    log = bench.folder / "logs/run.jsonl"

    def script(number: int, body: Body) -> Fault | None:
        if number == 40:
            return Status(400, body=b'{"message": "\\u001b[31mno such\\ntoken"}')
        if number == 41:
            return Status(429, {"X-RateLimit-Limit-Requests": "900000", "retry-after-ms": "5"})
        if 45 <= number < 75:  # the endpoint is suspect after 20, and probed ever more seldom
            return Status(503)
        return Status(429) if number > 100 and b'"heartbeat"' not in log.read_bytes() else None

    async with FakeEndpoint(script) as endpoint:
        options: dict[str, Any] = {"log_file": log, "concurrency": "auto", "attempts": 6}
        capped = await bench.run(f"it={endpoint.base_url}", max_requests=90, **options)
        whole = await bench.run(f"it={endpoint.base_url}", **options)
    assert (capped.exit, whole.exit) == (Exit.UNSCORED, Exit.DONE)
    lines, table = lines_in(log), specified()
    for line in lines:
        assert line.keys() - COMMON - {"endpoint"} == table[line["event"]], line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert (line["level"], line["pid"]) in {(each, os.getpid()) for each in ("info", "warning", "error")}
    wanted = "retry failed pace limits paused outage_begun outage_probe outage_ended cap heartbeat process"
    assert {line["event"] for line in lines} >= {*wanted.split(), "endpoint_begun", "endpoint_ended"}
    sessions = list(dict.fromkeys(line["session"] for line in lines))
    assert len(sessions) == 2
    assert bench.manifest()["heartbeat"]["session"] == sessions[1]
    for each in sessions:
        of_session = [line["event"] for line in lines if line["session"] == each]
        assert (of_session[0], of_session[-1]) == ("run_begun", "run_ended")
    assert [line["exit"] for line in lines if line["event"] == "run_ended"] == [3, 0]
    failed = next(line for line in lines if line["event"] == "failed")
    assert (failed["reason"], failed["detail"], failed["endpoint"]) == ("400", "[31mno such token", "it")


async def test_retries_of_the_log_are_those_of_the_run(bench: Bench) -> None:
    """Each retry is one line, with its number and the wait before it; the sums are those of `run.json`."""
    log = bench.folder / "run.jsonl"

    def script(number: int, body: Body) -> Fault | None:
        return Status((429, 500, 503)[number % 3]) if number % 4 == 0 else None

    async with FakeEndpoint(script) as endpoint:
        await bench.run(f"it={endpoint.base_url}", log_file=log, attempts=30)
    retries = [line for line in lines_in(log) if line["event"] == "retry"]
    counted = bench.manifest()["counts"]["it"]["retries"]
    assert {each: [line["reason"] for line in retries].count(each) for each in counted} == counted
    assert len(retries) == sum(counted.values()) > 10
    by_key: dict[str, list[int]] = {}
    for line in retries:
        by_key.setdefault(line["key"], []).append(line["attempt"])
        assert 0 <= line["wait"] <= 0.01
        assert str(line["status"]) == line["reason"]
    assert all(attempts == list(range(1, len(attempts) + 1)) for attempts in by_key.values())


async def test_a_run_that_breaks_off_says_why(bench: Bench) -> None:
    """What ends a session without a result is its last line."""
    log = bench.folder / "run.jsonl"
    settings = bench.settings("it=http://127.0.0.1:9/v1", log_file=log)
    prepared = prepare(settings, {})
    with (
        RunFolder(prepared.folder, prepared.identity),
        pytest.raises(UsageError, match="another run is working"),
    ):
        await evaluate(prepared, Console(file=io.StringIO()))
    last = lines_in(log)[-1]
    assert (last["event"], last["level"]) == ("broken_off", "error")
    assert "another run is working in this folder" in last["reason"]


# ----------------------------------------------------------------------------------------------- the lines


texts = st.text(st.characters(exclude_categories=[]), max_size=80)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(fields=st.dictionaries(st.text("abcxyz_", min_size=1), values, max_size=4), endpoint=texts)
def test_any_field_is_one_inert_line(fields: dict[str, Any], endpoint: str) -> None:
    """Whatever a field holds, the line is JSON in printable ASCII, and ends where it should."""
    given = {"levelname": "INFO", "event": "retry", "endpoint": endpoint, "fields": fields}
    line = line_of(logging.makeLogRecord(given), {"session": "s", "pid": 1})
    assert line.endswith(b"\n")
    text = line[:-1].decode("ascii")
    assert text.isprintable()
    assert json.loads(text, parse_constant=pytest.fail)["event"] == "retry"


def test_texts_are_cut(tmp_path: Path) -> None:
    """A text of any length becomes one of a bounded length."""
    with written_to(tmp_path / "log"):
        event("failed", detail="x" * 10**6)
    assert len(lines_in(tmp_path / "log")[0]["detail"]) == LONGEST_TEXT


def test_secrets_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is known is in no line: not in a field, a label, a list, or what a library says."""
    monkeypatch.setattr("harness.redacting._known", {})
    secret = "correct horse/battery"
    keep([Secret(secret)])
    with written_to(tmp_path / "log"):
        event("failed", endpoint=secret, detail=f"no {secret}!", more=[secret], by={secret: 1})
        try:
            raise RuntimeError(secret)
        except RuntimeError:
            logging.getLogger("aiohttp.client").exception("with %s", secret)
    text = (tmp_path / "log").read_text()
    assert len(text.splitlines()) == 2
    assert "horse" not in text


@pytest.mark.parametrize("factory", [logging.LogRecord, redacting._record])
def test_libraries_are_heard_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    factory: Any,
) -> None:
    """A warning of a library is a line, and still goes to stderr; what it says in passing is neither;
    so in the program, whose records are made without secrets, and where the package is called."""
    monkeypatch.setattr(logging, "_logRecordFactory", factory)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with written_to(tmp_path / "log"):
        event("cap", level=logging.ERROR, reason="the run's own events are for the file alone")
        logging.getLogger("asyncio").warning("a task was %s", "forgotten")
        logging.getLogger("asyncio").info("in passing")
        try:
            raise ValueError("broken\nin two")
        except ValueError:
            logging.getLogger("x").exception("so")
    _, warned, broken = lines_in(tmp_path / "log")
    said = {name: warned[name] for name in ("event", "level", "logger", "message")}
    assert said == {
        "event": "log",
        "level": "warning",
        "logger": "asyncio",
        "message": "a task was forgotten",
    }
    assert broken["error"] == "ValueError: broken in two"
    assert capsys.readouterr().err.startswith("a task was forgotten\nso\n")


def test_a_record_that_makes_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever logs badly is shown where, as ever, and goes on; the lines around it are there."""
    record = logging.makeLogRecord({"name": "x", "msg": "%d of %d", "args": ("one",), "levelname": "INFO"})
    handler = LogFile(tmp_path / "log", "s", pytest.fail)
    for each in (logging.makeLogRecord({"levelname": "INFO", "event": "cap"}), record):
        handler.emit(each)
    handler.close()
    assert [line["event"] for line in lines_in(tmp_path / "log")] == ["cap"]
    assert "TypeError" in capsys.readouterr().err


def test_without_a_log_file_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """An event is nothing where there is no log file: it is not printed either."""
    assert not LOGGER.isEnabledFor(logging.INFO)
    event("outage_begun", level=logging.ERROR, said="down")
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------ the file


def test_a_session_goes_on_in_the_file(tmp_path: Path) -> None:
    """Lines are added; one that a kill has cut short is ended first, and folders are made."""
    file = tmp_path / "logs/of/the night.jsonl"
    with written_to(file):
        event("cap", reason="1")
    with file.open("ab") as cut:
        cut.write(b'{"time": "20')
    with written_to(file):
        event("cap", reason="2")
    first, second, third = file.read_bytes().splitlines()
    assert [json.loads(line)["reason"] for line in (first, third)] == ["1", "2"]
    assert second == b'{"time": "20'


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\0", b'{\n  "schema": 1', b'{"question": 1}\n', b"a,b\n"]
)
def test_no_other_file_is_written_into(tmp_path: Path, content: bytes) -> None:
    """A file that is no log, such as a run's own, stays as it is; what a kill left of a first line is one."""
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(UsageError, match="holds something else than a log; choose another file"):
        LogFile(tmp_path / "log", "s", pytest.fail)
    assert (tmp_path / "log").read_bytes() == content
    (tmp_path / "cut").write_bytes(b'{"ti')
    with written_to(tmp_path / "cut"):
        event("cap", reason="1")
    assert (tmp_path / "cut").read_bytes().startswith(b'{"ti\n{"time":')


@pytest.mark.parametrize("kind", ["folder", "below a file", "pipe that nobody reads"])
async def test_a_file_that_cannot_be_opened(bench: Bench, kind: str) -> None:
    """It is a usage error that names the flag, before the first request."""
    file = bench.folder / "log"
    if kind == "folder":
        file.mkdir()
    elif kind == "below a file":
        file.write_text("")
        file /= "below"
    else:
        os.mkfifo(file)
    async with FakeEndpoint() as endpoint:
        with pytest.raises(UsageError, match=r"^--log-file .*; choose another file$"):
            await bench.run(endpoint.base_url, log_file=file)
    assert not endpoint.bodies
    assert not (bench.folder / "run").exists()


def test_a_slow_disk_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs, whoever logs goes on; lines beyond the bound are dropped, and counted."""
    monkeypatch.setattr(logfile, "MOST_WAITING", 100)
    hangs, over, write = threading.Event(), threading.Event(), logfile._write

    def slow(descriptor: int, content: bytes) -> None:
        hangs.set()
        assert over.wait(30)
        write(descriptor, content)

    monkeypatch.setattr(logfile, "_write", slow)
    with written_to(tmp_path / "log"):
        event("cap", reason="first")
        assert hangs.wait(30)
        for number in range(150):
            event("cap", reason=str(number))
        over.set()
    lines = lines_in(tmp_path / "log")
    kept = [line["reason"] for line in lines if line["event"] == "cap"]
    assert kept == ["first", *map(str, range(100))]
    assert [line["lines"] for line in lines if line["event"] == "lines_lost"] == [50]


def test_a_full_disk_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is said once, and counted; once there is room again, lines are whole."""
    write, warnings = logfile._write, list[str]()
    failed = threading.Semaphore(0)
    full = True

    def onto_full(descriptor: int, content: bytes) -> None:
        if full:
            write(descriptor, content[:7])
            failed.release()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, content)

    monkeypatch.setattr(logfile, "_write", onto_full)
    with written_to(tmp_path / "log", warnings):
        for _ in range(2):
            event("cap", reason="lost")
            assert failed.acquire(timeout=30)
        full = False
        event("cap", reason="kept")
    assert warnings == [
        f"--log-file {tmp_path / 'log'}: No space left on device; the run goes on, lines are lost"
    ]
    *cut, lost, kept = (tmp_path / "log").read_bytes().splitlines()
    assert all(len(each) <= 2 * 7 for each in cut)
    assert json.loads(lost)["lines"] == 2
    assert json.loads(kept)["reason"] == "kept"


def test_a_disk_that_hangs_for_ever_does_not_keep_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a run waits only so long for the last lines."""
    monkeypatch.setattr(logfile, "LONGEST_END", 0.01)
    over = threading.Event()
    monkeypatch.setattr(logfile, "_write", lambda descriptor, content: over.wait(30))
    handler = LogFile(tmp_path / "log", "s", pytest.fail)
    handler.emit(logging.makeLogRecord({"levelname": "INFO", "event": "cap"}))
    handler.close()
    assert handler._thread.is_alive()
    over.set()
    handler._thread.join(30)
    assert not handler._thread.is_alive()
