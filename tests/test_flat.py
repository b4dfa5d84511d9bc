"""A run of some thousand requests, of which many go wrong at first, holds no more at its end than before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.flat import EARLY, FEWEST, LATE, Sample, Soaked, figures, soaked
from tests.bench.measuring import Failed
from tests.ledger import note

REQUESTS = 20_000
FAULTY = 50


def test_a_run_stays_as_it_is(tmp_path: Path) -> None:
    """Tasks, threads, open files and memory stay as they are while hundreds of requests are refused, dropped
    or answered by halves; each is answered in the end. (`make soak` asks a million.)"""
    run = soaked(tmp_path, REQUESTS, faulty=FAULTY, every=0.2)
    note("requests soaked", tried=run.wanted, lost=run.lost, unit="requests")
    assert (run.wanted, run.answered, run.unscored) == (REQUESTS, REQUESTS, 0)
    assert run.wrong > REQUESTS // FAULTY
    assert len(run.samples) >= FEWEST
    assert [str(each) for each in figures(run) if not each.holds] == []


def made(**late: float) -> Soaked:
    """A run that held other numbers late than early."""
    early = {"tasks": 38.0, "threads": 7.0, "files": 50.0, "memory_mb": 60.0}
    shares = ((EARLY[0], early), (LATE[0], {**early, **late}))
    samples = [Sample(share, int(100 * share), held) for share, held in shares]
    return Soaked(100, 100, 0, 1, samples, [])


@pytest.mark.parametrize(("name", "late"), [("tasks", 47), ("threads", 8), ("files", 55), ("memory_mb", 101)])
def test_what_grows_is_seen(name: str, late: float) -> None:
    """One thread more, a few tasks or files, some tens of megabytes: each misses its bar."""
    assert all(each.holds for each in figures(made()))
    missed = [each.name for each in figures(made(**{name: late})) if not each.holds]
    assert len(missed) == 1
    assert name.partition("_")[0] in missed[0]


def test_a_run_that_is_too_short_shows_nothing() -> None:
    """Where there are no samples to compare, that is said; nothing holds by accident."""
    with pytest.raises(Failed, match="no sample between 25% and 50%"):
        figures(Soaked(100, 100, 0, 1, [], []))
