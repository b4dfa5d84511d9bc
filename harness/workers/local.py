"""Workers in processes of this machine.

Each has one end of a pair of sockets, and ends when the other one is gone: however a run ends, none is left.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

import harness
from harness.endpoints import Account
from harness.errors import UsageError
from harness.pacing import AnyBudget
from harness.redacting import redacted
from harness.workers.channel import ChannelLost, SocketChannel, connected

# -P: the folder that the run was started in may hold anything, a package called harness too.
COMMAND = (sys.executable, "-P", "-m", "harness.workers")
HOME = str(Path(harness.__path__[0]).parent)
"""Where this very program is imported from."""
LAST_WORDS = 5.0
"""Seconds within which a process that has closed its connection should have ended."""
GRACE = 1.0
"""Seconds that workers get to end by themselves. Those that have told all have nothing left to lose, and
those that had nothing to tell may still be reading data."""


class LocalEngine:
    """Starts processes; an async context manager, which ends them all when it is left.

    Attributes:
        workers: how many to keep.
        here: they are on this machine.
        budgets: none is kept elsewhere.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.here = True
        self.budgets: Mapping[Account, AnyBudget] = {}
        self._started: list[ProcessChannel] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(each.end() for each in self._started))

    async def start(self, name: str) -> ProcessChannel:
        """Start a process; raises `UsageError` where it cannot be started."""
        try:
            ours, process, said = await _started()
        except OSError as error:
            raise UsageError(
                f"--workers {self.workers}: no process can be started ({error.strerror or error}); ask for"
                " fewer, or allow more (ulimit -n, ulimit -u)"
            ) from error
        channel = ProcessChannel(await connected(ours), process, said)
        self._started.append(channel)
        return channel


async def _started() -> tuple[socket.socket, asyncio.subprocess.Process, IO[bytes]]:
    """Our end of the sockets, the process, and the file that has what it prints."""
    ours, theirs = socket.socketpair()
    said = None
    try:
        said = TemporaryFile()  # noqa: SIM115 (closed with the channel)
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=[theirs.fileno()],
            # A session of its own: Ctrl-C stops the run, whose workers still have requests in flight.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([HOME, *filter(None, sys.path)])},
        )
    except BaseException:
        ours.close()
        if said is not None:
            said.close()
        raise
    finally:
        theirs.close()
    return ours, process, said


class ProcessChannel:
    """The way to a process that was started here.

    Attributes:
        process: the process.
    """

    def __init__(self, channel: SocketChannel, process: asyncio.subprocess.Process, said: IO[bytes]) -> None:
        """`said`: what the process prints; nobody reads it unless it is lost."""
        self.process = process
        self._channel = channel
        self._said = said

    async def send(self, message: bytes) -> None:
        """Send a message; raises `ChannelLost`."""
        await self._channel.send(message)

    async def receive(self) -> bytes:
        """The next message; raises `ChannelLost` once the process is gone, with what it said last."""
        try:
            return await self._channel.receive()
        except ChannelLost:
            raise ChannelLost(await self._why()) from None

    async def close(self) -> None:
        """Let go of it: it ends by itself."""
        await self._channel.close()

    async def end(self) -> None:
        """Wait until it has ended; what does not end soon is killed."""
        await self._channel.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._said.close()

    async def _why(self) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self.process.wait()
        code = self.process.returncode
        if code is None:
            return "its connection was closed"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"its process {how}" + (f": {redacted(lines[-1])}" if lines else "")
