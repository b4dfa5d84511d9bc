"""What is asked beside an item's own prompt, so that more can be said of the same choices; pure.

An aside asks an item's choices again, in another way: after nothing at all, after a bare "Answer:", or with
the choices of a lettered prompt in another order. Its pairs stand as the item's own do, so that its sums line
up with the item's. Asides are planned only where a metric asks for them; those of equal choices are one
request, as all equal requests are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from harness.converting import example_row
from harness.items import Pair
from harness.prompts import Prompt
from harness.scoring.metrics import ANSWER, EMPTY, METRICS, ORDERS, asides_of, need_of, order_name
from harness.task import Task


def asides(prompt: Prompt, needs: Iterable[str]) -> dict[str, Prompt]:
    """The prompts of an item's asides, by name.

    Args:
        prompt: the item's own; it brings the other orders of its choices where they are needed.
        needs: "empty", "answer" or "orders", as the metrics state.
    """
    found: dict[str, Prompt] = {}
    for need in needs:
        found.update(_MAKERS[need](prompt))
    return found


def needs_of(metrics: Iterable[str]) -> tuple[str, ...]:
    """What these metrics need beside an item's own sums; an order's name means all orders."""
    found = {need_of(METRICS[name].needs) for name in metrics}  # GREEDY among them is no request
    return tuple(each for each in _MAKERS if each in found)


def aside_names(needs: Iterable[str], choices: int) -> tuple[str, ...]:
    """What the asides of a task are called, whose items have so many choices at most."""
    return tuple(name for need in needs for name in asides_of(need, choices))


def takes_orders(task: Task) -> bool:
    """Whether the order of the choices stands in the task's prompts, so that another can be asked."""
    row = example_row(task)
    return task.item(replace(row, shift=1)).pairs != task.item(row).pairs


def _bare(context: str, prompt: Prompt) -> Prompt:
    """The choices after a context that says nothing of the question.

    Where they stand in the contexts, as in winogrande, it is these that follow, as the reference has it.
    """
    pairs = prompt.item.pairs
    own = len({pair.context for pair in pairs}) == 1
    pairs = tuple(
        Pair(context, pair.continuation if own else f" {pair.context}", pair.choice) for pair in pairs
    )
    return replace(prompt, item=replace(prompt.item, pairs=pairs), prefix="", bare=True, orders=())


def _orders(prompt: Prompt) -> dict[str, Prompt]:
    return {
        order_name(shift): replace(prompt, item=item, orders=())
        for shift, item in enumerate(prompt.orders, 1)
    }


_MAKERS: Mapping[str, Callable[[Prompt], Mapping[str, Prompt]]] = {
    EMPTY: lambda prompt: {EMPTY: _bare("", prompt)},
    ANSWER: lambda prompt: {ANSWER: _bare("Answer:", prompt)},
    ORDERS: _orders,
}
