"""`run.json` of a run out of those of its shards.

What a run is (settings, tasks, endpoints) is as in the last session; what was done is summed up over all
shards. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from harness import __version__
from harness.caps import Volume
from harness.earlier import Earlier, Merged, Own, added, sent_of
from harness.merging.parts import Parts
from harness.merging.said import Document
from harness.merging.spent import own_of
from harness.remarks import NUMBERED
from harness.replies import JournalStats

_SUMMED = (
    *("requests_sent", "requests_from_journal", "choices_read"),
    *("boundary_shifted_items", "truncated_items"),
)
_VOLUME = ("requests", "prompt_tokens", "forced_tokens")
_STILL = {"requests_a_second": 0.0, "in_flight": 0, "waiting": 0, "seconds_left": None, "state": ""}
"""The pace of what has ended."""


def first_record(parts: Parts, endpoints: Sequence[Document], folder: str) -> dict[str, Any]:
    """What is said while shards are merged: the journals may hold more of them than is told."""
    said = parts.last.document
    before = parts.whole.before if parts.whole else Earlier()
    own = own_of(before)
    amiss = (each for part in parts.newest_first for each in part.document["probes_amiss"])
    return {
        "program": f"forced-choice {__version__}",
        "status": "running",
        "settings": {**said["settings"], "shard": None, "out": folder},
        "suite": said["suite"],
        "tasks": said["tasks"],
        "endpoints": list(endpoints),
        "counts": {},
        "beside_journal": msgspec.to_builtins(before.beside),
        "probes_amiss": _distinct(amiss),
        "shards": msgspec.to_builtins(before.shards),
        "without_shards": msgspec.to_builtins(own),
        "checks": {},
        "sequence": None,
        "random_order": msgspec.to_builtins(before.order),
        "remarks": [],
        "timings": {"begun": said["timings"]["begun"], "earlier_s": round(own.seconds, 3)},
        "versions": said["versions"],
    }


def last_record(
    first: Document,
    parts: Parts,
    outcomes: Mapping[str, Outcome],
    *,
    status: str,
    checks: Mapping[str, Sequence[Document]],
    remarks: Sequence[str],
) -> dict[str, Any]:
    """What is said once they are merged."""
    # Of shards whose folders are gone, or cannot be read now, that stays which was known of them.
    shards = msgspec.convert(first["shards"], dict[str, Merged])
    shards |= {each.name: each.merged() for each in parts.shards}
    sent = msgspec.convert(first["without_shards"], Own).sent
    for merged in shards.values():
        sent = added(sent, merged.sent)
    seconds = round(sum(each.seconds for each in shards.values()), 3)
    return {
        **first,
        "status": status,
        "counts": {label: counts_of(parts, label, outcome) for label, outcome in outcomes.items()},
        "beside_journal": _beside(sent, outcomes),
        "shards": msgspec.to_builtins(shards),
        "checks": checks,
        "remarks": list(remarks),
        "timings": {**first["timings"], "sending_s": seconds},
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one endpoint."""

    items: int
    done: int
    """Of them, tried on it to the end."""
    unscored: int
    stats: JournalStats
    """Of its journal."""
    shortcut: Mapping[str, Any] | None
    """What the journal says of reading choices off alternatives."""


def counts_of(parts: Parts, label: str, outcome: Outcome) -> dict[str, Any]:
    """The counts of an endpoint, of the last sessions of all shards together."""
    every = [part.document["counts"][label] for part in parts.shards if label in part.document["counts"]]
    costs = [each["cost"] for each in every if each["cost"] is not None]
    whys = [each["shortcut"] for each in every]
    return {
        "items": outcome.items,
        "items_done": outcome.done,
        "items_unscored": outcome.unscored,
        "pace": _STILL,
        **{name: sum(each[name] for each in every) for name in _SUMMED[:3]},
        "shortcut": outcome.shortcut or (whys[0] if whys else {"used": False, "why": ""}),
        "probe": _distinct(found for each in every for found in each["probe"]),
        "retries": _totals([each["retries"] for each in every]),
        "forecast": {
            **_volume([each["forecast"] for each in every]),
            "whole": all(each["forecast"]["whole"] for each in every),
        },
        "sent": _volume([each["sent"] for each in every]),
        "cost": sum(costs) if costs else None,
        **{name: sum(each[name] for each in every) for name in _SUMMED[3:]},
        "refused": "; ".join(dict.fromkeys(each["refused"] for each in every if each["refused"])),
        "journal": msgspec.to_builtins(outcome.stats),
    }


def _beside(sent: Mapping[str, Volume], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Of what was sent, by label, that which stands in no journal: by label too."""
    kept = {label: sent_of(outcome.stats) for label, outcome in outcomes.items()}
    beside = {label: volume.beyond(kept.get(label, Volume())) for label, volume in sent.items()}
    return {label: msgspec.to_builtins(volume) for label, volume in beside.items() if volume != Volume()}


def checks_of(parts: Parts, label: str) -> list[Document]:
    """What was found beside the items, by all."""
    every = (*parts.shards, *([parts.whole] if parts.whole else []))
    return _distinct(each for part in every for each in part.document["checks"].get(label, ()))


def remarks_of(parts: Parts) -> list[str]:
    """What is to be known of all of them, but for what is counted anew."""
    every = (remark for part in parts.newest_first for remark in part.document["remarks"])
    return [each for each in dict.fromkeys(every) if not any(said in each for said in NUMBERED)]


def _distinct(every: Iterable[Document]) -> list[Document]:
    found: list[Document] = []
    for each in every:
        if each not in found:
            found.append(each)
    return found


def _totals(every: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for each in every for name in each})
    return {name: sum(each.get(name, 0) for each in every) for name in names}


def _volume(every: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {name: sum(each[name] for each in every) for name in _VOLUME}
