"""What is asked beside an item: unconditional choices, and other orders of lettered ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import FieldError, Item, Row
from harness.choosing.registry import load_task
from harness.errors import UsageError
from harness.manifest import Exit
from harness.prompts import Prompt, other_orders
from harness.rescoring import rescore
from harness.scoring.asides import aside_names, asides, needs_of, takes_orders
from harness.scoring.metrics import metrics_of_orders, named_metrics
from tests.fake_endpoint import Altered, FakeEndpoint, Status, true_logprobs
from tests.making import make_prompt, make_task
from tests.running import Bench, bench

__all__ = ["bench"]


def lettered(row: Row) -> Item:
    """An item as MMLU has it, out of `question`, `choices`, `answer`."""
    return row.lettered(
        question=row.text("question"),
        answers=row.texts("choices"),
        gold=row.integer("answer"),
        gold_field="answer",
    )


def test_choices_after_nothing_and_after_a_bare_answer() -> None:
    """As the reference and OLMES have it: the same continuations, without question, shots or description."""
    prompt = make_prompt("Q: who?\nA:", [" he", " she"], prefix="Solve.\n\n")
    found = asides(prompt, ("empty", "answer"))
    assert found["empty"].contexts() == ("", "")
    assert found["answer"].contexts() == ("Answer:", "Answer:")
    for each in found.values():
        assert [pair.continuation for pair in each.item.pairs] == [" he", " she"]
        assert each.bare


def test_orders_put_each_choice_behind_each_letter() -> None:
    """Three choices, three orders: in each the text moves on by one, and its pair says its new letter."""
    task = make_task(item=lettered)
    row = Row({"question": "Which?", "choices": ["x", "y", "z"], "answer": 2}, "made", task="toy")
    item = task.item(row)
    first, second = other_orders(task, row, item)
    assert item.pairs[0].context == "Which?\nA. x\nB. y\nC. z\nAnswer:"
    assert first.pairs[0].context == "Which?\nA. z\nB. x\nC. y\nAnswer:"
    assert [pair.continuation for pair in first.pairs] == [" B", " C", " A"]
    assert second.pairs[0].context == "Which?\nA. y\nB. z\nC. x\nAnswer:"
    assert [pair.continuation for pair in second.pairs] == [" C", " A", " B"]
    assert item.gold == first.gold == second.gold == (2,)


@given(st.lists(st.text("abc", min_size=1), min_size=2, max_size=10, unique=True), st.data())
def test_a_choice_keeps_its_text_in_every_order(choices: list[str], data: st.DataObject) -> None:
    """Whatever the order, the letter that is forced for a choice is the one that stands before its text."""
    task = make_task(item=lettered)
    answer = data.draw(st.integers(0, len(choices) - 1))
    row = Row({"question": "Which?", "choices": choices, "answer": answer}, "made", task="toy")
    orders = other_orders(task, row, task.item(row))
    assert len(orders) == len(choices) - 1
    for item in orders:
        for text, pair in zip(choices, item.pairs, strict=True):
            assert f"\n{pair.choice}. {text}\n" in pair.context


def test_the_right_answer_moves_with_its_text() -> None:
    """A task's own item in another order knows where its right answer went; a wrong gold stays an error."""
    row = Row({"question": "Which?", "choices": ["x", "y", "z"], "answer": 2}, "made", task="toy", shift=1)
    assert lettered(row).gold == (0,)
    wrong = Row({**row.values, "answer": 3}, "made", task="toy", shift=1)
    with pytest.raises(FieldError, match="gold 3 is out of range for 3 choices"):
        lettered(wrong)


def test_only_lettered_choices_have_orders() -> None:
    """Where choices stand in no prompt their order cannot matter, and nothing is asked again."""
    assert takes_orders(load_task("mmlu"))
    assert not takes_orders(load_task("hellaswag"))
    assert not takes_orders(make_task())


def test_choices_that_repeat_have_orders_too() -> None:
    """Of x, y, x, y the order two places on reads the same, and is asked all the same: letters differ."""
    task = make_task(item=lettered)
    row = Row({"question": "Which?", "choices": ["x", "y", "x", "y"], "answer": 0}, "made", task="toy")
    orders = other_orders(task, row, task.item(row))
    assert [pair.choice for pair in orders[1].pairs] == ["C", "D", "A", "B"]


def test_choices_that_stand_in_the_contexts() -> None:
    """As the reference asks winogrande: after nothing come the beginnings that differ, not the common end."""
    task = load_task("winogrande")
    item = task.item(Row(task.example, "example", task.name))
    bare = asides(Prompt(item, "Shots.\n\n", 1), ("empty",))["empty"]
    assert [pair.continuation for pair in bare.item.pairs] == [f" {pair.context}" for pair in item.pairs]
    assert len({pair.continuation for pair in bare.item.pairs}) == 2


