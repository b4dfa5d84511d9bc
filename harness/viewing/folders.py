"""The runs of a folder: found by walking it, named by their place in it, each in some state.

Who asks for a run names it by its `key`, which is looked up among those that were found: no text of a request
ever becomes a path. A run whose files lead out of the folder, or are no files, is not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from harness.errors import HarnessError, StoreError
from harness.stored import Run, load_run

State = Literal["running", "dead", "complete", "incomplete", "interrupted", "decided", "damaged"]
DEEPEST = 3
"""Folders below the one that is looked at."""
MISSED = 3
"""So many signs of life that did not come, and a run is taken for dead."""
_SIGN_SECONDS = 30.0
"""Where `run.json` does not say how often they come."""
_LARGEST = 64_000_000
"""Bytes of a `run.json` that is read."""
_TABLES = ("run.json", "scores.csv", "items.parquet", "items.csv", "texts.parquet", "repeats/items.parquet")
_ENDED: Mapping[str, State] = {
    "complete": "complete",
    "incomplete": "incomplete",
    "interrupted": "interrupted",
    "decided": "decided",
}
Stamp = tuple[tuple[int, int], ...]
"""When files were written last (nanoseconds), and how large they are; changes when a run does."""


@dataclass(frozen=True)
class Found:
    """One run, or what is left of it."""

    name: str
    """Its place in the folder."""
    path: Path
    stamp: Stamp
    run: Run | None
    problem: str = ""
    """Why it cannot be read; empty where it can."""

    @cached_property
    def key(self) -> str:
        """What addresses call it."""
        return blake2b(os.fsencode(self.name), digest_size=6).hexdigest()

    @property
    def begun(self) -> str:
        """When it began, as its `run.json` has it; empty where it does not say."""
        timings = self.run.manifest.get("timings") if self.run else None
        return str(timings.get("begun", "")) if isinstance(timings, Mapping) else ""

    def state(self, now: float) -> State:
        """In what state it is now (seconds since the epoch): of those that say they run, some are dead."""
        if self.run is None:
            return "damaged"
        ended = _ENDED.get(self.run.status)
        return ended or ("running" if now <= self._silent_at else "dead")

    @property
    def _silent_at(self) -> float:
        """Until when a running one should have given a sign of life (seconds since the epoch)."""
        sign = self.run.manifest.get("heartbeat") if self.run else None
        sign = sign if isinstance(sign, Mapping) else {}
        every = sign.get("every_s")
        seconds = float(every) if isinstance(every, int | float) and 0 < every < 1e6 else _SIGN_SECONDS
        return _moment(sign.get("at")) + MISSED * seconds


@dataclass(slots=True)
class Folders:
    """The runs below a folder; each is read again when its files have changed."""

    root: Path
    _known: dict[Path, Found] = field(default_factory=dict)

    def found(self) -> dict[str, Found]:
        """All runs by their keys, in the order of their names; broken ones too."""
        root = self.root.resolve()
        there = {path: self._found(root, path) for path in _places(root, DEEPEST)}
        self._known = there
        return {each.key: each for each in sorted(there.values(), key=lambda each: each.name)}

    def _found(self, root: Path, path: Path) -> Found:
        stamp = stamp_of(path)
        known = self._known.get(path)
        return known if known and known.stamp == stamp else _read(root, path, stamp)


def stamp_of(path: Path) -> Stamp:
    """What the tables of a run look like from outside."""
    told = []
    for name in _TABLES:
        try:
            seen = (path / name).stat()
            told.append((seen.st_mtime_ns, seen.st_size))
        except OSError:
            told.append((0, 0))
    return tuple(told)


def _places(folder: Path, deeper: int) -> Iterator[Path]:
    """Folders that are runs, or were; what is below them belongs to them."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    names = {each.name for each in entries}
    if "run.json" in names or "journal" in names:
        yield folder
    elif deeper:
        for each in entries:
            if not each.name.startswith(".") and not each.is_symlink() and each.is_dir():
                yield from _places(each, deeper - 1)


def _read(root: Path, path: Path, stamp: Stamp) -> Found:
    """One run; whatever is wrong with it is said of it alone."""
    name = str(path.relative_to(root)) if path != root else root.name
    try:
        _stays_inside(root, path)
        return Found(name, path, stamp, load_run(path))
    except HarnessError as error:
        return Found(name, path, stamp, None, str(error).removeprefix(f"{path}/").removeprefix(f"{path}: "))
    except Exception as error:  # whatever somebody put there must not hide the other runs
        return Found(name, path, stamp, None, f"run.json cannot be read ({type(error).__name__})")


def _stays_inside(root: Path, path: Path) -> None:
    """Raise `StoreError` where a file of a run is none, or leads out of the folder."""
    journals = sorted((path / "journal").iterdir()) if (path / "journal").is_dir() else []
    for file in (*(path / name for name in _TABLES), *journals):
        if not os.path.lexists(file):
            continue
        if not file.resolve().is_relative_to(root):
            raise StoreError(f"{path}: {file.relative_to(path)} leads out of the folder that is looked at")
        if not file.is_file():
            raise StoreError(f"{path}: {file.relative_to(path)} is no file")
    if (path / "run.json").is_file() and (path / "run.json").stat().st_size > _LARGEST:
        raise StoreError(f"{path}: run.json is too large to be one")


def _moment(text: Any) -> float:
    """A time as `run.json` has it, in seconds since the epoch; 0 where it has none."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
