"""The reference model as an endpoint: what it is called, and the server that lives as long as a run."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from rich.console import Console

from harness import UsageError, embedded, reference
from harness.client import Client
from harness.endpoints import Credentials, credentials, parse_endpoints
from harness.exchange import Outcome, ScoreRequest
from harness.manifest import Exit
from harness.prepare import Prepared, prepare
from harness.runner import RunResult, evaluate
from harness.settings import RunSettings
from harness.tokenizing import load_tokenizer
from tests.running import LONGEST, ROOT, until, write_tokenizer
from tests.tiny_endpoint import Client as Asker

ENVIRON = {"FRIENDLI_TOKEN": "flp_abc", "FRIENDLI_TEAM": "team1"}
DEADLINE = 60_000
"""Milliseconds after which what must end is taken to go on for ever."""

Process = asyncio.subprocess.Process


def settings(*endpoints: str, **changes: Any) -> RunSettings:
    """Settings of a run on these endpoints."""
    return RunSettings(**{"endpoint": endpoints, "tasks": "sample_hellaswag", **changes})


async def run(prepared: Prepared) -> RunResult:
    """A run inside this process, which must end."""
    async with asyncio.timeout(DEADLINE / 1000):
        return await evaluate(prepared, Console(file=io.StringIO()))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """Every process that is started from now on."""
    start, found = asyncio.create_subprocess_exec, list[Process]()

    async def starting(*command: str, **how: Any) -> Process:
        found.append(await start(*command, **how))
        return found[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    return found


def is_there(process: int) -> bool:
    """Whether a process of this id is there."""
    return Path(f"/proc/{process}").exists()


# ------------------------------------------------------------------------------------------------ SPEC


@pytest.mark.parametrize(
    ("spec", "label", "adapter", "wire_model"),
    [
        ("embedded", "embedded", "", "embedded"),
        ("embedded:geography", "embedded:geography", "geography", "embedded:geography"),
        ("x=embedded", "x", "", "embedded"),
        ("x=embedded:science", "x", "science", "embedded:science"),
    ],
)
def test_spec(spec: str, label: str, adapter: str, wire_model: str) -> None:
    """The reference model is `embedded`, an adapter of it `embedded:ADAPTER`; both take a label."""
    (endpoint,) = parse_endpoints([spec])
    assert (endpoint.label, endpoint.adapter, endpoint.wire_model) == (label, adapter, wire_model)
    assert endpoint.embedded
    assert not endpoint.vendor


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("embedded:", "--endpoint embedded:: no adapter after"),
        ("x=embedded:", "--endpoint x=embedded:: no adapter after"),
        ("embeded", "Did you mean embedded"),
        ("", r"embedded\[:ADAPTER\]"),
    ],
)
def test_malformed_spec(spec: str, says: str) -> None:
    """An adapter without a name is refused, and a mistyped name gets a hint."""
    with pytest.raises(UsageError, match=says):
        parse_endpoints([spec])


def test_no_secret_is_sent_to_it() -> None:
    """Whatever is in the environment, an embedded endpoint has no credentials."""
    (endpoint,) = parse_endpoints(["embedded"])
    assert credentials(endpoint, ENVIRON) == Credentials()
    assert credentials(endpoint, ENVIRON).headers() == {}


# --------------------------------------------------------------------------------------------- prepare


def test_it_needs_neither_tokenizer_nor_token() -> None:
    """An endpoint and a task are enough; the tokenizer is the reference model's own."""
    prepared = prepare(settings("embedded", "embedded:geography"), ENVIRON)
    assert list(prepared.tokenizers) == ["embedded", "embedded:geography"]
    (tokenizer,) = set(prepared.tokenizers.values())
    assert tokenizer.sha256 == load_tokenizer(str(reference.FOLDER)).sha256
    assert set(prepared.secrets.values()) == {Credentials()}


def test_identity_is_the_weights() -> None:
    """The identity holds the hash of the files and no address, so that a run can be continued."""
    base, adapted = prepare(settings("embedded", "x=embedded:science"), {}).endpoints
    assert base.base_url == adapted.base_url == f"embedded:{reference.digest()}"
    assert base.base_url in base.identity.text()
    assert "127.0.0.1" not in base.identity.text()
    assert base.identity.digest() != adapted.identity.digest()
    assert base.account == adapted.account
    (again,) = prepare(settings("y=embedded"), {}).endpoints
    assert again.identity == base.identity


def test_digest_is_of_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has the same hash wherever it lies; other weights, an adapter's too, have another."""
    copy = shutil.copytree(reference.FOLDER, tmp_path / "copy")
    monkeypatch.setattr(reference, "FOLDER", copy)
    assert reference.digest.__wrapped__() == reference.digest()
    file = copy / "adapters/science/adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x77")
    assert reference.digest.__wrapped__() != reference.digest()


