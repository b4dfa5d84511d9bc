"""What a run and its workers tell each other; as bytes: `wire`.

A worker calls, and is answered; what either tells without being asked is a message of its own. Rows are those
of the journal (`layout`), which only the run writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from harness.allotments import Need
from harness.caps import Amount, Volume
from harness.checked import Known
from harness.layout import ITEM_TYPES, REPLY_TYPES, row_type
from harness.pacing.headers import Limits
from harness.pacing.lending import Ask
from harness.settings import RunSettings
from harness.sharding import Piece

if TYPE_CHECKING:
    ReplyRow = tuple[object, ...]
    ItemRow = tuple[object, ...]
else:  # blobs come back as `bytearray`, which SQLite takes sooner
    ReplyRow, ItemRow = row_type(REPLY_TYPES), row_type(ITEM_TYPES)


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages."""


# ------------------------------------------------------------------------------------- the run to a worker


class Begin(_Message, frozen=True):
    """The first message: what to do."""

    name: str
    """Of the worker."""
    part: float
    """Between 0 and 1, another for each: when its checks come, beside those of the others."""
    version: str
    """Of the program."""
    settings: RunSettings
    environ: Mapping[str, str]
    """Variables that hold secrets of endpoints."""
    folder: str
    """Where the command was given: relative paths start there."""
    identity: str
    """The suite's, as JSON: what is read there has to be the same."""
    rows: Mapping[str, Known]
    """What the run has found in the rows of its tasks."""
    leading: Sequence[Piece]
    """The items from which it is learnt how choices are read off alternatives."""
    addresses: Mapping[str, str]
    """Where embedded endpoints are, if the worker is on the same machine; else it serves its own."""
    replies: Mapping[str, int]
    """How many replies the journal of each endpoint holds; endpoints that are not asked are left out."""
    capped: bool
    """Whether there are caps to ask about."""
    gather: float
    """Seconds that the first row of a group waits for others."""
    logs: bool
    """Whether somebody reads what happens."""


class Answer(_Message, frozen=True):
    """What a call came to."""

    call: int
    value: Any = None
    error: str = ""
    """Why there is no value."""
    reason: str | None = None
    """Of `EndpointRefused`, where it is that."""


class Enough(_Message, frozen=True):
    """An endpoint is not to be asked any more."""

    label: str


class Doubt(_Message, frozen=True):
    """Another worker has found that alternatives are not what forcing gives."""

    label: str
    difference: float
    """Nats."""
    why: str


class Stop(_Message, frozen=True):
    """What is in flight ends, and nothing more is sent."""


ToWorker = Begin | Answer | Enough | Doubt | Stop


# ------------------------------------------------------------------------------------- a worker to the run


class Take(_Message, frozen=True):
    """Call for a piece for an endpoint; answered once there is one (`Handed`), or with None, when none ever
    will be."""

    label: str


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """A piece for whoever has called for one."""

    piece: Piece
    texts: bool
    """Whether its texts are to come back."""


class Before(_Message, frozen=True):
    """Call: the endpoint is about to be sent something; may it be?"""

    label: str


class Lookup(_Message, frozen=True):
    """Call: which of these keys have a reply?"""

    label: str
    keys: Sequence[bytes]


class Keep(_Message, frozen=True):
    """Call: write these rows; answered once they are on disk."""

    label: str
    replies: Sequence[ReplyRow]
    items: Sequence[ItemRow]


class Forget(_Message, frozen=True):
    """Call: drop what is stored under these keys."""

    label: str
    keys: Sequence[bytes]


class Note(_Message, frozen=True):
    """What shows that choices may be read off alternatives, to be kept."""

    label: str
    evidence: str


class Lend(_Message, frozen=True):
    """Call for slots of an account's budget; answered with a `Grant`."""

    account: int
    share: str
    ask: Ask


class News(_Message, frozen=True):
    """Call: what does an account allow by now, if it is not what version `seen` of its terms says?"""

    account: int
    seen: int


class Allot(_Message, frozen=True):
    """Call for a part of what the caps of the run leave; answered with an `Allotment`."""

    need: Need


Asks = Take | Before | Lookup | Keep | Forget | Lend | News | Allot


class Call(_Message, frozen=True):
    """A question with its number."""

    call: int
    what: Asks


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What a worker has counted on one endpoint, since it began."""

    items_done: int = 0
    items_unscored: int = 0
    unscorable: Mapping[str, int] = {}
    requests_done: int = 0
    requests_reused: int = 0
    choices_read: int = 0
    in_flight: int = 0
    waiting: int = 0
    """Of those in flight."""
    retries: Mapping[str, int] = {}
    shifted: int = 0
    truncated: int = 0
    message: str = ""
    sent: Volume = msgspec.field(default_factory=Volume)
    planned: Volume = msgspec.field(default_factory=Volume)
    """The forecast."""
    read: int = 0
    """Choices that are to be read, of the forecast."""
    lesson: str = ""
    """Why choices are not read off alternatives, if they are not."""
    tried: bool = False
    """The endpoint was asked whether they may be."""
    found: bool = False
    """They are."""
    open_items: Mapping[str, int] = {}
    """Of `items_done`, `items_unscored`, `shifted` and `truncated`, those of pieces that are not done."""
    open_unscorable: Mapping[str, int] = {}
    """Of `unscorable` likewise."""


class Ready(_Message, frozen=True):
    """The worker has read what it needs."""

    host: str
    pid: int


class Counted(_Message, frozen=True):
    """How far it is."""

    counts: Mapping[str, Counts]
    """By label."""


class Done(_Message, frozen=True):
    """All items of a piece have their outcomes on disk."""

    label: str
    piece: Piece


class Texts(_Message, frozen=True):
    """The texts of a piece, as a Parquet file."""

    piece: Piece
    tokenizer: str
    """Its hash."""
    parquet: bytes


class Refused(_Message, frozen=True):
    """An endpoint must not be asked any more."""

    label: str
    why: str
    reason: str = ""


class Happened(_Message, frozen=True):
    """An event for the log file."""

    name: str
    endpoint: str
    level: int
    fields: Mapping[str, Any]


class GiveBack(_Message, frozen=True):
    """Of earlier grants, what was not used."""

    account: int
    share: str
    requests: int
    tokens: int


class Pause(_Message, frozen=True):
    """An account asks everybody to wait so many seconds."""

    account: int
    seconds: float


class Follow(_Message, frozen=True):
    """An endpoint has told what its account allows."""

    account: int
    limits: Limits


class Settle(_Message, frozen=True):
    """Of an allotment, what was not spent."""

    number: int
    unused: Amount


class Broken(_Message, frozen=True):
    """The worker cannot go on, and neither could another."""

    why: str


class Ended(_Message, frozen=True):
    """The last message: all is told."""


ToRun = (
    Call
    | Note
    | Ready
    | Counted
    | Done
    | Texts
    | Refused
    | Happened
    | GiveBack
    | Pause
    | Follow
    | Settle
    | Broken
    | Ended
)
