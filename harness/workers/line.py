"""A worker's end of the way to its run: calls that are answered, and what it tells without being asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from harness.errors import EndpointRefused, Stopped, StoreError
from harness.workers.channel import Channel, ChannelLost
from harness.workers.messages import Answer, Asks, Call, Ended, ToRun, ToWorker
from harness.workers.wire import encoded, to_worker

_Kind = TypeVar("_Kind")


class Line:
    """Sends in order, and brings answers to who waits for them. For one event loop.

    Attributes:
        loop: where it is used; other threads come in by `call_from_thread`.
    """

    def __init__(self, channel: Channel, take: Callable[[ToWorker], object]) -> None:
        """Take what is called with each message that is no answer."""
        self.loop = asyncio.get_running_loop()
        self._channel = channel
        self._take = take
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Answer]] = {}
        self._outgoing: asyncio.Queue[ToRun] = asyncio.Queue()
        self._lost = ""

    async def run(self) -> None:
        """Send and receive until the last message is sent; raises `ChannelLost`."""
        receiving = asyncio.create_task(self._receive_all())
        sending = asyncio.create_task(self._send_all())
        try:
            await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
            for each in (sending, receiving):
                if each.done():
                    each.result()
        except ChannelLost as error:
            self._break(str(error))
            raise
        finally:
            for each in (receiving, sending):
                each.cancel()
            await asyncio.gather(receiving, sending, return_exceptions=True)
            self._break("nothing more is told")

    def tell(self, message: ToRun) -> None:
        """Send a message, after all that were sent before; not for other threads."""
        self._outgoing.put_nowait(message)

    async def call(self, what: Asks, kind: type[_Kind] | Any = Any) -> Any:
        """Ask, and wait for the answer, converted to a type.

        Raises:
            StoreError: the run cannot do it, or is gone.
            EndpointRefused: it says that the endpoint must not be asked.
            Stopped: it is being stopped.
        """
        if self._lost:
            raise StoreError(self._lost)
        number = next(self._numbers)
        waiting = self._open[number] = self.loop.create_future()
        self.tell(Call(number, what))
        try:
            answer = await waiting
        finally:
            self._open.pop(number, None)
        if answer.reason is not None:
            raise EndpointRefused(answer.error, answer.reason)
        if answer.error == STOPPED:
            raise Stopped
        if answer.error:
            raise StoreError(answer.error)
        return answer.value if kind is Any else msgspec.convert(answer.value, kind)

    def call_from_thread(self, what: Asks, kind: type[_Kind] | Any = Any) -> Any:
        """The same for another thread, which waits meanwhile."""
        return asyncio.run_coroutine_threadsafe(self.call(what, kind), self.loop).result()

    def _break(self, why: str) -> None:
        self._lost = self._lost or why
        for each in self._open.values():
            if not each.done():
                each.set_result(Answer(0, error=self._lost))

    async def _send_all(self) -> None:
        while True:
            message = await self._outgoing.get()
            await self._channel.send(encoded(message))
            if isinstance(message, Ended):
                return

    async def _receive_all(self) -> None:
        while True:
            message = to_worker(await self._channel.receive())
            if not isinstance(message, Answer):
                self._take(message)
            elif (waiting := self._open.get(message.call)) is not None and not waiting.done():
                waiting.set_result(message)


STOPPED = "stopped"
"""What an answer says where the run is being stopped."""
