"""Full HellaSwag, from reading to CSV, beside the bare loop and lm-evaluation-harness."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from tests.bench.measuring import Bench, Figure, Instant, Measured, measure, table

BARE, READING, OURS, SPREAD, LM_EVAL = (
    "bare loop, bodies from a file",
    "bare loop that reads and encodes",
    "this program",
    "the same, `--workers 2`",
    "lm-evaluation-harness",
)
WORKERS = "32"
TASK = "bench_hellaswag"
PROCESSOR, WALL, PEAK = 1.6, 0.25, 350.0
"""What must hold: over the loop that reads and encodes; over lm-evaluation-harness; megabytes."""

Round = dict[str, Measured]


def section(bench: Bench) -> list[Figure]:
    """Print the table; the figures of it that have a bar."""
    bodies = bench.scratch / "bodies"
    bare = [sys.executable, "-m", "tests.bench.bare"]
    rows = ["--rows", str(bench.hellaswag), "--tokenizer", str(bench.tokenizer)]
    measure([*bare, *rows, "--write", str(bodies)])
    with Instant(bench.tokenizer) as endpoint:
        plain = [*bare, endpoint.url, "--workers", WORKERS]
        commands = {
            BARE: lambda: measure([*plain, "--bodies", str(bodies)], endpoint),
            READING: lambda: measure([*plain, *rows], endpoint),
            OURS: lambda: measure(bench.run(endpoint.url, "hellaswag"), endpoint),
            SPREAD: lambda: measure(bench.run(endpoint.url, "hellaswag", "--workers", "2"), endpoint),
        }
        if find_spec("lm_eval") is not None:
            commands[LM_EVAL] = lm_eval(bench, endpoint)
        commands[BARE]()  # the endpoint learns what it says
        rounds = [_round(bench, commands, number) for number in range(bench.repeat)]
    print(f"{_table(rounds)}\n", flush=True)
    return _figures(rounds)


def lm_eval(bench: Bench, endpoint: Instant) -> Callable[[], Measured]:
    """Measures lm-evaluation-harness on the same rows, as its documentation says to ask such an endpoint."""
    folder = bench.scratch / "lm_eval"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    task = {
        "include": str(Path(spec.origin).parent / "tasks/hellaswag/hellaswag.yaml"),
        "task": TASK,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"validation": str(bench.hellaswag / "validation.parquet")}},
        "training_split": None,
    }
    (folder / "tasks/bench.yaml").write_text(json.dumps(task))  # JSON is YAML
    (folder / "tokenizer/tokenizer.json").symlink_to(bench.tokenizer)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(kind))
    told = {
        "model": "instant",
        "base_url": f"{endpoint.url}/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": folder / "tokenizer",
        "tokenized_requests": True,
        "num_concurrent": WORKERS,
    }
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args"]
    command += [",".join(f"{name}={value}" for name, value in told.items()), "--tasks", TASK]
    command += ["--include_path", str(folder / "tasks"), "--batch_size", "1"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    return lambda: measure(command, endpoint, env=offline)


def _round(bench: Bench, commands: dict[str, Callable[[], Measured]], number: int) -> Round:
    found: Round = {}
    for name, command in commands.items():
        if name != LM_EVAL or number < bench.lm_eval_repeat:
            found[name] = command()
            bench.say(f"  {number + 1}. {name}: {found[name].wall:.1f} s, {found[name].processor:.1f} s")
    return found


def _ratio(rounds: list[Round], field: str, one: str, other: str) -> float | None:
    """Median over the rounds that have both."""
    ratios = [
        getattr(each[one], field) / getattr(each[other], field)
        for each in rounds
        if one in each and other in each
    ]
    return median(ratios) if ratios else None


def _table(rounds: list[Round]) -> str:
    rows = []
    for name in rounds[0]:
        found = [each[name] for each in rounds if name in each]
        ratios = [_ratio(rounds, field, name, READING) for field in ("wall", "processor")]
        rows.append(
            (
                name,
                f"{median(each.wall for each in found):.1f}",
                f"{ratios[0]:.2f}",
                f"{median(each.processor for each in found):.1f}",
                f"{ratios[1]:.2f}",
                f"{median(each.peak for each in found):.0f}",
                f"{found[0].requests:,}",
                f"{found[0].prompt_tokens:,}",
            )
        )
    head = (
        "full HellaSwag",
        "wall s",
        "ratio",
        "processor s",
        "ratio",
        "peak MB",
        "requests",
        "prompt tokens",
    )
    return table(head, rows)


def _figures(rounds: list[Round]) -> list[Figure]:
    processor = _ratio(rounds, "processor", OURS, READING)
    wall = _ratio(rounds, "wall", OURS, LM_EVAL)
    peak = median(each[OURS].peak for each in rounds)
    assert processor is not None
    found = [
        Figure(
            "processor time, full HellaSwag, over the bare loop that reads and encodes",
            f"{processor:.2f}",
            f"at most {PROCESSOR}",
            processor <= PROCESSOR,
        ),
        Figure("peak memory of the same", f"{peak:.0f} MB", f"at most {PEAK:.0f} MB", peak <= PEAK),
    ]
    if wall is not None:
        name = "wall time of the same over lm-evaluation-harness"
        found.insert(1, Figure(name, f"{wall:.2f}", f"at most {WALL}", wall <= WALL))
    return found
