"""Settings and hashes of a run, as tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.reports.records import Section
from harness.saying import duration
from harness.stored import Run

_ELSEWHERE = ("endpoint", "json", "out", "log_file")
"""Settings that say nothing of the numbers, or stand in a table of their own."""


def sections_of(run: Run, *, many: bool) -> Iterator[Section]:
    """What `run.json` says of a run.

    Args:
        run: the run.
        many: whether headings must say of which run.
    """
    of = f" of {run.folder.resolve().name}" if many else ""
    told = run.manifest
    yield _settings(told, of)
    yield Section(
        f"Tasks{of}",
        (
            "task",
            "version",
            "hash",
            "shots",
            "split",
            "items",
            "rows",
            "bad rows",
            "source",
            "content SHA-256",
        ),
        tuple(
            (
                name,
                *(_text(task.get(key)) for key in ("version", "hash", "shots", "split", "items", "rows")),
                *(_text(task.get(key)) for key in ("bad_rows", "source", "content_sha256")),
            )
            for name, task in _mapping(told.get("tasks")).items()
        ),
    )
    yield Section(
        f"Endpoints{of}",
        ("endpoint", "format", "URL", "model", "adapter", "replicate", "tokenizer SHA-256"),
        tuple(
            tuple(
                _text(each.get(key))
                for key in (
                    "label",
                    "dialect",
                    "base_url",
                    "model",
                    "adapter",
                    "replicate",
                    "tokenizer_sha256",
                )
            )
            for each in told.get("endpoints", ())
        ),
    )
    yield _counts(told, of)
    yield from _checks(told, of)
    yield Section(f"Program and libraries{of}", ("name", "version"), tuple(_versions(told)))


def _settings(told: Mapping[str, Any], of: str) -> Section:
    settings = _mapping(told.get("settings"))
    rows = [
        (name, _text(value))
        for name, value in settings.items()
        if name not in _ELSEWHERE and value is not None and value not in ([], (), "")
    ]
    timings = _mapping(told.get("timings"))
    seconds = [
        (name.removesuffix("_s"), duration(value))
        for name, value in timings.items()
        if name.endswith("_s") and isinstance(value, int | float) and value
    ]
    return Section(
        f"Settings{of}",
        ("setting", "value"),
        (
            ("suite", _text(told.get("suite"))),
            ("begun", _text(timings.get("begun"))),
            ("status", _text(told.get("status"))),
            *seconds,
            *rows,
        ),
    )


def _counts(told: Mapping[str, Any], of: str) -> Section:
    names = (
        "requests_sent",
        "requests_from_journal",
        "choices_read",
        "boundary_shifted_items",
        "truncated_items",
    )
    rows = []
    for label, counts in _mapping(told.get("counts")).items():
        journal, retries = _mapping(counts.get("journal")), _mapping(counts.get("retries"))
        rows.append(
            (
                label,
                *(_text(counts.get(name)) for name in names),
                ", ".join(f"{reason}: {_text(count)}" for reason, count in retries.items()),
                *(_text(journal.get(name)) for name in ("replies", "context_tokens", "forced_tokens")),
            )
        )
    header = (
        *("endpoint", "requests sent", "answered from the journal", "choices read off alternatives"),
        *("shifted boundaries", "truncated", "retries", "replies in all", "context tokens", "forced tokens"),
    )
    return Section(f"Requests{of}", header, tuple(rows))


def _checks(told: Mapping[str, Any], of: str) -> Iterator[Section]:
    """What was asked of endpoints beside their items, and what came of it."""
    rows = [
        tuple(_text(each.get(name)) for name in ("check", "when", "verdict", "says"))
        for label, checks in _mapping(told.get("checks")).items()
        for each in (
            {**_mapping(check), "check": f"{label}: {_mapping(check).get('check')}"} for check in checks
        )
    ]
    if rows:
        yield Section(f"Checks{of}", ("check", "when", "verdict", "says"), tuple(rows))


def _versions(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "program", _text(told.get("program"))
    for name, version in _mapping(told.get("versions")).items():
        yield name, _text(version)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    """A value of `run.json` for people."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}"
        case str():
            return value
        case list() | tuple() if all(isinstance(each, str) for each in value):
            return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)
