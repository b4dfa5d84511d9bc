"""What each kind of failure means: ask again, leave the item unscored, or stop the endpoint."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.failures import LONGEST_RETRY_AFTER, TABLE, Action, Fault, classify, one_line, retry_after

NOW = 1_750_000_000.0


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 520, 529, 599])
def test_statuses_worth_another_attempt(status: int) -> None:
    """Busy, timed out and broken servers are asked again, unlisted 5xx too."""
    decision = classify(status, {}, now=NOW)
    assert (decision.action, decision.reason) == ("retry", str(status))


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 402, 405, 409, 413, 418, 422, 451, 600])
def test_statuses_that_fail_the_request(status: int) -> None:
    """What another attempt would not change fails the request, redirects included."""
    assert classify(status, {}, now=NOW).action == "fail"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_statuses_that_stop_the_endpoint(status: int) -> None:
    """Refused credentials and unknown endpoints concern every request."""
    assert classify(status, {}, now=NOW).action == "stop"


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        ("connection", "retry"),
        ("timeout", "retry"),
        ("cut body", "retry"),
        ("protocol", "fail"),
        ("bad certificate", "stop"),
    ],
)
def test_faults(fault: Fault, action: Action) -> None:
    """A fault decides whatever the status was."""
    assert classify(None, {}, fault, now=NOW).action == action
    assert classify(200, {}, fault, now=NOW).reason == fault


def test_every_row_of_the_table_is_used() -> None:
    """What stands in the table is what is decided."""
    for cause, action in TABLE.items():
        decided = (
            classify(None, {}, cause, now=NOW) if isinstance(cause, str) else classify(cause, {}, now=NOW)
        )
        assert decided.action == action


def test_nothing_wrong_is_no_failure() -> None:
    """Asking about an attempt that did not fail is a mistake of the caller."""
    with pytest.raises(ValueError, match="did not fail"):
        classify(None, {}, now=NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RETRY-AFTER": " 0.5 "}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "7"}, 7.0),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True), "Date": formatdate(NOW + 80, usegmt=True)}, 10.0),
        ({"Retry-After": formatdate(NOW + 9, usegmt=True), "Date": "yesterday"}, 9.0),
        ({"Retry-After": "86400"}, LONGEST_RETRY_AFTER),
        ({"Retry-After": "9" * 400}, LONGEST_RETRY_AFTER),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST_RETRY_AFTER),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds and dates are obeyed up to a cap, garbage is ignored."""
    assert retry_after(headers, now=NOW) == seconds


def test_retry_after_goes_with_retries_only() -> None:
    """An endpoint that refuses for good is not waited for."""
    headers = {"Retry-After": "7"}
    assert classify(429, headers, now=NOW).retry_after == 7.0
    assert classify(400, headers, now=NOW).retry_after is None


@given(st.text(), st.text())
def test_retry_after_survives_anything(text: str, date: str) -> None:
    """No header breaks the reader or makes it wait beyond the cap."""
    seconds = retry_after({"Retry-After": text, "Date": date}, now=NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER


@given(st.text(), st.integers(min_value=4, max_value=40))
def test_one_line_is_short_and_inert(text: str, limit: int) -> None:
    """Control characters, line ends and direction marks of foreign text do nothing."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


def test_one_line_keeps_words() -> None:
    """Plain text comes through as it is."""
    assert one_line("model \x1b[31moverloaded\r\n  (é)") == "model [31moverloaded (é)"
