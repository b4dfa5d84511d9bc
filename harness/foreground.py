"""What a command does in the foreground: the event loop it runs in, and what Ctrl-C means there.

Only commands that send or serve import this module: asyncio takes longer to import than `--help` to print.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from harness.collecting import settle
from harness.events import event
from harness.terminal import say

if TYPE_CHECKING:
    from harness.prepare import Prepared
    from harness.runner import RunResult

_Result = TypeVar("_Result")


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end, on uvloop where it is installed; cancelled, it raises KeyboardInterrupt."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            loop = runner.get_loop()
            loop.call_soon(loop.call_soon, settle)  # once the work has imported what it begins with
            return runner.run(work)
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def evaluated(prepared: Prepared) -> RunResult:
    """Evaluate; the first Ctrl-C lets requests in flight end, the second drops them."""
    from harness.runner import evaluate

    console = Console(stderr=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    evaluating = asyncio.current_task()

    def interrupted() -> None:
        if stop.is_set() and evaluating is not None:
            evaluating.cancel()
            return
        stop.set()
        event("stopping", reason="Ctrl-C or SIGTERM")
        say(console, "Stopping: requests in flight are finished and kept. Ctrl-C again drops them.")

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, interrupted)
    names = ", ".join(endpoint.label for endpoint in prepared.endpoints)
    say(console, f"{prepared.suite.size:,} items on {names}, into {prepared.folder}")
    for remark in prepared.chat_remarks:
        say(console, remark)
    return await evaluate(prepared, console, stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
