"""The flags of `serve`, one field a flag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from harness.errors import UsageError

SERVED = Group("What is served", sort_key=1)
REACHED = Group("How it is reached", sort_key=2)
KEPT = Group("What it remembers", sort_key=3)
FAULTS = Group("How it misbehaves", sort_key=4)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """The flags of `serve`."""

    model: Annotated[Path | None, Parameter(group=SERVED, metavar="DIR")] = None
    """A Hugging Face folder: config.json, model.safetensors, tokenizer.json. Without it the reference model \
that ships with the program, with its adapters."""
    adapters: Annotated[Path | None, Parameter(group=SERVED, metavar="DIR")] = None
    """A folder of LoRA adapters in PEFT's layout; DIR/NAME is asked for as model ENDPOINT_ID:NAME."""
    backend: Annotated[Literal["auto", "numpy", "transformers"], Parameter(group=SERVED)] = "auto"
    """What computes. numpy: models of the Llama architecture. transformers: any causal LM (pip install \
'forced-choice[local]'). auto: numpy where it can."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(group=SERVED)] = "auto"
    """Where transformers computes; auto: on a GPU where there is one."""
    dtype: Annotated[Literal["auto", "float32", "float16", "bfloat16"], Parameter(group=SERVED)] = "auto"
    """What transformers computes in; auto: float32 on a processor, the checkpoint's own type on a GPU."""
    host: Annotated[str, Parameter(group=REACHED)] = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Parameter(group=REACHED)] = 8000
    """Port to listen on; 0 picks a free one."""
    token: Annotated[str | None, Parameter(group=REACHED, env_var="FORCED_CHOICE_SERVE_TOKEN")] = None
    """Bearer token that clients must send; without it any or none is accepted."""
    team: Annotated[str | None, Parameter(group=REACHED)] = None
    """Team id that clients must send in X-Friendli-Team; without it any or none is accepted."""
    until_eof: Annotated[bool, Parameter(group=REACHED, negative="", show_default=False)] = False
    """End when standard input ends, so that whoever started it need not stop it."""
    cache_tokens: Annotated[int, Parameter(group=KEPT)] = 65_536
    """Tokens of contexts whose keys and values are kept, so that what starts alike is read once; 0: none."""
    cache_mib: Annotated[int, Parameter(group=KEPT)] = 256
    """Mebibytes that these may take; 0: none."""
    faults: Annotated[
        tuple[str, ...],
        Parameter(group=FAULTS, negative="", consume_multiple=False, metavar="FAULTS", show_default=False),
    ] = ()
    """What goes wrong: a TOML file, or short forms such as 429=0.1,reset=0.01,seed=7. Repeatable. \
--faults list prints them all."""
    startup: Annotated[float, Parameter(group=FAULTS)] = 0.0
    """Seconds that a sleeping endpoint takes to wake up, through the phases that the vendor names."""
    asleep: Annotated[bool, Parameter(group=FAULTS, negative="", show_default=False)] = False
    """Begin asleep: the first request on /dedicated/v1 wakes it, and gets 503 until it is up."""
    sleep_after: Annotated[float, Parameter(group=FAULTS)] = 0.0
    """Seconds with no request to answer after which it falls asleep; 0: never."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port {self.port}: must be between 0 and 65535")
        for flag, value in (
            ("--cache-tokens", self.cache_tokens),
            ("--cache-mib", self.cache_mib),
            ("--startup", self.startup),
            ("--sleep-after", self.sleep_after),
        ):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{flag} {value:g}: must be 0 or more")
