"""What a person can set of `view`, one field a flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from harness.errors import UsageError
from harness.serve_settings import REACHED

MOST_PORT = 65_535


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """The flags of `view`."""

    port: Annotated[int, Parameter(group=REACHED)] = 0
    """Port to listen on, on this machine alone; 0 picks a free one."""
    open: Annotated[bool | None, Parameter(group=REACHED, show_default=False)] = None
    """Open the page in a browser; by default where the output is a terminal."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if not 0 <= self.port <= MOST_PORT:
            raise UsageError(f"--port {self.port}: ports run from 0 to {MOST_PORT}")
