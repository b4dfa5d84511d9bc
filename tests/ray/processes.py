"""Processes of this machine, by the files of the system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def running() -> Iterator[tuple[int, int]]:
    """The id of each process that has not ended, and its parent's."""
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and (of := parent(int(each.name))):
            yield int(each.name), of


def parent(pid: int) -> int:
    """The parent of a process; 0 where it has ended, or has none."""
    try:
        state, of, *_ = content(pid, "stat").decode(errors="replace").rpartition(")")[2].split()
    except ValueError:
        return 0
    return 0 if state == "Z" else int(of)


def content(pid: int, name: str) -> bytes:
    """A file about a process; empty where that has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def below(pid: int) -> set[int]:
    """What a process has started, directly or not, and itself."""
    parents = dict(running())
    found, new = {pid}, {pid}
    while new := {each for each, of in parents.items() if of in new} - found:
        found |= new
    return found


def named(name: str) -> list[int]:
    """The processes below this one that call themselves so."""
    return [each for each in below(os.getpid()) if content(each, "cmdline").startswith(name.encode())]
