"""Journals of one endpoint folded into one of them: replies first, then items, then what is noted.

All is done by SQLite in the files, part by part, each part a change that is made wholly or not at all: what
was folded once is folded again without effect, so whoever is killed begins anew. Memory does not grow with
the files. Which row stays is a matter of `rules`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import msgspec

from harness.errors import StoreError
from harness.journal import Journal
from harness.journalfile import any_text, select, store_errors
from harness.layout import ITEM_COLUMNS, REPLY_COLUMNS, SHORTCUT, WATCHED, legible
from harness.mending import failed_row
from harness.merging.rules import (
    FITS,
    FOLDED,
    PLANNED,
    better_plan,
    joined_evidence,
    keys_of,
    same_item,
    teach,
)
from harness.replies import StoredReplies
from harness.watching.kept import Kept, joined, kept

CACHE_KIB = 40_000
"""Of SQLite, for the index of keys, which come in any order: that of a million fits."""
_BATCH = 256
"""Items with two plans that are looked at together."""
_STEPS = 1_000_000
"""Of SQLite's machine, about a tenth of a second, after which it is asked whether to go on."""
_SHARD_AGAIN = "move it away, and give the command of its shard again (its replies will be asked for again)"

_COLUMNS = ", ".join(REPLY_COLUMNS)
_OTHERS = [f"other.{name}" for name in ITEM_COLUMNS if name != "ordinal"]
_FOLD_REPLIES = f"INSERT INTO main.replies SELECT {_COLUMNS} FROM part.replies WHERE {{which}} {FOLDED}"
_FOLD_ROW = f"INSERT INTO main.replies VALUES ({', '.join('?' * len(REPLY_COLUMNS))}) {FOLDED}"
_MISFITS = f"SELECT rowid, key, attempts FROM {{table}} WHERE NOT ({FITS})"
_TAKE = ", ".join(f"{name} = other.{name}" for name in PLANNED)
_BOTH = f"other.ordinal = items.ordinal AND {same_item('other', 'items')} AND other.prompt_hash != x''"
_LISTED = [name for name in ITEM_COLUMNS if name not in PLANNED]
_AS_LISTED = " AND ".join(f"items.{name} IS other.{name}" for name in _LISTED)
_LISTED_ALREADY = f"""SELECT (SELECT count(*) FROM part.items) = (SELECT count(*) FROM main.items)
    AND NOT EXISTS (SELECT 1 FROM part.items AS other LEFT JOIN main.items AS items
    ON items.ordinal = other.ordinal
    WHERE items.ordinal IS NULL OR NOT ({_AS_LISTED}) OR NOT {legible("items")})"""
_PLANS = f"""UPDATE main.items SET {_TAKE} FROM {{table}} AS other
    WHERE {_BOTH} AND {legible("other")}
    AND (items.prompt_hash = x'' AND items.problem = '' OR NOT {legible("items")})"""
_DIFFER = " OR ".join(f"other.{name} != items.{name}" for name in PLANNED)
_TWO_PLANS = f"""SELECT items.ordinal, {", ".join(f"items.{name}" for name in PLANNED)},
    {", ".join(f"other.{name}" for name in PLANNED)} FROM {{table}} AS other
    JOIN main.items AS items ON {_BOTH} WHERE items.prompt_hash != x'' AND ({_DIFFER}) AND {legible("other")}
    AND items.ordinal > ? ORDER BY items.ordinal LIMIT {_BATCH}"""
_PUT_PLAN = f"UPDATE main.items SET {', '.join(f'{name} = ?' for name in PLANNED)} WHERE ordinal = ?"
_ASTRAY = f"""CREATE TEMP TABLE astray AS SELECT other.* FROM {{table}} AS other
    WHERE other.prompt_hash != x'' AND {legible("other")}
    AND NOT EXISTS (SELECT 1 FROM main.items AS items WHERE {_BOTH})"""
"""Items that have no such ordinal in this list: the table was made from another."""
_HERE = f"""CREATE TEMP TABLE here AS SELECT items.ordinal, {", ".join(_OTHERS)} FROM temp.astray AS other
    JOIN main.items AS items ON {same_item("other", "items")}"""


