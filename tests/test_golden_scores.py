"""Every record of the reference's scores, through our prompts, token splits and model on numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.encoding import EncodedItem, encode_prompts
from harness.exchange import is_greedy
from harness.plan import listed
from harness.prompts import Prompt
from harness.scoring.metrics import METRICS
from harness.scoring.scores import ItemScore
from harness.serving.decoding.job import Job
from harness.serving.models.llama import KeysValues, LlamaModel, load_llama
from harness.serving.prefixes import PrefixCache
from harness.tokenizing import load_tokenizer
from tests.decoded import run
from tests.test_golden import PLAIN, prompts, records

NATS = 1e-3
"""A sum may differ from the reference's by so much: float32, and another order of adding."""
MASS = 1e-3
CALLED: Mapping[str, Mapping[str, str]] = {
    "truthfulqa_mc2": {"acc": "mc2"},
    "lambada_openai": {"acc": "greedy"},
}
"""What the reference calls acc, and is something else."""


def scored(model: LlamaModel, cache: PrefixCache[KeysValues], item: EncodedItem) -> ItemScore:
    """Score an item as an endpoint would, nothing truncated."""
    sums, greedy = [], []
    for pair in item.pairs:
        ids = list(pair.forced_ids)
        job = Job(context_ids=list(pair.context_ids), max_tokens=len(ids), forced_ids=ids, top=1)
        (output,) = run(model, job, cache).outputs
        values = [each.logprob for each in output.tokens]
        sums.append(sum(values))
        greedy.append(
            is_greedy(values, [{str(other): value for other, value in each.top} for each in output.tokens])
        )
    return ItemScore(listed(item.prompt, 0), tuple(sums), greedy=tuple(greedy))


def test_every_record(shared: Path) -> None:
    """Sums within 1e-3 nats; acc, acc_norm, greediness, mc2's mass and lambada's greedy match equal."""
    model = load_llama(shared / "models/stories260k")
    tokenizer = load_tokenizer(str(shared / "models/stories260k"))
    cache = PrefixCache[KeysValues]()
    compared: Counter[str] = Counter()
    for (task, subject, _), record in records(shared / "golden/scores_stories260k.jsonl"):
        prompt: Prompt = prompts(shared, task, 0)[subject, record["doc_id"]]
        score = scored(model, cache, encode_prompts([prompt], tokenizer)[0])
        assert score.sums == pytest.approx(record["sums"], rel=0, abs=NATS)
        assert list(score.greedy) == record["greedy"]
        for name in ("acc", "acc_norm"):
            if name in record:
                verdict = METRICS[CALLED.get(task, {}).get(name, name)].judge(score)
                assert verdict is not None
                assert verdict.value == pytest.approx(record[name], rel=0, abs=MASS), (name, record)
        compared[task] += 1
    assert compared == {**dict.fromkeys(PLAIN, 25), "mmlu": 171}
