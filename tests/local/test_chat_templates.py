"""Chats as transformers renders them and as lm-evaluation-harness asks them: the same texts and splits."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import closing
from functools import cache, partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow as pa
import pytest
from pyarrow import compute, parquet

pytest.importorskip("lm_eval")
pytest.importorskip("transformers")

from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from harness.chatting.bounds import DAY
from harness.chatting.chat import Chat, Message
from harness.chatting.templates import ChatTemplate, find_template
from harness.encoding import EncodedItem, encode_prompts
from harness.errors import TemplateError
from harness.prompts import Prompt, Selection
from harness.suite import Suite, prepare_suite
from harness.tokenizing import load_tokenizer
from tests.chat_templates import TEMPLATES

Mode = Literal["message", "turns"]
SYSTEM: Message = {"role": "system", "content": "  Be brief. \n\n"}
CHATS: Mapping[str, list[Message]] = {
    "question": [{"role": "user", "content": " One <and> one?\nAnswer: "}],
    "system": [SYSTEM, {"role": "user", "content": "é \U0001f600 中\r\n\ttab"}],
    "turns": [
        SYSTEM,
        {"role": "user", "content": "One?\n"},
        {"role": "assistant", "content": " two "},
        {"role": "user", "content": "Three?"},
    ],
    "empty": [{"role": "user", "content": ""}],
    "two_of_the_user": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}
SUBJECT = "anatomy"
ITEMS = 4
"""Of each task."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the reference's own


def folder_of(shared: Path, folder: Path, template: str) -> Path:
    """A real tokenizer that puts a start token in front, with a template in its config, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories260k")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@cache
def tokenizer_of(folder: Path) -> Any:
    """The folder's tokenizer as transformers loads it."""
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=TEMPLATES)
def folder(request: pytest.FixtureRequest, tmp_path: Path, shared: Path) -> Path:
    """Such a folder for each template."""
    return folder_of(shared, tmp_path / "tokenizer", TEMPLATES[request.param])


def template_of(folder: Path) -> ChatTemplate:
    """The template as a run finds it."""
    found = find_template(folder / "tokenizer.json")
    assert found is not None
    return ChatTemplate(*found)


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other's clock stands still on the day that ours does, and nothing is kept of its data."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    clock = SimpleNamespace(now=lambda: DAY)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
def test_a_chat_is_rendered_as_transformers_renders_it(folder: Path, chat: list[Message]) -> None:
    """The same text, or a refusal of both."""
    theirs = tokenizer_of(folder)
    with closing(template_of(folder)) as ours:
        try:
            wanted = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # jinja2's, and Python's own
            with pytest.raises(TemplateError, match=type(error).__name__):
                ours.render(chat)
        else:
            assert ours.render(chat) == wanted


# ------------------------------------------------------------------------------------------ the reference


