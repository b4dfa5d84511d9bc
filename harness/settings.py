"""What a person can set about a run, one field a flag, checked before anything is done.

`harness.cli` reads the flags off these records; nothing here contacts an endpoint or opens a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from harness.endpoint_settings import Concurrency, EndpointSettings
from harness.errors import UsageError, check_margin
from harness.modes import Bos, ChatMode, Overflow
from harness.sharding import parse_shard

MARGIN = 0.01
"""A difference of a metric below this does not matter in practice, unless one says otherwise."""

MOST_WORKERS = 1000

NEEDED = "give --tasks NAME and --endpoint SPEC, or a suite file: run SUITE.toml"

WHAT = Group("What to evaluate", sort_key=1)
ITEMS = Group("Which items", sort_key=2)
TEXT = Group("Text and tokens", sort_key=3)
CHECKS = Group("Checks of the endpoint", sort_key=4)
PACE = Group("Pace and patience", sort_key=4)
MONEY = Group("Prices and caps", sort_key=5)
SPREAD = Group("More processes, more machines", sort_key=6)
FILES = Group("Files and output", sort_key=7)


def _auto_or_number(hint: object, tokens: Sequence[Token]) -> Concurrency:
    """The value of a flag, or of its key in a suite file, that is the word auto or a number."""
    if "auto" in (tokens[0].value, tokens[0].implicit_value):
        return "auto"
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise ValueError("give auto or a whole number") from error


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The flags of `run`."""

    endpoint: Annotated[
        tuple[str | EndpointSettings, ...],
        Parameter(
            group=WHAT,
            negative="",
            consume_multiple=False,
            accepts_keys=False,
            metavar="[NAME=]SPEC",
            show_default=False,
        ),
    ] = ()
    """An endpoint or adapter: dedicated:ENDPOINT_ID[:ADAPTER], serverless:MODEL, \
http(s)://HOST/PREFIX/v1#MODEL[:ADAPTER], openai+http(s)://HOST/PREFIX/v1#MODEL for vLLM and kin \
(openai-text+... where prompts must be text), or embedded[:ADAPTER], which needs no account. Give it once \
for each; NAME labels it in the tables."""
    tasks: Annotated[str, Parameter(group=WHAT, metavar="NAME[,NAME]", show_default=False)] = ""
    """The benchmarks, separated by commas: hellaswag, mmlu:cloze, a suite such as openllm_v1 (the command \
tasks lists all); questions of your own, file:questions.jsonl[:cloze], or code, my_task.py:TASK. NAME@5 \
asks that task alone with 5 shots."""
    tokenizer: Annotated[
        tuple[str, ...],
        Parameter(
            group=WHAT,
            negative="",
            consume_multiple=False,
            metavar="[NAME=]PATH_OR_HUB_ID",
            show_default=False,
        ),
    ] = ()
    """The endpoint's own tokenizer: a tokenizer.json, a folder that holds one, or a hub id; or the word \
endpoint, to ask a Friendli endpoint itself (slower the first time: one request a text, kept for later). \
NAME= gives it to the endpoint of that label only. embedded has its own."""
    ca_file: Annotated[Path | None, Parameter(group=WHAT, metavar="FILE")] = None
    """Certificate authorities (PEM) to believe besides those that the system knows, for https endpoints \
whose certificate is of a private one."""
    shots: Annotated[int | None, Parameter(group=WHAT)] = None
    """Solved questions before each question; by default each task's own number."""
    metrics: Annotated[str, Parameter(group=WHAT, metavar="NAME[,NAME]", show_default=False)] = ""
    """Report these beside each task's own: acc_norm, acc_pmi, mc2, ece, ...; all: those that need no \
further request."""
    permute_choices: Annotated[Literal["off", "cyclic"], Parameter(group=WHAT)] = "off"
    """cyclic: ask lettered choices in every cyclic order too, and report accuracy under each and averaged."""
    data_dir: Annotated[Path | None, Parameter(group=ITEMS, negative_none="no-")] = None
    """Read DIR/<dataset>/<split>.parquet, .jsonl or .csv instead of the hub."""
    limit: Annotated[int | None, Parameter(group=ITEMS)] = None
    """Only the first N items of each task (of each subject, where a task has subjects)."""
    sample: Annotated[int | None, Parameter(group=ITEMS)] = None
    """Only N items of each task (of each subject), drawn at random by --seed."""
    seed: Annotated[int, Parameter(group=ITEMS)] = 0
    """Seed of --sample, and of the order of --compare-until-decided."""
    compare_until_decided: Annotated[bool, Parameter(group=ITEMS, show_default=False)] = False
    """Ask items in a random order (--seed) on all endpoints side by side, and stop once it is decided \
whether each is better or worse than the first, or within --margin of it, over the whole of the tasks: with \
95 % confidence, however often one looks."""
    margin: Annotated[float | None, Parameter(group=ITEMS, show_default=False)] = None
    """With --compare-until-decided: a difference below this does not matter, by default 0.01, which is one \
point; 0: only which is better counts."""
    skip_bad_rows: Annotated[bool, Parameter(group=ITEMS, show_default=False)] = False
    """Count rows that are no items as unscored, instead of stopping before the first request."""
    bos: Annotated[Bos, Parameter(group=TEXT)] = "auto"
    """Beginning-of-sequence token: what the tokenizer itself does, always, or never."""
    chat_template: Annotated[ChatMode, Parameter(group=TEXT)] = "off"
    """Put prompts into the tokenizer's own chat template, for models that were trained on it: shots and \
question in one user message, or the shots as turns; the description is the system message."""
    shortcut: Annotated[bool, Parameter(group=TEXT)] = True
    """Where every choice is a single token after the same context, ask once and read the other choices off \
the alternatives that the reply names, if these are shown to be the same; --no-shortcut forces each choice."""
    max_length: Annotated[int | None, Parameter(group=TEXT)] = None
    """Bound on context plus continuation in tokens; the context loses tokens on the left."""
    on_overflow: Annotated[Overflow, Parameter(group=TEXT)] = "truncate"
    """What happens to an item longer than --max-length."""
    repeat_sample: Annotated[int | None, Parameter(group=CHECKS, metavar="N")] = None
    """Score N items, drawn over all tasks, a second time: how often predictions change and how much sums \
differ is the endpoint's noise, which compare takes into its intervals."""
    probe: Annotated[bool, Parameter(group=CHECKS)] = True
    """Ask a few items beside the run, to see that the endpoint scores rightly, that an adapter is applied, \
and that the model stays the same; --no-probe asks nothing but the items."""
    concurrency: Annotated[
        Concurrency,
        Parameter(group=PACE, metavar="auto|N", show_choices=False, converter=_auto_or_number),
    ] = "auto"
    """Requests in flight at once: auto finds out how many an endpoint takes, its adapters together, and \
starts low; N: so many for each endpoint."""
    rpm: Annotated[float | None, Parameter(group=PACE)] = None
    """Requests a minute that the account allows; shared by its adapters."""
    tpm: Annotated[float | None, Parameter(group=PACE)] = None
    """Tokens a minute (prompt and forced) that the account allows."""
    timeout: Annotated[float, Parameter(group=PACE)] = 120.0
    """Seconds one attempt may take."""
    attempts: Annotated[int, Parameter(group=PACE)] = 8
    """How often one request is sent before its item is left unscored; 429s do not count."""
    patience: Annotated[float, Parameter(group=PACE)] = 1800.0
    """Seconds to sit out an endpoint that is down before it is given up."""
    price_in: Annotated[float | None, Parameter(group=MONEY)] = None
    """Price of a million prompt tokens, in any currency."""
    price_out: Annotated[float | None, Parameter(group=MONEY)] = None
    """Price of a million tokens that are put out: here those that are forced."""
    price_hour: Annotated[float | None, Parameter(group=MONEY)] = None
    """Instead of these: price of an hour of a dedicated endpoint, whatever it is asked."""
    max_requests: Annotated[int | None, Parameter(group=MONEY)] = None
    """Never send more requests than this in all sessions of the run, retries included: it stops with exit \
code 3, and with a higher cap the same command continues."""
    max_tokens: Annotated[int | None, Parameter(group=MONEY)] = None
    """Never send more tokens, of prompts and forced; likewise."""
    max_cost: Annotated[float | None, Parameter(group=MONEY)] = None
    """Never spend more, at these prices; likewise."""
    workers: Annotated[int | None, Parameter(group=SPREAD, metavar="N")] = None
    """Send from so many processes of this machine (with --engine ray: of the cluster) instead of from this \
one, which hands them parts of the run and keeps what comes back. --concurrency holds in each; budgets and \
caps hold for all together."""
    engine: Annotated[Literal["local", "ray"], Parameter(group=SPREAD)] = "local"
    """Where workers are: processes of this machine, or actors of a Ray cluster (pip install \
'forced-choice[ray]')."""
    ray_address: Annotated[str | None, Parameter(group=SPREAD, metavar="ADDRESS", show_default=False)] = None
    """The cluster: HOST:PORT of its head, or auto for the one that this machine belongs to; by default the \
one that RAY_ADDRESS names, else Ray is started on this machine for the run."""
    shard: Annotated[str | None, Parameter(group=SPREAD, metavar="I/N", show_default=False)] = None
    """Do only part I of N of the run, in shards/I-of-N of its folder; the command merge puts the parts \
together. For arrays of jobs (Slurm, Kubernetes). Budgets and caps are those of all parts: each takes its \
Nth."""
    out: Annotated[Path | None, Parameter(group=FILES)] = None
    """The run's folder; by default results/<tasks>-<identity>. The same command continues it."""
    log_file: Annotated[Path | None, Parameter(group=FILES, metavar="FILE")] = None
    """Add what happens to this file, a line of JSON each: retries, failures, changes of pace and why, \
outages, a heartbeat a minute."""
    store_text: Annotated[bool, Parameter(group=FILES)] = True
    """Keep contexts, choices and token ids in texts.parquet."""
    fsync: Annotated[bool, Parameter(group=FILES, show_default=False)] = False
    """Survive a power loss too, not only a kill; slower."""
    json: Annotated[bool, Parameter(group=FILES, show_default=False)] = False
    """Print the accuracy table as JSON on stdout, for programs; of the command plan, its numbers."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if not self.task_names and not self.endpoint:
            raise UsageError(f"nothing to run: {NEEDED}")
        if not self.task_names:
            raise UsageError("--tasks: none given; the command tasks lists all")
        for flag, value in (("--limit", self.limit), ("--sample", self.sample)):
            if value is not None and value < 1:
                raise UsageError(f"{flag} {value}: must be at least 1; leave it out to take all items")
        if self.limit is not None and self.sample is not None:
            raise UsageError("--limit and --sample exclude each other; choose one")
        if self.shots is not None and self.shots < 0:
            raise UsageError(f"--shots {self.shots}: must be 0 or more")
        if self.max_length is not None and self.max_length < 2:
            raise UsageError(f"--max-length {self.max_length}: must be at least 2 tokens")
        if self.repeat_sample is not None and self.repeat_sample < 1:
            raise UsageError(
                f"--repeat-sample {self.repeat_sample}: must be at least 1; leave it out for none"
            )
        if self.concurrency != "auto" and self.concurrency < 1:
            raise UsageError(f"--concurrency {self.concurrency}: must be auto, or at least 1")
        if self.attempts < 1:
            raise UsageError(f"--attempts {self.attempts}: must be at least 1")
        for flag, amount in (("--rpm", self.rpm), ("--tpm", self.tpm), ("--timeout", self.timeout)):
            if amount is not None and not 0 < amount < float("inf"):
                raise UsageError(f"{flag} {amount:g}: must be a number above 0")
        if not 0 <= self.patience < float("inf"):
            raise UsageError(f"--patience {self.patience:g}: must be 0 or more seconds")
        self._check_money()
        self._check_deciding()
        self._check_spread()
        _ = self.metric_names  # which says what is unknown

    def _check_money(self) -> None:
        """Refuse prices and caps that cannot be meant."""
        of_tokens = (("--price-in", self.price_in), ("--price-out", self.price_out))
        for flag, price in (*of_tokens, ("--price-hour", self.price_hour)):
            if price is not None and not 0 <= price < float("inf"):
                raise UsageError(f"{flag} {price:g}: must be 0 or more")
        given = next((flag for flag, price in of_tokens if price is not None), None)
        if given and self.price_hour is not None:
            raise UsageError(f"{given} and --price-hour exclude each other; choose one")
        for flag, cap in (("--max-requests", self.max_requests), ("--max-tokens", self.max_tokens)):
            if cap is not None and cap < 1:
                raise UsageError(f"{flag} {cap}: must be at least 1; the command plan sends nothing")
        if self.max_cost is not None and not 0 < self.max_cost < float("inf"):
            raise UsageError(f"--max-cost {self.max_cost:g}: must be a number above 0")

    def _check_deciding(self) -> None:
        """Refuse what cannot go with stopping early, or means nothing without."""
        if self.margin is not None:
            check_margin("--margin", self.margin)
        if not self.compare_until_decided:
            if self.margin is not None:
                raise UsageError("--margin is of --compare-until-decided; the command compare has its own")
        elif self.repeat_sample is not None:
            raise UsageError(
                "--repeat-sample and --compare-until-decided exclude each other: nobody knows beforehand"
                " which items will be asked"
            )

    def _check_spread(self) -> None:
        """Refuse what cannot go with several processes, or means nothing without."""
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UsageError(f"--workers {self.workers}: must be 1 to {MOST_WORKERS:,}")
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError("--ray-address is of --engine ray")
        spread = "--workers" if self.workers is not None else "--engine ray" if self.engine == "ray" else ""
        if self.shard is not None:
            parse_shard(self.shard)
            spread, other = "--shard", spread
            if other:
                raise UsageError(
                    f"--shard and {other} exclude each other; each shard is a command of its own"
                )
        if spread and self.compare_until_decided:
            raise UsageError(
                f"{spread} and --compare-until-decided exclude each other: whether more is asked depends on"
                " all that came so far"
            )
        if self.shard is not None and self.repeat_sample is not None:
            raise UsageError("--shard and --repeat-sample exclude each other; repeat in a run of its own")

    @property
    def spread(self) -> bool:
        """Whether workers send, and not this process."""
        return self.workers is not None or self.engine == "ray"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics that were asked for beside those of the tasks, each once."""
        from harness.scoring.metrics import named_metrics  # not sooner: `--help` checks nothing

        return named_metrics(self.metrics)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks in the order given, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))
