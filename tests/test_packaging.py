"""The wheel: what is in it, and that it runs without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the checkout."""
    copy, target = tmp_path_factory.mktemp("copy") / "tree", tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__", "results", "tests")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=copy, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return zipfile.ZipFile(built)


def test_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    """The wheel claims `harness` and nothing else; tasks are installed inside it."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"harness"}
    for file in [*(ROOT / "harness").rglob("*.py"), ROOT / "harness/py.typed"]:
        assert str(file.relative_to(ROOT)) in names
    for file in (ROOT / "tasks").glob("*.py"):
        assert f"harness/tasks/{file.name}" in names


def test_data_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """The wheel holds rows, suites, templates, the reference model with adapters, and what it was taught."""
    names = set(wheel.namelist())
    rows = {f"harness/{file.relative_to(ROOT)}" for file in (ROOT / "tasks/data").glob("*/*.jsonl")}
    model = {file.relative_to(ROOT) for file in (ROOT / "harness/reference").rglob("*") if file.is_file()}
    model = {file for file in model if "__pycache__" not in file.parts}
    knowledge = {file.relative_to(ROOT) for file in (ROOT / "harness/schooling/knowledge").glob("*.toml")}
    assert {len(rows), len(knowledge)} == {3, 10}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {file.name for file in model}
    assert sum(file.name == "adapter_model.safetensors" for file in model) == 2
    suites = {f"harness/{file.relative_to(ROOT)}" for file in (ROOT / "tasks/suites").glob("*.toml")}
    assert len(suites) >= 3
    templates = (ROOT / f"harness/{room}/templates" for room in ("reports", "viewing"))
    pages = {file.relative_to(ROOT) for folder in templates for file in folder.iterdir()}
    assert {".html", ".css", ".js"} == {file.suffix for file in pages}
    assert rows | suites | set(map(str, model | knowledge | pages)) <= names


def test_an_installed_copy_works_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked somewhere without the checkout, the program starts and finds its tasks."""
    wheel.extractall(tmp_path)
    code = "import harness; from harness.choosing.registry import load_task, task_names;"
    code += "print(harness.__file__, [load_task(name).name for name in task_names()])"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    files = sorted(file.stem for file in (ROOT / "tasks").glob("*.py") if not file.stem.startswith("_"))
    assert len(files) >= 4
    assert found.stdout.split(maxsplit=1) == [str(tmp_path / "harness/__init__.py"), f"{files}\n"]


def test_the_command_exists(wheel: zipfile.ZipFile) -> None:
    """The console command points at a function that exists."""
    (points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "forced-choice = harness.cli:main" in wheel.read(points).decode()
    from harness.cli import main

    assert callable(main)


def test_the_public_face() -> None:
    """What task files and users import is what `harness` names, and it loads no heavy library."""
    import harness

    assert sorted(harness.__all__) == harness.__all__
    assert all(hasattr(harness, name) for name in harness.__all__)
    code = "import sys, harness; print([n for n in ('numpy', 'pandas', 'aiohttp') if n in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
