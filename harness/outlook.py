"""What a run would take: requests, tokens, time and money, of each endpoint and in all; nobody is asked.

Everything is planned as the run would plan it, and counted instead of sent. What only an endpoint could tell
is assumed, and said. Where the run's folder is there already, what its journals answer is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.dialects import dialect
from harness.earlier import journals_in
from harness.endpoints import Endpoint
from harness.errors import UsageError
from harness.exchange import ScoreRequest
from harness.forecast import Forecast, Fresh, Prefixes
from harness.layout import SHORTCUT
from harness.plan import KeyMaker
from harness.planning import planned
from harness.prepare import Prepared, asked_of
from harness.reckoning import Counted, Figures, figures, in_all
from harness.replies import StoredReplies
from harness.runs import earlier_manifest, whose
from harness.shortcut import TOPS, is_single, merged
from harness.watching.foreseen import (
    requests_of_looks,
    requests_of_probe,
    requests_of_sample,
    still_to_repeat,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One endpoint of an outlook."""

    endpoint: Endpoint
    items: int
    unscorable: int
    """Items that no request could be made of."""
    choices: int
    """Requests there would be if each choice were forced on its own."""
    top: int
    """Alternatives that it is taken to name."""
    beside: int
    """Requests, of those of the whole, that are asked beside the items: probe, looks, what is repeated."""
    whole: Figures
    """The run from its begin."""
    left: Figures
    """What no journal of the run's folder answers."""

    @property
    def answered(self) -> int:
        """Requests that are answered in the folder."""
        return self.whole.requests - self.left.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a run would take."""

    folder: Path
    parts: Sequence[Part]
    whole: Figures
    left: Figures

    def document(self) -> dict[str, Any]:
        """As JSON has it: the sums, then each endpoint's."""
        return {
            "folder": str(self.folder),
            "items": sum(part.items for part in self.parts),
            **self.whole.rounded(),
            "left": self.left.rounded(),
            "endpoints": [
                {
                    "label": part.endpoint.label,
                    "items": part.items,
                    "unscorable": part.unscorable,
                    **part.whole.rounded(),
                    "left": part.left.rounded(),
                }
                for part in self.parts
            ],
        }


def foreseen(prepared: Prepared) -> Outlook:
    """Count everything that a run would send.

    Raises:
        UsageError: an endpoint would have to be asked for ids, or the folder is another suite's.
        StoreError: a journal of the folder cannot be read.
    """
    for label in prepared.asked:
        raise UsageError(
            f"--tokenizer endpoint: {label} would have to be asked for its ids, and plan asks nobody; give"
            " its tokenizer as a file, a folder or a hub id, for the plan at least"
        )
    earlier = earlier_manifest(prepared.folder, prepared.identity) or {}
    tallies: dict[str, _Tally] = {}
    with journals_in(prepared.folder) as found:
        journals = {each.label: found.get(whose(each.identity)) for each in prepared.endpoints}
        tops = {
            each.label: _top(prepared, each, earlier, journals[each.label]) for each in prepared.endpoints
        }
        for alike in _alike(prepared, tops):
            tallies |= dict.fromkeys(
                (each.label for each in alike), _tally(prepared, alike, tops[alike[0].label], journals)
            )
        beside = {
            each.label: _beside(prepared, each, tops[each.label], journals[each.label], tallies[each.label])
            for each in prepared.endpoints
        }
    return _outlook(prepared, tallies, tops, beside)


def _top(
    prepared: Prepared, endpoint: Endpoint, earlier: Mapping[str, Any], journal: StoredReplies | None
) -> int:
    """How many alternatives an endpoint is taken to name: what an earlier session learnt, else the most."""
    if not prepared.settings.shortcut or not dialect(endpoint.dialect).names_tokens:
        return 0
    if journal is not None and SHORTCUT in journal.meta:
        return int(json.loads(journal.meta[SHORTCUT]).get("logprobs", 0))  # none: they changed in mid-run
    learnt = earlier.get("counts", {}).get(endpoint.label, {}).get("shortcut", {})
    in_vain = learnt.get("why") and earlier["settings"].get("shortcut")
    return 0 if in_vain else TOPS[0]


def _alike(prepared: Prepared, tops: Mapping[str, int]) -> Iterator[list[Endpoint]]:
    """Endpoints by how they are asked: with the same ids, in the same way."""
    groups: dict[tuple[object, ...], list[Endpoint]] = {}
    for each in prepared.endpoints:
        asked = asked_of(prepared, each)
        way = (asked.tokenizer.sha256, id(asked.chat), asked.as_text, tops[each.label])
        groups.setdefault(way, []).append(each)
    yield from groups.values()


