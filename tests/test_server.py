"""The embedded endpoint's server and engine: many at once, cancelled, closed, failing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from aiohttp import ClientSession, web

from harness.errors import UsageError
from harness.serving.app import Service, create_app
from harness.serving.decoding.job import Job
from harness.serving.engine import Engine
from harness.serving.models.config import read_config
from harness.serving.models.llama import KeysValues, LlamaModel
from harness.serving.models.seam import Segment
from harness.serving.models.weights import Floats, Tensors
from harness.serving.scheduler import Cancelled
from harness.serving.server import Options, Served, listening, load, serve
from tests.decoded import letters, run
from tests.tiny_endpoint import Client, client_of
from tests.tiny_llama import BOS, write_model

BASE = [BOS, 70, 71, 72]


class HeldModel(LlamaModel):
    """The tiny model, which waits for `release` before it reads, and says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(read_config(folder), Tensors(folder))
        self.entered, self.release = Event(), Event()
        self.fed = 0

    def feed(self, segments: Sequence[Segment[KeysValues]]) -> list[Floats]:
        """Wait, then read."""
        self.fed += 1
        self.entered.set()
        assert self.release.wait(timeout=30)
        return super().feed(segments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def served(folder: Path) -> Served[Any]:
    """The tiny model."""
    return load(folder)


async def test_many_at_once_get_their_own_answers(served: Served[Any]) -> None:
    """Simultaneous requests over shared and other contexts are each answered as if alone."""
    asked = [([BOS, 60 + i % 5, 61, 62], [70 + i % 7, 71 + i % 3]) for i in range(100)]
    async with client_of(served) as client:
        sent = (client.complete(tokens=ids, forced_output_tokens=forced, logprobs=1) for ids, forced in asked)
        replies = await asyncio.gather(*sent)
    for (context, forced), (status, reply) in zip(asked, replies, strict=True):
        alone = run(served.model, Job(context_ids=context, max_tokens=2, forced_ids=forced)).outputs[0]
        choice = reply["choices"][0]
        assert (status, choice["tokens"]) == (200, forced)
        assert choice["logprobs"]["token_logprobs"] == [each.logprob for each in alone.tokens]


async def test_the_event_loop_is_free_while_the_model_computes(folder: Path, served: Served[Any]) -> None:
    """Other routes answer while a completion is held inside the model."""
    model = HeldModel(folder)
    app = create_app(Service(model=model, tokenizer=served.tokenizer, name="held"))
    async with listening(app) as url, ClientSession() as session:
        client = Client(session, url)
        held = asyncio.create_task(client.complete(tokens=BASE, forced_output_tokens=[5]))
        try:
            assert await asyncio.to_thread(model.entered.wait, 30)
            assert (await client.post("/v1/tokenize", {"prompt": "a"}))[0] == 200
            assert not held.done()
        finally:
            model.release.set()
        assert (await held)[0] == 200


async def test_who_gives_up_stops_the_model(folder: Path) -> None:
    """A cancelled completion reads nothing after the block it is in."""
    model = HeldModel(folder)
    engine: Engine[KeysValues] = Engine({"": model}, letters)
    given_up = asyncio.create_task(engine.complete("", Job(context_ids=BASE, max_tokens=100)))
    assert await asyncio.to_thread(model.entered.wait, 30)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    model.release.set()
    await engine.close()
    assert model.fed == 1


async def test_closing_answers_everybody(folder: Path) -> None:
    """An engine that is closed leaves nobody waiting: what runs, what waits and what has just come."""
    model = HeldModel(folder)
    engine: Engine[KeysValues] = Engine({"": model}, letters)
    jobs = [Job(context_ids=[BOS, 70 + place], max_tokens=100) for place in range(80)]
    waiting = [asyncio.create_task(engine.complete("", job)) for job in jobs]
    assert await asyncio.to_thread(model.entered.wait, 30)
    late = asyncio.create_task(engine.complete("", jobs[0]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    model.release.set()
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*waiting, late, return_exceptions=True)
        await closing
    assert {type(each) for each in ended} == {Cancelled}
    with pytest.raises(Cancelled):
        await engine.complete("", jobs[0])


async def test_a_step_that_fails_answers_who_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in the model's thread ends what waits with the error, and the next is served."""
    engine: Engine[KeysValues] = Engine({"": load(folder).model}, letters)
    job = Job(context_ids=BASE, max_tokens=1)
    with monkeypatch.context() as broken:
        broken.setattr("harness.serving.scheduler.Scheduler._chosen", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await engine.complete("", job)
    assert (await engine.complete("", job)).outputs
    await engine.close()


async def test_stopping_answers_what_is_in_flight(
    folder: Path, served: Served[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way down a long completion ends at its next token, with 503."""
    monkeypatch.setattr("harness.serving.app.GRACE", 0.0)
    model = HeldModel(folder)
    app = create_app(Service(model=model, tokenizer=served.tokenizer, name="held"))

    async def release(_: web.Application) -> None:
        """Let the model go on once the engine was told to stop, which was scheduled before."""
        asyncio.get_running_loop().call_later(0, model.release.set)

    app.on_shutdown.append(release)
    async with ClientSession() as session:
        async with listening(app) as url:
            held = asyncio.create_task(Client(session, url).complete(tokens=BASE, max_tokens=2))
            assert await asyncio.to_thread(model.entered.wait, 30)
        assert await held == (503, {"message": "the endpoint is stopping"})


async def test_serve_announces_itself_and_ends_on_sigterm(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line 1 is the base URL alone, line 2 a command that works and holds no token; SIGTERM ends it."""
    options = Options(token="flp_secret")
    task = asyncio.create_task(serve(load(folder), host="127.0.0.1", port=0, options=options))
    written = ""
    while written.count("\n") < 2:
        assert not task.done()
        await asyncio.sleep(0)
        written += capsys.readouterr().out
    url, command = written.splitlines()
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert command.startswith(f"curl -s {url}/completions ")
    assert "flp_" not in written
    body = json.loads(command.split(" -d ")[1].strip("'"))
    async with ClientSession() as session:
        headers = {"Authorization": "Bearer flp_secret"}
        status, _ = await Client(session, url).post("/v1/completions", body, **headers)
    assert status == 200
    os.kill(os.getpid(), signal.SIGTERM)
    await task


async def test_a_taken_port_is_a_clear_error(served: Served[Any]) -> None:
    """The error names the flag and the way out; so do a port and a host that cannot be."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: already in use .*--port 0"):
            async with listening(served.app(), port=port):
                pass
    with pytest.raises(UsageError, match="--port 70000: ports run from 0 to 65535"):
        async with listening(served.app(), port=70000):
            pass
    with pytest.raises(UsageError, match="--host"):
        async with listening(served.app(), host="256.0.0.1.invalid"):
            pass


@pytest.mark.parametrize("absent", ["folder", "tokenizer"])
def test_a_folder_that_is_none_is_named(tmp_path: Path, absent: str) -> None:
    """A model folder that is missing, or holds no tokenizer, is a clear error."""
    folder = tmp_path / "absent"
    if absent == "tokenizer":
        (write_model(folder) / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=f"--model .*absent: no .*{absent}"):
        load(folder)
