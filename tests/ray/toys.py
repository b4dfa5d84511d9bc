"""What workers do in tests of the engine alone: functions that an actor can import."""

from __future__ import annotations

import os
from collections.abc import Mapping

from harness.pacing import Lends
from harness.workers.channel import Channel, ChannelLost


async def echo(channel: Channel, lenders: Mapping[int, Lends]) -> None:
    """Say everything again; `end` ends, `break` breaks down, `environ` says the names of all variables."""
    try:
        while (message := await channel.receive()) != b"end":
            if message == b"break":
                raise ValueError("a text that is nobody's business")
            if message == b"environ":
                message = "\n".join(os.environ).encode()
            await channel.send(message)
    except ChannelLost:
        return


async def whereabouts(channel: Channel, lenders: Mapping[int, Lends]) -> None:
    """Say the process id and the node, and then everything again."""
    import ray

    await channel.send(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}".encode())
    await echo(channel, lenders)
