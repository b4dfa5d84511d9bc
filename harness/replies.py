"""Reading a journal file: replies, scores, counts.

Reading writes nothing. This module does not know who fills the file; how its rows are packed stands in
`layout`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.caps import Volume
from harness.exchange import Failure
from harness.journalfile import LOOKUP, any_text, any_texts, open_to_read, read_meta, select, store_errors
from harness.layout import (
    ADOPTED,
    CHECKED,
    KEY_BYTES,
    REPLY_COLUMNS,
    aside_names,
    item_record,
    numbers,
    pieces,
    row_is_sound,
    sound,
)
from harness.scoring.scores import Answer, Answered, ItemRecord, ItemScore, score_item

_SOUND = f"{', '.join(CHECKED)}, checksum"
_ANSWERS = f"SELECT {_SOUND}, reason, detail, status FROM replies WHERE key IN"
_SUM, _LOGPROBS, _GREEDY = map(CHECKED.index, ("sum", "token_logprobs", "greedy"))
DAMAGED = Failure("damaged", "the journal was changed on disk; the command of the run asks again")
"""What a row is whose checksum is wrong, whatever it says."""
_BATCH = 256
"""Items read at a time: memory stays flat, queries stay few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStats:
    """What a journal holds in all, whether this run asks for it or not."""

    replies: int = 0
    read: int = 0
    """Choices whose log-probability was read off the reply to another request."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """How many requests failed for good, by reason."""
    attempts: int = 0
    """How often these requests were sent, by the sessions that ended them."""
    context_tokens: int = 0
    """Tokens of contexts, as often as they were sent."""
    forced_tokens: int = 0
    """Tokens of continuations likewise."""
    prompt_tokens: int | None = None
    """As the endpoint counted; None where it never said."""
    completion_tokens: int | None = None
    cached_tokens: int | None = None


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
            self._reader = open_to_read(path)
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
            found = [text for (text,) in select(self._reader, query, keys) if text]
        return {key for text in found for key in pieces(bytes.fromhex(text), KEY_BYTES)}

    def may_answer(self) -> bool:
        """Whether any request of a session that begins now may have a reply."""
        with self._lock, store_errors(self.path):
            query = "SELECT EXISTS(SELECT 1 FROM replies WHERE sum IS NOT NULL)"
            return bool(self._reader.execute(query).fetchone()[0])

    def rows_of(self, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """The rows of those of these requests that have a reply, as they are stored, damaged ones apart."""
        query = f"SELECT {', '.join(REPLY_COLUMNS)} FROM replies WHERE sum IS NOT NULL AND key IN"
        with self._lock, store_errors(self.path), any_texts(self._reader):
            return [tuple(row) for row in select(self._reader, query, keys) if row_is_sound(row)]

    def attempts_of(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """How often those of these requests were sent that a row tells of, be it of a failure."""
        query = "SELECT key, attempts FROM replies WHERE key IN"
        with self._lock, store_errors(self.path):
            return {bytes(key): attempts for key, attempts in select(self._reader, query, keys)}

    def has_planned(self, ordinals: Sequence[range]) -> bool:
        """Whether an item with one of these ordinals was ever planned."""
        query = "SELECT EXISTS(SELECT 1 FROM items WHERE ordinal >= ? AND ordinal < ? AND prompt_hash != x'')"
        with self._lock, store_errors(self.path):
            rows = (self._reader.execute(query, (each.start, each.stop)).fetchone() for each in ordinals)
            return any(found for (found,) in rows)

    def adopted(self) -> Volume:
        """What the replies took that were taken over from other journals."""
        return Volume(**json.loads(self.meta.get(ADOPTED, "{}")))

    def scores(self) -> Iterator[ItemScore]:
        """The score of each item, in order of the run, from one state of the file; memory stays flat."""
        with store_errors(self.path), closing(open_to_read(self.path)) as connection:
            connection.execute("BEGIN")
            items = connection.execute("SELECT * FROM items ORDER BY ordinal")
            while rows := items.fetchmany(_BATCH):
                yield from _scored(connection, [item_record(row) for row in rows])

    def scores_of(self, records: Sequence[ItemRecord]) -> list[ItemScore]:
        """The scores of some items, in this order, whether the file has the items or not."""
        with self._lock, store_errors(self.path):
            return list(_scored(self._reader, records))

    def records_at(self, places: Collection[tuple[str, str, int]]) -> dict[tuple[str, str, int], ItemRecord]:
        """The items at these places (task, subject, index), as they were last planned."""
        query = 'SELECT ordinal, task, subject, "index" FROM items'
        with self._lock, store_errors(self.path):
            rows = self._reader.execute(query)
            wanted = [ordinal for ordinal, *place in rows if tuple(place) in places]
            marks = (wanted[start : start + LOOKUP] for start in range(0, len(wanted), LOOKUP))
            found = [
                item_record(row)
                for part in marks
                for row in self._reader.execute(
                    f"SELECT * FROM items WHERE ordinal IN ({','.join('?' * len(part))})", part
                )
            ]
        return {(each.task, each.subject, each.index): each for each in found}

    def records_of(self, ordinals: Sequence[int]) -> list[ItemRecord]:
        """The items of these ordinals, as they were last planned, in the order of the run."""
        found = []
        with self._lock, store_errors(self.path):
            for start in range(0, len(ordinals), LOOKUP):
                part = ordinals[start : start + LOOKUP]
                query = f"SELECT * FROM items WHERE ordinal IN ({','.join('?' * len(part))}) ORDER BY ordinal"
                found += [item_record(row) for row in self._reader.execute(query, part)]
        return sorted(found, key=lambda each: each.ordinal)

    def asked_by_task(self) -> dict[str, tuple[int, int, int]]:
        """By task: items whose choices are all answered, the requests that these took, and their tokens, of
        prompts and forced; what items share is counted for each, what was read off other replies for none."""
        query = """WITH RECURSIVE choices(at) AS
            (SELECT 0 UNION ALL
            SELECT at + 1 FROM choices WHERE at < (SELECT max(length(keys)) / ? FROM items))
            SELECT task, count(*), sum(requests), sum(tokens) FROM
            (SELECT task, count(*) FILTER (WHERE read_from IS NULL) AS requests,
            coalesce(sum(n_context + length(forced_ids) / 4) FILTER (WHERE read_from IS NULL), 0) AS tokens
            FROM items JOIN choices ON at < length(keys) / ?
            JOIN replies ON key = substr(keys, at * ? + 1, ?) AND sum IS NOT NULL
            GROUP BY ordinal HAVING count(*) = length(keys) / ?) GROUP BY task"""
        with store_errors(self.path), closing(open_to_read(self.path)) as connection:
            return {task: (*counts,) for task, *counts in connection.execute(query, (KEY_BYTES,) * 5)}

    def logprobs(self, keys: Sequence[bytes]) -> dict[bytes, tuple[float, ...]]:
        """Token log-probabilities of those of these requests that have a reply, nats."""
        query = f"SELECT {_SOUND} FROM replies WHERE sum IS NOT NULL AND key IN"
        with self._lock, store_errors(self.path), any_texts(self._reader):
            rows = select(self._reader, query, keys)
            return {bytes(row[0]): numbers(row[_LOGPROBS]) for row in rows if sound(row)}

    def counted_apart(self) -> tuple[int, int, int]:
        """Replies whose endpoint counted another number of prompt tokens than the context has: how many, and
        the least and the largest difference (counted less sent)."""
        query = """SELECT count(*), coalesce(min(apart), 0), coalesce(max(apart), 0) FROM
            (SELECT prompt_tokens - n_context AS apart FROM replies
            WHERE sum IS NOT NULL AND read_from IS NULL) WHERE apart != 0"""
        with self._lock, store_errors(self.path):
            count, least, most = self._reader.execute(query).fetchone()
        return count, least, most

    def planned_keys(self) -> Iterator[tuple[str, int, str, int, bytes]]:
        """Task, shots, subject and index of each item, and the keys of its choices one after another."""
        query = 'SELECT task, shots, subject, "index", keys FROM items ORDER BY ordinal'
        with store_errors(self.path), closing(open_to_read(self.path)) as connection:
            yield from connection.execute(query)

    def asides(self) -> set[tuple[str, str]]:
        """Task and name of everything that is asked beside items."""
        with store_errors(self.path), closing(open_to_read(self.path)) as connection:
            rows = connection.execute("SELECT task, asides FROM items")
            return {(task, name) for task, packed in rows for name in aside_names(packed)}

    def tokens(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Key, forced ids and token log-probabilities of each reply, packed as stored, in any order."""
        query = f"SELECT {_SOUND} FROM replies WHERE sum IS NOT NULL"
        with store_errors(self.path), closing(open_to_read(self.path)) as connection:
            connection.text_factory = any_text
            yield from ((row[0], row[1], row[_LOGPROBS]) for row in connection.execute(query) if sound(row))

    def latencies(self) -> Iterator[tuple[float, int]]:
        """Milliseconds and attempts of each request that has a reply, in the order in which they ended."""
        query = (
            "SELECT latency_ms, attempts FROM replies"
            " WHERE sum IS NOT NULL AND read_from IS NULL ORDER BY rowid"
        )
        with store_errors(self.path), closing(open_to_read(self.path)) as connection:
            yield from connection.execute(query)

    def stats(self) -> JournalStats:
        """Counts over all that is stored; what other journals sent is not among the attempts and tokens."""
        adopted = self.adopted()
        with self._lock, store_errors(self.path), any_texts(self._reader):
            replies, read, attempts, context, forced, prompt, completion, cached = self._reader.execute(
                "SELECT count(sum) FILTER (WHERE read_from IS NULL),"
                " count(sum) FILTER (WHERE read_from IS NOT NULL), coalesce(sum(attempts), 0),"
                " coalesce(sum(attempts * n_context), 0),"
                " coalesce(sum(attempts * length(forced_ids) / 4), 0),"
                " sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens) FROM replies"
            ).fetchone()
            failures = self._reader.execute(
                "SELECT coalesce(reason, ?), count(*) FROM replies WHERE sum IS NULL AND read_from IS NULL"
                " GROUP BY 1 ORDER BY 1",
                (DAMAGED.reason,),
            ).fetchall()
        return JournalStats(
            replies=replies,
            read=read,
            failures={_shown(reason): count for reason, count in failures},
            attempts=attempts - adopted.requests,
            context_tokens=context - adopted.prompt_tokens,
            forced_tokens=forced - adopted.forced_tokens,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
        )


def _shown(text: str) -> str:
    """Text that can be written."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _scored(connection: sqlite3.Connection, records: Sequence[ItemRecord]) -> Iterator[ItemScore]:
    answers = _answers(connection, [key for record in records for key in record.all_keys()])
    for record in records:
        yield score_item(record, answers)


def _answers(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Answer]:
    with any_texts(connection):
        return {row[0]: _answer(row) for row in select(connection, _ANSWERS, keys)}


def _answer(row: Sequence[Any]) -> Answer:
    if not sound(row):
        return DAMAGED
    *_, reason, detail, status = row
    if (total := row[_SUM]) is None:
        return DAMAGED if reason is None else Failure(_shown(reason), _shown(detail or ""), status)
    return Answered(total, None if (greedy := row[_GREEDY]) is None else bool(greedy))
