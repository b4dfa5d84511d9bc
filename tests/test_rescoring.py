"""`rescore`: other metrics from the journal, with no request."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness import UsageError, load_run
from harness.cli import main
from harness.errors import StoreError
from harness.rescoring import rescore
from harness.scoring.metrics import METRICS
from tests.fake_endpoint import FakeEndpoint
from tests.running import Bench, bench

__all__ = ["bench"]

FREE = [name for name, metric in METRICS.items() if not metric.needs]


async def test_every_metric_later_is_as_if_asked_at_once(bench: Bench) -> None:
    """Tables of a run rescored are those of a run that reported the metrics from the beginning."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", out="plain", metrics="acc_pmi", permute_choices="cyclic")
        await bench.run(f"it={endpoint.base_url}", out="all", metrics="acc_pmi,all", permute_choices="cyclic")
        sent = len(endpoint.bodies)
        found = rescore(bench.folder / "plain", "all")
        assert len(endpoint.bodies) == sent
    frames = [
        pd.read_csv(bench.folder / name / "scores.csv", keep_default_na=False) for name in ("plain", "all")
    ]
    order = ["endpoint", "task", "subject", "metric"]
    first, second = (frame.sort_values(order, ignore_index=True) for frame in frames)
    pd.testing.assert_frame_equal(first, second)
    assert set(found.accuracy["metric"]) >= set(FREE)
    assert (bench.folder / "plain/items.csv").read_bytes() == (bench.folder / "all/items.csv").read_bytes()


async def test_a_rescored_run_can_be_compared_and_continued(bench: Bench) -> None:
    """`run.json` knows the metrics of its tables; the command that made the run writes its own again."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
        plain = bench.scores()
        rescore(bench.folder / "run", "mc2")
        assert bench.manifest()["tasks"]["mmlu"]["metrics"] == ["acc", "mc2"]
        assert set(load_run(bench.folder / "run").scores["metric"]) == {
            *("acc", "acc_norm", "acc_bytes", "acc_token", "mc2")
        }
        sent = len(endpoint.bodies)
        await bench.run(f"it={endpoint.base_url}")
        assert len(endpoint.bodies) == sent
    assert bench.scores() == plain


async def test_without_another_metric_nothing_changes(bench: Bench) -> None:
    """The same replies give the same tables, byte for byte, also of a run that asked something beside."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", metrics="acc_pmi", permute_choices="cyclic", limit=1)
    names = ("scores.csv", "items.csv", "items.parquet")
    before = [(bench.folder / "run" / name).read_bytes() for name in names]
    rescore(bench.folder / "run")
    assert [(bench.folder / "run" / name).read_bytes() for name in names] == before


async def test_what_was_not_asked_cannot_be_computed(bench: Bench) -> None:
    """The line says which command would ask it; the tables stay as they are."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    before = bench.scores()
    with pytest.raises(UsageError, match=r"--metrics acc_pmi: needs what .* with --metrics acc_pmi"):
        rescore(bench.folder / "run", "acc_pmi")
    with pytest.raises(UsageError, match=r"--metrics acc_debiased: .* with --permute-choices cyclic"):
        rescore(bench.folder / "run", "acc_debiased")
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}", permute_choices="cyclic")
    with pytest.raises(UsageError, match=r"--metrics acc_order_7: no item of this run has choices enough"):
        rescore(bench.folder / "run", "acc_order_7")
    before = bench.scores()
    with pytest.raises(UsageError, match=r"no metric 'accc'"):
        rescore(bench.folder / "run", "accc")
    with pytest.raises(UsageError, match="no run is there"):
        rescore(bench.folder / "nowhere")
    assert bench.scores() == before


async def test_a_run_without_its_journal_cannot_be_rescored(bench: Bench) -> None:
    """The journal is what everything is computed from; without it nothing is overwritten."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    for file in (bench.folder / "run/journal").iterdir():
        file.unlink()
    before = bench.scores()
    with pytest.raises(StoreError, match="the journal of it is gone"):
        rescore(bench.folder / "run", "mc2")
    assert bench.scores() == before


async def test_the_command_prints_the_table(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """`rescore RUN --metrics NAME --json` is the accuracy table on stdout, and ends with 0."""
    async with FakeEndpoint() as endpoint:
        await bench.run(f"it={endpoint.base_url}")
    folder = str(bench.folder / "run")
    assert main(["rescore", folder, "--metrics", "ece", "--json"]) == 0
    assert {row["metric"] for row in json.loads(capsys.readouterr().out)} >= {"acc", "ece"}
    assert main(["rescore", folder, "--metrics", "eec"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err[:47]) == ("", "forced-choice: --metrics: no metric 'eec'. Did ")