@pytest.mark.parametrize(
    ("spec", "hint"),
    [("embedded:geografy", "Did you mean geography?"), ("x=embedded:law", "Known: geography, science.")],
)
def test_unknown_route(spec: str, hint: str) -> None:
    """An adapter that does not ship is refused before anything is started, with those that do."""
    with pytest.raises(UsageError) as caught:
        prepare(settings(spec), {})
    (endpoint,) = parse_endpoints([spec])
    assert str(caught.value) == f"--endpoint {endpoint.label}: no adapter {endpoint.adapter!r}. {hint}"


def test_another_endpoint_beside_it_needs_its_own_tokenizer(tmp_path: Path) -> None:
    """The embedded tokenizer is nobody else's, and one given for all does not replace it."""
    both = ("embedded", "other=http://127.0.0.1:9/v1#m")
    with pytest.raises(UsageError, match="--tokenizer: none given for other"):
        prepare(settings(*both), {})
    file = write_tokenizer(tmp_path)
    own = prepare(settings("embedded"), {}).tokenizers["embedded"].sha256
    for given in (f"other={file}", str(file)):
        found = prepare(settings(*both, tokenizer=(given,)), {}).tokenizers
        assert found["embedded"].sha256 == own != found["other"].sha256


# ----------------------------------------------------------------------------------------------- a run


async def test_a_run(tmp_path: Path, started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run ends done, says what its scores are worth, and leaves no server behind."""
    monkeypatch.setenv("FORCED_CHOICE_SERVE_TOKEN", "flp_other")
    asked = settings("embedded", "embedded:geography", limit=5, out=tmp_path / "run")
    result = await run(prepare(asked, ENVIRON))
    assert result.exit is Exit.DONE
    assert set(result.accuracy["endpoint"]) == {"embedded", "embedded:geography"}
    assert list(result.accuracy["unscored"].unique()) == [0]
    manifest = json.loads((tmp_path / "run/run.json").read_text())
    for remarks in (result.remarks, manifest["remarks"]):
        assert f"embedded: {reference.NOTICE}" in remarks
    assert "127.0.0.1" not in json.dumps(manifest)
    (server,) = started
    assert server.returncode == 0
    assert not is_there(server.pid)


async def test_a_run_is_continued(tmp_path: Path) -> None:
    """The same command again finds every reply, although the server had another port."""
    for sent in (20, 0):
        result = await run(prepare(settings("embedded", limit=5, out=tmp_path / "run"), {}))
        assert (result.exit, result.parts[0].progress.requests_done) == (Exit.DONE, sent)


async def test_the_server_is_killed(
    tmp_path: Path, started: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is gone ends the run with unscored items and a remark; the same command goes on."""
    score, sent = Client.score, 0

    async def scoring(client: Client, request: ScoreRequest, *rest: Any) -> Outcome:
        nonlocal sent
        sent += 1
        if sent == 60:
            started[0].kill()
        return await score(client, request, *rest)

    monkeypatch.setattr(Client, "score", scoring)
    asked = settings("embedded", limit=40, out=tmp_path / "run")
    result = await run(prepare(asked, {}))
    assert (result.exit, int(result.exit)) == (Exit.UNSCORED, 3)
    assert int(result.accuracy["unscored"].max()) > 0
    lost = "the run was broken off: the embedded server ended by itself (exit code -9): it said nothing"
    assert lost in result.remarks
    manifest = json.loads((tmp_path / "run/run.json").read_text())
    assert (manifest["status"], lost in manifest["remarks"]) == ("incomplete", True)
    again = await run(prepare(asked, {}))
    assert again.exit is Exit.DONE
    assert again.parts[0].progress.requests_reused > 0
    assert lost not in again.remarks


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
async def test_the_server_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    """After SIGKILL of the run, which can clean up nothing, its server ends by itself."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "run_eval.py"), "run", "--out", str(tmp_path / "run")),
        *("--endpoint", "embedded", "--tasks", "sample_mmlu"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await until(lambda: replies(tmp_path / "run") > 0 or run.returncode is not None)
    ((server, command),) = children(run.pid).items()
    assert "--until-eof" in command
    watched = os.pidfd_open(server)
    try:
        run.kill()
        await run.wait()
        assert await asyncio.to_thread(ended, watched)
    finally:
        os.close(watched)


def replies(folder: Path) -> int:
    """Replies that a run's journal holds on disk."""
    for file in (folder / "journal").glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as journal:
            try:
                return int(journal.execute("SELECT count(*) FROM replies").fetchone()[0])
            except sqlite3.OperationalError:  # the tables are not there yet
                return 0
    return 0


def children(parent: int) -> dict[int, list[str]]:
    """The processes that a process has started and that are there, and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent:
                found[int(folder.name)] = (folder / "cmdline").read_text().split("\0")
        except OSError:  # it has ended meanwhile
            continue
    return found


def ended(process: int) -> bool:
    """Wait for the process of a file descriptor to end, but not for ever."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(DEADLINE))


# ---------------------------------------------------------------------------------------------- server


async def test_until_eof() -> None:
    """`serve --until-eof` answers while its standard input is open, and ends when that does."""
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(
        *embedded.COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT
    )
    assert server.stdin is not None
    assert server.stdout is not None
    url = (await server.stdout.readline()).decode().strip()
    async with ClientSession() as session:
        for model in ("embedded", *(f"embedded:{route}" for route in reference.routes())):
            body = {"model": model, "prompt": "A", "max_tokens": 1}
            assert (await Asker(session, url).complete(**body))[0] == 200
    server.stdin.close()
    _, said = await asyncio.wait_for(server.communicate(), LONGEST)
    assert (server.returncode, said) == (0, b"")


def unexpected(why: str) -> None:
    """Who must not be told that the server is lost."""
    raise AssertionError(why)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('first\\nno weights')", "its server did not start: no weights"),
        ("pass", "its server did not start: it said nothing"),
        ("print('hello')", "its server did not start: "),
        ("input()", "its server did not start: it said nothing"),
    ],
    ids=["error", "silence", "another program", "hangs"],
)
async def test_a_server_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, started: list[Process], code: str, says: str
) -> None:
    """A server that ends or stays silent is one clear line, and is not left behind."""
    monkeypatch.setattr(embedded, "COMMAND", (sys.executable, "-c", code))
    if code == "input()":
        monkeypatch.setattr(embedded, "START", 0.0)
        monkeypatch.setattr(embedded, "GRACE", 0.01)
    with pytest.raises(UsageError, match=f"--endpoint embedded: {says}"):
        async with embedded.served(parse_endpoints(["embedded"]), unexpected):
            pass
    assert started[0].returncode is not None
    assert not is_there(started[0].pid)


