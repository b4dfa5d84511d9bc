"""What the headers of a reply say of an account's limits."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from harness.failures import LONGEST_RETRY_AFTER
from harness.pacing import Limit, Limits, limits_of

NOW = 1_790_000_000.0
"""Seconds since the epoch."""


def read(**headers: str) -> Limits:
    """What is read from headers, written with _ for -."""
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return limits_of(named, now=NOW)


def reset(text: str, **others: str) -> float | None:
    """What a reset means, in seconds."""
    return read(X_RateLimit_Reset_Requests=text, **others).requests.reset


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", LONGEST_RETRY_AFTER),
        ("1m30.5s", 90.5),
        ("250ms", 0.25),
        ("1m250ms", 60.25),
        ("1h2m", LONGEST_RETRY_AFTER),
        ("0", 0),
        ("12", 12),
        ("0.5", 0.5),
        (" 7 ", 7),
        ("900000000", LONGEST_RETRY_AFTER),
        (str(int(NOW) + 20), 20),
        (str(int(NOW) - 20), 0),
        (f"{NOW + 2.5:.3f}", 2.5),
        (str(int(NOW * 1000) + 1500), 1.5),
        (formatdate(NOW + 30, usegmt=True), 30),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1s ago", None),
        ("s", None),
        ("1e3", None),
        ("nan", None),
        ("\u0663", None),
    ],
)
def test_resets_of_every_unit(text: str, seconds: float | None) -> None:
    """Durations, plain seconds and moments are seconds from now, bounded; all else says nothing."""
    assert reset(text) == (None if seconds is None else pytest.approx(seconds))


def test_a_moment_is_held_against_the_date_of_the_reply() -> None:
    """Clocks differ: the endpoint's own counts, where it tells it."""
    assert reset(str(int(NOW) + 120), Date=formatdate(NOW + 100, usegmt=True)) == 20


@given(st.integers(0, 4), st.integers(0, 59), st.integers(0, 999))
def test_durations_of_several_parts(minutes: int, seconds: int, thousandths: int) -> None:
    """Each part counts in its own unit, however many there are."""
    total = 60 * minutes + seconds + thousandths / 1000
    assert reset(f"{minutes}m{seconds}s{thousandths}ms") == pytest.approx(total)
    assert reset(f"{minutes}m{seconds}.{thousandths:03}s") == pytest.approx(total)


@given(st.text(max_size=12))
def test_no_text_is_too_strange(text: str) -> None:
    """Whatever a header holds, it is a number of seconds within bounds, or says nothing."""
    found = read(X_RateLimit_Reset_Tokens=text, X_RateLimit_Limit_Tokens=text).tokens
    assert found.reset is None or 0 <= found.reset <= LONGEST_RETRY_AFTER
    assert found.allowed is None or found.allowed > 0


def test_requests_and_tokens_are_told_apart() -> None:
    """Each kind has its own three headers, in any case; what is missing is not said."""
    found = read(
        x_ratelimit_limit_requests="600",
        X_RATELIMIT_REMAINING_REQUESTS="599",
        X_RateLimit_Limit_Tokens="100000",
        X_RateLimit_Remaining_Tokens="0",
        X_RateLimit_Reset_Tokens="3s",
    )
    assert found == Limits(Limit(600, 599, None), Limit(100_000, 0, 3))
    assert found.exhausted
    assert found.wait == 3
    assert read() == Limits(Limit(), Limit())


def test_nothing_allowed_is_not_said() -> None:
    """An account that allows nothing would not have answered: 0 stands for something else there."""
    assert read(X_RateLimit_Limit_Requests="0").requests.allowed is None
    assert read(X_RateLimit_Limit_Requests="unlimited").requests.allowed is None


@pytest.mark.parametrize(
    ("left", "reset", "wait"), [("0", "9", 9), ("0", "", 0), ("1", "9", 0), ("", "9", 0)]
)
def test_only_nothing_left_is_a_reason_to_wait(left: str, reset: str, wait: float) -> None:
    """While anything is left, or it is not said how much is, nobody waits for the reset."""
    assert read(X_RateLimit_Remaining_Requests=left, X_RateLimit_Reset_Requests=reset).wait == wait
