"""Chromium, driven by playwright: pages are opened from a file, without a network, and watched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
READY = "#item-table[data-ready=yes]"


@dataclass
class Opened:
    """A page that is looked at, and what it did beside showing itself."""

    page: Page
    said: list[str] = field(default_factory=list)
    """On the console, and errors that nobody caught."""
    asked: list[str] = field(default_factory=list)
    """Addresses other than files and data."""

    def ready(self) -> Page:
        """The page once its items are there."""
        self.page.wait_for_selector(READY)
        return self.page


Open = Callable[..., Opened]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium; where there is none tests skip, but in CI.

    No longer than for these tests: while it is driven, nothing else in this thread can have an event loop.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        told = "needs Chromium: apt-get install chromium, then make browser"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    with sync_playwright() as driver:
        # Root has no sandbox to give.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = driver.chromium.launch(executable_path=found, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a file; at the end no page may have complained, or asked any host."""
    opened: list[Opened] = []

    def open_file(file: Path, **settings: Any) -> Opened:
        settings = {"viewport": {"width": 1280, "height": 900}, "offline": True, **settings}
        found = Opened(browser.new_context(**settings).new_page())
        page = found.page
        page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        page.on("request", lambda asked: _note(found, asked.url))
        opened.append(found)
        page.goto(file.as_uri())
        return found

    yield open_file
    for each in opened:
        each.page.context.close()
    assert [line for each in opened for line in each.said] == []
    assert [url for each in opened for url in each.asked] == []


def _note(opened: Opened, url: str) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        opened.asked.append(url)