def test_metrics_name_what_they_need() -> None:
    """One order means all of them; names stand in one order whatever that of the metrics."""
    assert needs_of(["acc_order_2", "acc", "acc_pmi"]) == needs_of(["acc_pmi", "acc_debiased"])
    assert aside_names(needs_of(["acc_order_2", "acc_pmi"]), 4) == ("answer", "order_1", "order_2", "order_3")
    assert needs_of(named_metrics("all")) == ()


def test_orders_bring_the_prompts_of_the_item() -> None:
    """Shots and description stand before each order."""
    task = make_task(item=lettered)
    row = Row({"question": "Which?", "choices": ["x", "y"], "answer": 0}, "made", task="toy")
    item = task.item(row)
    prompt = Prompt(item, "Shots.\n\n", 1, orders=other_orders(task, row, item))
    found = asides(prompt, ("orders",))
    assert found["order_1"].contexts()[0] == "Shots.\n\nWhich?\nA. y\nB. x\nAnswer:"
    assert not found["order_1"].bare


# ------------------------------------------------------------------------------------------- in a whole run


def character_ids(text: str) -> list[int]:
    """The ids of the bench's tokenizer."""
    return [95 if each == "\n" else ord(each) - 32 for each in text]


async def test_unconditional_requests_are_sent_when_asked_for_and_shared(bench: Bench) -> None:
    """MMLU's four letters are asked once after nothing and once after "Answer:", whatever the items."""
    plain: dict[str, Any] = {"tasks": "mmlu", "shortcut": False}
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, **plain)
        before = len(endpoint.bodies)
        result = await bench.run(endpoint.base_url, **plain, metrics="acc_mutual_info,acc_pmi")
        later = endpoint.bodies[before:]
    answer = character_ids("Answer:")
    assert Counter(tuple(body["tokens"]) for body in later) == {(0,): 4, tuple(answer): 4}
    assert result.exit is Exit.DONE
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    sums = [sum(true_logprobs(answer, character_ids(f" {letter}"))) for letter in "ABCD"]
    for row in items.to_dict("records"):
        assert row["sums_answer"].tolist() == pytest.approx(sums)
        raised = [own - bare for own, bare in zip(row["sums"], sums, strict=True)]
        assert row["prediction_acc_pmi"] == raised.index(max(raised))


async def test_the_same_command_with_more_metrics_sends_only_what_is_new(bench: Bench) -> None:
    """Nothing that was answered is asked again; asked once more, nothing at all is sent."""
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, tasks="mmlu")
        assert len(endpoint.bodies) == 12 * 4
        await bench.run(endpoint.base_url, tasks="mmlu", permute_choices="cyclic")
        assert len(endpoint.bodies) == 12 * 4 * 4
        scores = bench.scores()
        await bench.run(endpoint.base_url, tasks="mmlu", permute_choices="cyclic")
        assert len(endpoint.bodies) == 12 * 4 * 4
    assert bench.scores() == scores


async def test_accuracy_under_every_order_and_averaged(bench: Bench) -> None:
    """Each order's predictions are those of its own prompts; tasks without letters report none of them."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, permute_choices="cyclic")
    told = {(row["task"], row["metric"]) for row in result.accuracy.to_dict("records")}
    assert {metric for task, metric in told if task == "mmlu"} == {
        *("acc", "acc_debiased", "acc_circular", "acc_order_1", "acc_order_2", "acc_order_3")
    }
    assert not any("order" in metric for task, metric in told if task == "hellaswag")
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    first = items[items["task"] == "mmlu"].iloc[0]
    [prompt] = [
        each.contexts()[0]
        for each in _order_prompts(bench, 1)
        if (each.item.subject, each.item.index) == (first["subject"], 0)
    ]
    expected = [sum(true_logprobs(character_ids(prompt), character_ids(f" {each}"))) for each in "BCDA"]
    assert first["sums_order_1"].tolist() == pytest.approx(expected)
    assert first["prediction_acc_order_1"] == expected.index(max(expected))


def _order_prompts(bench: Bench, shift: int) -> list[Prompt]:
    """The prompts of the bench's MMLU items in one order."""
    from harness.prepare import prepare

    suite = prepare(bench.settings("http://127.0.0.1:1/v1", permute_choices="cyclic")).suite
    prompts = [each for _, each in suite.prompts() if isinstance(each, Prompt) and each.item.task == "mmlu"]
    return [asides(each, ("orders",))[f"order_{shift}"] for each in prompts]


