"""The reference model on loopback for as long as a run lasts: the other end of `embedded` endpoints.

The server is a process of its own, so that it computes on another core. It ends when its standard input does,
and so also when the run is killed without a chance to clean up.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import harness
from harness.endpoints import Endpoint
from harness.errors import UsageError

# -P: the folder that the run was started in may hold anything, a package called harness too.
COMMAND = (sys.executable, "-P", "-m", "harness", "serve", "--port", "0", "--until-eof")
HOME = str(Path(harness.__path__[0]).parent)
"""Where this very program is imported from."""
START = 60.0
"""Seconds within which the server must take requests; it needs about one."""
GRACE = 5.0
"""Seconds it gets to end once its input has ended."""


@asynccontextmanager
async def served(
    endpoints: Sequence[Endpoint], on_lost: Callable[[str], None]
) -> AsyncIterator[Mapping[str, str]]:
    """Serve the reference model while the block runs, if one of the endpoints is embedded.

    Args:
        endpoints: of the run.
        on_lost: told why, once, if the server ends before the block does.

    Yields:
        The address to send to, by the base URL of an embedded endpoint.

    Raises:
        UsageError: the server does not start.
    """
    embedded = {endpoint.base_url for endpoint in endpoints if endpoint.embedded}
    if not embedded:
        yield {}
        return
    # What it says goes into a file: a pipe that nobody reads would fill up, and hold it.
    with TemporaryFile() as said:
        process = await _started(said)
        try:
            url = await _address(process, said)
            watch = asyncio.create_task(_watch(process, said, on_lost))
            try:
                yield dict.fromkeys(embedded, url)
            finally:
                watch.cancel()
        finally:
            await _end(process)


async def _started(said: IO[bytes]) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C stops the run, which still has requests in flight to finish.
    environ = {name: value for name, value in os.environ.items() if name != "FORCED_CHOICE_SERVE_TOKEN"} | {
        "PYTHONPATH": os.pathsep.join([HOME, *filter(None, sys.path)])
    }
    try:
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            start_new_session=True,
            env=environ,
        )
    except OSError as error:
        raise UsageError(f"--endpoint embedded: its server cannot be started ({error.strerror})") from error


async def _address(process: asyncio.subprocess.Process, said: IO[bytes]) -> str:
    """The base URL: the first line that the server writes, once it takes requests."""
    assert process.stdout is not None
    line = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(START):
            line = await process.stdout.readline()
    if line.startswith(b"http"):
        return line.decode().strip()
    raise UsageError(f"--endpoint embedded: its server did not start: {_last_line(said)}")


async def _watch(
    process: asyncio.subprocess.Process, said: IO[bytes], on_lost: Callable[[str], None]
) -> None:
    code = await process.wait()
    on_lost(f"the embedded server ended by itself (exit code {code}): {_last_line(said)}")


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("forced-choice: ") if lines else "it said nothing"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its input, and wait; what does not end then is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