# ------------------------------------------------------------------------------------------------ counting


@dataclass(slots=True)
class _Count:
    """Requests that are sent, one after another."""

    forecast: Forecast = field(default_factory=Forecast)
    prefixes: Prefixes = field(default_factory=Prefixes)
    shared: int = 0

    def add(self, requests: Sequence[ScoreRequest]) -> None:
        self.forecast.add(requests)
        self.shared += sum(self.prefixes.spared(each.context_ids) for each in requests)

    @property
    def counted(self) -> Counted:
        return Counted(volume=self.forecast.volume, shared=self.shared)


@dataclass(slots=True)
class _Tally:
    """What endpoints that are asked alike are sent."""

    whole: _Count
    left: Mapping[str, _Count]
    """By label, where there is a journal."""
    choices: int = 0
    unscorable: int = 0

    def left_of(self, label: str) -> Counted:
        return self.left.get(label, self.whole).counted


def _tally(
    prepared: Prepared, alike: Sequence[Endpoint], top: int, journals: Mapping[str, StoredReplies | None]
) -> _Tally:
    """Plan once for all of them, and look up what the journal of each answers."""
    stored = {each.label: found for each in alike if (found := journals[each.label]) is not None}
    makers = {each.label: KeyMaker(each.identity) for each in alike}
    tally = _Tally(_Count(), {label: _Count() for label in stored})
    known = Fresh()
    asked = asked_of(prepared, alike[0])
    for batch in planned(prepared.suite, asked, lambda item: top if is_single(item) else 0):
        fresh = known.of(request for item in batch.items for request in item.requests)
        tally.unscorable += batch.bad + sum(not item.requests for item in batch.items)
        tally.choices += len(fresh)
        tally.whole.add(merged(fresh))
        for label, journal in stored.items():
            tally.left[label].add(merged(_unanswered(fresh, makers[label], journal)))
    return tally


def _unanswered(
    requests: Sequence[ScoreRequest], maker: KeyMaker, journal: StoredReplies
) -> list[ScoreRequest]:
    """Requests that a journal has no reply to; their own keys may be those of another endpoint."""
    keys = [maker.keys(each.context_ids, [each.forced_ids], top=each.top)[0] for each in requests]
    answered = journal.answered(keys)
    return [each for each, key in zip(requests, keys, strict=True) if key not in answered]


@dataclass(slots=True)
class _Beside:
    """What one endpoint is asked beside the items."""

    whole: _Count = field(default_factory=_Count)
    left: _Count = field(default_factory=_Count)


def _beside(
    prepared: Prepared, endpoint: Endpoint, top: int, journal: StoredReplies | None, tally: _Tally
) -> _Beside:
    """Count it; probe and looks are made anew in each session that sends anything."""
    found = _Beside()
    for requests in requests_of_sample(prepared, endpoint, top):
        found.whole.add(merged(requests))
        found.left.add(still_to_repeat(requests, endpoint, journal))
    watched = [*requests_of_probe(prepared, endpoint), *requests_of_looks(prepared, endpoint)]
    found.whole.add(watched)
    if tally.left_of(endpoint.label).volume.requests or found.left.forecast.volume.requests:
        found.left.add(watched)
    return found


def _with(one: Counted, more: _Count) -> Counted:
    return Counted(volume=one.volume + more.forecast.volume, shared=one.shared + more.shared)


def _outlook(
    prepared: Prepared,
    tallies: Mapping[str, _Tally],
    tops: Mapping[str, int],
    beside: Mapping[str, _Beside],
) -> Outlook:
    """Turn counts into figures."""
    endpoints = prepared.endpoints

    def of(counted: Mapping[str, Counted]) -> dict[str, Figures]:
        return figures(endpoints, counted, prepared.allowances, prepared.prices)

    whole = of({label: _with(each.whole.counted, beside[label].whole) for label, each in tallies.items()})
    left = of({label: _with(each.left_of(label), beside[label].left) for label, each in tallies.items()})
    parts = [
        Part(
            endpoint=each,
            items=prepared.suite.size,
            unscorable=tallies[each.label].unscorable,
            choices=tallies[each.label].choices,
            top=tops[each.label],
            beside=beside[each.label].whole.forecast.volume.requests,
            whole=whole[each.label],
            left=left[each.label],
        )
        for each in endpoints
    ]
    return Outlook(
        folder=prepared.folder,
        parts=parts,
        whole=in_all([part.whole for part in parts]),
        left=in_all([part.left for part in parts]),
    )
