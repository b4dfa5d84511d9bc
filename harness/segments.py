"""The shards of a run on disk: where they stand, what they list, and the journal that each of them writes.

A shard is an ordinary run in a folder of its own, `shards/I-of-N/` in the run's. What other journals of the
run have answered already is taken over when it is asked for, so that nothing is sent twice. This module does
not know how shards are cut, nor how they are put together.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
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
from harness.replies import StoredReplies
from harness.sharding import Shard

SHARDS = "shards"
"""The folder in a run's that has those of its shards."""
MISSED = 3
"""So many signs of life that did not come, and a shard is taken for dead."""
_NAME = re.compile(r"([1-9]\d{0,8})-of-([1-9]\d{0,8})")
_ADOPT = f"INSERT INTO replies VALUES ({', '.join('?' * len(REPLY_COLUMNS))}) {FOLDED}"
_KEY, _FORCED_IDS, _N_CONTEXT, _ATTEMPTS = map(
    REPLY_COLUMNS.index, ("key", "forced_ids", "n_context", "attempts")
)
_SELECTION = ("limit", "sample", "seed", "skip_bad_rows")
"""Settings that decide which items of a suite are asked for."""


class Sign(msgspec.Struct, frozen=True):
    """What `run.json` says of when it was written."""

    at: str = ""
    every_s: float = 30.0
    host: str = ""


class Stated(msgspec.Struct, frozen=True):
    """What of a shard's `run.json` is read here."""

    status: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    heartbeat: Sign = Sign()

    @property
    def listed(self) -> str:
        """Which list of items it was made from."""
        return listing_digest(self.identity, self.settings, self.tasks)

    def lives(self, now: float) -> bool:
        """Whether it seems to be running, by its last sign of life; `now` in seconds since the epoch."""
        silent = _moment(self.heartbeat.at) + MISSED * self.heartbeat.every_s
        return self.status == "running" and now <= silent

    def lives_elsewhere(self, now: float) -> bool:
        """Whether another machine seems to write its journals: SQLite cannot read these while it does."""
        return self.heartbeat.host != platform.node() and self.lives(now)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with journals of a run, and what it says of itself."""

    folder: Path
    stated: Stated
    shard: Shard | None = None
    """None: it is the folder of the whole run."""


def shard_folder(whole: Path, shard: Shard) -> Path:
    """Where a shard of a run is written."""
    return whole / SHARDS / shard.folder


def whole_of(folder: Path) -> Path | None:
    """The folder of the run that a folder is a shard of; None where it is none."""
    return folder.parent.parent if folder.parent.name == SHARDS and _NAME.fullmatch(folder.name) else None


def shards_in(whole: Path) -> dict[Shard, Path]:
    """The folders of shards that there are, those of fewer shards first."""
    found = {}
    for folder in (whole / SHARDS).glob("*-of-*"):
        if (named := _NAME.fullmatch(folder.name)) and folder.is_dir():
            found[Shard(int(named[1]), int(named[2]))] = folder
    return dict(sorted(found.items(), key=lambda each: (each[0].of, each[0].number)))


def places(whole: Path) -> Iterator[Place]:
    """Where replies of a run are: in its own folder, then in those of its shards; what cannot be read, or was
    broken off before anything stood there, is left out."""
    for shard, folder in ((None, whole), *shards_in(whole).items()):
        with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            yield Place(folder, msgspec.json.decode((folder / "run.json").read_bytes(), type=Stated), shard)


def listing_digest(
    identity: Mapping[str, Any], settings: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]
) -> str:
    """Sixteen hexadecimal digits for the items that a run asks for, shards apart.

    Args:
        identity: of the suite.
        settings: of the run, as `run.json` has them.
        tasks: what `run.json` says of each, in their order.
    """
    said = [
        identity,
        [settings.get(name) for name in _SELECTION],
        [[name, task["content_sha256"], task["rows"], task["bad_rows"]] for name, task in tasks.items()],
    ]
    return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def listing_file(whole: Path, digest: str) -> Path:
    """Where the list of all items of a run stands."""
    return whole / SHARDS / f"items-{digest}.sqlite"


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


def _moment(text: str) -> float:
    """A time as `run.json` has it, in seconds since the epoch; 0 where it has none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
