"""What stands at the end of each command's `--help`: commands to copy, one for each thing people do."""

from __future__ import annotations

PROGRAM = """\
See it work, with no account:
  forced-choice run --tasks sample_mmlu:cloze --endpoint embedded
Every flag of a command, with examples:
  forced-choice run --help"""

RUN = """\
Examples

Without an account, on the reference model and its adapters:
  forced-choice run --tasks sample_mmlu:cloze \\
      --endpoint embedded --endpoint embedded:geography

Your endpoint and an adapter of it, side by side, first on 200 items:
  export FRIENDLI_TOKEN=flp_...
  forced-choice run --tasks hellaswag --limit 200 \\
      --tokenizer meta-llama/Llama-3.1-8B \\
      --endpoint base=dedicated:ENDPOINT_ID \\
      --endpoint tuned=dedicated:ENDPOINT_ID:ADAPTER

Which of them is better, with no more requests than that takes:
  forced-choice run --tasks hellaswag --compare-until-decided --margin 0.01 \\
      --tokenizer MODEL_HUB_ID --endpoint base=dedicated:ENDPOINT_ID \\
      --endpoint tuned=dedicated:ENDPOINT_ID:ADAPTER

How much of it is the order of the choices, and the letters' own likelihood:
  forced-choice run --tasks mmlu --permute-choices cyclic \\
      --metrics acc_pmi,letter_mass,position_bias --tokenizer MODEL_DIR \\
      --endpoint http://127.0.0.1:8000/v1#MODEL

Five-shot MMLU from local files, on a server of your own:
  forced-choice run --tasks mmlu --shots 5 --data-dir DIR \\
      --tokenizer MODEL_DIR --endpoint http://127.0.0.1:8000/v1#MODEL

The same again and again, from a file (README.md shows what it may say); what
flags say wins:
  forced-choice run --tasks mmlu --endpoint embedded --dump-suite > suite.toml
  forced-choice run suite.toml --limit 20"""

PLAN = """\
Examples

What will it cost, and how long will it take?
  forced-choice plan --tasks mmlu --shots 5 --tokenizer MODEL_HUB_ID \\
      --endpoint serverless:MODEL --rpm 600 --price-in 0.2 --price-out 0.6

The same of a suite file, for a program:
  forced-choice plan suite.toml --json

Never more than this, whatever happens; the same command with a higher cap
goes on:
  forced-choice run suite.toml --max-cost 5"""

COMPARE = """\
Examples

The endpoints of one run, the first being the baseline:
  forced-choice compare results/hellaswag-1a2b3c4d

Two runs, of which only the items that both have:
  forced-choice compare results/monday results/tuesday --common-only

A release gate: exit 1 unless each endpoint is shown to be worse by less than
a point:
  forced-choice compare results/mmlu-1a2b3c4d --fail-if-worse-than 0.01 \\
      --junit gate.xml --summary "$GITHUB_STEP_SUMMARY"

One model served in two ways: how its log-probabilities shift, and whether
near-ties explain what they answer differently:
  forced-choice compare results/hellaswag-1a2b3c4d --engines

A run against samples that lm-evaluation-harness logged:
  forced-choice compare results/hellaswag-1a2b3c4d \\
      lm-eval:samples_hellaswag.jsonl"""

RESCORE = """\
Examples

Everything that can be said without another request:
  forced-choice rescore results/hellaswag-1a2b3c4d --metrics all

Is it calibrated, and does it prefer long choices or early ones?
  forced-choice rescore results/mmlu-1a2b3c4d \\
      --metrics ece,brier_score,length_bias,position_bias"""

MERGE = """\
Examples

Four parts of a run, on as many machines that see one folder, and the whole:
  forced-choice run --shard 1/4 --out /data/run --tasks mmlu \\
      --endpoint dedicated:ENDPOINT_ID --tokenizer MODEL_HUB_ID
  ... likewise 2/4, 3/4, 4/4
  forced-choice merge /data/run"""

REPORT = """\
Examples

A page on a run, beside its other files:
  forced-choice report results/hellaswag-1a2b3c4d

Before and after, on one page:
  forced-choice report results/monday results/tuesday --out change.html"""

VIEW = """\
Examples

All runs in results/, in a browser:
  forced-choice view

On another machine, through a tunnel (ssh -L 8050:127.0.0.1:8050 HOST):
  forced-choice view /data/results --port 8050 --no-open"""

TASKS = """\
Examples

All tasks and suites, with items, shots, chance and metrics:
  forced-choice tasks

What the five-shot prompt of MMLU looks like, from local files:
  forced-choice tasks mmlu --shots 5 --data-dir DIR

Are the rows of a file of your own right, and what is asked?
  forced-choice tasks file:questions.csv:cloze"""

DOCTOR = """\
Examples

Your endpoint and an adapter of it, with the tokenizer that a run would have:
  export FRIENDLI_TOKEN=flp_...
  forced-choice doctor dedicated:ENDPOINT_ID dedicated:ENDPOINT_ID:ADAPTER \\
      --tokenizer meta-llama/Llama-3.1-8B

A server of your own, for a program, with as much in flight as a run would have:
  forced-choice doctor http://127.0.0.1:8000/v1#MODEL --tokenizer MODEL_DIR \\
      --concurrency 64 --json

What all is looked at, on the reference model:
  forced-choice doctor embedded"""

SERVE = """\
Examples

The reference model, on a port of its own choice:
  forced-choice serve --port 0

A model and its adapters, as an account would see them:
  FORCED_CHOICE_SERVE_TOKEN=flp_rehearsal forced-choice serve \\
      --model MODEL_DIR --adapters ADAPTERS_DIR
  forced-choice run --tasks hellaswag --tokenizer MODEL_DIR \\
      --endpoint http://127.0.0.1:8000/v1#anything:ADAPTER

An endpoint on a bad day: a tenth of all requests are refused for now, some
connections break, and it sleeps until it is asked:
  forced-choice serve --faults 429=0.1,reset=0.01,seed=7 \\
      --asleep --startup 60
  forced-choice run --tasks hellaswag --tokenizer MODEL_DIR \\
      --endpoint http://127.0.0.1:8000/dedicated/v1#ENDPOINT_ID"""
