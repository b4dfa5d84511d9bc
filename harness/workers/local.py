"""Workers in processes of this machine.

Each has one end of a pair of sockets, and ends when the other one is gone: however the run ends, none is left.
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
GRACE = 1.0
"""Seconds that workers get to end by themselves. Those that have told all have nothing left to lose, and those
that had nothing to tell may still be reading data."""


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
        ours, theirs = socket.socketpair()
        said = TemporaryFile()  # noqa: SIM115 (closed with the channel)
        try:
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
        except OSError as error:
            ours.close()
            said.close()
            raise UsageError(f"--workers: no process can be started ({error.strerror})") from error
        finally:
            theirs.close()
        channel = ProcessChannel(await connected(ours), process, said)
        self._started.append(channel)
        return channel


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
            async with asyncio.timeout(1.0):
                await self.process.wait()
        code = self.process.returncode
        if code is None:
            return "its connection was closed"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with exit code {code}" + (f": {redacted(lines[-1])}" if lines else "")
