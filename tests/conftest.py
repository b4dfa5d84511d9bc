"""Fixtures for all tests: a clean environment, and the shared material where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before numpy is imported: with more threads the small matrices here only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before anything of the hub is imported: its libraries look at this once, and try for long to reach it.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED = Path(os.environ.get("FORCED_CHOICE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret, proxy or hub setting of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.startswith(("FRIENDLI_", "OPENAI_", "HF_", "FORCED_CHOICE_")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real items, tokenizers, models and golden records; tests that need it skip without."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared test material, not found at {SHARED}")
    return SHARED
