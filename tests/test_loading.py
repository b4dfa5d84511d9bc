"""What is loaded is data: no pickle, no code of others, no certificate taken on trust."""

from __future__ import annotations

import ast
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_endpoint import FakeEndpoint
from tests.running import Bench, bench

__all__ = ["bench"]

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("harness/**/*.py"), *ROOT.glob("tasks/**/*.py"), ROOT / "run_eval.py"])

PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules that make objects of any kind out of bytes."""
FORBIDDEN = {
    "read_pickle": "reads a pickle",
    "to_pickle": "writes a pickle",
    "allow_pickle": "lets numpy read pickles",
    "_create_unverified_context": "believes any certificate",
    "CERT_NONE": "believes any certificate",
    "check_hostname": "may believe a certificate of another host",
    "set_ciphers": "may weaken TLS",
    "system": "runs a shell",
    "popen": "runs a shell",
}
"""Names that stand nowhere in the program."""
NEEDED = {
    "torch.load": {"weights_only": True},
    "numpy.load": {"allow_pickle": False},
    "AutoModelForCausalLM.from_pretrained": {
        "trust_remote_code": False,
        "use_safetensors": True,
        "local_files_only": True,
    },
}
"""Calls that are safe only with these arguments."""
PRETRAINED = {"AutoModelForCausalLM.from_pretrained", "LoraConfig.from_pretrained"}
"""What is loaded by the name of a folder; the second reads a JSON file."""
REFUSED = {"trust_remote_code": True, "shell": True, "ssl": False, "verify_ssl": False, "verify": False}
"""Arguments that no call has."""
EXECUTED = {"harness/choosing/owncode.py": {"exec"}}
"""Where code is run that is not the program's: a person's own task file, which they name by its path."""


def dotted(node: ast.expr) -> str:
    """The name that a call is written by: "torch.load"."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def problems(source: str, file: str) -> Iterator[str]:
    """What a source does that it must not, by line."""
    for node in ast.walk(ast.parse(source)):
        place = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            yield from (f"{place} imports {name}" for name in names if (name or "").split(".")[0] in PICKLES)
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
            yield f"{place} {node.attr}: {FORBIDDEN[node.attr]}"
        if isinstance(node, ast.Call):
            yield from (f"{place} {problem}" for problem in calls(node, file))


def calls(node: ast.Call, file: str) -> Iterator[str]:
    """What is wrong with a call."""
    name = dotted(node.func).replace("np.", "numpy.")
    given = {each.arg: each.value for each in node.keywords}
    values = {key: each.value for key, each in given.items() if isinstance(each, ast.Constant)}
    for key, value in REFUSED.items():
        if key in values and values[key] is value:
            yield f"{name} with {key}={value}"
    for key, value in NEEDED.get(name, {}).items():
        if values.get(key) is not value:
            yield f"{name} without {key}={value}"
    if name.endswith("from_pretrained") and name not in PRETRAINED:
        yield f"{name}: what it loads is not known here"
    if name in ("eval", "exec", "compile", "__import__") and name not in EXECUTED.get(file, ()):
        yield f"{name}: runs code"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_sources_load_data_only(file: Path) -> None:
    """No source reads pickles, runs foreign code or a shell, or takes a certificate on trust."""
    assert list(problems(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np\nnp.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "frame.read_pickle",
        "AutoTokenizer.from_pretrained(name)",
        "AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)",
        "load_dataset(name, trust_remote_code=True)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "aiohttp.TCPConnector(ssl=False)",
        "context.check_hostname = False",
        "context.verify_mode = ssl.CERT_NONE",
        "eval(text)",
    ],
)
def test_the_search_finds_it(source: str) -> None:
    """Each of these would be found: else the test above would prove nothing."""
    assert list(problems(source, "x.py"))


_unpickled: list[str] = []
_listening = False


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if _listening and event == "pickle.find_class":
        _unpickled.append(f"{given[0]}.{given[1]}")


async def test_a_run_unpickles_nothing(bench: Bench) -> None:
    """While a whole run goes on nothing makes an object out of a pickle: Python itself tells if it did."""
    global _listening
    sys.addaudithook(_hear)  # for good: there is no way to take one away
    async with FakeEndpoint() as endpoint:
        _listening = True
        try:
            result = await bench.run(endpoint.base_url)
            assert _unpickled == []
            pickle.loads(pickle.dumps(ROOT))
        finally:
            _listening = False
    assert result.exit == 0
    assert _unpickled  # the last one was heard
