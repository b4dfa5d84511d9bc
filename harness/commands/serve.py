"""`serve`: the embedded endpoint by itself."""

from __future__ import annotations

import os

from harness.serve_settings import ServeSettings

_DEFAULTS = ServeSettings()


def serve(settings: ServeSettings = _DEFAULTS) -> int:
    """Serve until somebody ends it, or list the faults that can be asked for."""
    # One thread for linear algebra: the matrices are small, and more threads only wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from harness import reference
    from harness.foreground import run_async
    from harness.serving.faults.plan import read_faults, rows
    from harness.serving.server import Options, load
    from harness.serving.server import serve as serve_model
    from harness.terminal import pairs_table, print_table, reader_may_leave

    if "list" in settings.faults:
        with reader_may_leave():
            print_table(pairs_table((form, what) for _, form, what in rows()))
        return 0
    shipped = settings.model is None
    options = Options(
        token=settings.token,
        team=settings.team,
        cache_tokens=settings.cache_tokens,
        cache_bytes=settings.cache_mib * 2**20,
        faults=read_faults(settings.faults),
        startup=settings.startup,
        sleep_after=settings.sleep_after,
        asleep=settings.asleep,
    )
    served = load(
        settings.model or reference.FOLDER,
        settings.adapters or (reference.ADAPTERS if shipped else None),
        backend=settings.backend,
        device=settings.device,
        dtype=settings.dtype,
    )
    run_async(
        serve_model(
            served, host=settings.host, port=settings.port, options=options, until_eof=settings.until_eof
        )
    )
    return 0