async def test_an_order_that_fails_leaves_the_item_scored(bench: Bench) -> None:
    """Its own metric is unscored with the reason, the run ends with 3, and `acc` is whole."""

    def refused(number: int, body: Any) -> Status | None:
        return Status(400) if body["tokens"] == character_ids("Answer:") else None

    async with FakeEndpoint(refused) as endpoint:
        result = await bench.run(endpoint.base_url, tasks="mmlu", metrics="acc_pmi")
    rows = {row["metric"]: row for row in result.accuracy.to_dict("records") if row["task"] == "mmlu"}
    whole = [
        row for row in result.accuracy.to_dict("records") if row["task"] == "mmlu" and not row["subject"]
    ]
    assert {row["metric"]: (row["n"], row["unscored"]) for row in whole} == {
        "acc": (12, 0),
        "acc_pmi": (0, 12),
    }
    assert rows
    assert result.exit is Exit.UNSCORED
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert items["unscored"].isna().all()
    assert items["unscored_answer"].str.startswith("400").all()


async def test_orders_that_were_not_reached_are_counted(bench: Bench) -> None:
    """A run that is stopped before it comes to an item's orders says so of the item, and of the metric."""
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, tasks="mmlu")
        stop = asyncio.Event()
        stop.set()
        result = await bench.run(endpoint.base_url, tasks="mmlu", permute_choices="cyclic", stop=stop)
    whole = result.accuracy[result.accuracy["subject"] == ""].set_index(["task", "metric"])
    assert (whole["n"] + whole["unscored"])["mmlu"].tolist() == [12] * 6
    assert whole.loc[("mmlu", "acc"), "n"] == 12
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    waiting = items[items["sums_order_1"].isna()]
    assert (waiting["unscored_order_1"] == "not tried").all()


async def test_a_session_without_the_metric_forgets_nothing(bench: Bench) -> None:
    """What was asked beside stays known: it can be told later without the flag and without a request."""
    async with FakeEndpoint() as endpoint:
        await bench.run(endpoint.base_url, tasks="mmlu", permute_choices="cyclic")
        whole = bench.scores()
        await bench.run(endpoint.base_url, tasks="mmlu")
        assert bench.scores() != whole
        rescore(bench.folder / "run", ",".join(metrics_of_orders(4)))
    assert bench.scores() == whole


async def test_text_cannot_follow_nothing(bench: Bench) -> None:
    """An endpoint that is sent text cannot be asked for choices after nothing: said at once."""
    with pytest.raises(UsageError, match=r"--metrics acc_mutual_info: .* is sent text"):
        await bench.run("openai-text+http://127.0.0.1:1/v1#m", tasks="mmlu", metrics="acc_mutual_info")


async def test_greediness_that_nobody_told_is_unscored(bench: Bench) -> None:
    """A server that names no alternatives leaves greedy matches unscored, with a remark; never wrong."""

    def silent(number: int, body: Any) -> Altered | None:
        return (
            Altered(lambda reply: reply["choices"][0]["logprobs"].pop("top_logprobs")) if number % 2 else None
        )

    async with FakeEndpoint(silent) as endpoint:
        result = await bench.run(endpoint.base_url, tasks="hellaswag", metrics="greedy")
    [row] = result.accuracy[result.accuracy["metric"] == "greedy"].to_dict("records")
    assert row["n"] + row["unscored"] == 12
    assert 0 < row["unscored"] < 12
    assert row["low_bound"] < row["high_bound"]
    assert result.exit is Exit.UNSCORED
    assert any("nobody knows whether they are greedy" in each for each in result.remarks)


async def test_orders_of_tasks_without_letters_are_refused(bench: Bench) -> None:
    """One clear line, before anything is sent."""
    with pytest.raises(UsageError, match="--permute-choices: the order of choices stands in no prompt"):
        await bench.run("http://127.0.0.1:1/v1", tasks="hellaswag", permute_choices="cyclic")


async def test_metrics_of_orders_are_reported_as_far_as_there_are_orders(bench: Bench) -> None:
    """One order may be named alone; of four choices there is no fifth, and of unlettered ones none."""
    async with FakeEndpoint() as endpoint:
        result = await bench.run(endpoint.base_url, metrics="acc_order_2,acc_order_7")
    told = result.accuracy.groupby("task")["metric"].agg(set).to_dict()
    assert told["mmlu"] == {"acc", "acc_order_2"}
    assert "acc_order_2" not in told["hellaswag"]
    with pytest.raises(UsageError, match="--metrics acc_debiased: the order of choices stands in no prompt"):
        await bench.run("http://127.0.0.1:1/v1", tasks="hellaswag", metrics="acc_debiased")


async def test_an_aside_too_long_to_ask_is_a_reason(bench: Bench, tmp_path: Path) -> None:
    """A bound that fits the choices alone but no bare "Answer:" leaves that metric unscored, and says why."""
    async with FakeEndpoint() as endpoint:
        await bench.run(
            endpoint.base_url, tasks="mmlu", metrics="acc_pmi", max_length=8, on_overflow="skip", limit=1
        )
    items = pd.read_parquet(bench.folder / "run/items.parquet")
    assert items["unscored"].str.startswith("longer than --max-length").all()
    assert items["sums_answer"].isna().all()
