"""The layout of a journal file, and reading one.

One SQLite file holds what was asked of one endpoint (`items`) and what came back (`replies`);
`results/README.md` specifies it. Reading writes nothing. This module does not know who fills the file.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import StoreError
from harness.exchange import Failure, Outcome
from harness.scores import Answer, Answered, AsideRecord, ItemRecord, ItemScore, score_item, summed

SCHEMA = "2"
"""Of the tables below; a file of another one is refused."""

TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE replies (
        key BLOB PRIMARY KEY NOT NULL,
        forced_ids BLOB NOT NULL,
        sum REAL,
        token_logprobs BLOB,
        top_logprobs BLOB,
        greedy INTEGER,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        cached_tokens INTEGER,
        latency_ms REAL NOT NULL,
        attempts INTEGER NOT NULL,
        reason TEXT,
        detail TEXT,
        status INTEGER,
        CHECK ((sum IS NULL) = (reason IS NOT NULL))
    )""",
    """CREATE TABLE items (
        ordinal INTEGER PRIMARY KEY,
        task TEXT NOT NULL,
        subject TEXT NOT NULL,
        shots INTEGER NOT NULL,
        "index" INTEGER NOT NULL,
        id TEXT NOT NULL,
        gold BLOB NOT NULL,
        cluster TEXT NOT NULL,
        n_chars BLOB NOT NULL,
        n_bytes BLOB NOT NULL,
        n_words BLOB NOT NULL,
        prompt_hash BLOB NOT NULL,
        context_sha256 BLOB NOT NULL,
        keys BLOB NOT NULL,
        n_tokens BLOB NOT NULL,
        problem TEXT NOT NULL,
        asides BLOB NOT NULL
    )""",
)

KEY_BYTES = 16
_HASH_BYTES = 32
_LOOKUP = 900
"""Keys a query: below the number of parameters that any SQLite allows."""
_ANSWERS = "SELECT key, sum, greedy, reason, detail, status FROM replies WHERE key IN"
_ASIDES = msgspec.msgpack.Decoder(list[tuple[str, bytes, str]])
_BATCH = 256
"""Items read at a time: memory stays flat, queries stay few."""

