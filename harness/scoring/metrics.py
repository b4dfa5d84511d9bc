"""Metrics of scored items; pure.

A metric is one function and one line of `METRICS`. It judges one scored item; a summary (`estimates`,
`summaries`) makes one number of many judgements. All of them read stored sums. Most need no more than every
run asks; the others name in `needs` what is asked beside it (`asides`). This module does not know where
scores come from.

Sources: lm-evaluation-harness 0.4.13, `api/task.py` and `api/metrics.py` (acc, acc_norm, acc_bytes,
acc_mutual_info, brier_score, perplexities, the mass of truthfulqa_mc2); Gu et al. 2024, "OLMES",
arXiv:2406.08446 (acc_pmi); Zheng et al. 2024, arXiv:2309.03882 (orders of the choices).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from harness.errors import UsageError, did_you_mean
from harness.scoring.estimates import BITS, EXP, Summary, Tally
from harness.scoring.scores import ItemRecord, ItemScore
from harness.scoring.summaries import Calibration, Ratio, Recalls

EMPTY, ANSWER, ORDERS = "empty", "answer", "orders"
"""What is asked beside an item: its choices after nothing; after "Answer:"; in every cyclic order."""
GREEDY = "greedy"
"""No request, but what endpoints need not say of a reply."""
LABEL = 3
"""Characters of a choice that is a label: "A", "(A)", "yes"."""
MOST_ORDERS = 26
"""Of lettered choices: as many as there are letters."""


def order_name(shift: int) -> str:
    """What the cyclic order is called in which each choice stands `shift` places later."""
    return f"order_{shift}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a metric says of one scored item."""

    value: float
    """Of right and wrong: 1 or 0. Else what the metric measures."""
    prediction: int | None = None
    """Index of the choice that scores highest, of level ones the lowest; None where nothing is predicted."""
    tied: bool = False
    """Whether another choice scores just as high."""
    weight: float = 1.0
    """What the value counts for, in summaries that weigh."""
    group: int = 0

    @property
    def correct(self) -> bool:
        """Whether it is right in full."""
        return self.value == 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric."""

    name: str
    """In files and on the terminal."""
    judge: Callable[[ItemScore], Verdict | None]
    """Of a scored item; None where the metric does not apply to it."""
    summary: Callable[[], Summary] = Tally
    unit: str = "fraction"
    needs: str = ""
    """What it needs beside the item's own sums: "", "empty", "answer", "orders", or one order's name."""
    fewest: int = 1
    """Choices that an item must have for the metric to say anything of it."""
    binary: bool = False
    """Whether an item's value is 1 for right and 0 for wrong."""
    predicts: bool = False
    """Whether it says right or wrong of a choice; then tables show which choice, and whether it is right."""
    per_item: bool = True
    """Whether the value of a single item means something; then tables show it."""
    compared: bool = False
    """Whether endpoints are compared by it: between 0 and 1 for each item, and more is better."""

    def applies(self, record: ItemRecord) -> bool:
        """Whether the item has choices enough; of a bad row, whose choices nobody knows, it is assumed."""
        return not record.n_chars or len(record.n_chars) >= self.fewest

    def missing(self, score: ItemScore) -> bool:
        """Whether the item is scored, but something that the metric needs beside its sums is not there."""
        if not self.needs:
            return False
        if self.needs == GREEDY:
            return not score.greedy or any(score.greedy[each] is None for each in score.record.gold)
        names = asides_of(self.needs, len(score.record.n_chars))
        return any(name not in score.asides or score.asides[name].unscored for name in names)


def acc(score: ItemScore) -> Verdict:
    """The choice of the highest summed log-probability."""
    return _best(score, score.sums)


def acc_norm(score: ItemScore) -> Verdict:
    """The choice of the highest log-probability a character (code point) of the choice."""
    return _best(score, _per(score.sums, score.record.n_chars))


def acc_bytes(score: ItemScore) -> Verdict:
    """The choice of the highest log-probability a UTF-8 byte of the choice."""
    return _best(score, _per(score.sums, score.record.n_bytes))


def acc_token(score: ItemScore) -> Verdict:
    """The choice of the highest log-probability a forced token."""
    return _best(score, _per(score.sums, score.record.n_tokens))


def acc_less(aside: str, score: ItemScore) -> Verdict:
    """The choice whose log-probability the context raises most, over its unconditional one."""
    without = score.asides[aside].sums
    return _best(score, [own - bare for own, bare in zip(score.sums, without, strict=True)])


def acc_order(shift: int, score: ItemScore) -> Verdict:
    """The choice of the highest summed log-probability where all stand `shift` places later."""
    return _best(score, score.asides[order_name(shift)].sums)


