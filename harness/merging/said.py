"""What `merge` needs of a `run.json`, and of which types; a file that says something else is not used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from harness.caps import Volume
from harness.earlier import Merged, Own, Probed, RandomOrder
from harness.scoring.metrics import METRICS

Document = Mapping[str, Any]
"""The content of a `run.json`."""


class _Timings(msgspec.Struct):
    begun: str


class _Endpoint(msgspec.Struct):
    label: str
    identity: str
    replicate: int
    dialect: str
    base_url: str
    model: str


class _Settings(msgspec.Struct):
    max_length: int | None


class _Task(msgspec.Struct):
    metrics: Annotated[list[str], msgspec.Meta(min_length=1)]
    shots: int
    content_sha256: str
    rows: int
    bad_rows: int
    asides: list[str] = []
    groups: dict[str, list[str]] = {}


class _Forecast(msgspec.Struct):
    requests: int
    prompt_tokens: int
    forced_tokens: int
    whole: bool


class _Counts(msgspec.Struct):
    items: int
    requests_sent: int
    requests_from_journal: int
    choices_read: int
    shortcut: dict[str, Any]
    probe: list[dict[str, Any]]
    retries: dict[str, int]
    forecast: _Forecast
    sent: Volume
    cost: float | None
    boundary_shifted_items: int
    truncated_items: int
    refused: str


class _Check(msgspec.Struct):
    check: str
    when: str
    verdict: str
    says: str
    tokens: float = 0
    mean_difference: float = 0
    largest_difference: float = 0
    mean_shift: float = 0
    floor: float = 0
    items: float = 0
    sum_sd: float = 0
    largest_sum_difference: float = 0
    flips: dict[str, float] = {}


class _Said(msgspec.Struct):
    """All of a `run.json` that is used here; what may be absent says nothing then."""

    status: str
    settings: _Settings
    tasks: dict[str, _Task]
    endpoints: list[_Endpoint]
    timings: _Timings
    identity: dict[str, Any]
    suite: str = ""
    counts: dict[str, _Counts] = {}
    beside_journal: dict[str, Volume] = {}
    probes_amiss: list[Probed] = []
    checks: dict[str, list[_Check]] = {}
    remarks: list[str] = []
    versions: dict[str, str] = {}
    shards: dict[str, Merged] = {}
    without_shards: Own | None = None
    random_order: RandomOrder | None = None


def document_of(content: bytes) -> Document:
    """What a `run.json` says; raises what `places.UNREADABLE` names where it does not say what is needed."""
    said = msgspec.json.decode(content, type=_Said)
    for name, task in said.tasks.items():
        for metric in task.metrics:
            if metric not in METRICS:
                raise msgspec.ValidationError(f"metric {metric!r} of {name} is unknown to this version")
    return {**msgspec.to_builtins(said), **msgspec.json.decode(content)}
