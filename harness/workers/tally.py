"""What workers have counted, added up into the counters of a run's endpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from harness.caps import Volume
from harness.layout import REPLY_COLUMNS
from harness.manifest import EndpointRun
from harness.workers.messages import Counts

NOTHING = Counts()
_ATTEMPTS, _N_CONTEXT, _FORCED_IDS = map(REPLY_COLUMNS.index, ("attempts", "n_context", "forced_ids"))
_SUMS = (
    "items_done",
    "items_unscored",
    "requests_done",
    "requests_reused",
    "choices_read",
    "in_flight",
    "shifted",
    "truncated",
)
"""Counters that are called alike in `Progress`."""


class Tally:
    """What one worker has counted on one endpoint, as far as it stands in the endpoint's counters."""

    def __init__(self, part: EndpointRun) -> None:
        """Nothing yet."""
        self._part = part
        self._last = NOTHING
        self._kept = Volume()
        """What the replies took that it has sent here."""

    @property
    def waiting(self) -> int:
        """Requests that wait at this worker."""
        return self._last.waiting

    def count(self, now: Counts) -> None:
        """Bring the endpoint's counters up to what the worker says."""
        part, last, progress = self._part, self._last, self._part.progress
        if now.requests_done or now.in_flight:
            progress.begun()
        for name in _SUMS:
            setattr(progress, name, getattr(progress, name) + getattr(now, name) - getattr(last, name))
        _add(progress.unscorable, now.unscorable, last.unscorable)
        _add(progress.retries, now.retries, last.retries)
        if now.message != last.message:
            progress.message = now.message
        _grow(part.meter.sent, now.sent, last.sent)
        _grow(part.forecast.volume, now.planned, last.planned)
        part.forecast.read += now.read - last.read
        part.lesson.tried |= now.tried
        part.lesson.elsewhere |= now.found
        part.lesson.why = part.lesson.why or now.lesson
        self._last = now

    def keep(self, replies: Sequence[Sequence[Any]]) -> None:
        """Count what these rows say that they took to send."""
        kept = self._kept
        for row in replies:
            attempts = row[_ATTEMPTS]
            kept.requests += attempts
            kept.prompt_tokens += attempts * row[_N_CONTEXT]
            kept.forced_tokens += attempts * len(row[_FORCED_IDS]) // 4

    def lose(self) -> None:
        """The worker is gone: what it had not done will be done, and counted, by another.

        What it had sent since it last said so is known as far as replies have come.
        """
        progress, last, part = self._part.progress, self._last, self._part
        _grow(part.meter.sent, self._kept.beyond(last.sent), Volume())
        _grow(part.forecast.volume, last.sent, last.planned)  # what was not sent will be planned again
        progress.unscorable -= Counter(last.open_unscorable)
        for name, count in last.open_items.items():
            setattr(progress, name, getattr(progress, name) - count)
        progress.in_flight -= last.in_flight
        if last.message and progress.message == last.message:
            progress.message = ""
        self._last = NOTHING


def _add(counter: Counter[str], now: Mapping[str, int], last: Mapping[str, int]) -> None:
    for name, count in now.items():
        if more := count - last.get(name, 0):
            counter[name] += more


def _grow(volume: Volume, now: Volume, last: Volume) -> None:
    for each in fields(Volume):
        more = getattr(now, each.name) - getattr(last, each.name)
        setattr(volume, each.name, getattr(volume, each.name) + more)