def acc_debiased(score: ItemScore) -> Verdict:
    """The choice of the highest probability among the choices, averaged over every cyclic order."""
    spread = [softmax(sums) for sums in _orders(score)]
    return _best(score, [math.fsum(each) for each in zip(*spread, strict=True)])


def acc_circular(score: ItemScore) -> Verdict:
    """1 where the highest sum is right in every cyclic order."""
    return Verdict(float(all(_best(score, sums).correct for sums in _orders(score))))


def acc_above_chance(score: ItemScore) -> Verdict | None:
    """`acc`, 0 where it is that of chance and 1 where all is right: (acc - chance) / (1 - chance)."""
    chance = len(set(score.record.gold)) / len(score.sums)
    if chance == 1:
        return None
    verdict = acc(score)
    return replace(verdict, value=verdict.value - chance, weight=1 - chance)


def mc2(score: ItemScore) -> Verdict:
    """The probability of the right choices among all choices, not normalised for length."""
    spread = softmax(score.sums)
    return Verdict(math.fsum(spread[each] for each in set(score.record.gold)))


def brier_score(score: ItemScore) -> Verdict:
    """Squared distance of the probabilities among the choices from the truth; several right ones share it."""
    golds = set(score.record.gold)
    truth = [1 / len(golds) if at in golds else 0.0 for at in range(len(score.sums))]
    return Verdict(math.fsum((p - y) ** 2 for p, y in zip(softmax(score.sums), truth, strict=True)))


def nll(score: ItemScore) -> Verdict:
    """Negative log-likelihood of the right choice; of several, of any of them."""
    return Verdict(-_log_sum([score.sums[each] for each in set(score.record.gold)]))


def margin(score: ItemScore) -> Verdict | None:
    """By how much the likeliest right choice is ahead of the likeliest wrong one."""
    golds = set(score.record.gold)
    wrong = [total for at, total in enumerate(score.sums) if at not in golds]
    return Verdict(max(score.sums[each] for each in golds) - max(wrong)) if wrong else None


def greedy(score: ItemScore) -> Verdict:
    """1 where each token of a right choice is the likeliest of all tokens."""
    return Verdict(float(any(score.greedy[each] for each in score.record.gold)))


def nll_per(lengths: Callable[[ItemScore], Sequence[int]], score: ItemScore) -> Verdict:
    """Negative log-likelihood of the first right choice, and how long that is."""
    first = score.record.gold[0]
    return Verdict(-score.sums[first], weight=float(lengths(score)[first]))


def confidence(score: ItemScore) -> Verdict:
    """Right or wrong by `acc`, and the probability of the predicted choice among the choices."""
    return replace(acc(score), weight=max(softmax(score.sums)))


def letter_mass(score: ItemScore) -> Verdict | None:
    """The probability of all labels together; low: the model would say something else."""
    if not _labelled(score.record):
        return None
    distinct = dict(zip(score.record.keys or range(len(score.sums)), score.sums, strict=True))
    return Verdict(min(1.0, math.fsum(map(math.exp, distinct.values()))))


def length_bias(score: ItemScore) -> Verdict | None:
    """Whether the longest choice is predicted by `acc`, less whether it is right; level ones all count."""
    lengths, golds = score.record.n_chars, set(score.record.gold)
    if len(set(lengths)) == 1:
        return None
    longest = {at for at, length in enumerate(lengths) if length == max(lengths)}
    return Verdict((acc(score).prediction in longest) - len(golds & longest) / len(golds))


def position_bias(score: ItemScore) -> Verdict | None:
    """Right or wrong by `acc`, with the position of the right label (of several, of the first)."""
    return replace(acc(score), group=score.record.gold[0]) if _labelled(score.record) else None


def softmax(sums: Sequence[float]) -> list[float]:
    """The probabilities among the choices; safe for sums far below 0."""
    highest = max(sums)
    raised = [math.exp(each - highest) for each in sums]
    whole = math.fsum(raised)
    return [each / whole for each in raised]


