"""Loading a model folder and listening: from a folder and a port to a running endpoint."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal

from aiohttp import web

from harness.errors import UsageError
from harness.serving.app import CONTAINER, GRACE, Service, create_app
from harness.serving.faults.plan import Faults
from harness.serving.lifecycle import Lifecycle
from harness.serving.models.adapters import Adapter, adapter_folders
from harness.serving.models.config import is_plain_llama
from harness.serving.models.llama import load_llama
from harness.serving.models.seam import Model, P
from harness.serving.prefixes import MAX_BYTES, MAX_TOKENS, PrefixCache
from harness.tokenizing import Tokenizer, load_tokenizer

_CUT_AFTER = 2 * GRACE
"""Seconds after which connections still open are cut; by then the application has answered them."""


Backend = Literal["auto", "numpy", "transformers"]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is served: what `serve`'s flags say beside the model and the address."""

    token: str | None = None
    """Bearer token to ask for."""
    team: str | None = None
    """Team id to ask for in `X-Friendli-Team`."""
    cache_tokens: int = MAX_TOKENS
    """Tokens of contexts to keep; 0: none."""
    cache_bytes: int = MAX_BYTES
    faults: Faults = Faults()
    startup: float = 0.0
    """Seconds that waking up takes."""
    sleep_after: float = 0.0
    """Seconds with nothing to answer until it falls asleep; 0: never."""
    asleep: bool = False
    """It begins asleep."""


@dataclass(frozen=True, slots=True)
class Served(Generic[P]):
    """What a model folder holds."""

    model: Model[P]
    tokenizer: Tokenizer
    name: str
    """The folder's own name."""
    adapters: Mapping[str, Model[P]] = field(default_factory=dict)
    """By route."""

    def app(self, options: Options = Options()) -> web.Application:
        """A fresh application that serves it."""
        cached = options.cache_tokens and options.cache_bytes
        now = time.monotonic()
        return create_app(
            Service(
                model=self.model,
                tokenizer=self.tokenizer,
                name=self.name,
                adapters=self.adapters,
                token=options.token,
                team=options.team,
                cache=PrefixCache(max_tokens=options.cache_tokens, max_bytes=options.cache_bytes)
                if cached
                else None,
                faults=options.faults,
                lifecycle=Lifecycle(
                    now, startup=options.startup, sleep_after=options.sleep_after, asleep=options.asleep
                ),
            )
        )


def load(
    folder: Path,
    adapters: Path | None = None,
    *,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Served[Any]:
    """Model and tokenizer of a Hugging Face folder, and the adapters of another, named by their folders.

    Args:
        folder: of the model.
        adapters: of the adapters.
        backend: what computes; auto: numpy where it can, else transformers.
        device: where transformers computes; auto: on a GPU where there is one.
        dtype: what transformers computes in; auto: float32 on a processor, the checkpoint's own on a GPU.

    Raises:
        UsageError: one of its files is missing, broken, or of a kind that is not served; named in the text.
    """
    if not folder.is_dir():
        raise UsageError(f"--model {folder}: no such folder")
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(f"--model {folder}: no tokenizer.json in this folder")
    routes = {} if adapters is None else adapter_folders(adapters)
    model: Any
    if backend == "numpy" or (backend == "auto" and is_plain_llama(folder)):
        model = load_llama(folder)
        adapted = {route: model.adapted(Adapter(found)) for route, found in routes.items()}
    else:
        from harness.serving.models.transformers_model import load_transformers

        model = load_transformers(folder, device=device, dtype=dtype)
        adapted = {route: model.adapted(found) for route, found in routes.items()}
    return Served(model, load_tokenizer(str(folder)), folder.resolve().name, adapted)


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
    served: Served[Any],
    *,
    host: str,
    port: int,
    options: Options = Options(),
    until_eof: bool = False,
) -> None:
    """Serve until SIGTERM, or until the task is cancelled (as Ctrl-C does under asyncio).

    Writes two lines to stdout once requests are taken: the base URL alone, and an example request.

    Args:
        served: the model and its adapters.
        host: address to listen on.
        port: port to listen on, 0 for a free one.
        options: how it is served.
        until_eof: end also when standard input does, as it does when whoever holds its other end is gone.

    Raises:
        UsageError: the address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    terminated = asyncio.Event()
    async with listening(served.app(options), host=host, port=port) as url:
        loop.add_signal_handler(signal.SIGTERM, terminated.set)
        if until_eof:
            _at_eof(lambda: loop.call_soon_threadsafe(terminated.set))
        try:
            sys.stdout.write(f"{url}\n{_example(url, with_token=options.token is not None)}\n")
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
