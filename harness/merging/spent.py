"""What was sent for a run by its shards and without them, so that caps hold over all, and nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.caps import Volume
from harness.earlier import Earlier, Merged, Own, earlier, merged_in
from harness.errors import UsageError
from harness.segments import places, shards_in
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
            found[label] = found.get(label, Volume()).beyond(volume)
    return Own(found, max(0.0, seconds))


def sent_outside(whole: Path, shard: Shard) -> dict[str, Volume]:
    """What was sent for a run by others than the shards of this cut, by label; raises `StoreError`."""
    found = own_of(earlier(whole)).sent
    for other, folder in shards_in(whole).items():
        if other.of != shard.of:
            found = added(found, earlier(folder).by_label)
    return found


def added(one: Mapping[str, Volume], other: Mapping[str, Volume]) -> dict[str, Volume]:
    """Both together."""
    return {
        label: one.get(label, Volume()) + other.get(label, Volume())
        for label in dict.fromkeys((*one, *other))
    }


def refuse_unmerged(whole: Path) -> None:
    """Raise `UsageError` where shards of a run have replies that it does not have yet."""
    merged = merged_in(whole)
    at = {each.shard.folder: each.stated.heartbeat.at for each in places(whole) if each.shard}
    names = [name for name, last in at.items() if _is_news(merged.get(name), last)]
    if names:
        told = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if names[SHOWN:] else "")
        raise UsageError(
            f"--out {whole}: what its shards have is not merged yet ({told}); give `merge {whole}` first, so"
            " that nothing is asked twice"
        )


def _is_news(merged: Merged | None, at: str) -> bool:
    """Whether a shard may have more than what was merged of it; `at`: its last sign of life."""
    return merged is None or merged.running or merged.at != at