_right_or_wrong = partial(Metric, fewest=2, predicts=True, binary=True, compared=True)
_spread = partial(Metric, fewest=2)
_nats = partial(Metric, unit="nats")
_of_gold = partial(Metric, per_item=False)
_UNBOUNDED = partial(Tally, lowest=-math.inf, highest=math.inf)
_COST = partial(Tally, lowest=0.0, highest=math.inf)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _right_or_wrong(name="acc", judge=acc),
        _right_or_wrong(name="acc_norm", judge=acc_norm),
        _right_or_wrong(name="acc_bytes", judge=acc_bytes),
        _right_or_wrong(name="acc_token", judge=acc_token),
        _right_or_wrong(name="acc_mutual_info", judge=partial(acc_less, EMPTY), needs=EMPTY),
        _right_or_wrong(name="acc_pmi", judge=partial(acc_less, ANSWER), needs=ANSWER),
        _right_or_wrong(name="acc_debiased", judge=acc_debiased, needs=ORDERS),
        Metric(name="acc_circular", judge=acc_circular, needs=ORDERS, fewest=2, binary=True, compared=True),
        *(
            _right_or_wrong(
                name=f"acc_{order_name(shift)}",
                judge=partial(acc_order, shift),
                needs=order_name(shift),
                fewest=shift + 1,
            )
            for shift in range(1, MOST_ORDERS)
        ),
        _spread(
            name="acc_above_chance",
            judge=acc_above_chance,
            summary=partial(Ratio, highest=1.0),
            per_item=False,
        ),
        _spread(name="mc2", judge=mc2, compared=True),
        Metric(name="greedy", judge=greedy, needs=GREEDY, binary=True, compared=True),
        _spread(name="brier_score", judge=brier_score, unit="squared", summary=partial(Tally, highest=2.0)),
        _nats(name="nll", judge=nll, summary=_COST),
        _nats(name="margin", judge=margin, fewest=2, summary=_UNBOUNDED),
        _of_gold(name="perplexity", judge=nll, unit="perplexity", summary=partial(_COST, link=EXP)),
        _of_gold(
            name="word_perplexity",
            judge=partial(nll_per, lambda score: score.record.n_words),
            unit="perplexity",
            summary=partial(Ratio, lowest=0.0, link=EXP),
        ),
        _of_gold(
            name="byte_perplexity",
            judge=partial(nll_per, lambda score: score.record.n_bytes),
            unit="perplexity",
            summary=partial(Ratio, lowest=0.0, link=EXP),
        ),
        _of_gold(
            name="bits_per_byte",
            judge=partial(nll_per, lambda score: score.record.n_bytes),
            unit="bits",
            summary=partial(Ratio, lowest=0.0, link=BITS),
        ),
        _spread(name="ece", judge=confidence, summary=Calibration, per_item=False),
        _spread(name="letter_mass", judge=letter_mass),
        _spread(name="length_bias", judge=length_bias, summary=partial(Tally, lowest=-1.0)),
        _spread(name="position_bias", judge=position_bias, summary=Recalls, per_item=False),
    )
}
"""All metrics, in the order in which files list them."""


def named_metrics(text: str) -> tuple[str, ...]:
    """The metrics that a list separated by commas names; `all`: those that need no further request.

    Raises:
        UsageError: one is unknown.
    """
    names: list[str] = []
    for name in filter(None, map(str.strip, text.split(","))):
        if name == "all":
            names += [metric.name for metric in METRICS.values() if metric.needs in ("", GREEDY)]
        elif name in METRICS:
            names.append(name)
        else:
            raise UsageError(f"--metrics: no metric {name!r}. {did_you_mean(name, list(METRICS))}")
    return tuple(dict.fromkeys(names))


def asides_of(need: str, choices: int) -> tuple[str, ...]:
    """The asides of an item of so many choices that something is needed of, by name, asked or not."""
    if need == ORDERS:
        return tuple(order_name(shift) for shift in range(1, choices))
    return (need,) if need not in ("", GREEDY) else ()


def need_of(aside: str) -> str:
    """What an aside belongs to: an order to all orders, others to themselves."""
    return ORDERS if aside.startswith("order_") else aside


def exists(aside: str, record: ItemRecord) -> bool:
    """Whether an item has such an aside: of k choices there are k - 1 other orders."""
    return aside in asides_of(need_of(aside), len(record.n_chars))


def metrics_of_orders(choices: int) -> tuple[str, ...]:
    """The metrics of every cyclic order of so many choices."""
    return ("acc_debiased", "acc_circular", *(f"acc_{order_name(shift)}" for shift in range(1, choices)))


def _best(score: ItemScore, values: Sequence[float]) -> Verdict:
    highest = max(values)
    prediction = values.index(highest)  # the first of level ones
    tied = highest in values[prediction + 1 :]
    return Verdict(float(prediction in score.record.gold), prediction, tied)


def _per(sums: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """Sums over lengths; what has no length scores lowest."""
    return [total / length if length else -math.inf for total, length in zip(sums, lengths, strict=True)]


def _log_sum(logs: Sequence[float]) -> float:
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(each - highest) for each in logs))


def _orders(score: ItemScore) -> list[Sequence[float]]:
    """The sums under every cyclic order, the item's own first; each in the order of the choices."""
    others = [each.sums for name, each in score.asides.items() if name.startswith("order_")]
    return [score.sums, *others]


def _labelled(record: ItemRecord) -> bool:
    """Whether the choices are labels, such as letters, after one context."""
    return len(set(record.context_sha256)) <= 1 and max(record.n_chars) <= LABEL
