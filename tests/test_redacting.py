"""Secrets are kept out of what a process logs, whoever logs it and whatever listens."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from harness import redacting
from harness.redacting import install, keep, redacted
from harness.secrets import Secret

TOKEN = "s3cret-0123456789-abcdef"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Redaction as a shell has it, and what a plain handler of the root writes."""
    monkeypatch.setattr(redacting, "_known", {})
    before = logging.getLogRecordFactory()
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger().addHandler(handler)
    try:
        install({"MY_TOKEN": TOKEN, "PATH": "/usr/bin/somewhere"})
        yield written
    finally:
        logging.getLogger().removeHandler(handler)
        logging.setLogRecordFactory(before)


def test_a_record_is_clean_when_it_is_made(installed: io.StringIO) -> None:
    """Text, arguments, traceback and stack of any logger come without the secret, on any handler."""
    logger = logging.getLogger("a.library")
    logger.warning("sent %s and %r", TOKEN, {"Authorization": f"Bearer {TOKEN}"})
    try:
        raise ValueError(f"bad {TOKEN}") from OSError(TOKEN)
    except ValueError:
        logger.exception("it broke", stack_info=True)
    said = installed.getvalue()
    assert TOKEN not in said
    assert "sent *** and {'Authorization': 'Bearer ***'}" in said
    assert "ValueError: bad ***" in said
    assert "OSError: ***" in said


def test_arguments_that_do_not_fit(installed: io.StringIO) -> None:
    """A record that cannot be formatted is said all the same, and without its arguments."""
    logging.getLogger("a.library").warning("%d tokens", TOKEN)
    assert "%d tokens (arguments do not fit" in installed.getvalue()
    assert TOKEN not in installed.getvalue()


def test_what_becomes_known_later_counts(installed: io.StringIO) -> None:
    """A token out of a variable that no name gives away is kept out once it is used; short ones are not."""
    keep([Secret("opaque-value-of-a-suite"), Secret("abc")])
    logging.getLogger("a.library").warning("opaque-value-of-a-suite, abc, /usr/bin/somewhere")
    assert installed.getvalue() == "***, abc, /usr/bin/somewhere\n"


def test_installing_twice_changes_nothing(installed: io.StringIO) -> None:
    """A second command in the same process redacts once."""
    factory = logging.getLogRecordFactory()
    install({})
    assert logging.getLogRecordFactory() is factory
    assert redacted(f"x {TOKEN}") == "x ***"
