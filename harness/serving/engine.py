"""The thread that the model lives in: completions one after another, the event loop free meanwhile.

One thread is also what keeps a context from being read twice: whoever comes second finds it in the cache.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Generic

from harness.serving.cache import PrefixCache
from harness.serving.completing import Cancelled, Completion, Job, complete
from harness.serving.model import Model, P


class Engine(Generic[P]):
    """Runs completions on a model and its cache, in the order in which they come."""

    def __init__(self, model: Model[P], cache: PrefixCache[P]) -> None:
        self._model = model
        self._cache = cache
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: set[Event] = set()
        self._stopped = False

    async def complete(self, job: Job) -> Completion:
        """The job's completion; who is cancelled here stops the model's work at its next block.

        Raises:
            Cancelled: the engine was stopped meanwhile.
        """
        if self._stopped:
            raise Cancelled
        loop, cancelled = asyncio.get_running_loop(), Event()
        self._waiting.add(cancelled)
        try:
            work = partial(complete, self._model, self._cache, job, cancelled)
            return await loop.run_in_executor(self._thread, work)
        finally:
            cancelled.set()
            self._waiting.discard(cancelled)

    def stop(self) -> None:
        """Take no more, drop what waits, and end what runs at its next block."""
        self._stopped = True
        for cancelled in self._waiting:
            cancelled.set()

    async def close(self) -> None:
        """Stop, and wait for the thread to end."""
        self.stop()
        await asyncio.to_thread(self._thread.shutdown)
