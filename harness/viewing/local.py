"""Serves the page on loopback until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

from aiohttp import web

from harness.errors import UsageError
from harness.viewing.app import application
from harness.viewing.pages import environment
from harness.viewing.settings import ViewSettings

HOST = "127.0.0.1"
_CUT_AFTER = 0.5
"""Seconds that answers in flight get at the end; streams of events never end by themselves."""


async def view(folder: Path, settings: ViewSettings) -> None:
    """Serve the page over a folder until SIGTERM, or until the task is cancelled (as Ctrl-C does).

    Line 1 on stdout is its address, once it answers.

    Raises:
        UsageError: there is no such folder, or the port cannot be listened on.
    """
    if not await asyncio.to_thread(folder.is_dir):
        raise UsageError(f"view {folder}: no such folder; give the one that runs are written into")
    terminated = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with listening(application(folder), settings.port) as address:
        loop.add_signal_handler(signal.SIGTERM, terminated.set)
        warming = asyncio.create_task(asyncio.to_thread(warm_up))
        try:
            sys.stdout.write(f"{address}\n")
            sys.stdout.flush()
            if sys.stdout.isatty() if settings.open is None else settings.open:
                await asyncio.to_thread(webbrowser.open, address)
            await terminated.wait()
        finally:
            await warming
            loop.remove_signal_handler(signal.SIGTERM)


def warm_up() -> None:
    """Import what the first page of items would have to wait for."""
    import_module("pyarrow.compute")
    import_module("pyarrow.parquet")
    import_module("pandas")
    environment()


@asynccontextmanager
async def listening(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve `app` on loopback while the block runs; gives its address."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_CUT_AFTER)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "already in use; --port 0 picks a free one" if taken else error.strerror
            raise UsageError(f"--port {port}: {why}") from error
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
