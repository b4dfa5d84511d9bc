"""Which engine a run has."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from harness.prepare import Prepared
from harness.workers.engine import Engine
from harness.workers.local import LocalEngine


def engine_of(prepared: Prepared) -> AbstractAsyncContextManager[Engine | None]:
    """What starts the run's workers; nothing where it has none, and sends by itself.

    Raises:
        UsageError: the engine is not installed.
    """
    settings = prepared.settings
    if settings.engine == "ray":
        from harness.workers.onray import ray_engine

        return ray_engine(prepared)
    return LocalEngine(settings.workers) if settings.workers is not None else nullcontext()