async def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Python to start, the error says why."""
    monkeypatch.setattr(embedded, "COMMAND", ("/nowhere/python",))
    with pytest.raises(UsageError, match=r"cannot be started \(No such file or directory\)"):
        async with embedded.served(parse_endpoints(["embedded"]), unexpected):
            pass


async def test_a_server_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, started: list[Process]
) -> None:
    """What goes on after the end of its input gets a moment, and is then killed."""
    code = "import signal; print('http://127.0.0.1:9/v1', flush=True); signal.pause()"
    monkeypatch.setattr(embedded, "COMMAND", (sys.executable, "-c", code))
    monkeypatch.setattr(embedded, "GRACE", 0.01)
    endpoints = parse_endpoints(["embedded", "embedded:geography", "http://127.0.0.1:8/v1"])
    async with embedded.served(endpoints, unexpected) as addresses:
        assert addresses == {"embedded": "http://127.0.0.1:9/v1"}
        assert started[0].returncode is None
    assert started[0].returncode == -9


async def test_nothing_is_started_for_others(started: list[Process]) -> None:
    """Without an embedded endpoint there is no server."""
    async with embedded.served(parse_endpoints(["http://127.0.0.1:8/v1"]), unexpected) as addresses:
        assert addresses == {}
    assert started == []


async def test_a_server_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch, started: list[Process]) -> None:
    """Who uses the server is told, once, when it ends before its time."""
    code = "print('http://127.0.0.1:9/v1', flush=True); input(); raise SystemExit('out of luck')"
    monkeypatch.setattr(embedded, "COMMAND", (sys.executable, "-c", code))
    told, heard = list[str](), asyncio.Event()

    def on_lost(why: str) -> None:
        told.append(why)
        heard.set()

    async with embedded.served(parse_endpoints(["embedded"]), on_lost):
        assert started[0].stdin is not None
        started[0].stdin.write(b"\n")
        async with asyncio.timeout(DEADLINE / 1000):
            await heard.wait()
    assert told == ["the embedded server ended by itself (exit code 1): out of luck"]


def test_what_lies_in_the_current_folder_does_not_matter(tmp_path: Path) -> None:
    """The server is this program, also where a folder called `harness` or a `secrets.py` lies about."""
    (tmp_path / "harness").mkdir()
    for file in ("harness/__init__.py", "harness/__main__.py", "secrets.py"):
        (tmp_path / file).write_text("raise SystemExit('shadowed')\n")
    command = [sys.executable, str(ROOT / "run_eval.py"), "run", "--endpoint", "embedded"]
    command += ["--tasks", "sample_hellaswag", "--limit", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    assert f"python {ROOT / 'run_eval.py'} run --endpoint" in done.stderr


def test_a_tokenizer_that_nobody_uses_is_refused() -> None:
    """`--tokenizer` beside embedded endpoints alone would only seem to be used."""
    asked = RunSettings(endpoint=("embedded",), tasks="sample_hellaswag", tokenizer=("some/model",))
    with pytest.raises(UsageError, match="--tokenizer some/model: no endpoint is left to use it"):
        prepare(asked, {})
