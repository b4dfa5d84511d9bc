"""The thread that the models live in: completions one after another, the event loop free meanwhile.

One thread is also what keeps a context from being read twice: whoever comes second finds it in the cache.
A model and its adapters share the thread; each has a cache of its own, as what was read differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Generic

from harness.serving.cache import MAX_BYTES, MAX_TOKENS, PrefixCache
from harness.serving.completing import Cancelled, Completion, Job, complete
from harness.serving.model import Model, P


class Engine(Generic[P]):
    """Runs completions on some models, named by route, in the order in which they come."""

    def __init__(self, models: Mapping[str, Model[P]]) -> None:
        self._models = models
        share = len(models)  # the bounds of one cache, shared out
        self._caches: dict[str, PrefixCache[P]] = {
            route: PrefixCache(max_tokens=MAX_TOKENS // share, max_bytes=MAX_BYTES // share)
            for route in models
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: set[Event] = set()
        self._stopped = False

    async def complete(self, route: str, job: Job) -> Completion:
        """The job's completion on the model of that route.

        Who is cancelled here stops the model's work at its next block.

        Raises:
            Cancelled: the engine was stopped meanwhile.
        """
        if self._stopped:
            raise Cancelled
        loop, cancelled = asyncio.get_running_loop(), Event()
        self._waiting.add(cancelled)
        try:
            work = partial(complete, self._models[route], self._caches[route], job, cancelled)
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
