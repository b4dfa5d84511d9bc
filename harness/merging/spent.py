"""What was sent for a run by its shards and without them, so that caps hold over all, and nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.caps import Volume
from harness.earlier import Earlier, Merged, Own, added, earlier, told
from harness.errors import UsageError
from harness.places import places, shard_called, shards_in, unread, whole_of
from harness.runs import Whose, sends_now
from harness.sharding import Shard

SHOWN = 3
"""Names of shards in one line."""


def own_of(whole: Earlier) -> Own:
    """What the sessions of the whole run sent: all that its folder tells of, less what shards sent that were
    merged into it."""
    if whole.own is not None:
        return whole.own
    found, seconds = whole.by_label, whole.seconds
    for merged in whole.shards.values():
        seconds -= merged.seconds
        for label, volume in merged.sent.items():
            there = found.get(label, Volume())
            found[label] = there.beyond(volume)
            # Of an endpoint that the last session did not ask, nobody knows the label any more.
            found[""] = found.get("", Volume()).beyond(volume.beyond(there))
    return Own({label: volume for label, volume in found.items() if volume != Volume()}, max(0.0, seconds))


def sent_before(folder: Path, names: Mapping[Whose, str]) -> Earlier:
    """What was sent for the run, or the shard, in a folder, by the labels that endpoints have now.

    Of a shard nothing is forgotten that the run knows since it was merged, though its folder be gone.

    Raises:
        StoreError: a journal cannot be read.
    """
    whole = whole_of(folder)
    if whole is None:
        return earlier(folder).called(names)
    run = told(whole)
    named = {**run.labels, **names}
    return with_merged(earlier(folder).called(named), run.called(names).shards.get(folder.name))


def with_merged(shard: Earlier, merged: Merged | None) -> Earlier:
    """What was sent for a shard, and no less than when it was merged; both by the same labels."""
    if merged is None:
        return shard
    there = shard.by_label
    lost = {label: volume.beyond(there.get(label, Volume())) for label, volume in merged.sent.items()}
    lost = {label: volume for label, volume in lost.items() if volume != Volume()}
    return replace(shard, beside=added(shard.beside, lost), seconds=max(shard.seconds, merged.seconds))


def sent_outside(whole: Path, shard: Shard, names: Mapping[Whose, str]) -> dict[str, Volume]:
    """What was sent for a run by others than the shards of this cut, by the labels that endpoints have now;
    of shards whose folders are gone as well. Raises `StoreError`."""
    run = earlier(whole).called(names)
    found = own_of(run).sent
    there = shards_in(whole)
    for name in dict.fromkeys((*run.shards, *(each.folder for each in there))):
        other = shard_called(name)
        if other is not None and other.of != shard.of:
            sent = earlier(there[other]).called(run.labels) if other in there else Earlier()
            found = added(found, with_merged(sent, run.shards.get(name)).by_label)
    return found


def refuse_unmerged(whole: Path) -> None:
    """Raise `UsageError` where shards of a run have replies that it does not have yet, or are at work."""
    merged = told(whole).shards
    at = {each.shard.folder: each.stated.heartbeat.at for each in places(whole) if each.shard}
    for each in unread(whole):
        raise UsageError(
            f"--out {whole}: what its shards have is not merged yet. {each}; then `merge {whole}`"
        )
    names = [name for name, last in at.items() if _is_news(merged.get(name), last)]
    if names:
        raise UsageError(
            f"--out {whole}: what its shards have is not merged yet ({_named(names)}); give `merge {whole}`"
            " first, so that nothing is asked twice"
        )
    working = [shard.folder for shard, folder in shards_in(whole).items() if sends_now(folder)]
    if working:
        raise UsageError(
            f"--out {whole}: its shards are at work ({_named(working)}); wait for them to end and give"
            f" `merge {whole}` first, so that nothing is asked twice"
        )


def _named(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if names[SHOWN:] else "")


def _is_news(merged: Merged | None, at: str) -> bool:
    """Whether a shard may have more than what was merged of it; `at`: its last sign of life."""
    return merged is None or merged.running or merged.at != at
