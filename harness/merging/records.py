"""`run.json` of a run out of those of its shards.

What a run is (settings, tasks, endpoints) is as in the last session; what was done is summed up over all
shards. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from harness import __version__
from harness.caps import Volume
from harness.earlier import Earlier, Merged, Own, sent_of
from harness.errors import UsageError
from harness.merging.spent import added, own_of
from harness.remarks import NUMBERED
from harness.replies import JournalStats
from harness.runs import Whose
from harness.segments import Place, listing_digest
from harness.sharding import Shard

Document = Mapping[str, Any]
"""The content of a `run.json`."""
_SUMMED = (
    *("requests_sent", "requests_from_journal", "choices_read"),
    *("boundary_shifted_items", "truncated_items"),
)
_VOLUME = ("requests", "prompt_tokens", "forced_tokens")
_STILL = {"requests_a_second": 0.0, "in_flight": 0, "waiting": 0, "seconds_left": None, "state": ""}
"""The pace of what has ended."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one folder of a run says of itself."""

    place: Place
    document: Document
    before: Earlier
    """What was sent for it."""
    running: bool
    """It seems to be at work."""

    @property
    def begun(self) -> tuple[str, int, int, int]:
        """When its last session began; of those that began in one second some order."""
        shard = self.place.shard
        return (self.document["timings"]["begun"], *((1, shard.of, shard.number) if shard else (0, 0, 0)))

    @property
    def items(self) -> int:
        """How many it holds."""
        return max((each["items"] for each in self.document["counts"].values()), default=0)

    def merged(self) -> Merged:
        """What is kept of a shard."""
        return Merged(
            status=self.place.stated.status,
            at=self.place.stated.heartbeat.at,
            running=self.running,
            items=self.items,
            sent=self.before.by_label,
            seconds=round(self.before.seconds, 3),
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """All folders of a run."""

    whole: Part | None
    """None: nothing was run or merged there yet."""
    shards: Sequence[Part]
    """One at least."""

    @property
    def last(self) -> Part:
        """That whose session began last: what it asked for is what the run is."""
        return max((*self.shards, *([self.whole] if self.whole else [])), key=lambda each: each.begun)

    @property
    def newest_first(self) -> list[Part]:
        """All of them."""
        every = (*self.shards, *([self.whole] if self.whole else []))
        return sorted(every, key=lambda each: each.begun, reverse=True)

    @property
    def listed(self) -> str:
        """The digest of the list of items."""
        said = self.last.document
        return listing_digest(said["identity"], said["settings"], said["tasks"])

    def endpoints(self) -> list[Document]:
        """All endpoints that any of them has: those of the last session, then those that only others have.

        Raises:
            UsageError: two of them have one label.
        """
        found: dict[Whose, Document] = {}
        for part in self.newest_first:
            for each in part.document["endpoints"]:
                found.setdefault(whose_of(each), each)
        labels: dict[str, Document] = {}
        for each in found.values():
            other = labels.setdefault(each["label"], each)
            if other is not each:
                raise UsageError(
                    f"two endpoints of these shards are called {each['label']}: {other['base_url']}"
                    f" {other['model']} and {each['base_url']} {each['model']}; name one otherwise,"
                    " --endpoint NAME=SPEC, or, if they serve one model, give both one `identity` in a suite"
                    " file; then give the shards' commands again"
                )
        return list(found.values())

    def lacking(self) -> list[tuple[Shard, str]]:
        """The shards of the last cut that are not there, or not complete, and what they are."""
        cuts = [each.place.shard.of for each in reversed(self.newest_first) if each.place.shard]
        there = {each.place.shard: each for each in self.shards}
        every = (Shard(number, cuts[-1]) for number in range(1, cuts[-1] + 1))
        return [(each, state) for each in every if (state := _state(there.get(each))) != "complete"]


def whose_of(endpoint: Document) -> Whose:
    """Identity and replicate number of an endpoint, as its journal states them."""
    return endpoint["identity"], str(endpoint["replicate"])


def _state(part: Part | None) -> str:
    if part is None:
        return "not begun"
    status = part.place.stated.status
    return "broken off" if status == "running" and not part.running else status


def first_record(parts: Parts, endpoints: Sequence[Document], folder: str) -> dict[str, Any]:
    """What is said while shards are merged: the journals may hold more of them than is told."""
    said = parts.last.document
    whole = parts.whole.document if parts.whole else {}
    own = own_of(parts.whole.before if parts.whole else Earlier())
    amiss = (each for part in parts.newest_first for each in part.document["probes_amiss"])
    return {
        "program": f"forced-choice {__version__}",
        "status": "running",
        "settings": {**said["settings"], "shard": None, "out": folder},
        "suite": said["suite"],
        "tasks": said["tasks"],
        "endpoints": list(endpoints),
        "counts": {},
        "beside_journal": whole.get("beside_journal", {}),
        "probes_amiss": _distinct(amiss),
        "shards": whole.get("shards", {}),
        "without_shards": msgspec.to_builtins(own),
        "checks": {},
        "sequence": None,
        "random_order": whole.get("random_order"),
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
    shards = {each.place.shard.folder: each.merged() for each in parts.shards if each.place.shard}
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


def told_lacking(lacking: Sequence[tuple[Shard, str]], most: int = 5) -> Iterator[str]:
    """Which shards are not complete, by what they are; one line each."""
    by_state: dict[str, list[str]] = {}
    for shard, state in lacking:
        by_state.setdefault(state, []).append(str(shard))
    for state, names in by_state.items():
        more = f" and {len(names) - most:,} more" if names[most:] else ""
        yield f"Shards {state}: {', '.join(names[:most])}{more}"
