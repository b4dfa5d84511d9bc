"""Every error this program raises on purpose.

    HarnessError
    ├─ UsageError            ours: settings or input are wrong; found before the first request (exit 2)
    │  └─ BadRows            rows that are no items, by place and field
    ├─ RowError              one row is no item; whoever reads rows adds the place
    │  └─ FieldError         one of its fields is wrong
    ├─ EndpointRefused       the endpoint as a whole is unusable: it stops, others go on (exit 4)
    ├─ ReplyError            theirs: a reply does not match the wire format or the request
    │  └─ TruncatedReply     its body was cut on the way: worth another attempt
    ├─ TemplateError         a chat template cannot render a prompt: the item is unscored
    │  └─ TemplateRefused    it says by itself that it does not take this chat
    └─ StoreError            a run's files cannot be read or written

Foreign exceptions are translated once, at the edge where they appear. `Stopped` is no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from traceback import format_exception_only, walk_tb


class HarnessError(Exception):
    """Base of all errors below; its text is one line meant for a person."""


class Stopped(Exception):
    """Raised where somebody would wait or send while the run is being stopped; says the cap that stops it,
    where one does."""


class UsageError(HarnessError):
    """Settings or input are wrong; the text names the flag and the way out."""


class BadRows(UsageError):
    """Some rows of a split are no items; the text lists the first of them by place and field."""


class RowError(HarnessError):
    """A row is no item: it cannot be read, a field of it is wrong, or a task's code fails on it."""


class FieldError(RowError):
    """One field of a row is missing or wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field {field!r}: {problem}")
        self.field = field
        self.problem = problem


class EndpointRefused(HarnessError):
    """The endpoint refuses every request (401, 403, 404) or stayed down beyond our patience.

    Attributes:
        reason: the status or fault that every request would meet; empty where it stayed down.
    """

    def __init__(self, said: str = "", reason: str = "") -> None:
        super().__init__(said)
        self.reason = reason


class ReplyError(HarnessError):
    """A reply that must not be believed: wrong shape, wrong ids, wrong count, impossible values.

    Attributes:
        about: "ids", "count" or "values"; empty where it is about anything else.
    """

    def __init__(self, said: str = "", about: str = "") -> None:
        super().__init__(said)
        self.about = about


class TruncatedReply(ReplyError):
    """A reply whose body ends too early or is no JSON at all; the next attempt may bring it whole."""


class TemplateError(HarnessError):
    """A chat template cannot render a prompt."""


class TemplateRefused(TemplateError):
    """A chat template says by itself that it does not take a chat, such as one with a system message."""


class StoreError(HarnessError):
    """A run's folder or journal cannot be read or written."""


def foreign(error: BaseException) -> str:
    """A foreign exception in one line: its kind, what it says, and where in the code that was called."""
    said = " ".join(format_exception_only(error)[-1].split())
    said = said if len(said) <= 300 else said[:297] + "..."
    frames = [] if error.__traceback__ is None else walk_tb(error.__traceback__.tb_next)
    places = [(frame.f_code.co_filename, line) for frame, line in frames]
    places = [each for each in places if "importlib" not in each[0]]
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno or 1)]
    return f"{said} ({PurePath(places[0][0]).name} line {places[0][1]})" if places else said


def check_margin(name: str, margin: float) -> None:
    """Refuse a margin that cannot be meant: 1 would be written for one point, which is 0.01."""
    if not 0 <= margin < 1:
        raise UsageError(f"{name} {margin:g}: must be between 0 and 1 (0.01 is one point)")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A closing sentence for an error about an unknown name: the nearest known ones, else all."""
    from difflib import get_close_matches  # not sooner: `--help` makes no mistake

    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known: {', '.join(known)}."
