"""Work in the background of a run: what is opened meanwhile, and threads that must end before it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

_Given = TypeVar("_Given")


@asynccontextmanager
async def entered_beside(context: AbstractAsyncContextManager[_Given]) -> AsyncIterator[Awaitable[_Given]]:
    """Enter a context while the block goes on, which awaits what it gives; it is left with the block.

    What goes wrong while it is entered is raised where it is awaited.
    """
    async with AsyncExitStack() as opened:
        entering = asyncio.create_task(opened.enter_async_context(context))
        try:
            yield entering
        finally:
            if not entering.done():
                entering.cancel()
            await asyncio.wait([entering])
            if not entering.cancelled():
                entering.exception()  # seen, or of no interest beside what ended the block


async def to_its_end(work: Coroutine[Any, Any, _Given]) -> _Given:
    """Await what goes on in a thread, which must end before anything is closed that it uses."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: what ended the waiting is what is raised
        raise
