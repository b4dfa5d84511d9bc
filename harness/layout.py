"""The layout of a journal file: its tables, and what its rows mean.

One SQLite file holds what was asked of one endpoint (`items`) and what came back (`replies`);
`results/README.md` specifies it. This module opens no file.

Rows hold blobs as `bytearray`: what is `bytes` sqlite3 takes only after asking for an adapter, and binding a
row with nine of them then takes twice as long.
"""

from __future__ import annotations

import sqlite3
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from harness.exchange import Outcome
from harness.scoring.scores import AsideRecord, ItemRecord, summed

SCHEMA = "4"
"""Of the tables below; a file of another one is refused."""

ITEMS = """CREATE TABLE items (
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
    mode TEXT NOT NULL,
    problem TEXT NOT NULL,
    asides BLOB NOT NULL
)"""
TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE replies (
        key BLOB PRIMARY KEY NOT NULL,
        forced_ids BLOB NOT NULL,
        n_context INTEGER NOT NULL,
        read_from BLOB,
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
        checksum INTEGER NOT NULL,
        CHECK ((sum IS NULL) = (reason IS NOT NULL))
    )""",
    ITEMS,
)

ITEM_TYPES = dict(line.strip(" ,").split()[:2] for line in ITEMS.splitlines()[1:-1])
REPLY_TYPES = dict(
    line.strip(" ,").split()[:2] for line in TABLES[1].splitlines()[1:-1] if "CHECK" not in line
)
"""What SQL calls the columns, and their types."""
ITEM_COLUMNS, REPLY_COLUMNS = tuple(ITEM_TYPES), tuple(REPLY_TYPES)
"""As SQL names them."""
CHECKED = ("key", "forced_ids", "read_from", "sum", "token_logprobs", "top_logprobs", "greedy")
"""Those of `replies` that its checksum is of: all that scores are made from."""
Blob = bytes | bytearray
_NUMBERS = struct.Struct("<IIIIIdb")
_Packed = TypeVar("_Packed", bytes, str)
SHORTCUT = "shortcut"
"""The row of `meta` that says, as JSON, what shows that choices may be read off alternatives: once it is
known, while all other rows are there from the start."""
WATCHED = "watched"
"""The row that says, as JSON, when the endpoint was asked beside its items, and what came of it."""
ADOPTED = "adopted"
"""The row that says, as JSON, what the replies took to send that were taken over from other journals."""
NOTES = frozenset({SHORTCUT, WATCHED, ADOPTED})
"""The rows of `meta` that change."""
SHARD = "shard"
"""The row that names the shard whose replies a journal has; none in that of a whole run."""
KEY_BYTES = 16
_HASH_BYTES = 32
_ASIDES = msgspec.msgpack.Decoder(list[tuple[str, bytes, str]])
NO_ASIDES = msgspec.msgpack.encode([])
"""The last column of an item that is asked nothing beside."""
NO_ITEM = "cannot decode an item"
"""What is raised of a row of `items` that is none any more."""


def row_type(types: Mapping[str, str]) -> Any:
    """The type of a row of these columns, for whoever reads one that came over a wire."""
    of = {"BLOB": bytearray, "INTEGER": int | bool, "REAL": float, "TEXT": str}
    return tuple[tuple(of[each] | None for each in types.values())]  # type: ignore[misc]


def reply_row(outcome: Outcome) -> tuple[object, ...]:
    """The row of `replies` for an outcome.

    What only the endpoint chose (texts, counts) is bent until SQLite takes it: one odd reply must not
    stop the writer.
    """
    request = outcome.request
    source = None if outcome.read_from is None else bytearray(outcome.read_from)
    forced_ids = _packed("I", request.forced_ids)
    start = (bytearray(request.key), forced_ids, len(request.context_ids), source)
    ended = (outcome.latency * 1000, outcome.attempts)
    if outcome.failure is not None:
        failure = outcome.failure
        why = (_clean(failure.reason), _clean(failure.detail), failure.status)
        checked = checksum(request.key, forced_ids, source, None, None, None, None)
        return (*start, *(None,) * 7, *ended, *why, checked)
    if outcome.reply is None:
        raise ValueError("an outcome has a reply or a failure")
    reply, usage = outcome.reply, outcome.reply.usage
    top = None
    if reply.top_logprobs is not None:
        top = bytearray(msgspec.msgpack.encode([dict(each) for each in reply.top_logprobs]))
    counts = map(_count, (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens))
    said = (summed(reply), _packed("d", reply.token_logprobs), top, reply.greedy)
    return (
        *start,
        *said,
        *counts,
        *ended,
        None,
        None,
        None,
        checksum(request.key, forced_ids, source, *said),
    )


def checksum(
    key: Blob,
    forced_ids: Blob,
    read_from: Blob | None,
    sum: float | None,
    token_logprobs: Blob | None,
    top_logprobs: Blob | None,
    greedy: bool | int | None,
) -> int:
    """CRC-32 of what scores are made from, as it is stored: a disk's changed bit shows."""
    parts = (key, forced_ids, read_from or b"", token_logprobs or b"", top_logprobs or b"")
    numbers = _NUMBERS.pack(*map(len, parts), 1.0 if sum is None else sum, -1 if greedy is None else greedy)
    return zlib.crc32(b"".join(parts), zlib.crc32(numbers))


