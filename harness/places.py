"""Where the shards of a run stand on disk, and what each of them says of itself.

A shard is an ordinary run in a folder of its own, `shards/I-of-N/` in the run's; beside these stands the list
of all items. This module does not know what is in journals, nor how shards are cut.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import StoreError
from harness.journalfile import begun
from harness.sharding import MOST, Shard

SHARDS = "shards"
"""The folder in a run's that has those of its shards."""
MISSED = 3
"""So many signs of life that did not come, and a shard is taken for dead."""
_NAME = re.compile(r"([1-9]\d{0,8})-of-([1-9]\d{0,8})")
_SELECTION = ("limit", "sample", "seed", "skip_bad_rows")
"""Settings that decide which items of a suite are asked for."""
_ROWS = ("content_sha256", "rows", "bad_rows")
"""What `run.json` says of the rows of a task."""
UNREADABLE = (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading a `run.json` may raise."""


class Sign(msgspec.Struct, frozen=True):
    """What `run.json` says of when it was written."""

    at: str = ""
    every_s: float = 30.0
    host: str = ""


class Rows(msgspec.Struct, frozen=True):
    """What `run.json` says of the rows of a task."""

    content_sha256: str
    rows: int
    bad_rows: int


class Stated(msgspec.Struct, frozen=True):
    """What of a shard's `run.json` is read here."""

    status: str
    identity: dict[str, Any]
    settings: dict[str, Any]
    tasks: dict[str, Rows]
    heartbeat: Sign = Sign()

    @property
    def listed(self) -> str:
        """Which list of items it was made from."""
        tasks = {name: msgspec.structs.asdict(each) for name, each in self.tasks.items()}
        return listing_digest(self.identity, self.settings, tasks)

    def selects_otherwise(self, other: Stated) -> str:
        """In what its list of items differs from another one of the same suite, in words; empty where it does
        not."""
        for name in _SELECTION:
            here, there = self.settings.get(name), other.settings.get(name)
            if here != there:
                return f"--{name.replace('_', '-')} {_said(here)}, not {_said(there)}"
        for name in dict.fromkeys((*self.tasks, *other.tasks)):
            if self.tasks.get(name) != other.tasks.get(name):
                return f"other rows of {name}"
        return "" if list(self.tasks) == list(other.tasks) else "tasks in another order"

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
    return folder.parent.parent if folder.parent.name == SHARDS and shard_called(folder.name) else None


def shard_called(name: str) -> Shard | None:
    """The shard whose folder has this name; None where it is none's."""
    found = _NAME.fullmatch(name)
    if found is None or not int(found[1]) <= int(found[2]) <= MOST:
        return None
    return Shard(int(found[1]), int(found[2]))


def shards_in(whole: Path) -> dict[Shard, Path]:
    """The folders of shards that there are, those of fewer shards first."""
    found = {}
    for folder in (whole / SHARDS).glob("*-of-*"):
        shard = shard_called(folder.name)
        if shard is not None and folder.is_dir():
            found[shard] = folder
    return dict(sorted(found.items(), key=lambda each: (each[0].of, each[0].number)))


def places(whole: Path) -> Iterator[Place]:
    """Where replies of a run are: in its own folder, then in those of its shards; what cannot be read, or was
    broken off before anything stood there, is left out."""
    for shard, folder in ((None, whole), *shards_in(whole).items()):
        with suppress(*UNREADABLE):
            yield Place(folder, msgspec.json.decode((folder / "run.json").read_bytes(), type=Stated), shard)


@dataclass(frozen=True, slots=True)
class Unread:
    """A shard that has something, of which nobody knows what it is."""

    shard: Shard
    file: Path
    """Its `run.json`."""
    why: str

    def __str__(self) -> str:
        there = "" if self.why == MISSING else "move that file away, and "
        again = f"give the command of shard {self.shard} again: it sends nothing twice"
        return f"{self.file}: {self.why}; {there}{again}"


MISSING = "is missing"


def unread(whole: Path) -> Iterator[Unread]:
    """The shards that `places` leaves out, although they may have replies."""
    for shard, folder in shards_in(whole).items():
        file = folder / "run.json"
        try:
            msgspec.json.decode(file.read_bytes(), type=Stated)
        except FileNotFoundError:
            if any(map(_may_hold_replies, (folder / "journal").glob("*.sqlite"))):
                yield Unread(shard, file, MISSING)
        except UNREADABLE as error:
            yield Unread(shard, file, unreadable(error))


def unreadable(error: Exception) -> str:
    """Why a `run.json` cannot be read."""
    said = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return f"cannot be read ({said[:200]})"


def _may_hold_replies(file: Path) -> bool:
    try:
        return begun(file)
    except StoreError:
        return True


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
        [[name, *(task[each] for each in _ROWS)] for name, task in tasks.items()],
    ]
    return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()


def listing_file(whole: Path, digest: str) -> Path:
    """Where the list of all items of a run stands."""
    return whole / SHARDS / f"items-{digest}.sqlite"


def _said(value: object) -> str:
    """A setting as its flag has it."""
    return "none" if value is None else str(value).lower()


def _moment(text: str) -> float:
    """A time as `run.json` has it, in seconds since the epoch; 0 where it has none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
