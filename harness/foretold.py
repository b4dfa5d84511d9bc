"""An outlook in words: the table that `plan` prints, and what must be known beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from harness.caps import Volume
from harness.earlier import Earlier
from harness.endpoints import OPENAI
from harness.outlook import Outlook, Part
from harness.pacing import AIM
from harness.prepare import Prepared
from harness.prices import WAY_OUT, caps_of
from harness.reckoning import Figures
from harness.saying import duration, money, tokens
from harness.sending import BLOCK

COLUMNS = ("endpoint", "items", "requests", "prompt tokens", "shared", "forced", "time", "cost")
UNKNOWN = "?"


def outlook_table(outlook: Outlook) -> Table:
    """An endpoint a row, and all of them together."""
    table = Table(
        title=Text(f"What the run takes, into {outlook.folder}"),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "endpoint" else "right", overflow="fold")
    for part in outlook.parts:
        table.add_row(*map(Text, _cells(part.endpoint.label, part.items, part.whole)))
    if len(outlook.parts) > 1:
        items = sum(part.items for part in outlook.parts)
        table.add_row(*map(Text, _cells("in all", items, outlook.whole)))
    return table


def _cells(name: str, items: int, whole: Figures) -> list[str]:
    return [
        name,
        f"{items:,}",
        f"{whole.requests:,}",
        f"{whole.prompt_tokens:,}",
        f"{whole.shared_prefix_tokens:,}",
        f"{whole.forced_tokens:,}",
        UNKNOWN if whole.seconds is None else duration(whole.seconds),
        UNKNOWN if whole.cost is None else money(whole.cost),
    ]


def remarks(prepared: Prepared, outlook: Outlook, spent: Earlier) -> Iterator[str]:
    """What is assumed, what is done already, and what will not go through, one sentence each.

    Args:
        prepared: the run.
        outlook: of it.
        spent: what earlier sessions of it sent.
    """
    yield from prepared.chat_remarks
    yield from (remark for task in prepared.suite.tasks for remark in task.remarks)
    for part in outlook.parts:
        if part.unscorable:
            yield f"{part.endpoint.label}: of {part.unscorable:,} items nothing can be asked"
    yield from _about_choices(outlook.parts)
    yield from _about_looks(outlook.parts)
    if prepared.settings.compare_until_decided:
        yield "--compare-until-decided: that is the most it may take; it stops as soon as all is decided."
    yield (
        "Each request is taken to be answered the first time; a few more are sent to learn how an endpoint"
        " answers."
    )
    if outlook.whole.shared_prefix_tokens:
        yield (
            f"Shared: prompt tokens that a server need not compute if it keeps, in blocks of {BLOCK}, what"
            " prompts begin with. Whether it does, and takes less for them, is not known; cost is of all."
        )
    yield from _about_time(prepared, outlook)
    yield from _about_money(prepared, outlook)
    yield from _answered(outlook)
    yield from _beyond_caps(prepared, outlook, spent)


def _about_choices(parts: Sequence[Part]) -> Iterator[str]:
    """Where one request is to tell of several choices."""
    said: dict[tuple[int, int], list[str]] = {}
    for part in parts:
        if part.choices > part.whole.requests - part.beside:
            said.setdefault((part.top, part.choices), []).append(part.endpoint.label)
    for (top, choices), labels in said.items():
        yield (
            f"{', '.join(labels)}: taken to name all choices of an item among the {top} likeliest tokens,"
            f" where each is one token; with --no-shortcut {choices:,} requests for the"
            " items."
        )


def _about_looks(parts: Sequence[Part]) -> Iterator[str]:
    """What is asked beside the items."""
    said: dict[int, list[str]] = {}
    for part in parts:
        said.setdefault(part.beside, []).append(part.endpoint.label)
    for count, labels in said.items():
        if count:
            yield (
                f"{', '.join(labels)}: {count:,} of these requests are asked beside the items, to probe and"
                " watch the endpoint (--no-probe and --repeat-sample say how many)."
            )


def _about_time(prepared: Prepared, outlook: Outlook) -> Iterator[str]:
    bounded = [part for part in outlook.parts if part.whole.seconds is not None and part.whole.requests]
    free = [part.endpoint.label for part in outlook.parts if part.whole.seconds is None]
    if bounded:
        yield f"Time: at {AIM:.1%} of --rpm and --tpm; a slower endpoint takes longer."
    if free:
        hours = any(prepared.prices.of(label).hour is not None for label in free)
        cost = ", nor what its hours cost," if hours else ""
        yield (
            f"{', '.join(free)}: how long it takes{cost} is not known before it runs: neither --rpm nor --tpm"
            " bounds it."
        )


def _about_money(prepared: Prepared, outlook: Outlook) -> Iterator[str]:
    prices = prepared.prices
    unknown = [part.endpoint.label for part in outlook.parts if not prices.of(part.endpoint.label).known]
    if unknown:
        yield f"{', '.join(unknown)}: no price is known; {WAY_OUT}."
    echoing = [
        part.endpoint.label
        for part in outlook.parts
        if part.endpoint.dialect in OPENAI and prices.of(part.endpoint.label).prompt is not None
    ]
    if echoing:
        yield (
            f"{', '.join(echoing)}: what is forced is sent, and paid, as a part of the prompt; each reply has"
            " a token besides."
        )


def _answered(outlook: Outlook) -> Iterator[str]:
    """What need not be sent any more."""
    for part in outlook.parts:
        if part.answered:
            left = part.left
            time = "" if left.seconds is None else f", {duration(left.seconds)}"
            cost = "" if left.cost is None else f", cost {money(left.cost)}"
            yield (
                f"{part.endpoint.label}: {part.answered:,} of these requests are answered already; left are"
                f" {left.requests:,} requests, {tokens(left.prompt_tokens)} prompt tokens{time}{cost}."
            )


def _beyond_caps(prepared: Prepared, outlook: Outlook, spent: Earlier) -> Iterator[str]:
    """Where the run would be stopped."""
    left, before = outlook.left, spent.volume
    if not left.requests:
        return
    volume = before + Volume(left.requests, left.prompt_tokens, left.forced_tokens)
    cost = spent.cost(prepared.prices) + (left.cost or 0.0)
    flag = caps_of(prepared.settings).beyond(volume.requests, volume.tokens, cost)
    if flag:
        sent = f", with the {before.requests:,} requests sent already" if before.requests else ""
        yield f"This is beyond {flag}{sent}: the run would stop there, with exit code 3."
