"""What stands at the begin of each command's `--help`: what it does, writes and needs, and its exit codes.

The first line of each is what `forced-choice --help` lists. They stand apart from the commands, so that this
list is printed without importing any of them.
"""

from __future__ import annotations

NAME = "forced-choice"

PROGRAM = """\
How good is an LLM endpoint, or an adapter, at multiple choice? Every choice of an item is forced as output \
and its log-probability read; nothing is sampled, nothing parsed."""

RUN_USAGE = f"""\
Usage: {NAME} run --tasks NAME[,NAME] --endpoint SPEC [OPTIONS]
       {NAME} run SUITE.toml [OPTIONS]"""

RUN = """\
Evaluate tasks on one or more endpoints; the same command continues where it stopped.

Writes the accuracy table (scores.csv), every item (items.parquet, items.csv)
and every reply (journal/) into the run's folder. FRIENDLI_TOKEN and
FRIENDLI_TEAM (OPENAI_API_KEY for openai+... and openai-text+...) are read
from the environment.

Exit codes: 0 done. 2 settings or data are wrong, nothing was sent. 3 items
are left unscored, or a cap stopped it. 4 an endpoint refused, or failed its
probe. 130 interrupted."""

PLAN_USAGE = RUN_USAGE.replace(f"{NAME} run", f"{NAME} plan")

PLAN = """\
Say what a run would take, before anything is sent: requests, tokens, time, money.

Takes the options of run, needs no token, and asks no endpoint; what is assumed
of them is said. Where the run's folder is there already, it says what is left.

Exit codes: 0 done. 2 settings or data are wrong."""

COMPARE = """\
Say which endpoint is better, item by item: of one run, or of several.

Writes comparison.csv (every pair, task, subject and statistic) and flips.csv
(the items that changed sides).

Exit codes: 0 done, or the gate passed. 1 the gate failed. 2 settings or data
are wrong."""

RESCORE = """\
Write a run's tables anew, with other metrics; nothing is sent.

Everything is computed from the run's journal. Metrics that need other requests
(acc_mutual_info, acc_pmi, those of --permute-choices) can be added if the run made them.

Exit codes: 0 done. 2 the run or a metric is not there. 3 items are left unscored."""

MERGE = """\
Put together what the shards of a run have (run --shard); nothing is sent.

Writes into DIR what the same run would have written on one machine. It may be
given at any time, and again: shards that are at work or missing are named, and
what they lack counts as unscored. run without --shard then asks the rest.

Exit codes: 0 done. 2 there are no shards, or they are of different suites.
3 items are left unscored."""

REPORT = """\
Write one page to show and to look into: plots, tables, and every item with its prompt.

report.html needs nothing else and asks no host: send it, print it, read it on a
phone. Several endpoints are compared as compare does it. Each plot stands in
plots/ too, as SVG and PNG.

Exit codes: 0 done. 2 there is no such run, or the page cannot be written."""

VIEW = """\
Look at runs in a browser: all there are, their reports, every item, one in progress.

Line 1 of the output is the address. It answers on this machine alone, and
changes nothing. Ctrl-C or SIGTERM ends it.

Exit codes: 0 it was ended (130 by Ctrl-C). 2 there is no such folder, or the
port is taken."""

TASKS = """\
List tasks and suites; of one task print all that is known, and a whole prompt.

Exit codes: 0 done. 2 there is no such task, or its rows cannot be read."""

DOCTOR = """\
Examine endpoints before money is spent: would scores be right, and how fast would they come?

Sends about 120 requests to each, one finding a line: what was seen, what
follows, what to do. A sleeping dedicated endpoint is woken. Secrets are those
of run.

Exit codes: 0 fit to be scored on. 2 settings are wrong, nothing was sent. 4 an
endpoint refuses, or scores would be wrong."""

SERVE = """\
Serve a language model with Friendli's completions API, to rehearse on.

Line 1 of the output is the base URL, line 2 a request to try. Completions
(whole or streamed), tokenize and detokenize are at /v1, /dedicated/v1 and
/serverless/v1; an OpenAI-style client finds echo with logprobs there too.
Status, wake and sleep: /dedicated/beta/endpoint/ID/. Counts of positions
computed and cached, and of faults: GET /admin.

Ctrl-C or SIGTERM ends it; what is in flight gets a second to finish."""

COMPLETION = """\
Print what makes a shell complete commands and flags: source <(forced-choice completion bash)

For every new shell, put that line into ~/.bashrc; for fish: forced-choice completion fish | source"""
