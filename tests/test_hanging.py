"""A test that hangs fails instead of holding up all others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.running import ROOT

HANGING = """
import asyncio, subprocess, sys, threading

def test_in_a_lock(): threading.Event().wait()

async def test_in_a_loop(): await asyncio.Event().wait()

def test_on_a_child(): subprocess.run([sys.executable, "-c", "import time; time.sleep(100)"])

def test_that_ends(): pass
"""


def test_whatever_hangs_fails(tmp_path: Path) -> None:
    """Wherever a test waits for ever, it is told so, and the next one has its turn."""
    shorter = "from tests.conftest import *\nfrom tests import conftest\nconftest.LONGEST_TEST = 0.3\n"
    (tmp_path / "conftest.py").write_text(shorter)
    (tmp_path / "test_it.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    command += [f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 1, done.stdout
    assert "3 failed, 1 passed" in done.stdout
    assert done.stdout.count("Failed: it hangs: more than 0.3 s") >= 3