_WAY_OUT = {
    sqlite3.SQLITE_NOTADB: "is no journal of this program; move it away or choose another --out",
    sqlite3.SQLITE_CORRUPT: "is damaged; move it away (its replies will be asked for again)",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; its folder must exist and be writable",
    sqlite3.SQLITE_READONLY: "cannot be written; its folder must be writable",
    sqlite3.SQLITE_FULL: "the disk is full; make room and give the same command again",
    sqlite3.SQLITE_BUSY: "is in use by another process; wait for it to end",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """What a journal holds in all, whether this run asks for it or not."""

    replies: int
    failures: dict[str, int]
    """How many requests failed for good, by reason."""
    attempts: int
    """How often these requests were sent, by the sessions that ended them."""
    prompt_tokens: int | None
    """As the endpoint counted; None where it never said."""
    completion_tokens: int | None
    cached_tokens: int | None


class StoredReplies:
    """A journal file, opened for reading. Methods may be called from any thread.

    Attributes:
        path: the file.
        meta: what the file says of itself: `schema`, and what its writer stated.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises `StoreError` where it is no journal or cannot be read."""
        self.path = path
        self._lock = threading.Lock()
        with store_errors(path):
            self._reader = _open(path)
            try:
                self.meta = read_meta(self._reader, path)
            except BaseException:
                self._reader.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def answered(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these requests have a reply; a failure is none."""
        # One row for all: each row read gives up the interpreter lock, which a busy event loop returns late.
        query = "SELECT group_concat(hex(key), '') FROM replies WHERE sum IS NOT NULL AND key IN"
        with self._lock, store_errors(self.path):
            found = [text for (text,) in _select(self._reader, query, keys) if text]
        return {key for text in found for key in _pieces(bytes.fromhex(text), KEY_BYTES)}

    def scores(self) -> Iterator[ItemScore]:
        """The score of each item, in order of the run, from one state of the file; memory stays flat."""
        with store_errors(self.path), closing(_open(self.path)) as connection:
            connection.execute("BEGIN")
            items = connection.execute("SELECT * FROM items ORDER BY ordinal")
            while rows := items.fetchmany(_BATCH):
                records = [item_record(row) for row in rows]
                answers = _answers(connection, [key for record in records for key in record.all_keys()])
                for record in records:
                    yield score_item(record, answers)

    def planned_keys(self) -> Iterator[tuple[str, int, str, int, bytes]]:
        """Task, shots, subject and index of each item, and the keys of its choices one after another."""
        query = 'SELECT task, shots, subject, "index", keys FROM items ORDER BY ordinal'
        with store_errors(self.path), closing(_open(self.path)) as connection:
            yield from connection.execute(query)

    def asides(self) -> set[tuple[str, str]]:
        """Task and name of everything that is asked beside items."""
        with store_errors(self.path), closing(_open(self.path)) as connection:
            rows = connection.execute("SELECT task, asides FROM items")
            return {(task, name) for task, packed in rows for name, _, _ in _ASIDES.decode(packed)}

    def tokens(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Key, forced ids and token log-probabilities of each reply, packed as stored, in any order."""
        query = "SELECT key, forced_ids, token_logprobs FROM replies WHERE sum IS NOT NULL"
        with store_errors(self.path), closing(_open(self.path)) as connection:
            yield from connection.execute(query)

    def stats(self) -> JournalStats:
        """Counts over all that is stored."""
        with self._lock, store_errors(self.path):
            replies, attempts, prompt, completion, cached = self._reader.execute(
                "SELECT count(sum), coalesce(sum(attempts), 0), sum(prompt_tokens), sum(completion_tokens),"
                " sum(cached_tokens) FROM replies"
            ).fetchone()
            failures = self._reader.execute(
                "SELECT reason, count(*) FROM replies WHERE sum IS NULL GROUP BY reason ORDER BY reason"
            ).fetchall()
        return JournalStats(
            replies=replies,
            failures=dict(failures),
            attempts=attempts,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
        )


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into one `StoreError` that names the file and the way out."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bytes refine the lowest
        raise StoreError(f"{path}: {_WAY_OUT.get(code) or error}") from error


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """The table `meta`; raises `StoreError` where there is none, or it states another schema."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "replies", "items"} <= tables:
        raise StoreError(f"{path}: {_WAY_OUT[sqlite3.SQLITE_NOTADB]}")
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    if meta.get("schema") != SCHEMA:
        raise StoreError(
            f"{path}: has schema {meta.get('schema')}, this version reads {SCHEMA}; choose another --out"
        )
    return meta


def reply_row(outcome: Outcome) -> tuple[object, ...]:
    """The row of `replies` for an outcome.

    What only the endpoint chose (texts, counts) is bent until SQLite takes it: one odd reply must not
    stop the writer.
    """
    request = outcome.request
    start = (request.key, _packed("I", request.forced_ids))
    ended = (outcome.latency * 1000, outcome.attempts)
    if outcome.failure is not None:
        failure = outcome.failure
        return (*start, *(None,) * 7, *ended, _clean(failure.reason), _clean(failure.detail), failure.status)
    if outcome.reply is None:
        raise ValueError("an outcome has a reply or a failure")
    reply, usage = outcome.reply, outcome.reply.usage
    top = None
    if reply.top_logprobs is not None:
        top = msgspec.msgpack.encode([dict(each) for each in reply.top_logprobs])
    counts = map(_count, (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens))
    said = (summed(reply), _packed("d", reply.token_logprobs), top, reply.greedy)
    return (*start, *said, *counts, *ended, None, None, None)


def item_row(record: ItemRecord) -> tuple[object, ...]:
    """The row of `items` for a record; lists become packed little-endian numbers, hashes bytes."""
    return (
        record.ordinal,
        record.task,
        record.subject,
        record.shots,
        record.index,
        record.id,
        _packed("I", record.gold),
        record.cluster,
        _packed("I", record.n_chars),
        _packed("I", record.n_bytes),
        _packed("I", record.n_words),
        bytes.fromhex(record.prompt_hash),
        bytes.fromhex("".join(record.context_sha256)),
        b"".join(record.keys),
        _packed("I", record.n_tokens),
        record.problem,
        msgspec.msgpack.encode(
            [(aside.name, b"".join(aside.keys), aside.problem) for aside in record.asides]
        ),
    )


def item_record(row: Sequence[Any]) -> ItemRecord:
    """The record of a row of `items`."""
    ordinal, task, subject, shots, index, id, gold, cluster, *packed, problem, asides = row
    n_chars, n_bytes, n_words, prompt_hash, context_sha256, keys, n_tokens = packed
    return ItemRecord(
        ordinal=ordinal,
        task=task,
        subject=subject,
        shots=shots,
        index=index,
        id=id,
        gold=_integers(gold),
        cluster=cluster,
        n_chars=_integers(n_chars),
        n_bytes=_integers(n_bytes),
        n_words=_integers(n_words),
        prompt_hash=prompt_hash.hex(),
        context_sha256=tuple(each.hex() for each in _pieces(context_sha256, _HASH_BYTES)),
        keys=_pieces(keys, KEY_BYTES),
        n_tokens=_integers(n_tokens),
        problem=problem,
        asides=tuple(
            AsideRecord(name, _pieces(packed_keys, KEY_BYTES), why)
            for name, packed_keys, why in _ASIDES.decode(asides)
        ),
    )


def _answers(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Answer]:
    rows = _select(connection, _ANSWERS, keys)
    return {
        key: Failure(reason, detail, status)
        if total is None
        else Answered(total, None if greedy is None else bool(greedy))
        for key, total, greedy, reason, detail, status in rows
    }


def _select(connection: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> Iterator[Sequence[Any]]:
    """The rows of a query that ends in `IN`, for any number of keys."""
    for start in range(0, len(keys), _LOOKUP):
        part = keys[start : start + _LOOKUP]
        yield from connection.execute(f"{query} ({','.join('?' * len(part))})", part)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )


def _packed(kind: Literal["I", "d"], numbers: Sequence[float]) -> bytes:
    """Little-endian uint32 or float64, whatever the machine."""
    return struct.pack(f"<{len(numbers)}{kind}", *numbers)


def _integers(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 4}I", packed)


def _pieces(packed: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(packed[start : start + size] for start in range(0, len(packed), size))


def _clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode(errors="replace").decode()


def _count(number: int | None) -> int | None:
    """A count that can be stored and summed up; None where it is none."""
    return number if number is not None and 0 <= number < 2**32 else None
