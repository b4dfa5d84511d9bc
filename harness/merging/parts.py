"""What the folders of a run say of themselves: its own, and those of its shards.

A folder that does not say what is needed is named, never passed over, never half believed. Endpoints go by
their identity; all of them are called here as the session called them that began last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from harness.earlier import Earlier, Merged, earlier
from harness.errors import UsageError
from harness.merging.said import Document, document_of
from harness.merging.spent import with_merged
from harness.places import (
    UNREADABLE,
    Place,
    Stated,
    Unread,
    listing_digest,
    places,
    unread,
    unreadable,
)
from harness.runs import Whose
from harness.sharding import Shard


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
    def name(self) -> str:
        """Of its folder."""
        return self.place.folder.name

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

    def called(self, names: Mapping[Whose, str]) -> Part:
        """The same by the labels that endpoints have now."""
        said = self.document["endpoints"]
        now = {each["label"]: names[whose_of(each)] for each in said}
        document = {
            **self.document,
            "endpoints": [{**each, "label": now[each["label"]]} for each in said],
            **{name: _called(self.document[name], now) for name in ("counts", "checks")},
        }
        return replace(self, document=document, before=self.before.called(names))


def _called(by_label: Mapping[str, Any], now: Mapping[str, str]) -> dict[str, Any]:
    """By other labels; what is said of endpoints that are not there is left out."""
    return {now[label]: each for label, each in by_label.items() if label in now}


@dataclass(frozen=True, slots=True)
class Parts:
    """All folders of a run."""

    whole: Part | None
    """None: nothing was run or merged there yet."""
    shards: Sequence[Part]
    """One at least."""
    elsewhere: Sequence[Place] = ()
    """Shards that other machines write, which cannot be read meanwhile."""
    unread: Sequence[Unread] = ()
    """Those that do not say what they are."""

    @property
    def last(self) -> Part:
        """That whose session began last: what it asked for is what the run is."""
        return self.newest_first[0]

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

    def called(self) -> Parts:
        """The same by the labels that endpoints have in the session that began last; raises as `endpoints`.

        Of a shard nothing is forgotten that the run knows since it was merged."""
        names = {whose_of(each): each["label"] for each in self.endpoints()}
        whole = self.whole.called(names) if self.whole else None
        known = whole.before.shards if whole else {}
        shards = [each.called(names) for each in self.shards]
        shards = [replace(each, before=with_merged(each.before, known.get(each.name))) for each in shards]
        return replace(self, whole=whole, shards=shards)

    def lacking(self) -> list[tuple[Shard, str]]:
        """The shards of the last cut that are not there, or not complete, and what they are; but for those
        that cannot be read."""
        newest = next(each.place.shard for each in self.newest_first if each.place.shard)
        there = {each.place.shard: each for each in self.shards}
        others = {each.shard for each in self.elsewhere} | {each.shard for each in self.unread}
        every = (Shard(number, newest.of) for number in range(1, newest.of + 1))
        found = ((each, _state(there.get(each))) for each in every if each not in others)
        return [(each, state) for each, state in found if state != "complete"]

    def strays(self) -> list[Part]:
        """The shards of the last cut that were cut from another list of items than the run has."""
        listed, shards = self.listed, [each for each in self.newest_first if each.place.shard]
        cut = shards[0].place.shard
        of_cut = (each for each in shards if cut and each.place.shard and each.place.shard.of == cut.of)
        return [each for each in of_cut if each.place.stated.listed != listed]


def parts_in(folder: Path, now: float) -> Parts:
    """What all folders of a run say; `now` in seconds since the epoch.

    Raises:
        UsageError: none of its shards says anything, or its own `run.json` cannot be read; or as
            `Parts.endpoints`.
        StoreError: a journal cannot be read.
    """
    shards: list[Part] = []
    elsewhere: list[Place] = []
    lost = list(unread(folder))
    whole = _whole(folder, now)
    for place in places(folder):
        if place.shard is None or any(place.shard == each.shard for each in lost):
            continue
        if place.stated.lives_elsewhere(now):
            elsewhere.append(place)
            continue
        try:
            shards.append(_part(place, now))
        except UNREADABLE as error:
            lost.append(Unread(place.shard, place.folder / "run.json", unreadable(error)))
    if not shards and lost:
        raise UsageError(str(lost[0]))
    if not shards:
        why = "are at work on other machines" if elsewhere else "have not begun"
        raise UsageError(f"{folder}: its shards {why}; give the command again when one has ended")
    return Parts(whole, shards, elsewhere, lost).called()


def _whole(folder: Path, now: float) -> Part | None:
    """What the run's own folder says."""
    file = folder / "run.json"
    if not file.exists():
        return None
    try:
        return _part(Place(folder, msgspec.json.decode(file.read_bytes(), type=Stated)), now)
    except UNREADABLE as error:
        raise UsageError(
            f"{file}: {unreadable(error)}; move it away and give the command again: what was sent beside the"
            " journals of the run itself no longer counts for caps then"
        ) from error


def _part(place: Place, now: float) -> Part:
    """What a folder says, whole; raises what is `UNREADABLE`, and `StoreError`."""
    content = (place.folder / "run.json").read_bytes()
    return Part(place, document_of(content), earlier(place.folder), place.stated.lives(now))


def whose_of(endpoint: Document) -> Whose:
    """Identity and replicate number of an endpoint, as its journal states them."""
    return endpoint["identity"], str(endpoint["replicate"])


def _state(part: Part | None) -> str:
    if part is None:
        return "not begun"
    status = part.place.stated.status
    if status == "complete" and set(map(whose_of, part.document["endpoints"])) - set(part.before.journals):
        return "without a journal"
    return "broken off" if status == "running" and not part.running else status


def told_lacking(lacking: Sequence[tuple[Shard, str]], most: int = 5) -> Iterator[str]:
    """Which shards are not complete, by what they are; one line each."""
    by_state: dict[str, list[str]] = {}
    for shard, state in lacking:
        by_state.setdefault(state, []).append(str(shard))
    for state, names in by_state.items():
        yield f"Shards {state}: {_some(names, most)}"


def told_strays(parts: Parts, most: int = 5) -> Iterator[str]:
    """Which shards were cut from another list of items, by what is other there; one line each."""
    by_why: dict[str, list[str]] = {}
    for each in parts.strays():
        why = each.place.stated.selects_otherwise(parts.last.place.stated)
        by_why.setdefault(why, []).append(str(each.place.shard))
    last = parts.last.place
    newest = f"shard {last.shard}" if last.shard else "the run without --shard"
    for why, names in by_why.items():
        yield (
            f"Shards cut from another list of items than {newest}, which began last ({why}):"
            f" {_some(names, most)}; give their commands again with what that one was given"
        )


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if names[most:] else "")
