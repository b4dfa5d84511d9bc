"""A run's folder: its lock, its identity, its `run.json`, and the first prompts for the eye.

`results/README.md` specifies every file. Whole files are written under another name and renamed, so that
what stands under its own name is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.chatting.chat import Chat, as_sent
from harness.errors import UsageError
from harness.files import file_errors, replacing
from harness.inert import inert, inert_json
from harness.plan import EndpointIdentity
from harness.prompts import Prompt

SCHEMA = 1
PROMPTS_SHOWN = 3
SIGN_SECONDS = 30.0
"""Between two times that a run which goes on writes its `run.json`."""
_SENDS = b"sends\n"
"""In the lock of a folder whose owner sends requests."""
_ONCE_MORE_S = 0.05
"""Seconds after which a lock is tried again: another process may be looking at it, which takes no time."""

Whose = tuple[str, str]
"""Identity and replicate number of an endpoint, as its journal states them."""

_CHANGED = {
    "files": "the content of its files or their settings changed: questions, shots or TOML",
    "code": "the content of its Python file changed",
    "version": "its version changed",
    "hash": "what it asks changed: prompt, shots, columns or metrics",
}
"""What it means that a field of a task's identity differs."""


@dataclass(frozen=True, slots=True)
class SuiteIdentity:
    """What must not change while a run folder is continued; limit, pace and endpoints may."""

    fields: Mapping[str, Any]

    def digest(self) -> str:
        """Eight hexadecimal digits: part of the folder's default name."""
        return blake2b(json.dumps(self.fields, sort_keys=True).encode(), digest_size=4).hexdigest()

    def difference(self, stored: Mapping[str, Any]) -> str | None:
        """The first field that differs from a stored identity, in words; None where none does."""
        for name in dict.fromkeys((*self.fields, *stored)):
            value = self.fields.get(name)
            if stored.get(name) != value:
                if name == "tasks" and isinstance(value, Mapping) and isinstance(stored.get(name), Mapping):
                    return _task_difference(stored[name], value)
                return f"{name} is {_short(stored.get(name))} there and {_short(value)} now"
        return None


class FolderInUse(UsageError):
    """Another process works in a folder."""


class RunFolder:
    """The folder of one run, locked while it is open.

    Raises:
        UsageError: it holds another suite, is no place for a run, or another process works in it.
    """

    def __init__(
        self, path: Path, identity: SuiteIdentity, session: str = "", *, sends: bool = False
    ) -> None:
        """Create or reopen the folder; nothing is written yet but the lock. `session` tells who writes it;
        `sends`: requests, as a run does, whose --out it is."""
        self.path = path
        named = f"--out {path}" if sends else str(path)
        self._session = session
        self.identity = identity
        self.earlier = earlier_manifest(path, identity, named)
        try:
            (path / "journal").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(f"{named}: {error.strerror or error}") from error
        if not _locked_soon(self._lock):
            os.close(self._lock)
            way_out = "wait for it, or choose another --out" if sends else "wait for it to end"
            raise FolderInUse(f"{named}: another run is working in this folder; {way_out}")
        with suppress(OSError):  # on a full disk nobody sends anything either
            os.ftruncate(self._lock, 0)
            os.write(self._lock, _SENDS if sends else b"")

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)

    def journal(self, name: str) -> Path:
        """Where an endpoint's journal stands."""
        return self.path / "journal" / f"{name}.sqlite"

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace `run.json`; that it was is a sign of life."""
        sign = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "every_s": SIGN_SECONDS,
            "session": self._session,
            "pid": os.getpid(),
            "host": platform.node(),
        }
        whole = {"schema": SCHEMA, **manifest, "heartbeat": sign, "identity": dict(self.identity.fields)}
        text = json.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n"
        write_whole(self.path / "run.json", inert_json(text))

    def write_prompts(self, prompts: Iterable[Prompt], chat: Chat | None = None) -> None:
        """The first few prompts of each task, whole, with their choices; in the chat that they become."""
        text = "\n".join(prompt_text(prompt, chat) for prompt in prompts)
        write_whole(self.path / "prompts.txt", inert(text))  # people look at it in a terminal


def sends_now(path: Path) -> bool:
    """Whether a process is at work in a run's folder that sends requests: no `merge`, no `rescore`."""
    try:
        lock = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locked(lock, fcntl.LOCK_SH) and os.read(lock, len(_SENDS)) == _SENDS
    finally:
        os.close(lock)


def _locked_soon(lock: int) -> bool:
    """Take a lock if nobody has it, nor keeps it who only looks at it."""
    if _locked(lock):
        return True
    time.sleep(_ONCE_MORE_S)
    return _locked(lock)


def _locked(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Take a lock if nobody has it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def whose(identity: EndpointIdentity) -> Whose:
    """What the journal of an endpoint states."""
    return identity.text(), str(identity.replicate)


def earlier_manifest(path: Path, identity: SuiteIdentity, named: str = "") -> Mapping[str, Any] | None:
    """The manifest of an earlier run in a folder, which is called so in errors; None where there is none.

    Raises:
        UsageError: it is another suite's folder, or no place for a run.
    """
    file, named = path / "run.json", named or f"--out {path}"
    if path.exists() and not path.is_dir():
        raise UsageError(f"{named}: is a file, not a folder")
    if not file.exists():
        return None
    try:
        earlier = json.loads(file.read_bytes())
        stored = earlier["identity"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{named}: its run.json cannot be read ({error}); move that file away, and the command that made"
            " it writes it anew: replies are in the journals"
        ) from error
    differs = identity.difference(stored)
    if differs:
        raise UsageError(f"{named}: holds a run of another suite: {differs}; choose another --out")
    return dict(earlier)


def write_whole(file: Path, text: str) -> None:
    """Write a file that is never seen half written; raises `StoreError`."""
    with file_errors(file), replacing(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def prompt_text(prompt: Prompt, chat: Chat | None = None) -> str:
    """A whole prompt for the eye, as it is sent, with what is forced after it."""
    item, sent = prompt.item, as_sent(prompt, chat)
    name = " ".join(each for each in (item.task, item.subject, f"item {item.index}") if each)
    right = {item.pairs[gold].choice for gold in item.gold}
    lines = [f"===== {name}, {prompt.shots} shots", sent.contexts[0], "----- continuations (* is right)"]
    marked = zip(item.pairs, sent.continuations, strict=not sent.problem)
    lines += [f"{'*' if pair.choice in right else ' '} {text!r}" for pair, text in marked]
    return "\n".join([*lines, *([sent.problem] if sent.problem else [])]) + "\n"


def _task_difference(stored: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first task that differs, and what of it; the tasks differ."""
    for name in dict.fromkeys((*now, *stored)):
        if name not in stored or name not in now:
            return f"tasks: {name} is asked {'there and not now' if name in stored else 'now and not there'}"
        if stored[name] != now[name]:
            break
    field, there, here = changed_field(stored[name], now[name])
    return f"tasks: {name}: {_CHANGED[field]} ({field} {_short(there)} there, {_short(here)} now)"


def changed_field(one: object, other: object) -> tuple[str, Any, Any]:
    """The field by which the identities of a task differ, and what either has there.

    Args:
        one: a version, or the fields of a task of one's own.
        other: another one.
    """
    both = [each if isinstance(each, Mapping) else {"version": each} for each in (one, other)]
    field = next((each for each in _CHANGED if both[0].get(each) != both[1].get(each)), "version")
    return field, both[0].get(field), both[1].get(field)


def _short(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
