"""What happens to a run, for its log file: one function, which whoever meets something calls.

Events go through `logging`, and nowhere if nobody listens. This module knows neither files nor formats; what
each event says stands in `results/README.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

Field = str | int | float | bool | None | Sequence[str] | Mapping[str, int]
"""What a field of an event may hold. Texts of others (of endpoints, of files) are as short as an error shows
them; never a body, never a secret."""

LOGGER = logging.getLogger("harness.events")
LOGGER.addHandler(logging.NullHandler())  # else Python prints warnings that nobody listens to


def event(
    name: str,
    counts: Mapping[str, Field] | None = None,
    /,
    *,
    endpoint: str = "",
    level: int = logging.INFO,
    **fields: Field,
) -> None:
    """Say that something happened.

    Args:
        name: what, as its row in `results/README.md` calls it: short, and never changed.
        counts: fields that are at hand in a mapping.
        endpoint: the label of the endpoint that it happened on; empty: it is the run's.
        level: `logging.WARNING` where numbers may suffer, `logging.ERROR` where a part of the run ends by it.
        fields: what the row lists; times in seconds.
    """
    if LOGGER.isEnabledFor(level):
        LOGGER.log(
            level, name, extra={"event": name, "endpoint": endpoint, "fields": {**(counts or {}), **fields}}
        )
