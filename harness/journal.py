"""The journal: every reply of one endpoint, and what was asked of it, in one SQLite file.

One thread writes, in groups; a reply counts only once its group is committed, and then survives SIGKILL
(with `fsync` a power loss too). This module does not know how replies are got, nor what scores mean.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from harness.data.listing import Listing
from harness.errors import StoreError
from harness.exchange import Outcome
from harness.journalfile import AWAY, read_meta, store_errors
from harness.layout import (
    ITEM_COLUMNS,
    NO_ASIDES,
    NOTES,
    SCHEMA,
    SHORTCUT,
    TABLES,
    WATCHED,
    item_row,
    legible,
    reply_row,
    teach,
)
from harness.replies import StoredReplies
from harness.scoring.scores import ItemRecord

GROUP_ROWS = 1000
"""A group is committed at once when so many rows wait, or a few more that belong together."""
GATHER_S = 0.015
"""Seconds that the first row of a group waits for others: committed within 20 ms of its arrival."""

_CHUNK = 256
"""Rows a statement. Each statement gives up the interpreter lock once, and under a busy event loop waits
milliseconds to get it back: row by row, a group would take seconds."""

_PUT_REPLIES = """INSERT INTO replies VALUES {} ON CONFLICT (key) DO UPDATE SET
    forced_ids = excluded.forced_ids, n_context = excluded.n_context, read_from = excluded.read_from,
    sum = excluded.sum, token_logprobs = excluded.token_logprobs,
    top_logprobs = excluded.top_logprobs, greedy = excluded.greedy, prompt_tokens = excluded.prompt_tokens,
    completion_tokens = excluded.completion_tokens, cached_tokens = excluded.cached_tokens,
    latency_ms = excluded.latency_ms, attempts = replies.attempts + excluded.attempts,
    reason = excluded.reason, detail = excluded.detail, status = excluded.status,
    checksum = excluded.checksum
    WHERE replies.sum IS NULL"""
"""A stored reply stays as it is; a stored failure gives way to whatever comes later, but for its attempts."""
_PUT_ITEMS = f"""INSERT INTO items VALUES {{}} ON CONFLICT (ordinal) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in ITEM_COLUMNS if name != "asides")},
    asides = CASE WHEN excluded.asides = x'{NO_ASIDES.hex()}' AND excluded.keys = items.keys
    THEN items.asides ELSE excluded.asides END"""
"""What an earlier session asked beside the same item stays known where this one asks nothing beside it."""
_KEEP_PLANNED = f"""CREATE TEMP TABLE planned AS SELECT * FROM main.items
    WHERE prompt_hash != x'' AND {legible("items")}"""
_RESTORE_PLANNED = """UPDATE main.items SET prompt_hash = planned.prompt_hash,
    context_sha256 = planned.context_sha256, keys = planned.keys, n_tokens = planned.n_tokens,
    mode = planned.mode, problem = planned.problem, asides = planned.asides
    FROM temp.planned WHERE items.problem = '' AND planned.task = items.task
    AND planned.subject = items.subject AND planned."index" = items."index" AND planned.shots = items.shots
    AND planned.id = items.id AND planned.gold = items.gold AND planned.n_bytes = items.n_bytes"""


class Rows(NamedTuple):
    """Rows that another process has made of outcomes and items, and who is to hear that they are on disk."""

    replies: Sequence[Sequence[object]]
    items: Sequence[Sequence[object]]
    done: Callable[[], object]
    """Called by the writing thread."""


_Waiting = Outcome | Rows | Sequence[ItemRecord]
"""What can be handed over."""


class Journal(StoredReplies):
    """The journal of one endpoint, created or continued. Methods may be called from any thread.

    Attributes:
        on_commit: called by the writing thread with the keys of each group once it is on disk.
        failure: why nothing can be written any more, or None.
    """

    def __init__(
        self,
        path: Path,
        *,
        meta: Mapping[str, str],
        on_commit: Callable[[Sequence[bytes]], None] | None = None,
        fsync: bool = False,
    ) -> None:
        """Create the file, or open one that says the same of itself.

        Args:
            path: the file; its folder must exist.
            meta: what the replies belong to: stored in a new file, compared with an older one.
            on_commit: see the class.
            fsync: commits survive a power loss, not only a kill.

        Raises:
            StoreError: it is no journal, belongs to something else, or cannot be written.
        """
        self.on_commit = on_commit
        self.failure: StoreError | None = None
        self._told = False
        self._closed = False
        self._hurry = False
        self._waiting: list[_Waiting] = []
        self._since = 0.0
        self._n_put = 0
        self._n_done = 0
        self._changed = threading.Condition()  # by an RLock: it may be entered twice
        self._writing = threading.Lock()
        with store_errors(path):
            self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(path, {"schema": SCHEMA, **meta}, fsync)
                super().__init__(path)
            except BaseException:
                self._writer.close()
                raise
        self._thread = threading.Thread(target=self._write_all, name=f"journal {path.stem}", daemon=True)
        self._thread.start()

    def put(self, *outcomes: Outcome) -> None:
        """Hand over outcomes, to be committed together; one counts once `on_commit` has named its key.

        Raises:
            StoreError: an earlier one could not be written, so these cannot be either.
        """
        self._hand_over(*outcomes)

    def plan(self, records: Sequence[ItemRecord]) -> None:
        """Hand over items as planned; they replace those of the same ordinal. Raises as `put` does."""
        self._hand_over(records)

    def put_rows(self, rows: Rows) -> None:
        """Hand over rows, to be committed together and at once: they have been gathered where they were made.
        Raises as `put` does."""
        with self._changed:
            self._hurry = True
            self._hand_over(rows)
            self._changed.notify_all()

    def begin(self, asked: Listing) -> int:
        """Replace the items by what this run asks for, as one change; how many there are.

        What an earlier session planned for the same items stays known, so that its replies are found again
        even if this session ends before it comes to them.
        """
        asked.flush()
        with self._writing, store_errors(self.path):
            self._writer.execute("ATTACH ? AS asked", (str(asked.path),))
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                with self._writer:
                    self._writer.execute(_KEEP_PLANNED)
                    self._writer.execute("DELETE FROM main.items")
                    self._writer.execute("INSERT INTO main.items SELECT * FROM asked.items")
                    self._writer.execute(_RESTORE_PLANNED)
                    self._writer.execute("DROP TABLE temp.planned")
            finally:
                self._writer.execute("DETACH asked")
            count: int = self._writer.execute("SELECT count(*) FROM items").fetchone()[0]
        return count

    def forget(self, keys: Sequence[bytes]) -> None:
        """Drop what is stored under these keys, as if it had never come."""
        self.flush()
        with self._writing, store_errors(self.path), self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("DELETE FROM replies WHERE key = ?", ((key,) for key in keys))

    def note_shortcut(self, evidence: str) -> None:
        """Keep what shows that choices may be read off alternatives, in place of what showed it before."""
        self._note(SHORTCUT, evidence)

    def note_watched(self, noted: str) -> None:
        """Keep when the endpoint was asked beside its items, in place of what was kept before."""
        self._note(WATCHED, noted)

    def _note(self, name: str, text: str) -> None:
        with self._writing, store_errors(self.path):
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, text))
        self.meta[name] = text

    def flush(self) -> None:
        """Return when all that was handed over so far is committed; raises `StoreError` if it cannot be."""
        with self._changed:
            handed_over = self._n_put
            self._hurry = bool(self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._n_done >= handed_over or self.failure is not None)
            if self._n_done < handed_over:
                self._tell()

    def close(self) -> None:
        """Commit what waits, fold the write-ahead log into the file, end the thread.

        Raises:
            StoreError: something could not be written, and nobody has been told yet.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        super().close()
        with suppress(sqlite3.Error):  # the log is as good as the file: the next session folds it in
            self._writer.execute("PRAGMA busy_timeout=0")
            self._writer.execute("PRAGMA journal_mode=DELETE")
        self._writer.close()
        if not self._told:
            self._tell()

    def _prepare(self, path: Path, meta: Mapping[str, str], fsync: bool) -> None:
        """Create the tables in an empty file, or compare what an older one says of itself."""
        writer = self._writer
        teach(writer)
        if writer.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("BEGIN IMMEDIATE")
            with writer:
                for table in TABLES:
                    writer.execute(table)
                writer.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        stored = read_meta(writer, path)
        for name in sorted((stored.keys() | meta.keys()) - NOTES):
            there, now = stored.get(name, "nothing"), meta.get(name, "nothing")
            if there != now:
                raise StoreError(f"{path}: {name} is {there} there and {now} now; {AWAY}")
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute(f"PRAGMA synchronous={'FULL' if fsync else 'NORMAL'}")

    def _hand_over(self, *rows: _Waiting) -> None:
        with self._changed:
            self._tell()
            if self._closed:
                raise StoreError(f"{self.path}: is closed")
            if not self._waiting:
                self._since = time.monotonic()
            before = len(self._waiting)
            self._waiting += rows
            self._n_put += len(rows)
            if not before or before < GROUP_ROWS <= len(self._waiting):
                self._changed.notify_all()

    def _tell(self) -> None:
        """Raise the writer's failure, where there is one."""
        if self.failure is not None:
            self._told = True
            raise self.failure

    # ---------------------------------------------------------------------------------- the writing thread

    def _write_all(self) -> None:
        try:
            while group := self._next_group():
                self._commit(group)
                with self._changed:
                    self._n_done += len(group)
                    self._changed.notify_all()
        except Exception as error:  # whatever it is, those who wait must hear of it
            with self._changed:
                self.failure = (
                    error if isinstance(error, StoreError) else StoreError(f"{self.path}: {error!r}")
                )
                self._changed.notify_all()

    def _next_group(self) -> list[_Waiting]:
        """Wait for rows, then a little for more; empty when the journal is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            left = self._since + GATHER_S - time.monotonic()
            self._changed.wait_for(self._full, timeout=max(0.0, left))
            group, self._waiting = self._waiting, []
            self._hurry = False
            return group

    def _full(self) -> bool:
        return self._hurry or self._closed or len(self._waiting) >= GROUP_ROWS

    def _commit(self, group: Sequence[_Waiting]) -> None:
        outcomes = [each for each in group if isinstance(each, Outcome)]
        made = [each for each in group if isinstance(each, Rows)]
        records = [record for each in group if not isinstance(each, Outcome | Rows) for record in each]
        replies = chain(map(reply_row, outcomes), *(each.replies for each in made))
        items = chain(map(item_row, records), *(each.items for each in made))
        with self._writing, store_errors(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            with self._writer:
                self._insert(_PUT_REPLIES, replies)
                self._insert(_PUT_ITEMS, items)
        for each in made:
            each.done()
        if outcomes and self.on_commit is not None:
            self.on_commit([outcome.request.key for outcome in outcomes])

    def _insert(self, statement: str, rows: Iterator[Sequence[object]]) -> int:
        """Insert rows, many a statement; how many there were."""
        count = 0
        while chunk := list(islice(rows, _CHUNK)):
            values = ", ".join([f"({', '.join('?' * len(chunk[0]))})"] * len(chunk))
            self._writer.execute(statement.format(values), list(chain.from_iterable(chunk)))
            count += len(chunk)
        return count
