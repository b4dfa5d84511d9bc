"""`run` from Python, also where an event loop is running already, as in a notebook."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from harness.endpoint_settings import EndpointSettings
from harness.errors import UsageError, did_you_mean
from harness.prepare import Prepared, prepare
from harness.runner import RunResult
from harness.runner import evaluate as run_suite
from harness.settings import RunSettings
from harness.stored import Run, load_run
from harness.strict import strict
from harness.suitefile import beneath, read_suite
from harness.terminal import say


def evaluate(
    *endpoints: str | Mapping[str, Any],
    tasks: str | Sequence[str] | None = None,
    suite: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Evaluate tasks on one or more endpoints; the same call continues where an earlier one stopped.

    It returns when the run has ended, and may be called where an event loop is running. An interrupt
    (Ctrl-C, "stop" in a notebook) lets requests in flight end, writes the tables, and is then raised.

    Args:
        endpoints: SPECs, as `--endpoint` takes them, or tables as `[[endpoints]]` of a suite file:
            {"spec": "dedicated:ID", "adapters": ["math"], "rpm": 600}.
        tasks: names of benchmarks, in a list or separated by commas.
        suite: a suite file, as `run suite.toml` takes it: evaluate(suite="suite.toml", limit=50). Endpoints,
            tasks and settings of the call win over what it says; what it says need not be said here.
        progress: show it on stderr.
        settings: any other flag of `run`, with `_` for `-`: limit=200, data_dir="...", out="...".

    Raises:
        UsageError: settings or data are wrong; nothing was scored.
        EndpointRefused: endpoints were to tokenize for themselves, and all of them refuse.
        StoreError: the run's files cannot be written.
    """
    given = dict(settings)
    if tasks is not None:
        given["tasks"] = tasks if isinstance(tasks, str) else ",".join(tasks)
    if endpoints:
        given["endpoint"] = tuple(_endpoint(each, at) for at, each in enumerate(endpoints, 1))
    if suite is not None:
        given |= beneath(read_suite(Path(suite)), given)
    prepared = prepare(_settings(given, suite))
    console = Console(stderr=True, quiet=not progress)
    for remark in prepared.chat_remarks:
        say(console, remark)
    result = _in_a_thread(prepared, console)
    return load_run(result.folder)


def _endpoint(given: str | Mapping[str, Any], at: int) -> str | EndpointSettings:
    """An endpoint of a call; a file's name in its place is a suite file's, most likely."""
    if isinstance(given, Mapping):
        return strict(given, EndpointSettings, f"evaluate: endpoint {at}")
    if str(given).endswith(".toml"):
        raise UsageError(f"evaluate: {given} is no endpoint; a suite file is given as suite='{given}'")
    return given


def _settings(given: Mapping[str, Any], suite: str | Path | None) -> RunSettings:
    """The settings of a call, of the types that flags have; `suite` is the file that said some of them.

    Raises:
        UsageError: an unknown setting, or a value of the wrong type.
    """
    known = [field.name for field in fields(RunSettings)]
    for name in given:
        if name not in known:
            raise UsageError(f"evaluate: no setting {name!r}. {did_you_mean(name, known)}")
    where = "suite=FILE with some in it" if suite is None else f"add some to {suite}"
    for name, example in (("endpoint", 'evaluate("embedded", ...)'), ("tasks", 'tasks="hellaswag"')):
        if name not in given:
            raise UsageError(f"evaluate: no {name} given: {example}, or {where}")
    tokenizer = given.get("tokenizer", ())
    if isinstance(tokenizer, str | Path):
        tokenizer = (str(tokenizer),)
    try:
        return msgspec.convert({**given, "tokenizer": tokenizer}, RunSettings, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UsageError(f"evaluate: {error}") from error


def _path(kind: type, value: Any) -> Any:
    """A path where one is expected, out of text."""
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _in_a_thread(prepared: Prepared, console: Console) -> RunResult:
    """Run in an event loop of its own, beside the one that the caller may have.

    The first interrupt stops the run, the second drops what is in flight; either is then raised.
    """
    done: Future[RunResult] = Future()
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, asyncio.Task[RunResult]]] = Future()

    async def work() -> RunResult:
        stop = asyncio.Event()
        running = asyncio.create_task(run_suite(prepared, console, stop))
        begun.set_result((asyncio.get_running_loop(), stop, running))
        return await running

    def main() -> None:
        try:
            done.set_result(asyncio.run(work()))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=main, name="forced-choice evaluate").start()
    try:
        return done.result()
    except KeyboardInterrupt:
        loop, stop, running = begun.result()
        try:
            _call(loop, stop.set)
            say(console, "Stopping: requests in flight are finished and kept. Interrupt again to drop them.")
            wait([done])
        except KeyboardInterrupt:
            _call(loop, running.cancel)
            wait([done])
        raise


def _call(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    """Call something in the thread of an event loop, unless that has ended meanwhile."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(act)
