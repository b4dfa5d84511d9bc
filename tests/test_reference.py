"""The reference model on the samples, whole runs: it has learnt what it was taught, and its adapters more.

Its scores show that the harness works, and nothing more: it was schooled on the samples' facts.
"""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from tokenizers import Tokenizer

from harness import compare, reference
from harness.choosing.registry import shipped_rows
from harness.cli import main
from harness.prepare import prepare
from harness.runner import RunResult, evaluate
from harness.settings import RunSettings

SCORED_ON = "cloze"
"""The variant of `sample_mmlu` that scores the texts of the answers."""


def run(folder: Path, **settings: object) -> RunResult:
    """A run into `folder`."""
    prepared = prepare(RunSettings(out=folder, **settings), {})  # type: ignore[arg-type]
    return asyncio.run(evaluate(prepared, Console(file=io.StringIO())))


def value(accuracy: pd.DataFrame, endpoint: str, task: str, metric: str = "acc") -> float:
    """One number of the accuracy table."""
    rows = accuracy[(accuracy["endpoint"] == endpoint) & (accuracy["metric"] == metric)]
    (found,) = rows[(rows["task"] == task) & (rows["subject"] == "")]["value"]
    return float(found)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """What `make eval` runs, and the base model once more."""
    result = run(
        tmp_path_factory.mktemp("run") / "eval",
        endpoint=("embedded", "embedded:geography", "embedded:science", "again=embedded"),
        tasks=f"sample_mmlu:{SCORED_ON},sample_hellaswag",
    )
    assert (result.exit, result.accuracy["unscored"].sum()) == (0, 0)
    return result


@pytest.fixture(scope="module")
def accuracy(evaluated: RunResult) -> pd.DataFrame:
    """The table that `make eval` prints."""
    return evaluated.accuracy


def test_the_base_model_has_learnt_the_facts(accuracy: pd.DataFrame) -> None:
    """At least 0.60, where chance is 0.25."""
    assert value(accuracy, "embedded", f"sample_mmlu:{SCORED_ON}") >= 0.60


def test_the_base_model_has_learnt_the_activities(accuracy: pd.DataFrame) -> None:
    """At least 0.45 by its headline, where chance is 0.25."""
    assert value(accuracy, "embedded", "sample_hellaswag", "acc_norm") >= 0.45


@pytest.mark.parametrize(("adapter", "other"), [("geography", "science"), ("science", "geography")])
def test_an_adapter_is_better_on_its_own_field_only(accuracy: pd.DataFrame, adapter: str, other: str) -> None:
    """Five points or more on its own subjects; no such gain on the other adapter's."""
    own, others = f"{SCORED_ON}_{adapter}", f"{SCORED_ON}_{other}"
    assert value(accuracy, f"embedded:{adapter}", own) - value(accuracy, "embedded", own) >= 0.05
    assert value(accuracy, f"embedded:{adapter}", others) - value(accuracy, "embedded", others) < 0.05


@pytest.mark.parametrize(("adapter", "other"), [("geography", "science"), ("science", "geography")])
def test_the_comparison_finds_the_adapters(evaluated: RunResult, adapter: str, other: str) -> None:
    """Each adapter is found better on its own subjects; on the other's nothing is found."""
    frame = compare(evaluated.folder).frame
    rows = frame[(frame.endpoint == f"embedded:{adapter}") & (frame.level == "group") & (frame.headline == 1)]
    verdicts = rows.set_index("task").verdict
    assert verdicts[f"{SCORED_ON}_{adapter}"] == "better"
    assert verdicts[f"{SCORED_ON}_{other}"] == "undecided"


def test_the_comparison_finds_nothing_in_a_replicate(evaluated: RunResult) -> None:
    """The base model asked twice is the base model: no part, by no statistic, is found to differ."""
    frame = compare(evaluated.folder).frame
    again = frame[frame.endpoint == "again"]
    assert set(again.verdict) <= {"equivalent", "undecided", ""}
    assert (again.difference.abs() < 1e-6).all()


def test_the_gate_stops_the_weaker_one(evaluated: RunResult, tmp_path: Path) -> None:
    """The base model may not take the place of its adapter; the adapter may take that of the base model."""
    policy = tmp_path / "gate.toml"
    for baseline, endpoint, code in (
        ("embedded:science", "embedded", 1),
        ("embedded", "embedded:science", 0),
    ):
        policy.write_text(
            f"margin = 0.01\nendpoints = ['{endpoint}']\nrequired = ['sample_mmlu:{SCORED_ON}']\n"
            "[tasks.sample_hellaswag]\nmargin = 0.1\n"  # so few items show no more
        )
        arguments = ["--baseline", baseline, "--gate", str(policy), "--out", str(tmp_path)]
        assert main(["compare", str(evaluated.folder), *arguments]) == code


def test_no_key_by_heart(tmp_path: Path) -> None:
    """With every item's choices moved on by one place the base model still has at least 0.50."""
    for split in ("test", "dev"):
        shipped = shipped_rows() / f"sample_mmlu/{split}.jsonl"
        rows = [json.loads(line) for line in shipped.read_text().splitlines()]
        for row in rows:
            row["choices"] = row["choices"][-1:] + row["choices"][:-1]
            row["answer"] = (row["answer"] + 1) % 4
        file = tmp_path / f"sample_mmlu/{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = f"sample_mmlu:{SCORED_ON}"
    result = run(tmp_path / "run", endpoint=("embedded",), tasks=task, data_dir=tmp_path)
    assert value(result.accuracy, "embedded", task) >= 0.50


def test_what_ships() -> None:
    """The weights are at most 4 MB, two adapters are there, and the letters A to J are tokens."""
    files = [file for file in reference.FOLDER.rglob("*") if file.suffix in (".safetensors", ".json")]
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert reference.routes() == ("geography", "science")
    tokenizer = Tokenizer.from_file(str(reference.FOLDER / "tokenizer.json"))
    for letter in "ABCDEFGHIJ":
        assert len(tokenizer.encode(f" {letter}", add_special_tokens=False).ids) == 1


def test_scores_never_stand_without_the_notice(tmp_path: Path) -> None:
    """A run on the reference model says what its scores are worth, to the reader and in `run.json`."""
    result = run(tmp_path / "run", endpoint=("embedded",), tasks="sample_hellaswag", limit=2)
    said = json.loads((result.folder / "run.json").read_text())["remarks"]
    assert any(reference.NOTICE in remark for remark in result.remarks)
    assert any(reference.NOTICE in remark for remark in said)