def fold(
    whole: Path,
    parts: Sequence[Path],
    listing: Path | None,
    meta: Mapping[str, str],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Fold journals of one endpoint into the journal of the whole run, which is made if it is not there.

    Args:
        whole: the journal of the run.
        parts: those of shards, which are only read.
        listing: the list of all items of the run; None: that of the journal stays.
        meta: what the journals say of their endpoint.
        stop: asked now and then whether to break off, from the thread of the caller.

    Raises:
        StoreError: one of them cannot be read, or the whole cannot be written; or it was broken off.
    """
    with closing(Journal(whole, meta=meta)):
        pass  # it is there now, and is this endpoint's
    with store_errors(whole), closing(_writer(whole)) as connection:
        connection.set_progress_handler(stop, _STEPS)
        for part in parts:
            with _attached(connection, part):
                _fold_replies(connection)
        if listing is not None:
            _list(connection, listing)
        for part in parts:
            with _attached(connection, part):
                _take_plans(connection, "part.items")
        _fold_notes(connection, whole, parts)
        with suppress(sqlite3.Error):  # somebody reads it: the next who opens it folds the log in
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA journal_mode=DELETE")


def _writer(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file.resolve().as_uri(), uri=True, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    teach(connection)
    return connection


@contextmanager
def _attached(connection: sqlite3.Connection, file: Path, way_out: str = _SHARD_AGAIN) -> Iterator[None]:
    """A file as `part`, only to be read, while one change is made."""
    try:
        connection.execute("ATTACH ? AS part", (f"{file.resolve().as_uri()}?mode=ro",))
    except sqlite3.Error as error:
        raise StoreError(f"{file}: is damaged, or no file; {way_out}") from error
    try:
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            yield
    except sqlite3.Error as error:
        broken_off = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT
        if not broken_off and _at_fault(file):
            raise StoreError(f"{file}: is damaged; {way_out}") from error
        raise
    finally:
        connection.execute("DETACH part")


def _at_fault(file: Path) -> bool:
    """Whether a file that is only read is damaged, and not the one that is written."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute(f"SELECT {', '.join(ITEM_COLUMNS)} FROM items LIMIT 1")
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.Error:
        return True


def _fold_replies(connection: sqlite3.Connection) -> None:
    """Take the replies of a part. Rows that a disk changed so that they may not be are taken as failures, and
    where the whole has such rows they become failures too."""
    try:
        connection.execute(_FOLD_REPLIES.format(which="true"))
    except sqlite3.IntegrityError:
        there, taken = _misfits(connection, "main.replies"), _misfits(connection, "part.replies")
        connection.executemany("DELETE FROM main.replies WHERE rowid = ?", ((row,) for row, *_ in there))
        connection.executemany(_FOLD_ROW, (failed_row(*each) for _, *each in (*there, *taken)))
        connection.execute(_FOLD_REPLIES.format(which=FITS))


def _misfits(connection: sqlite3.Connection, table: str) -> list[tuple[int, object, object]]:
    """Row, key and attempts of those that may not be."""
    connection.text_factory = any_text
    try:
        return connection.execute(_MISFITS.format(table=table)).fetchall()
    finally:
        connection.text_factory = str


def _list(connection: sqlite3.Connection, listing: Path) -> None:
    """Replace the items by those of a list; plans of those that stay are kept."""
    with _attached(connection, listing, "delete it, and run any shard again"):
        if connection.execute(_LISTED_ALREADY).fetchone()[0]:
            return
        connection.execute("CREATE TEMP TABLE own AS SELECT * FROM main.items WHERE prompt_hash != x''")
        connection.execute("DELETE FROM main.items")
        connection.execute("INSERT INTO main.items SELECT * FROM part.items")
        _take_plans(connection, "temp.own")
        connection.execute("DROP TABLE temp.own")


def _take_plans(connection: sqlite3.Connection, table: str) -> None:
    """Take the plans of items that another table has, and of two of one item the better one."""
    _take_in_place(connection, table)
    connection.execute(_ASTRAY.format(table=table))
    connection.execute(_HERE)
    _take_in_place(connection, "temp.here")
    connection.execute("DROP TABLE temp.here")
    connection.execute("DROP TABLE temp.astray")


def _take_in_place(connection: sqlite3.Connection, table: str) -> None:
    """Likewise, where ordinals are the same."""
    connection.execute(_PLANS.format(table=table))
    last = -1
    while rows := connection.execute(_TWO_PLANS.format(table=table), (last,)).fetchall():
        pairs = [(row[1 : 1 + len(PLANNED)], row[1 + len(PLANNED) :]) for row in rows]
        answered = _answered(connection, keys_of(plan for pair in pairs for plan in pair))
        better = [(*better_plan(pair, answered), row[0]) for pair, row in zip(pairs, rows, strict=True)]
        connection.executemany(_PUT_PLAN, better)
        last = rows[-1][0]


def _answered(connection: sqlite3.Connection, keys: Sequence[bytes]) -> set[bytes]:
    query = "SELECT key FROM main.replies WHERE sum IS NOT NULL AND key IN"
    return {bytes(key) for (key,) in select(connection, query, keys)}


def _fold_notes(connection: sqlite3.Connection, whole: Path, parts: Sequence[Path]) -> None:
    """What journals say of alternatives and of looks, as one."""
    with ExitStack() as opened:
        every = [opened.enter_context(closing(StoredReplies(each))) for each in (whole, *parts)]
        shown = [each.meta[SHORTCUT] for each in every if SHORTCUT in each.meta]
        looks = joined([kept(each) for each in every if WATCHED in each.meta])
    notes = {SHORTCUT: joined_evidence(shown)} if shown else {}
    if looks != Kept():
        notes[WATCHED] = msgspec.json.encode(looks).decode()
    connection.executemany("INSERT OR REPLACE INTO main.meta VALUES (?, ?)", notes.items())
