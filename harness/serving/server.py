"""Loading a model folder and listening: from a folder and a port to a running endpoint."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from harness.errors import UsageError
from harness.serving.adapters import Adapter, adapter_folders
from harness.serving.app import CONTAINER, GRACE, create_app
from harness.serving.llama import LlamaModel, load_llama
from harness.tokenizing import Tokenizer, load_tokenizer

_CUT_AFTER = 2 * GRACE
"""Seconds after which connections still open are cut; by then the application has answered them."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a model folder holds."""

    model: LlamaModel
    tokenizer: Tokenizer
    name: str
    """The folder's own name."""
    adapters: Mapping[str, LlamaModel] = field(default_factory=dict)
    """By route."""

    def app(self, *, token: str | None = None) -> web.Application:
        """A fresh application that serves it."""
        return create_app(self.model, self.tokenizer, name=self.name, adapters=self.adapters, token=token)


def load(folder: Path, adapters: Path | None = None) -> Served:
    """Model and tokenizer of a Hugging Face folder, and the adapters of another, named by their folders.

    Raises:
        UsageError: one of its files is missing, broken, or of a kind that is not served; named in the text.
    """
    if not folder.is_dir():
        raise UsageError(f"--model {folder}: no such folder")
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(f"--model {folder}: no tokenizer.json in this folder")
    model = load_llama(folder)
    routes = {} if adapters is None else adapter_folders(adapters)
    return Served(
        model,
        load_tokenizer(str(folder)),
        folder.resolve().name,
        {route: model.adapted(Adapter(found)) for route, found in routes.items()},
    )


@asynccontextmanager
async def listening(app: web.Application, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve `app` while the block runs; gives the base URL (`http://127.0.0.1:PORT/v1`).

    Port 0 picks a free one. On leaving, requests in flight get a short while to finish.

    Raises:
        UsageError: the address cannot be listened on.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_CUT_AFTER)
    await runner.setup()
    try:
        await _bind(runner, host, port)
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}{CONTAINER}"
    finally:
        await runner.cleanup()


async def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    adapters: Path | None = None,
    token: str | None = None,
    until_eof: bool = False,
) -> None:
    """Serve a model folder until SIGTERM, or until the task is cancelled (as Ctrl-C does under asyncio).

    Writes two lines to stdout once requests are taken: the base URL alone, and an example request.

    Args:
        folder: of the model.
        host: address to listen on.
        port: port to listen on, 0 for a free one.
        adapters: folder of adapters.
        token: bearer token to ask for.
        until_eof: end also when standard input does, as it does when whoever holds its other end is gone.

    Raises:
        UsageError: the folder cannot be served, or the address not listened on.
    """
    served = load(folder, adapters)
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    async with listening(served.app(token=token), host=host, port=port) as url:
        loop.add_signal_handler(signal.SIGTERM, terminated.set)
        if until_eof:
            _at_eof(lambda: loop.call_soon_threadsafe(terminated.set))
        try:
            sys.stdout.write(f"{url}\n{_example(url, with_token=token is not None)}\n")
            sys.stdout.flush()
            await terminated.wait()
        finally:
            loop.remove_signal_handler(signal.SIGTERM)


def _at_eof(ended: Callable[[], object]) -> None:
    """Call back once standard input has ended, whatever it is: an event loop cannot wait for a file."""

    def read() -> None:
        with suppress(OSError):
            while os.read(0, 4096):  # past Python's buffer, whose lock would be held while we wait
                pass
        with suppress(RuntimeError):  # the loop is closed by now
            ended()

    threading.Thread(target=read, name="stdin", daemon=True).start()


def _example(url: str, *, with_token: bool) -> str:
    """A command line that asks for a completion; a token is left to the environment."""
    bearer = ' -H "Authorization: Bearer $FRIENDLI_TOKEN"' if with_token else ""
    body = '{"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0}'
    return f"curl -s {url}/completions{bearer} -H 'Content-Type: application/json' -d '{body}'"


async def _bind(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: no such host ({error.strerror})") from error
    except OverflowError as error:
        raise UsageError(f"--port {port}: ports run from 0 to 65535") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {port}: already in use on {host}; --port 0 picks a free one") from error
        raise UsageError(f"--host {host} --port {port}: cannot be listened on ({error.strerror})") from error
