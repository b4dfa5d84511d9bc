"""Which of two rows stays where two journals have one each; pure.

Of any two rows, whoever compares them, the same one stays, and of three whatever two were compared first: so
journals can be folded in any order and any number of times. What is damaged gives way to what is not, a
failure to a reply, a reply that was read off alternatives to a forced one; of two that rank alike the one
whose content is the greater stays. Attempts are the most that either counts.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from harness import layout
from harness.layout import CHECKED, KEY_BYTES, REPLY_COLUMNS, REPLY_TYPES, TABLES, sound
from harness.plan import FORCED

_CONTENT = tuple(name for name in REPLY_COLUMNS if name not in ("key", "attempts"))

PLANNED = ("prompt_hash", "context_sha256", "keys", "n_tokens", "mode", "problem", "asides")
"""Columns of `items` that planning fills."""
_PLACE = ("task", "subject", '"index"', "shots", "id", "gold", "n_bytes")
"""Those by which an item is the same."""


def same_item(one: str, other: str) -> str:
    """SQL: whether the rows of two tables of items are the same item."""
    return " AND ".join(f"{one}.{name} = {other}.{name}" for name in _PLACE)


def _rank(row: str) -> str:
    checked = ", ".join(f"{row}.{name}" for name in (*CHECKED, "checksum"))
    return f"""CASE WHEN NOT ({_typed(row)}) THEN 0 WHEN NOT sound({checked}) THEN 0
        WHEN {row}.sum IS NULL THEN 1 WHEN {row}.read_from IS NOT NULL THEN 2 ELSE 3 END"""


def _typed(row: str) -> str:
    """SQL: whether cells are of the types that were written: only then can each be handed to `sound`."""
    types = {"REAL": "'real', 'integer', 'null'", "BLOB": "'blob', 'null'", "INTEGER": "'integer', 'null'"}
    return " AND ".join(
        f"typeof({row}.{name}) IN ({types[REPLY_TYPES[name]]})" for name in (*CHECKED, "checksum")
    )


def _text(row: str) -> str:
    """All of a row's content as text, by which rows that rank alike are told apart."""
    return " || ',' || ".join(f"quote({row}.{name})" for name in _CONTENT)


_EQUAL = " AND ".join(f"excluded.{name} IS replies.{name}" for name in _CONTENT)
_STAYS = f"""(({_rank("excluded")}) > ({_rank("replies")}) OR ({_rank("excluded")}) = ({_rank("replies")})
    AND {_text("excluded")} > {_text("replies")})"""
_TAKE = ", ".join(f"{name} = CASE WHEN {_STAYS} THEN excluded.{name} ELSE {name} END" for name in _CONTENT)

FOLDED = f"""ON CONFLICT (key) DO UPDATE SET {_TAKE},
    attempts = max(replies.attempts, excluded.attempts)
    WHERE excluded.attempts > replies.attempts OR NOT ({_EQUAL})"""
"""SQL: the end of an INSERT into `replies`, after which of each key the right row is there; for a connection
that knows `sound`."""

_NEVER_NULL = [line.split()[0] for line in TABLES[1].splitlines()[1:-1] if "NOT NULL," in line]
FITS = " AND ".join([f"typeof({name}) != 'null'" for name in _NEVER_NULL])  # IS NULL is not looked up there
FITS += " AND (sum IS NULL) = (reason IS NOT NULL)"
"""SQL: whether a row of `replies` may stand in such a table at all; one that a disk changed need not."""


def teach(connection: sqlite3.Connection) -> None:
    """Let a connection know `sound`, by which a damaged row is told; it is asked where two rows meet. And
    `legible`, by which a damaged item is told."""
    layout.teach(connection)
    connection.create_function("sound", len(CHECKED) + 1, lambda *row: sound(row), deterministic=True)


def better_plan(rows: Collection[Sequence[Any]], answered: Collection[bytes]) -> Sequence[Any]:
    """Of several plans of one item the one that stays.

    One whose choices all have replies comes first, then one that can be asked at all, then one that forces
    each choice, then the one that asks most beside the item.

    Args:
        rows: of each the columns `PLANNED`.
        answered: keys that have a reply.
    """

    def rank(row: Sequence[Any]) -> tuple[Any, ...]:
        named = dict(zip(PLANNED, row, strict=True))
        keys = {bytes(each) for each in _keys(named["keys"])}
        done = bool(keys) and keys <= set(answered)
        return done, not named["problem"], named["mode"] == FORCED, len(named["asides"]), tuple(row)

    return max(rows, key=rank)


def keys_of(rows: Iterable[Sequence[Any]]) -> list[bytes]:
    """The keys of the choices of some plans, each once."""
    return list({key: None for row in rows for key in _keys(row[PLANNED.index("keys")])})


def _keys(packed: bytes) -> list[bytes]:
    return [packed[start : start + KEY_BYTES] for start in range(0, len(packed), KEY_BYTES)]


def joined_evidence(texts: Iterable[str]) -> str:
    """What several journals say of reading choices off alternatives, as one: that it went wrong weighs most,
    and differences are the largest that were seen."""
    said: list[dict[str, Any]] = [json.loads(text) for text in texts]
    amiss = [each for each in said if "why" in each]
    found = max(amiss or said, key=_without_difference)
    return json.dumps({**found, "largest_difference": max(each["largest_difference"] for each in said)})


def _without_difference(said: dict[str, Any]) -> tuple[int, str]:
    others = {name: value for name, value in said.items() if name != "largest_difference"}
    return said.get("checked", 0), json.dumps(others, sort_keys=True)
