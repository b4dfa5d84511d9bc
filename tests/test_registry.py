"""Task files: listed by name, loaded one at a time, from a bare checkout and from an installed package."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Task, UsageError
from harness.choosing.registry import PACKAGE, load_task, task_names

ROOT = Path(__file__).parents[1]
TELL = """
import json, sys
sys.path.append({libraries!r})
from harness.choosing.registry import load_task, task_names
names = task_names()
before = sorted(name for name in sys.modules if name.startswith("harness.tasks."))
task = load_task("mmlu")
loaded = (name for name in sys.modules if name.startswith("harness.tasks."))
after = sorted(name for name in loaded if not name.startswith("harness.tasks._"))
print(json.dumps([names, before, after, task.name, sys.modules["harness.tasks.mmlu"].__file__]))
""".format(libraries=sysconfig.get_path("purelib"))
"""What is found by a program that is started with -S: libraries, but no editable install of this checkout."""


@pytest.fixture
def more_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files are task files too, for the time of a test."""
    task_names()
    package = importlib.import_module(PACKAGE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"{PACKAGE}.{file.stem}", None)


def test_names_are_sorted_file_names() -> None:
    """Every task file is listed by its name, and nothing else is."""
    files = sorted(file.stem for file in (ROOT / "tasks").glob("*.py") if not file.stem.startswith("_"))
    assert task_names() == files
    assert {"hellaswag", "mmlu", "sample_hellaswag", "sample_mmlu"} <= set(files)


def test_load() -> None:
    """A task is loaded by its name, once."""
    task = load_task("hellaswag")
    assert isinstance(task, Task)
    assert load_task("hellaswag") is task


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("helaswag", "Did you mean hellaswag"),
        ("mmlu_stem", "Did you mean mmlu"),
        ("mlu:cloze", "no task 'mlu:cloze'. Did you mean mmlu"),
        ("zzz", "Known: "),
        ("", "Known: "),
        ("../tasks/mmlu", "no task '../tasks/mmlu'"),
        ("__init__", "no task '__init__'"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    """An unknown name is refused, naming the flag and the nearest known names."""
    with pytest.raises(UsageError) as caught:
        load_task(name)
    assert str(caught.value).startswith("--tasks")
    assert hint in str(caught.value)


def test_a_variant_is_loaded_by_its_own_name() -> None:
    """A variant is a task of its file's data under a name of its own; it is not listed."""
    task, variant = load_task("sample_mmlu"), load_task("sample_mmlu:cloze")
    assert (task.name, variant.name) == ("sample_mmlu", "sample_mmlu:cloze")
    assert variant.dataset == task.dataset
    assert load_task("sample_mmlu:cloze") is variant
    assert "sample_mmlu:cloze" not in task_names()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sample_mmlu:clze", "no such variant of sample_mmlu. Did you mean sample_mmlu:cloze?"),
        ("sample_mmlu:", "no such variant of sample_mmlu. Did you mean sample_mmlu:cloze?"),
        ("copa:cloze", "copa has no variants"),
    ],
)
def test_unknown_variant(name: str, said: str) -> None:
    """A variant that a file does not declare is refused, with those that it does."""
    with pytest.raises(UsageError) as caught:
        load_task(name)
    assert str(caught.value) == f"--tasks {name}: {said}"


def test_a_variant_is_named_after_its_file(more_tasks: Path) -> None:
    """A file whose variant has another file's name is refused."""
    text = (ROOT / "tasks" / "sample_mmlu.py").read_text().replace('name="sample_mmlu"', 'name="other"')
    (more_tasks / "other.py").write_text(text)
    with pytest.raises(UsageError, match=r"declares the variant 'sample_mmlu:cloze'.*begin with other:"):
        load_task("other")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def item(row:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", "has no TASK"),
        ("TASK = 'broken'", "has no TASK"),
        ("from tests.making import make_task\nTASK = make_task(name='broken', metrics=())", "metrics is ()"),
        (
            "from tests.making import make_task\nTASK = make_task(name='broken')\nVARIANTS = 3",
            "VARIANTS is 3; expected a tuple of Tasks",
        ),
    ],
)
def test_broken_file(more_tasks: Path, text: str, said: str) -> None:
    """A file that cannot be imported or has no task is named, in one line."""
    file = more_tasks / "broken.py"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_task("broken")
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_and_task_are_named_alike(more_tasks: Path) -> None:
    """A file that declares a task of another name is refused."""
    shutil.copy(ROOT / "tasks" / "mmlu.py", more_tasks / "mmlu_copy.py")
    with pytest.raises(UsageError, match=r"mmlu_copy\.py declares the task 'mmlu'"):
        load_task("mmlu_copy")


def test_private_files_and_packages_are_no_tasks(more_tasks: Path) -> None:
    """Files that begin with an underscore and folders are not listed."""
    (more_tasks / "_shared.py").write_text("")
    (more_tasks / "folder").mkdir()
    (more_tasks / "folder" / "__init__.py").write_text("")
    assert not {"_shared", "folder"} & set(task_names())


@pytest.mark.parametrize("inside", [False, True], ids=["bare checkout", "installed"])
def test_where_task_files_are_found(tmp_path: Path, inside: bool) -> None:
    """Task files are found beside the package or inside it, and only the one asked for is loaded."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=skip)
    folder = tmp_path / "harness" / "tasks" if inside else tmp_path / "tasks"
    shutil.copytree(ROOT / "tasks", folder, ignore=skip)
    told = subprocess.run([sys.executable, "-S", "-c", TELL], cwd=tmp_path, capture_output=True, check=True)
    names, before, after, name, file = json.loads(told.stdout)
    assert names == task_names()
    assert (before, after, name) == ([], ["harness.tasks.mmlu"], "mmlu")
    assert Path(file).resolve() == (folder / "mmlu.py").resolve()


def test_no_task_files_at_all(tmp_path: Path) -> None:
    """A package without task files says where it looked."""
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    told = subprocess.run([sys.executable, "-S", "-c", TELL], cwd=tmp_path, capture_output=True, text=True)
    assert "UsageError: --tasks: no task files" in told.stderr
    assert str(tmp_path / "tasks") in told.stderr


def test_tasks_of_another_checkout_do_not_mix_in(tmp_path: Path) -> None:
    """Where Python would find `harness.tasks` in another checkout, those beside the running `harness` win."""
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("one", "other"):
        shutil.copytree(ROOT / "tasks", tmp_path / name / "tasks", ignore=skip)
    shutil.copytree(ROOT / "harness", tmp_path / "one" / "harness", ignore=skip)
    editable = f"""
import sys
from importlib.util import spec_from_file_location
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        folder = {str(tmp_path / "other" / "tasks")!r}
        if name == "harness.tasks":
            return spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.meta_path.append(Finder)
"""
    command = [sys.executable, "-S", "-c", editable + TELL]
    told = subprocess.run(command, cwd=tmp_path / "one", capture_output=True, check=True)
    assert Path(json.loads(told.stdout)[-1]).resolve() == (tmp_path / "one" / "tasks" / "mmlu.py").resolve()


def test_a_folder_beside_the_package_that_is_not_ours(tmp_path: Path) -> None:
    """A package called `tasks` that something else installed beside `harness` is never run."""
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("print('run')")
    told = subprocess.run([sys.executable, "-S", "-c", TELL], cwd=tmp_path, capture_output=True, text=True)
    assert "UsageError: --tasks: no task files" in told.stderr
    assert told.stdout == ""
