"""A worker as a process: `python -m harness.workers FD`, the descriptor of its end of a pair of sockets."""

from __future__ import annotations

import socket
import sys

from harness.foreground import run_async
from harness.redacting import install
from harness.workers.channel import ChannelLost, connected
from harness.workers.worker import work


async def _work(descriptor: int) -> None:
    channel = await connected(socket.socket(fileno=descriptor))
    try:
        await work(channel)
    except ChannelLost as error:  # the run reads what was said last, if it is there
        sys.stderr.write(f"{error}\n")
    await channel.close()


if __name__ == "__main__":
    install()
    run_async(_work(int(sys.argv[1])))
