"""One model, asked over every wire there is: the reference's sums each time."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from harness.manifest import Exit
from harness.serving.server import listening, load
from tests.running import Bench, bench

__all__ = ["bench"]

WITHIN = 1e-3
"""Nats that a sum may differ from the reference's."""


async def test_every_wire_gives_the_golden_sums(bench: Bench, shared: Path) -> None:
    """Forced ids, echoed ids, echoed text, ids from the endpoint's own tokenizer: 25 HellaSwag items each."""
    model = shared / "models/stories260k"
    lines = (shared / "golden/scores_stories260k.jsonl").read_text().splitlines()
    golden = {each["doc_id"]: each["sums"] for each in map(json.loads, lines) if each["task"] == "hellaswag"}
    async with listening(load(model).app()) as url:
        result = await bench.run(
            f"forced={url}#m",
            f"ids=openai+{url}#m",
            f"text=openai-text+{url}#m",
            f"tokenized={url}#own",
            tasks="hellaswag",
            tokenizer=(str(model), "tokenized=endpoint"),
            data_dir=shared / "data",
            limit=len(golden),
        )
    assert result.exit is Exit.DONE
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert items.groupby("endpoint").size().to_dict() == dict.fromkeys(
        ("forced", "ids", "text", "tokenized"), len(golden)
    )
    for item in items.to_dict("records"):
        assert list(item["sums"]) == pytest.approx(golden[item["index"]], abs=WITHIN)
