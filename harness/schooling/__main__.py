"""`python -m harness.schooling`: write the samples, train the reference model and its adapters."""

from __future__ import annotations

import argparse
from pathlib import Path

import harness
from harness.schooling import knowledge, samples

ROOT = Path(harness.__path__[0]).parent
SEED = 1


def main() -> None:
    """One command for each step; `all` does them in order."""
    parser = argparse.ArgumentParser(prog="python -m harness.schooling", description=__doc__)
    parser.add_argument("step", choices=("samples", "base", "adapters", "all"))
    parser.add_argument("--data", type=Path, default=ROOT / "tasks/data", help="where the samples go")
    parser.add_argument("--out", type=Path, default=ROOT / "harness/reference", help="where the model goes")
    parser.add_argument("--threads", type=int, default=2, help="of linear algebra")
    parser.add_argument("--steps", type=int, help="of the base model, to try something out")
    asked = parser.parse_args()
    known = knowledge.load()
    if asked.step in ("samples", "all"):
        samples.write(known, asked.data)
    if asked.step in ("base", "adapters", "all"):
        import torch

        from harness.schooling import courses

        torch.set_num_threads(asked.threads)
        torch.use_deterministic_algorithms(True)
        if asked.step != "adapters":
            courses.base(known, asked.out, seed=SEED, steps=asked.steps)
        if asked.step != "base":
            courses.adapters(known, asked.out, seed=SEED)


if __name__ == "__main__":
    main()
