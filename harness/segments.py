"""The list of items that the shards of a run share, and the journal that each of them writes.

What other journals of the run have answered already is taken over when it is asked for, so that nothing is
sent twice. This module does not know how shards are cut, nor how they are put together.
"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from harness.caps import Volume
from harness.data.listing import Listing
from harness.errors import StoreError
from harness.files import file_errors, temporary
from harness.journal import Journal
from harness.journalfile import begun, store_errors
from harness.layout import ADOPTED, REPLY_COLUMNS
from harness.merging.rules import FOLDED, teach
from harness.places import places
from harness.replies import StoredReplies
from harness.sharding import Shard

_ADOPT = f"INSERT INTO replies VALUES ({', '.join('?' * len(REPLY_COLUMNS))}) {FOLDED}"
_KEY, _FORCED_IDS, _N_CONTEXT, _ATTEMPTS = map(
    REPLY_COLUMNS.index, ("key", "forced_ids", "n_context", "attempts")
)


def keep_listing(listing: Listing, file: Path) -> None:
    """Put the list of all items beside the shards, once for all of them; `StoreError` where it cannot be."""
    if _lists_as_many(file, listing):
        return
    unfinished = temporary(file).with_suffix(f".{os.getpid()}-{platform.node()}")
    with file_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        listing.flush()
        try:
            shutil.copyfile(listing.path, unfinished)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)


def _lists_as_many(file: Path, listing: Listing) -> bool:
    """Whether the list is there, and whole: a damaged one is written anew."""
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as reader:
            sound = reader.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            count = reader.execute("SELECT count(*) FROM items").fetchone()[0]
    except sqlite3.Error:
        return False
    return bool(sound and count == listing.count())


class Segment(Journal):
    """The journal of one shard. What it lacks and others have is taken over when it is asked for."""

    def __init__(
        self, path: Path, *, meta: Mapping[str, str], beneath: Sequence[StoredReplies], fsync: bool = False
    ) -> None:
        """As of `Journal`; `beneath` are journals of the same endpoint, and closed with this one."""
        self._beneath = list(beneath)
        try:
            super().__init__(path, meta=meta, fsync=fsync)
            teach(self._writer)
        except BaseException:
            self._close_beneath()
            raise

    def answered(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these requests have a reply, here or elsewhere in the run."""
        found = super().answered(keys)
        for other in list(self._beneath):
            missing = [key for key in keys if key not in found]
            if not missing:
                break
            try:
                rows = other.rows_of(missing)
            except StoreError:  # what cannot be read is as good as not there
                self._beneath.remove(other)
                other.close()
                continue
            self._adopt(rows)
            found.update(bytes(row[0]) for row in rows)
        return found

    def may_answer(self) -> bool:
        """Whether any request of a session that begins now may have a reply."""
        return bool(self._beneath) or super().may_answer()

    def close(self) -> None:
        """Close it, and what is beneath."""
        self._close_beneath()
        super().close()

    def _close_beneath(self) -> None:
        while self._beneath:
            self._beneath.pop().close()

    def _adopt(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take over replies, attempts too; what these took elsewhere is noted."""
        if not rows:
            return
        self.flush()  # a failure that waits to be written must not come after the reply
        own = self.attempts_of([row[_KEY] for row in rows])
        taken = self.adopted()
        for row in rows:
            more = max(0, row[_ATTEMPTS] - own.get(row[_KEY], 0))
            taken += Volume(more, more * row[_N_CONTEXT], more * (len(row[_FORCED_IDS]) // 4))
        text = msgspec.json.encode(taken).decode()
        with self._writing, store_errors(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            with self._writer:
                self._writer.executemany(_ADOPT, rows)
                self._writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (ADOPTED, text))
        self.meta[ADOPTED] = text


def beneath(
    whole: Path, own: Shard, listed: str, ordinals: Sequence[range], meta: Mapping[str, str], now: float
) -> list[StoredReplies]:
    """The journals of an endpoint in which replies to items of a shard may be.

    Those are left out that another machine is writing, and those that were made from the same list of items
    and have none of the shard's: as those of all other shards, if there are as many.

    Args:
        whole: the folder of the run.
        own: the shard.
        listed: digest of its list of items.
        ordinals: of its items.
        meta: what the journals say of their endpoint.
        now: seconds since the epoch.
    """
    found = []
    for place in places(whole):
        if place.shard == own or place.stated.lives_elsewhere(now):
            continue
        others = place.stated.listed != listed
        for file in sorted((place.folder / "journal").glob("*.sqlite")):
            with suppress(StoreError):
                if begun(file) and (journal := _answering(file, meta, None if others else ordinals)):
                    found.append(journal)
    return found


def _answering(file: Path, meta: Mapping[str, str], ordinals: Sequence[range] | None) -> StoredReplies | None:
    """A journal of the same endpoint, if it has planned any of these items; None: any at all."""
    journal = StoredReplies(file)
    try:
        if meta.items() <= journal.meta.items() and (ordinals is None or journal.has_planned(ordinals)):
            return journal
    except BaseException:
        journal.close()
        raise
    journal.close()
    return None
