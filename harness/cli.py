"""The commands. Flags are read off the records of `harness.settings`; the work is done elsewhere.

What people read goes to the terminal through rich; data goes to files or, with `--json`, to stdout.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from harness import __version__, examples
from harness.compare_settings import CompareSettings, ReportSettings
from harness.doctor.settings import DoctorSettings
from harness.errors import EndpointRefused, HarnessError, StoreError, UsageError
from harness.printing import (
    NAME,
    print_accuracy,
    print_compared,
    print_examined,
    print_outlook,
    print_result,
)
from harness.redacting import install
from harness.serve_settings import ServeSettings
from harness.settings import FILES, RunSettings
from harness.terminal import pairs_table, print_table, reader_may_leave, say, show_other_signs
from harness.viewing.settings import ViewSettings

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection

RUN_USAGE = f"""\
Usage: {NAME} run --tasks NAME[,NAME] --endpoint SPEC [OPTIONS]
       {NAME} run SUITE.toml [OPTIONS]"""
PLAN_USAGE = RUN_USAGE.replace(f"{NAME} run", f"{NAME} plan")
NEW_OBJECTS = 50_000
"""After so many Python looks for cycles among them. Hardly any are made here, and to look after every 700, as
it does by itself, takes a tenth of a run's processor time."""
_COMPARE_DEFAULTS = CompareSettings()
_REPORT_DEFAULTS = ReportSettings()
_SERVE_DEFAULTS = ServeSettings()
_DOCTOR_DEFAULTS = DoctorSettings()
_VIEW_DEFAULTS = ViewSettings()

app = App(
    name=NAME,
    version=f"forced-choice {__version__}",
    help="How good is an LLM endpoint, or an adapter, at multiple choice? Every choice of an item is forced"
    " as output and its log-probability read; nothing is sampled, nothing parsed.",
    help_format="plaintext",
    help_epilogue="""\
See it work, with no account:
  forced-choice run --tasks sample_mmlu:cloze --endpoint embedded
Every flag of a command, with examples:
  forced-choice run --help""",
)


