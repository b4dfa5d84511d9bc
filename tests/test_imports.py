"""The rings of the design, held by reading every import."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CORE = (
    "collecting",
    "errors",
    "events",
    "saying",
    "inert",
    "modes",
    "secrets",
    "items",
    "choosing.ownitems",
    "task",
    "converting",
    "exchange",
    "failures",
    "cleaning",
    "prompts",
    "chatting.chat",
    "seams",
    "pairs",
    "encoding",
    "shortcut",
    "sending",
    "caps",
    "forecast",
    "sharding",
    "scoring.scores",
    "plan",
    "scoring.estimates",
    "scoring.summaries",
    "scoring.metrics",
    "scoring.asides",
    "doctor.findings",
    "doctor.judging",
    "doctor.judging_wire",
    "watching.chosen",
    "watching.judging",
)
"""In the order in which they may import one another."""
COMPARISON = (
    "ragged",
    "columns",
    "matching",
    "paired",
    "families",
    "resampling",
    "findings",
    "ordering",
    "sequential",
    "parts",
    "measures",
    "flips",
    "estimating",
    "stopped",
    "noise",
    "ranking",
    "verdicts",
    "words",
    "gate",
    "engines",
    "nearties",
    "drifting",
    "comparing",
)
"""Modules of `harness.comparison`, the last of the core, in the same kind of order."""
WHOLE_CORE = {*CORE, *(f"comparison.{each}" for each in COMPARISON)}
EDGES = (
    "pacing.headers",
    "pacing.allowance",
    "pacing.budget",
    "pacing.lending",
    "pacing.lessor",
    "pacing.slots",
    "pacing.holding",
    "pacing.leasing",
    "pacing.level",
    "pacing.gate",
    "pacing.outage",
    "pacing",
    "allotments",
    "redacting",
    "trust",
    "deadlines",
    "posting",
    "transport",
    "patience",
    "client",
    "doctor.varied",
    "doctor.waking",
    "doctor.asking",
    "doctor.probes",
    "doctor.sound",
    "doctor.wire",
    "doctor.load",
    "doctor.table",
    "doctor.brief",
    "feed",
    "learning",
    "reading",
    "data.hub",
    "tokenizing",
    "chatting.bounds",
    "chatting.rendering",
    "chatting.templates",
    "tokencache",
    "endpoint_tokenizer",
    "reference",
    "choosing.checking",
    "choosing.registry",
    "strict",
    "choosing.tasklists",
    "data.rowfiles",
    "choosing.ownsets",
    "choosing.owncode",
    "choosing.resolving",
    "data.rows",
    "data.survey",
    "layout",
    "data.listing",
    "journalfile",
    "replies",
    "journal",
    "mending",
    "files",
    "merging.rules",
    "places",
    "segments",
    "watching.noise",
    "watching.kept",
    "merging.folding",
    "watching.findings",
    "tables",
    "texts",
    "merging.texts",
    "richly",
    "stored",
    "columnar",
    "lmeval",
    "exports",
    "enginefiles",
    "junit",
    "policy",
    "logfile",
    "reports.records",
    "reports.palette",
    "reports.drawing",
    "reports.axes",
    "reports.accuracies",
    "reports.changes",
    "reports.spreads",
    "reports.plots",
    "reports.pace",
    "reports.settled",
    "reports.wording",
    "reports.documents",
    "reports.itemdata",
    "reports.page",
)
SHELL = (
    "terminal",
    "endpoint_settings",
    "endpoints",
    "accounts",
    "settings",
    "compare_settings",
    "serve_settings",
    "doctor.settings",
    "viewing.settings",
    "checked",
    "suite",
    "shards",
    "choosing.catalogue",
    "chatting.checking",
    "runs",
    "prices",
    "planning",
    "prepare",
    "earlier",
    "merging.said",
    "merging.spent",
    "merging.parts",
    "embedded",
    "progress",
    "work",
    "pool",
    "probing",
    "manifest",
    "remarks",
    "merging.records",
    "background",
    "heartbeat",
    "clients",
    "doctor.examining",
    "doctor.beginning",
    "doctor.reporting",
    "watching.asking",
    "watching.family",
    "watching.watch",
    "watching.session",
    "watching.foreseen",
    "deciding.order",
    "deciding.sides",
    "deciding.referee",
    "deciding.outcome",
    "opening",
    "workers.channel",
    "workers.messages",
    "workers.wire",
    "workers.line",
    "workers.keeping",
    "workers.pieces",
    "workers.leases",
    "workers.ledger",
    "workers.tally",
    "workers.texts",
    "workers.hands",
    "workers.stores",
    "workers.oneendpoint",
    "workers.worker",
    "workers.lenders",
    "workers.engine",
    "asking",
    "workers.desk",
    "workers.crew",
    "workers.local",
    "workers.chunks",
    "workers.cluster",
    "workers.actorbudgets",
    "workers.actors",
    "workers.onray",
    "workers.engines",
    "pools",
    "runner",
    "suitefile",
    "evaluating",
    "rescoring",
    "merging.whole",
    "sources",
    "compared",
    "reports.joining",
    "reports.gathered",
    "reports.writing",
    "charting",
    "viewing.guarding",
    "viewing.folders",
    "viewing.itemtable",
    "viewing.rows",
    "viewing.building",
    "viewing.opened",
    "viewing.live",
    "viewing.shelves",
    "viewing.pages",
    "viewing.picking",
    "viewing.answers",
    "viewing.app",
    "viewing.local",
    "showing",
    "reckoning",
    "outlook",
    "foretold",
    "choosing.taskpages",
    "examples",
    "descriptions",
    "foreground",
    "workers.__main__",
    "printing",
    "commands.run",
    "commands.plan",
    "commands.compare",
    "commands.rescore",
    "commands.merge",
    "commands.report",
    "commands.view",
    "commands.tasks",
    "commands.doctor",
    "commands.serve",
    "commands.app",
    "cli",
)
"""Modules of each ring, in the order in which they may import one another."""

ROOMS = (
    "chatting",
    "choosing",
    "commands",
    "data",
    "reports",
    "deciding",
    "doctor",
    "merging",
    "scoring",
    "viewing",
    "watching",
    "workers",
)
"""Packages whose modules stand in the rings above, under dotted names."""

SCHOOLING = {
    "knowledge": {"msgspec"},
    "corpus": set(),
    "samples": set(),
    "tokens": {"tokenizers"},
    "network": {"torch"},
    "lora": {"torch"},
    "training": {"torch", "tokenizers"},
    "folder": {"torch", "tokenizers", "safetensors"},
    "courses": {"torch", "tokenizers"},
    "__main__": {"torch"},
}
"""Modules of `harness.schooling`, beside the rings, and their libraries; in the same kind of order."""

LOCAL = {"msgspec", "numpy", "peft", "safetensors", "torch", "transformers"}
"""Libraries of the extra `local`, and of those always there what goes between them."""
SERVING = {
    "models.weights": {"msgspec", "numpy", "safetensors"},
    "models.seam": {"numpy"},
    "models.modules": {"numpy"},
    "models.config": {"msgspec"},
    "models.adapters": {"msgspec", "numpy"},
    "models.adapting": {"numpy"},
    "models.llama": {"numpy"},
    "models.local.quiet": LOCAL,
    "models.local.changes": LOCAL,
    "models.local.adapters": LOCAL,
    "models.local.network": LOCAL,
    "models.local.pasts": LOCAL,
    "models.local.batches": LOCAL,
    "models.local.trying": LOCAL,
    "models.local.models": LOCAL,
    "models.transformers_model": set(),
    "decoding.spelling": set(),
    "decoding.sampling": {"numpy"},
    "decoding.steering": {"numpy"},
    "decoding.job": set(),
    "decoding.writing": set(),
    "decoding.beams": {"numpy"},
    "prefixes": {"numpy"},
    "decoding.completing": {"numpy"},
    "scheduler": {"numpy"},
    "engine": set(),
    "wire": {"msgspec"},
    "asking": {"msgspec"},
    "texts": set(),
    "faults": {"aiohttp", "msgspec"},
    "jobs": {"numpy"},
    "lifecycle": set(),
    "management": {"aiohttp", "msgspec"},
    "completions": {"msgspec"},
    "streaming": {"aiohttp", "msgspec"},
    "app": {"aiohttp", "msgspec"},
    "server": {"aiohttp"},
}
"""Modules of `harness.serving` and their libraries, in the order in which they may import one another;
`faults` is a package of its own."""

SCIENCE = {"numpy", "scipy"}
EDGE_LIBRARIES = {
    "pacing.headers": set(),
    "pacing.allowance": set(),
    "pacing.budget": set(),
    "pacing.lending": set(),
    "pacing.lessor": set(),
    "pacing.slots": set(),
    "pacing.holding": set(),
    "pacing.leasing": set(),
    "pacing.level": set(),
    "pacing.gate": set(),
    "pacing.outage": set(),
    "pacing": set(),
    "allotments": set(),
    "redacting": set(),
    "trust": set(),
    "deadlines": set(),
    "posting": {"aiohttp", "yarl"},
    "transport": {"aiohttp", "multidict", "yarl"},
    "patience": set(),
    "client": {"tenacity"},
    "doctor.varied": {"msgspec"},
    "doctor.waking": {"msgspec"},
    "doctor.asking": set(),
    "doctor.probes": set(),
    "doctor.sound": set(),
    "doctor.wire": set(),
    "doctor.load": set(),
    "doctor.table": set(),
    "doctor.brief": set(),
    "feed": set(),
    "learning": set(),
    "reading": set(),
    "data.hub": {"huggingface_hub"},
    "tokenizing": {"tokenizers", "huggingface_hub"},
    "chatting.bounds": set(),
    "chatting.rendering": {"jinja2"},
    "chatting.templates": set(),
    "tokencache": set(),
    "endpoint_tokenizer": set(),
    "reference": set(),
    "choosing.checking": set(),
    "choosing.registry": set(),
    "strict": {"msgspec"},
    "choosing.tasklists": {"msgspec"},
    "choosing.ownsets": {"msgspec"},
    "choosing.owncode": set(),
    "choosing.resolving": set(),
    "data.rowfiles": {"pyarrow"},
    "data.rows": {"datasets"},
    "data.survey": set(),
    "layout": {"msgspec"},
    "data.listing": set(),
    "journalfile": set(),
    "replies": set(),
    "journal": set(),
    "mending": set(),
    "files": {"pandas", "pyarrow"},
    "merging.rules": set(),
    "places": {"msgspec"},
    "segments": {"msgspec"},
    "watching.noise": {"numpy"},
    "watching.kept": {"msgspec"},
    "merging.folding": {"msgspec"},
    "watching.findings": set(),
    "tables": {"pandas", "pyarrow"},
    "texts": set(),
    "merging.texts": {"pyarrow"},
    "richly": set(),
    "stored": {"msgspec", "pandas", "pyarrow"},
    "columnar": {"numpy", "pyarrow"},
    "lmeval": {"msgspec"},
    "exports": {"pandas", "tabulate"},
    "enginefiles": {"pandas"},
    "junit": set(),
    "policy": {"msgspec"},
    "logfile": set(),
    "reports.records": {"numpy"},
    "reports.palette": set(),
    "reports.drawing": {"altair", "vl_convert"},
    "reports.axes": {"altair"},
    "reports.accuracies": {"altair"},
    "reports.changes": {"altair"},
    "reports.spreads": {"altair", "numpy"},
    "reports.plots": set(),
    "reports.pace": {"msgspec", "numpy"},
    "reports.settled": set(),
    "reports.wording": {"huggingface_hub"},
    "reports.documents": {"numpy"},
    "reports.itemdata": set(),
    "reports.page": {"jinja2", "markupsafe"},
}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and file.parent == ROOT / "tasks":
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                yield node.lineno, f".{name}"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} relative import"
            module = node.module or ""
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                at = ROOT / deeper.replace(".", "/")
                is_module = at.with_suffix(".py").exists() or (at / "__init__.py").exists()
                yield node.lineno, deeper if is_module else module


def allowed(module: str) -> tuple[set[str], set[str] | None]:
    """What a module of `harness` may import: modules of `harness`, and libraries (None: any declared)."""
    if module in CORE:
        return set(CORE[: CORE.index(module)]), SCIENCE
    if module == "__main__":
        return {"cli"}, set()
    if module in ROOMS:
        return set(), set()
    if module.startswith("schooling."):
        name = module.removeprefix("schooling.")
        earlier = list(SCHOOLING)[: list(SCHOOLING).index(name)]
        return {*CORE, "schooling", *(f"schooling.{each}" for each in earlier)}, SCHOOLING[name]
    if module == "schooling":
        return set(), set()
    if module.startswith("comparison."):
        before = COMPARISON[: COMPARISON.index(module.removeprefix("comparison."))]
        return {*CORE, *(f"comparison.{each}" for each in before)}, SCIENCE
    if module == "comparison":
        return set(), set()
    if module.startswith("dialects"):
        return {
            *CORE,
            "dialects",
            *(f"dialects.{f.stem}" for f in (ROOT / "harness/dialects").glob("*.py")),
        }, {"msgspec"}
    seam = {"dialects", *(f"dialects.{f.stem}" for f in (ROOT / "harness/dialects").glob("*.py"))}
    if module in EDGES:
        return {*WHOLE_CORE, *seam, *EDGES[: EDGES.index(module)]}, EDGE_LIBRARIES[module]
    if module in ("serving", "serving.models", "serving.models.local", "serving.decoding"):
        return set(), set()
    if module.startswith("serving."):
        name = module.removeprefix("serving.")
        room = "faults" if name.startswith("faults") else name
        earlier = [f"serving.{each}" for each in list(SERVING)[: list(SERVING).index(room)]]
        faults = {each for each in modules() if each.startswith("serving.faults")}
        own = faults if room == "faults" or "serving.faults" in earlier else set()
        return {*CORE, *seam, *earlier, *own, "tokenizing", "serving"}, SERVING[room]
    below = {*WHOLE_CORE, *seam, *EDGES, *SHELL[: SHELL.index(module)]}
    served = {each for each in modules() if each.startswith("serving.")}
    return below | (served if module == "commands.serve" else set()), None


def modules() -> list[str]:
    """Every module of the package but its public face, dotted below `harness`."""
    files = (ROOT / "harness").rglob("*.py")
    names = (str(file.relative_to(ROOT / "harness").with_suffix("")).replace("/", ".") for file in files)
    return sorted(name.removesuffix(".__init__") for name in names if name != "__init__")


@pytest.mark.parametrize("module", modules())
def test_ring(module: str) -> None:
    """A module imports only what its ring may; the offending line is named."""
    base = ROOT / "harness" / module.replace(".", "/")
    is_package = (base / "__init__.py").exists()
    file = base / "__init__.py" if is_package else base.with_suffix(".py")
    own, libraries = allowed(module)
    for line, name in imports(file):
        top, _, rest = name.partition(".")
        if top == "harness":
            assert rest in own or rest == "", f"{file}:{line} imports {name}, which its ring may not"
        elif top not in sys.stdlib_module_names and libraries is not None:
            assert top in libraries, f"{file}:{line} imports {top}, which its ring may not"


@pytest.mark.parametrize("file", sorted((ROOT / "tasks").glob("*.py")), ids=lambda file: str(file.name))
def test_tasks_import_the_public_face_only(file: Path) -> None:
    """A task file imports nothing but the standard library, `harness` itself, and what tasks share: the files
    beside it whose names begin with `_`."""
    for line, name in imports(file):
        top = name.partition(".")[0]
        shared = name.startswith("._") and (file.parent / f"{name[1:]}.py").is_file()
        fine = shared or name == "harness" or (top and top in sys.stdlib_module_names)
        assert fine, f"{file}:{line} imports {name}"


def test_nothing_imports_the_schooling() -> None:
    """How the reference model came to be is no part of the program."""
    files = [file for file in (ROOT / "harness").rglob("*.py") if "schooling" not in file.parts]
    for file in [*files, *(ROOT / "tasks").glob("*.py"), ROOT / "run_eval.py"]:
        for line, name in imports(file):
            assert not name.startswith("harness.schooling"), f"{file}:{line} imports {name}"


def test_nothing_imports_tasks_statically() -> None:
    """Task files are loaded by the registry alone."""
    for file in [*(ROOT / "harness").rglob("*.py"), ROOT / "run_eval.py"]:
        for line, name in imports(file):
            assert not name.startswith(("harness.tasks", "tasks")), f"{file}:{line} imports {name}"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "README.md", "harness/README.md"])
def test_paths_in_documents(document: str) -> None:
    """What a document names of the tree is there: whoever moves a file finds the places that name it."""
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:harness|tests|tasks|results)/[\w./-]+)`|\]\((?!http)([\w./-]+)\)", text)
    assert named
    for path, link in named:
        base = (ROOT / document).parent if link else ROOT
        assert (base / (path or link)).exists(), f"{document} names {path or link}, which is not there"