def sound(row: Sequence[Any]) -> bool:
    """Whether a row says what was written; it begins with the columns `CHECKED` and the checksum."""
    try:
        return bool(checksum(*row[: len(CHECKED)]) == row[len(CHECKED)])
    except (TypeError, struct.error):  # a cell is of another type by now
        return False


def row_is_sound(row: Sequence[Any]) -> bool:
    """Likewise of a row that has all columns of `replies`."""
    return sound([row[at] for at in _AT])


_AT = tuple(REPLY_COLUMNS.index(name) for name in (*CHECKED, "checksum"))


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
        bytearray.fromhex(record.prompt_hash),
        bytearray.fromhex("".join(record.context_sha256)),
        bytearray().join(record.keys),
        _packed("I", record.n_tokens),
        record.mode,
        record.problem,
        bytearray(
            msgspec.msgpack.encode(
                [(aside.name, b"".join(aside.keys), aside.problem) for aside in record.asides]
            )
        ),
    )


def item_record(row: Sequence[Any]) -> ItemRecord:
    """The record of a row of `items`.

    Raises:
        sqlite3.DatabaseError: it is none any more, as a disk may have it.
    """
    try:
        return _record(row)
    except (TypeError, AttributeError, ValueError, struct.error, msgspec.MsgspecError) as error:
        raise sqlite3.DatabaseError(NO_ITEM) from error


def _record(row: Sequence[Any]) -> ItemRecord:
    ordinal, task, subject, shots, index, id, gold, cluster, *packed, mode, problem, asides = row
    n_chars, n_bytes, n_words, prompt_hash, context_sha256, keys, n_tokens = packed
    return ItemRecord(
        ordinal=ordinal,
        task=task,
        subject=subject,
        shots=shots,
        index=index,
        id=id,
        gold=integers(gold),
        cluster=cluster,
        n_chars=integers(n_chars),
        n_bytes=integers(n_bytes),
        n_words=integers(n_words),
        prompt_hash=prompt_hash.hex(),
        context_sha256=pieces(context_sha256.hex(), 2 * _HASH_BYTES),
        keys=pieces(keys, KEY_BYTES),
        n_tokens=integers(n_tokens),
        mode=mode,
        problem=problem,
        asides=tuple(
            [
                AsideRecord(name, pieces(packed_keys, KEY_BYTES), why)
                for name, packed_keys, why in _ASIDES.decode(asides)
            ]
        ),
    )


def aside_names(packed: bytes) -> Iterator[str]:
    """What is asked beside an item, out of its row's last column; raises as `item_record` does."""
    try:
        return (name for name, _, _ in _ASIDES.decode(packed))
    except (TypeError, msgspec.MsgspecError) as error:
        raise sqlite3.DatabaseError(NO_ITEM) from error


def legible(row: str) -> str:
    """SQL: whether what planning filled of a row of `items` can be read; needs `teach`."""
    blobs, texts = ("prompt_hash", "context_sha256", "keys", "n_tokens", "asides"), ("mode", "problem")
    types = {**dict.fromkeys(blobs, "blob"), **dict.fromkeys(texts, "text")}
    typed = " AND ".join(f"typeof({row}.{name}) = '{of}'" for name, of in types.items())
    return f"""(CASE WHEN NOT ({typed} AND length({row}.n_tokens) % 4 = 0) THEN 0
        WHEN {row}.mode NOT GLOB '*[^a-z]*' AND {row}.problem = ''
        AND {row}.asides = x'{NO_ASIDES.hex()}' THEN 1
        ELSE legible(CAST({row}.mode AS BLOB), CAST({row}.problem AS BLOB), {row}.asides) END)"""


def teach(connection: sqlite3.Connection) -> None:
    """Let a connection know `legible`; it is asked where a plain look does not tell."""
    connection.create_function("legible", 3, _legible, deterministic=True)


def _legible(mode: bytes, problem: bytes, asides: bytes) -> bool:
    try:
        mode.decode(), problem.decode(), _ASIDES.decode(asides)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return False
    return True


def _packed(kind: Literal["I", "d"], numbers: Sequence[float]) -> bytearray:
    """Little-endian uint32 or float64, whatever the machine."""
    packed = array(kind, numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return bytearray(packed)


def integers(packed: bytes) -> tuple[int, ...]:
    """Packed uint32."""
    return struct.unpack(f"<{len(packed) // 4}I", packed)


def numbers(packed: bytes) -> tuple[float, ...]:
    """Packed float64."""
    return struct.unpack(f"<{len(packed) // 8}d", packed)


def pieces(packed: _Packed, size: int) -> tuple[_Packed, ...]:
    """Packed bytes or hexadecimal digits, so many at a time."""
    return tuple([packed[start : start + size] for start in range(0, len(packed), size)])


def _clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode(errors="replace").decode()


def _count(number: int | None) -> int | None:
    """A count that can be stored and summed up; None where it is none."""
    return number if number is not None and 0 <= number < 2**32 else None
