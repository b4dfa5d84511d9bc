"""`view`: runs in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harness.viewing.settings import ViewSettings

_DEFAULTS = ViewSettings()


def view(
    folder: Annotated[Path, Parameter(metavar="DIR")] = Path("results"),
    /,
    *,
    settings: ViewSettings = _DEFAULTS,
) -> int:
    """Serve the pages until somebody ends it.

    Args:
        folder: Where runs are, or one run; folders in it are looked into as well.
    """
    from harness.foreground import run_async
    from harness.viewing.local import view as serve_pages

    run_async(serve_pages(folder, settings))
    return 0
