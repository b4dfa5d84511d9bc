"""Rows of a journal file, as SQLite gets them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.exchange import Outcome, Reply, ScoreRequest
from harness.layout import item_row, reply_row
from harness.scoring.scores import AsideRecord, ItemRecord

RECORD = ItemRecord(
    ordinal=0,
    task="toy",
    subject="",
    shots=0,
    index=0,
    id="",
    gold=(0,),
    cluster="",
    n_chars=(1, 2),
    n_bytes=(1, 2),
    prompt_hash="ab" * 32,
    context_sha256=("ab" * 32,) * 2,
    keys=(b"k" * 16, b"l" * 16),
    asides=(AsideRecord("empty", (b"m" * 16,)),),
)
REQUEST = ScoreRequest(b"k" * 16, [1, 2], [3])
REPLY = Reply([3], [-0.5], ({" a": -0.5},))


@pytest.mark.parametrize(
    "row",
    [
        item_row(RECORD),
        item_row(replace(RECORD, asides=(), keys=(), prompt_hash="")),
        reply_row(Outcome(REQUEST, REPLY)),
        reply_row(Outcome(REQUEST, REPLY, read_from=b"l" * 16)),
    ],
)
def test_blobs_are_bound_without_an_adapter(row: tuple[object, ...]) -> None:
    """No cell is `bytes`, which sqlite3 binds several times as slowly as `bytearray`."""
    assert not any(isinstance(cell, bytes) for cell in row)
    assert any(isinstance(cell, bytearray) for cell in row)