def their_task(folder: Path, name: str, own: str, files: Mapping[str, Path]) -> Any:
    """A task of the reference, but for where its rows come from."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    tasks = Path(spec.submodule_search_locations[0]) / "tasks"
    listed = "".join(f"    {split}: {file}\n" for split, file in files.items())
    folder.mkdir()
    (folder / "task.yaml").write_text(
        f"include: {tasks / own}\ntask: {name}\ndataset_path: parquet\ndataset_name: null\n"
        f"dataset_kwargs:\n  data_files:\n{listed}"
    )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    (task,) = manager.load([name])["tasks"].values()
    return task


def our_suite(name: str, data: Path, shots: int) -> Suite:
    """The same task of ours."""
    return prepare_suite(
        (name,), shots=shots, data_dir=data, selection=Selection(limit=ITEMS), skip_bad_rows=False
    )


def asked_there(task: Any, folder: Path, *, mode: Mode, shots: int) -> list[list[tuple[str, str]]]:
    """Context and continuation of each choice of the first items, as the reference makes them."""
    model = SimpleNamespace(tokenizer=tokenizer_of(folder), chat_template_args={})
    apply = partial(HFLM.apply_chat_template, model)
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(
        limit=ITEMS,
        apply_chat_template=True,
        fewshot_as_multiturn=mode == "turns",
        chat_template=apply,
        tokenizer_name="",
    )
    found: dict[int, list[tuple[str, str]]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance.args)
    return [found[at] for at in sorted(found)]


def asked_here(suite: Suite, folder: Path, mode: Mode) -> list[EncodedItem]:
    """The first items of ours, encoded with the tokenizer of the folder."""
    prompts = [prompt for _, prompt in suite.prompts() if isinstance(prompt, Prompt)][:ITEMS]
    with closing(template_of(folder)) as template:
        return encode_prompts(prompts, load_tokenizer(str(folder)), chat=Chat(mode, template))


def split_there(folder: Path, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of both parts, as the reference splits them."""
    tokenizer = tokenizer_of(folder)
    model = SimpleNamespace(
        tokenizer=tokenizer,
        backend="causal",
        add_bos_token=None,
        prefix_token_id=tokenizer.bos_token_id,
    )
    model.tok_encode = partial(HFLM.tok_encode, model)
    ids: tuple[list[int], list[int]] = HFLM._encode_pair(model, context, continuation)
    return ids


def files_of(name: str, shared: Path, folder: Path) -> tuple[str, dict[str, Path], Path]:
    """The reference's own file of a task, the files of its rows, and our data folder with the same rows."""
    folder.mkdir()
    if name == "mmlu":
        for split in ("dev", "test"):
            table = parquet.read_table(shared / f"data/mmlu/{split}.parquet")
            chosen = table.filter(compute.equal(table["subject"], SUBJECT))
            (folder / "mmlu").mkdir(exist_ok=True)
            parquet.write_table(chosen, folder / f"mmlu/{split}.parquet")
        files = {split: folder / f"mmlu/{split}.parquet" for split in ("dev", "test")}
        return f"mmlu/default/mmlu_{SUBJECT}.yaml", files, folder
    if name == "hellaswag":  # no whole train split is at hand: shots come out of other rows
        table = parquet.read_table(shared / "data/hellaswag/validation.parquet")
        (folder / "hellaswag").mkdir()
        files = {split: folder / f"hellaswag/{split}.parquet" for split in ("train", "validation")}
        parquet.write_table(pa.table(table.slice(500, 200)), files["train"])
        parquet.write_table(pa.table(table.slice(0, 20)), files["validation"])
        return "hellaswag/hellaswag.yaml", files, folder
    own = {"winogrande": "winogrande/default.yaml", "arc_easy": "arc/arc_easy.yaml"}[name]
    there = {file.stem: file for file in (shared / f"data/{name}").glob("*.parquet")}
    return own, there, shared / "data"


@pytest.mark.parametrize("name", ["mmlu", "hellaswag", "winogrande", "arc_easy"])
def test_items_are_asked_as_the_reference_asks_them(name: str, tmp_path: Path, shared: Path) -> None:
    """Real items in every template, with and without shots, as one message and as turns: contexts,
    continuations and token splits are the reference's own."""
    own, files, data = files_of(name, shared, tmp_path / "data")
    task = their_task(tmp_path / "task", f"{name}_{SUBJECT}" if name == "mmlu" else name, own, files)
    folders = [folder_of(shared, tmp_path / each, template) for each, template in TEMPLATES.items()]
    modes: tuple[Mode, ...] = ("message", "turns")
    for folder, mode, shots in product(folders, modes, (0, 3)):
        theirs = asked_there(task, folder, mode=mode, shots=shots)
        ours = asked_here(our_suite(name, data, shots), folder, mode)
        assert len(ours) == len(theirs) == ITEMS
        for item, wanted in zip(ours, theirs, strict=True):
            assert not item.problem
            assert list(item.contexts) == [context for context, _ in wanted]
            splits = [(list(pair.context_ids), list(pair.forced_ids)) for pair in item.pairs]
            assert splits == [split_there(folder, *each) for each in wanted]
