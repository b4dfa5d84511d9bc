"""A worker as a process: `python -m harness.workers FD`, the descriptor of its end of a pair of sockets."""

from __future__ import annotations

import gc
import socket
import sys
from contextlib import suppress

from harness.foreground import run_async
from harness.redacting import install
from harness.workers.channel import ChannelLost, connected
from harness.workers.work import work

NEW_OBJECTS = 50_000
"""As of the commands."""


async def _work(descriptor: int) -> None:
    channel = await connected(socket.socket(fileno=descriptor))
    with suppress(ChannelLost):  # the run is gone, and nobody is left to tell
        await work(channel)
    await channel.close()


if __name__ == "__main__":
    gc.set_threshold(NEW_OBJECTS)
    install()
    run_async(_work(int(sys.argv[1])))
