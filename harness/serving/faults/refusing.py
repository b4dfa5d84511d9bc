"""What an endpoint that lacks something says no to: routes, forms of input, sizes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.serving.faults.asked import Asked, texts_of
from harness.serving.faults.plan import Faults


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered by an error of the endpoint's own."""

    name: str
    """Of the fault."""
    status: int
    message: str


def refused(asked: Asked, faults: Faults) -> Refusal | None:
    """Why a request is not answered as asked; None where no fault stands in its way."""
    if faults.no_tokenize and asked.route != "completions":
        return Refusal("no_tokenize", 404, f"no such route: {asked.path}")
    if faults.no_prompt and texts_of(asked):
        return Refusal("no_prompt", 422, "prompt: give tokens; texts are not taken here")
    top = None if asked.fields is None or asked.route != "completions" else asked.fields.get("logprobs")
    if faults.top is not None and isinstance(top, int) and top > faults.top:
        return Refusal("top", 422, f"logprobs: {top} is more than {faults.top}")
    return None