def _suite_beneath(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Flags that were not typed have what the suite file says, if one was given."""
    from harness.suitefile import lay_beneath

    lay_beneath(arguments)


@app.command(usage=RUN_USAGE, help_epilogue=examples.RUN, config=_suite_beneath)
def run(
    suite: Annotated[Path | None, Parameter(metavar="SUITE.toml", show_default=False)] = None,
    /,
    *,
    settings: RunSettings | None = None,
    dump_suite: Annotated[bool, Parameter(group=FILES, negative="", show_default=False)] = False,
) -> int:
    """Evaluate tasks on one or more endpoints; the same command continues where it stopped.

    Writes the accuracy table (scores.csv), every item (items.parquet, items.csv)
    and every reply (journal/) into the run's folder. FRIENDLI_TOKEN and
    FRIENDLI_TEAM (OPENAI_API_KEY for openai+... and openai-text+...) are read
    from the environment.

    Exit codes: 0 done. 2 settings or data are wrong, nothing was sent. 3 items
    are left unscored, or a cap stopped it. 4 an endpoint refused, or failed its
    probe. 130 interrupted.

    Args:
        suite: A suite file: tasks, endpoints with their budgets, and any flag by its name, as TOML. \
What flags say wins.
        dump_suite: Print this command line as a suite file, and do nothing else.
    """
    settings = settings or RunSettings()  # which says what is needed
    if dump_suite:
        from harness.suitefile import dump_suite as dumped

        sys.stdout.write(dumped(settings))
        return 0
    from harness.foreground import evaluated, run_async
    from harness.prepare import prepare

    result = run_async(evaluated(prepare(settings)))
    with reader_may_leave():
        print_result(result, as_json=settings.json)
    return int(result.exit)


@app.command(usage=PLAN_USAGE, help_epilogue=examples.PLAN, config=_suite_beneath)
def plan(
    suite: Annotated[Path | None, Parameter(metavar="SUITE.toml", show_default=False)] = None,
    /,
    *,
    settings: RunSettings | None = None,
) -> int:
    """Say what a run would take, before anything is sent: requests, tokens, time, money.

    Takes the options of run, needs no token, and asks no endpoint; what is assumed
    of them is said. Where the run's folder is there already, it says what is left.

    Exit codes: 0 done. 2 settings or data are wrong.

    Args:
        suite: A suite file, as run takes it. What flags say wins.
    """
    with reader_may_leave():
        print_outlook(settings or RunSettings())
    return 0


@app.command(help_epilogue=examples.COMPARE)
def compare(
    *source: Annotated[str, Parameter(metavar="SOURCE", show_default=False)],
    settings: CompareSettings = _COMPARE_DEFAULTS,
) -> int:
    """Say which endpoint is better, item by item: of one run, or of several.

    Writes comparison.csv (every pair, task, subject and statistic) and flips.csv
    (the items that changed sides).

    Exit codes: 0 done, or the gate passed. 1 the gate failed. 2 settings or data
    are wrong.

    Args:
        source: A run's folder; FOLDER#LABEL for one endpoint of it; lm-eval:FILE for a \
sample file of lm-evaluation-harness. The first endpoint is the baseline.
    """
    from harness.manifest import Exit

    passed = print_compared(source, settings)
    return int(Exit.DONE if passed else Exit.GATE_FAILED)


@app.command(help_epilogue=examples.RESCORE)
def rescore(
    folder: Annotated[Path, Parameter(metavar="RUN")],
    /,
    *,
    metrics: Annotated[str, Parameter(metavar="NAME[,NAME]", show_default=False)] = "",
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write a run's tables anew, with other metrics; nothing is sent.

    Everything is computed from the run's journal. Metrics that need other requests
    (acc_mutual_info, acc_pmi, those of --permute-choices) can be added if the run made them.

    Exit codes: 0 done. 2 the run or a metric is not there. 3 items are left unscored.

    Args:
        folder: The run's folder.
        metrics: Report these beside those that the run has; all: those that need no request.
        json: Print the accuracy table as JSON on stdout, for programs.
    """
    from harness.manifest import Exit
    from harness.rescoring import rescore as score_anew

    try:
        found = score_anew(folder, metrics)
    except StoreError as error:
        raise UsageError(str(error)) from error
    with reader_may_leave():
        print_accuracy(found.accuracy, as_json=json)
        say(Console(stderr=True), f"Files: {found.folder}/ (scores.csv, items.csv, items.parquet)")
    return int(Exit.UNSCORED if found.unscored else Exit.DONE)


@app.command(help_epilogue=examples.REPORT)
def report(
    *run: Annotated[str, Parameter(metavar="RUN", show_default=False)],
    settings: ReportSettings = _REPORT_DEFAULTS,
) -> int:
    """Write one page to show and to look into: plots, tables, and every item with its prompt.

    report.html needs nothing else and asks no host: send it, print it, read it on a
    phone. Several endpoints are compared as compare does it. Each plot stands in
    plots/ too, as SVG and PNG.

    Exit codes: 0 done. 2 there is no such run, or the page cannot be written.

    Args:
        run: A run's folder, several, or FOLDER#LABEL for one endpoint of it. The first \
endpoint is the baseline.
    """
    from harness.printing import print_report

    print_report(run, settings)
    return 0


@app.command(help_epilogue=examples.VIEW)
def view(
    folder: Annotated[Path, Parameter(metavar="DIR")] = Path("results"),
    /,
    *,
    settings: ViewSettings = _VIEW_DEFAULTS,
) -> int:
    """Look at runs in a browser: all there are, their reports, every item, one in progress.

    Line 1 of the output is the address. It answers on this machine alone, and
    changes nothing. Ctrl-C or SIGTERM ends it.

    Exit codes: 0 it was ended (130 by Ctrl-C). 2 there is no such folder, or the
    port is taken.

    Args:
        folder: Where runs are, or one run; folders in it are looked into as well.
    """
    from harness.foreground import run_async
    from harness.viewing.local import view as serve_pages

    run_async(serve_pages(folder, settings))
    return 0


@app.command(help_epilogue=examples.TASKS)
def tasks(
    name: Annotated[str | None, Parameter(metavar="NAME", show_default=False)] = None,
    /,
    *,
    shots: int | None = None,
    data_dir: Path | None = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """List tasks and suites; of one task print all that is known, and a whole prompt.

    Exit codes: 0 done. 2 there is no such task, or its rows cannot be read.

    Args:
        name: A task, a variant, a suite, or a set of your own (file:questions.jsonl), whose rows are all \
checked.
        shots: Solved questions in the prompt; by default the task's own number.
        data_dir: Take the prompt from the first row in DIR/<dataset>/, not from the example row.
        json: Print it as JSON, for programs.
    """
    from harness.choosing.taskpages import print_all, print_one

    if name is None and (shots is not None or data_dir is not None):
        raise UsageError("--shots and --data-dir show the prompt of one task; name it")
    if shots is not None and shots < 0:
        raise UsageError(f"--shots {shots}: must be 0 or more")
    with reader_may_leave():
        if name is None:
            print_all(as_json=json)
        else:
            print_one(name, shots=shots, data_dir=data_dir, as_json=json)
    return 0


@app.command(help_epilogue=examples.DOCTOR)
def doctor(
    *spec: Annotated[str, Parameter(metavar="SPEC", show_default=False)],
    settings: DoctorSettings = _DOCTOR_DEFAULTS,
) -> int:
    """Examine endpoints before money is spent: would scores be right, and how fast would they come?

    Sends about 120 requests to each, one finding a line: what was seen, what
    follows, what to do. A sleeping dedicated endpoint is woken. Secrets are those
    of run.

    Exit codes: 0 fit to be scored on. 2 settings are wrong, nothing was sent. 4 an
    endpoint refuses, or scores would be wrong.

    Args:
        spec: An endpoint, as run --endpoint takes it: [NAME=]SPEC.
    """
    from harness.manifest import Exit

    return int(Exit.DONE if print_examined(spec, settings) else Exit.REFUSED)


@app.command(help_epilogue=examples.SERVE)
def serve(settings: ServeSettings = _SERVE_DEFAULTS) -> int:
    """Serve a language model with Friendli's completions API, to rehearse on.

    Line 1 of the output is the base URL, line 2 a request to try. Completions
    (whole or streamed), tokenize and detokenize are at /v1, /dedicated/v1 and
    /serverless/v1; an OpenAI-style client finds echo with logprobs there too.
    Status, wake and sleep: /dedicated/beta/endpoint/ID/. Counts of positions
    computed and cached, and of faults: GET /admin.

    Ctrl-C or SIGTERM ends it; what is in flight gets a second to finish.
    """
    # One thread for linear algebra: the matrices are small, and more threads only wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from harness import reference
    from harness.foreground import run_async
    from harness.serving.faults.plan import read_faults, rows
    from harness.serving.server import Options, load
    from harness.serving.server import serve as serve_model

    if "list" in settings.faults:
        with reader_may_leave():
            print_table(pairs_table((form, what) for _, form, what in rows()))
        return 0
    shipped = settings.model is None
    options = Options(
        token=settings.token,
        team=settings.team,
        cache_tokens=settings.cache_tokens,
        cache_bytes=settings.cache_mib * 2**20,
        faults=read_faults(settings.faults),
        startup=settings.startup,
        sleep_after=settings.sleep_after,
        asleep=settings.asleep,
    )
    served = load(
        settings.model or reference.FOLDER,
        settings.adapters or (reference.ADAPTERS if shipped else None),
        backend=settings.backend,
        device=settings.device,
        dtype=settings.dtype,
    )
    run_async(
        serve_model(
            served, host=settings.host, port=settings.port, options=options, until_eof=settings.until_eof
        )
    )
    return 0


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what makes a shell complete commands and flags: source <(forced-choice completion bash)

    For every new shell, put that line into ~/.bashrc; for fish: forced-choice completion fish | source

    Args:
        shell: Whose script to print.
    """
    sys.stdout.write(app.generate_completion(shell=shell) + "\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are one line on stderr, never a traceback."""
    gc.set_threshold(NEW_OBJECTS)
    install()
    show_other_signs()
    console = Console(stderr=True)
    try:
        code = app(
            arguments if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        return _fail(console, str(error))
    except StoreError as error:  # files that could be written at first: the run is kept as far as it is
        return _fail(console, f"{error}. Then the same command continues.", code=3)
    except EndpointRefused as error:
        return _fail(console, str(error), code=4)
    except HarnessError as error:
        return _fail(console, str(error))
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of output, mostly: a full disk
        return _fail(console, f"{error.filename or 'output'}: {error.strerror or error}")
    return code if isinstance(code, int) else 0


def _fail(console: Console, message: str, *, code: int = 2) -> int:
    say(console, f"forced-choice: {message}")
    return code
