"""The reference itself asks our endpoint, as it asks any OpenAI-style server, and finds the golden sums."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from harness.serving.server import listening, load

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("needs the extra `reference`", allow_module_level=True)

WITHIN = 1e-3
"""Nats that a sum may differ."""


def write_task(folder: Path, rows: Path) -> Path:
    """The reference's own HellaSwag task, but for where its rows come from."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    own = Path(spec.submodule_search_locations[0]) / "tasks/hellaswag"
    source = f"dataset_path: parquet\ndataset_kwargs:\n  data_files:\n    validation: {rows}"
    lines = (own / "hellaswag.yaml").read_text().splitlines()
    kept = [source if line.startswith("dataset_path:") else line for line in lines]
    whole = "\n".join(kept).replace("training_split: train", "training_split: null")
    (folder / "hellaswag.yaml").write_text(whole)
    (folder / "utils.py").write_text((own / "utils.py").read_text())
    return folder


async def test_lm_eval_finds_the_golden_sums(tmp_path: Path, shared: Path) -> None:
    """`local-completions`, token-id prompts, eight at once: the sums of its own run on the same model."""
    model = shared / "models/stories260k"
    lines = (shared / "golden/scores_stories260k.jsonl").read_text().splitlines()
    golden = {each["doc_id"]: each["sums"] for each in map(json.loads, lines) if each["task"] == "hellaswag"}
    task = write_task(tmp_path, shared / "data/hellaswag/validation.parquet")
    async with listening(load(model).app()) as url:
        settings = (
            f"model=stories260k,base_url={url}/completions,tokenizer={model},tokenizer_backend=huggingface,"
            "tokenized_requests=True,add_bos_token=True,num_concurrent=8,max_length=512"
        )
        command = ["-m", "lm_eval", "run", "--model", "local-completions", "--model_args", settings]
        command += ["--tasks", "hellaswag", "--include_path", str(task), "--limit", str(len(golden))]
        command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()[-3000:]
    (samples,) = (tmp_path / "out").rglob("samples_hellaswag_*.jsonl")
    found = {each["doc_id"]: each["resps"] for each in map(json.loads, samples.read_text().splitlines())}
    assert set(found) == set(golden)
    for item, sums in golden.items():
        assert [float(choice[0][0]) for choice in found[item]] == pytest.approx(sums, abs=WITHIN)
