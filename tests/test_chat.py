"""Chats: what becomes which message, templates within bounds, and a run whose prompts are rendered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from harness import UsageError, compare
from harness.chatting.bounds import DAY, LONGEST
from harness.chatting.chat import Chat, Message, as_sent, messages
from harness.chatting.rendering import Renderer
from harness.chatting.templates import ChatTemplate, find_template
from harness.cli import main
from harness.encoding import encode_prompts
from harness.errors import TemplateError, TemplateRefused
from harness.items import Pair
from harness.manifest import Exit
from harness.prepare import prepare
from harness.prompts import Prompt, Selection, pools_by_subject, prompts
from harness.tokenizing import Tokenizer
from tests.chat_templates import CHATML, HEADERS, INSTRUCTIONS, NO_SYSTEM
from tests.fake_endpoint import FakeEndpoint, Texts
from tests.making import make_prompt, make_rows, make_task
from tests.running import Bench, bench
from tests.test_tokenizing import definition

__all__ = ["bench"]

Mode = Literal["message", "turns"]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
HELLO: list[Message] = [{"role": "user", "content": "Hello <you> & é?"}]


class Plain:
    """A template that writes each message on a line; it may refuse a role, or everything."""

    sha256 = "plain"

    def __init__(self, *, refuses: str = "", fails: str = "") -> None:
        self._refuses, self._fails = refuses, fails

    def render(self, messages: Sequence[Message]) -> str:
        """One line a message, and where the assistant begins."""
        if self._fails:
            raise TemplateError(self._fails)
        if self._refuses in [message["role"] for message in messages]:
            raise TemplateRefused(f"no {self._refuses}")
        return "".join(f"{message['role']}: {message['content']}|" for message in messages) + "assistant: "


def shot_prompt(shots: int = 2, **changes: Any) -> Prompt:
    """The prompt of a question with a description and so many shots."""
    task = make_task(description=lambda subject: "About sums.\n\n", **changes)
    made = prompts(
        task,
        make_rows(1),
        shots=shots,
        pools=pools_by_subject(task, make_rows(3, name="dev")),
        chosen=Selection().indices(task.name, {"": 1}),
    )
    (prompt,) = made
    assert isinstance(prompt, Prompt)
    return prompt


# ---------------------------------------------------------------------------------------------- messages


def test_shots_and_question_in_one_message() -> None:
    """The description is the system message; shots and question stay one text, delimiters and all."""
    assert messages(shot_prompt(), "Q: test  0\nA:", "message") == [
        {"role": "system", "content": "About sums.\n\n"},
        {"role": "user", "content": "Q: dev  0\nA: yes 0\n\nQ: dev  1\nA: no 1\n\nQ: test  0\nA:"},
    ]


def test_shots_as_turns() -> None:
    """Each shot is a question of the user and an answer of the assistant, with no delimiter on either."""
    assert messages(shot_prompt(), "Q: test  0\nA:", "turns") == [
        {"role": "system", "content": "About sums.\n\n"},
        {"role": "user", "content": "Q: dev  0\nA:"},
        {"role": "assistant", "content": "yes 0"},
        {"role": "user", "content": "Q: dev  1\nA:"},
        {"role": "assistant", "content": "no 1"},
        {"role": "user", "content": "Q: test  0\nA:"},
    ]


@pytest.mark.parametrize("mode", ["message", "turns"])
def test_without_description_and_shots(mode: Mode) -> None:
    """There is then one message, of the user."""
    prompt = make_prompt("Q?", [" a"])
    assert messages(prompt, "Q?", mode) == [{"role": "user", "content": "Q?"}]


def test_only_the_delimiter_falls_away() -> None:
    """A choice that begins with white space of its own keeps it; a task without delimiter loses nothing."""
    chat = Chat("message", Plain())
    assert as_sent(make_prompt("Q?", ["  a", " b"]), chat).continuations == (" a", "b")
    item = make_prompt("He sat on the", [" chair"]).item
    assert as_sent(Prompt(item, "", 0, delimiter=""), chat).continuations == (" chair",)


@given(shots=st.integers(0, 3), mode=st.sampled_from(["message", "turns"]))
def test_the_chat_says_what_the_plain_prompt_says(shots: int, mode: Mode) -> None:
    """Description, shots and question are the same texts in the same order as in the plain prompt."""
    prompt = shot_prompt(shots)
    (context, *_) = prompt.contexts()
    chat = messages(prompt, prompt.item.pairs[0].context, mode)
    joints = iter([" ", "\n\n"] * shots) if mode == "turns" else iter(())
    system, *others = chat
    assert system["role"] == "system"
    said = "".join(message["content"] + next(joints, "") for message in others)
    assert system["content"] + said == context


def test_choices_with_contexts_of_their_own() -> None:
    """Each context is a chat of its own, rendered once; the shots are the same in each."""
    prompt = make_prompt("", ["x", "x", "x"], prefix="Shot.\n\n")
    contexts = ("Ann ran, as she", "Bob ran, as she", "Ann ran, as she")
    pairs = tuple(Pair(context, " was late.", "x") for context in contexts)
    item = type(prompt.item)(**{**_fields(prompt.item), "pairs": pairs})
    sent = as_sent(Prompt(item, "Shot.\n\n", 1), Chat("message", Plain()))
    assert sent.contexts == tuple(f"user: Shot.\n\n{context}|assistant: " for context in contexts)
    assert sent.contexts[0] is sent.contexts[2]
    assert sent.continuations == ("was late.",) * 3


def _fields(item: Any) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__slots__}


def test_what_is_bare_is_never_rendered() -> None:
    """An unconditional prompt stays plain; after nothing at all its choices lose the delimiter as well."""
    chat = Chat("turns", Plain())
    empty, answer = (make_prompt(context, [" a"]).item for context in ("", "Answer:"))
    assert as_sent(Prompt(empty, "", 0, bare=True), chat).contexts == ("",)
    assert as_sent(Prompt(empty, "", 0, bare=True), chat).continuations == ("a",)
    assert as_sent(Prompt(answer, "", 0, bare=True), chat).contexts == ("Answer:",)
    assert as_sent(Prompt(answer, "", 0, bare=True), chat).continuations == (" a",)
    assert as_sent(Prompt(empty, "", 0, bare=True), None).continuations == (" a",)


def test_a_template_without_a_place_for_the_system() -> None:
    """It is asked again without the description, as the reference does; without one it is a refusal."""
    sent = as_sent(shot_prompt(0), Chat("message", Plain(refuses="system")))
    assert sent.contexts[0] == "user: Q: test  0\nA:|assistant: "
    sent = as_sent(shot_prompt(0), Chat("message", Plain(refuses="user")))
    assert (sent.problem, sent.continuations) == ("chat template: no user", ())


def test_a_prompt_that_cannot_be_rendered_is_unscored() -> None:
    """An item whose chat breaks the template has no requests and says why; others are not touched."""
    prompt = make_prompt("Q?", [" a", " b"])
    tokenizer = Tokenizer(definition())
    (broken,) = encode_prompts([prompt], tokenizer, chat=Chat("message", Plain(fails="it broke")))
    assert (broken.problem, broken.pairs, broken.contexts) == ("chat template: it broke", (), ("Q?", "Q?"))
    (sound,) = encode_prompts([prompt], tokenizer, chat=Chat("message", Plain()))
    assert sound.contexts[0] == "user: Q?|assistant: "
    assert not sound.problem


# --------------------------------------------------------------------------------------------- rendering


def rendered(template: str, chat: Sequence[Message] = HELLO, **special: str) -> str:
    """What the sandbox makes of a template, in this process."""
    return Renderer(template, {**TOKENS, **special}).render(chat)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),
        ("{{ bos_token }}{{ eos_token }}{{ pad_token }}", "<s></s>"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hello <you> & é?"}'),
        ("{{ {'b': [1], 'a': 2} | tojson(indent=1, sort_keys=true) }}", '{\n "a": 2,\n "b": [\n  1\n ]\n}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "Hello <you> & é?"),
        ("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}", "True True True"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ 'no date' if strftime_now is not defined else 'a date' }}", "a date"),
    ],
)
def test_conventions_of_templates(template: str, text: str) -> None:
    """White space, special tokens, JSON, loop controls and dates are as transformers has them; but for the
    clock, which stands still."""
    assert rendered(template) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('not so') }}", "TemplateError: not so"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
        ("{% set _ = messages.append(1) %}", "SecurityError: access to attribute 'append'"),
        ("{{ messages | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ messages[5].content }}", "UndefinedError"),
    ],
)
def test_what_the_sandbox_refuses(template: str, said: str) -> None:
    """What a template must not do, or must not be, is one line out of the process that renders it."""
    with closing(ChatTemplate(template, TOKENS)) as chat, pytest.raises(TemplateRefused) as caught:
        chat.render(HELLO)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


DOUBLING = (
    "{% set n = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
    "{{ n.x }}"
)
ENDLESS = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOPS, "it takes more than 0.2 s"),
        (ENDLESS, "it takes more than 0.2 s"),
        ("{{ 'x' * 10 ** 12 }}", "it takes more than 512 MiB"),
        ("{{ '%999999999999d' % 1 }}", "it takes more than 512 MiB"),
        (DOUBLING, "it takes more than"),
        (
            "{% for i in range(9999) %}{{ 'x' * 999 }}{% endfor %}",
            f"9,989,001 characters; {LONGEST:,} are the",
        ),
        ("{{ range(10 ** 9) }}", "OverflowError: Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{% include 'file' %}", "TypeError: no loader for this environment specified"),
    ],
)
def test_hostile_templates(template: str, said: str) -> None:
    """No template takes more time or memory than it is given, and the next chat finds a fresh process."""
    with closing(ChatTemplate(template, TOKENS, seconds=0.2)) as chat:
        for _ in range(2):
            with pytest.raises(TemplateError) as caught:
                chat.render(HELLO)
            assert said in str(caught.value)


def test_a_chat_that_breaks_the_process_costs_no_other() -> None:
    """After a chat that ended the process the same template renders the next one."""
    template = "{% if messages[0].content == 'loop' %}" + LOOPS + "{% endif %}{{ messages[0].content }}"
    with closing(ChatTemplate(template, TOKENS, seconds=0.2)) as chat:
        assert chat.render(HELLO) == HELLO[0]["content"]
        with pytest.raises(TemplateError, match="more than"):
            chat.render([{"role": "user", "content": "loop"}])
        assert chat.render(HELLO) == HELLO[0]["content"]


def test_the_process_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment that may be secret is handed to foreign code."""
    monkeypatch.setenv("FRIENDLI_TOKEN", "flp_very_secret")
    begun: list[dict[str, Any]] = []

    def popen(command: Sequence[str], **options: Any) -> Any:
        begun.append(options)
        raise OSError(1, "not today")

    monkeypatch.setattr("harness.chatting.templates.subprocess.Popen", popen)
    with pytest.raises(TemplateError, match=r"no process can be started to render it \(not today\)"):
        ChatTemplate(CHATML, TOKENS).render(HELLO)
    assert begun[0]["env"].keys() <= {"PYTHONPATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}


def test_hashes_tell_templates_apart() -> None:
    """Another template or another special token is another hash; the bound on time is none of it."""
    hashes = [ChatTemplate(*given).sha256 for given in ((CHATML, TOKENS), (HEADERS, TOKENS), (CHATML, {}))]
    assert len(set(hashes)) == 3
    assert ChatTemplate(CHATML, TOKENS, seconds=1).sha256 == hashes[0]


# ------------------------------------------------------------------------------------------- where it stands


def write_template(folder: Path, template: object, *, jinja: str | None = None, **special: object) -> Path:
    """A `tokenizer.json` with a config that has this template, and a template of a file of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(definition("$A"))
    config = {**TOKENS, **special, **({} if template is None else {"chat_template": template})}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    return folder / "tokenizer.json"


def test_where_a_template_is_found(tmp_path: Path) -> None:
    """In the config, as a text or as the default of several; a file of its own counts before these."""
    file = write_template(tmp_path, CHATML, bos_token={"content": "[SEP]", "special": True}, pad_token=None)
    assert find_template(file) == (CHATML, {"bos_token": "[SEP]", "eos_token": "</s>"})
    several = [{"name": "tool_use", "template": HEADERS}, {"name": "default", "template": CHATML}]
    assert find_template(write_template(tmp_path, several)) == (CHATML, TOKENS)
    assert find_template(write_template(tmp_path, several, jinja=INSTRUCTIONS)) == (INSTRUCTIONS, TOKENS)
    assert find_template(write_template(tmp_path / "none", None)) is None
    (tmp_path / "bare").mkdir()
    assert find_template(tmp_path / "bare" / "tokenizer.json") is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            '{"chat_template": [{"name": "tool_use", "template": "x"}]}',
            'chat_template: no template is called "default"; there are tool_use',
        ),
        ('{"chat_template": 7}', "expected a text or a list of named templates; it is a number"),
        ('{"chat_template": {"default": "x"}}', "list of named templates; it is an object"),
        ('{"chat_template": []}', "chat_template: the list of templates is empty"),
        ('{"chat_template": [{"name": ["a"], "template": "x"}]}', "chat_template 1: expected an object with"),
        ('{"chat_template": [{"name": "default"}]}', "chat_template 1: expected an object with name and"),
        ("[]", "holds no JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_templates_that_cannot_be_read(tmp_path: Path, config: str, said: str) -> None:
    """What is there and is no template is one clear line that names flag and file."""
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(UsageError, match=r"^--chat-template: .*tokenizer_config\.json") as caught:
        find_template(tmp_path / "tokenizer.json")
    assert said in str(caught.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"name": st.just("default") | ANYTHING, "template": st.text(max_size=8) | ANYTHING}
)


@given(st.lists(ENTRIES | ANYTHING, max_size=3) | ANYTHING)
def test_any_shape_of_a_config(found: object) -> None:
    """Whatever stands under `chat_template`, there is a template, none, or one line for people."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"chat_template": found}))
        try:
            template = find_template(Path(folder) / "tokenizer.json")
        except UsageError as error:
            assert str(error).startswith("--chat-template: ")
            assert "\n" not in str(error)
            return
    if template is None:
        assert found is None
    else:
        texts = [each.get("template") for each in found] if isinstance(found, list) else [found]
        assert template[0] in texts


# ---------------------------------------------------------------------------------------------- start tokens


@pytest.mark.parametrize("post", ["<s> $A", "$A"])
def test_the_start_token_is_not_doubled(post: str) -> None:
    """A rendered text that begins with the start token gets no second one, whoever puts it there."""
    tokenizer = Tokenizer(definition(post))
    with closing(ChatTemplate("{{ bos_token }}u{{ messages[0].content }}a", TOKENS)) as template:
        (item,) = encode_prompts(
            [make_prompt("Q", [" A"])], tokenizer, chat=Chat("message", template), as_text=False
        )
    assert [list(item.pairs[0].context_ids), list(item.pairs[0].forced_ids)] == [[0, *b"uQa"], [65]]


@pytest.mark.parametrize(("post", "text"), [("<s> $A", "uQa"), ("$A", "<s>uQa")])
def test_a_start_token_is_sent_as_text_where_nobody_else_puts_it(post: str, text: str) -> None:
    """A server that is sent text puts there what the tokenizer does by itself: then the text goes without."""
    tokenizer = Tokenizer(definition(post), bos="off")
    with closing(ChatTemplate("{{ bos_token }}u{{ messages[0].content }}a", TOKENS)) as template:
        chat = Chat("message", template, tokenizer.own_front())
        (item,) = encode_prompts([make_prompt("Q", [" A"])], tokenizer, chat=chat, as_text=True)
    assert item.pairs[0].text == (text, "A")


# ------------------------------------------------------------------------------------------------- whole runs


def with_template(bench: Bench, name: str, template: str | None, **special: str) -> str:
    """A folder with the bench's tokenizer, a start token and a template."""
    folder = bench.folder / name
    folder.mkdir()
    backend = Backend.from_file(str(bench.tokenizer))
    backend.add_special_tokens(["<s>"])
    backend.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", **special, **({} if template is None else {"chat_template": template})}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


def by_item(items: pd.DataFrame, column: str) -> dict[Any, Any]:
    """A column of `items.parquet` by what tells items apart."""
    return dict(
        zip(zip(items["task"], items["subject"], items["index"], strict=True), items[column], strict=True)
    )


async def test_a_run_in_chats(bench: Bench) -> None:
    """What is sent is the rendered text; the prompt's own hash stays that of the plain text, so that plain
    and templated endpoints can be joined; files and identity say what was done."""
    headers = with_template(bench, "headers", HEADERS)
    async with FakeEndpoint() as endpoint:
        url = f"{endpoint.base_url}#m"
        common: dict[str, Any] = {"tokenizer": (headers,), "shots": 1, "tasks": "mmlu"}
        plain = await bench.run(url, out="plain", **common)
        turns = await bench.run(url, out="turns", chat_template="turns", **common)
        message = await bench.run(url, out="message", chat_template="message", **common)
    assert plain.exit is turns.exit is message.exit is Exit.DONE
    items = {
        out: pd.read_parquet(bench.folder / out / "items.parquet") for out in ("plain", "turns", "message")
    }
    texts = pd.read_parquet(bench.folder / "turns" / "texts.parquet")
    assert by_item(items["plain"], "prompt_hash") == by_item(items["turns"], "prompt_hash")
    hashes = by_item(items["turns"], "context_sha256")
    for key, contexts in by_item(texts, "contexts").items():
        assert list(hashes[key]) == [sha256(each.encode()).hexdigest() for each in contexts]
    (first, *_) = by_item(texts, "contexts").values()
    head = "<|start_header_id|>{}<|end_header_id|>\n\n".format
    about = "The following are multiple choice questions (with answers) about anatomy."
    answers = "A. a\nB. b\nC. c\nD. d\nAnswer:"
    assert first[0] == (
        f"<s>{head('system')}Today is 26 Jul 2024.\n\n{about}<|eot_id|>"
        f"{head('user')}anatomy dev 0?\n{answers}<|eot_id|>{head('assistant')}A<|eot_id|>"
        f"{head('user')}anatomy test 0?\n{answers}<|eot_id|>{head('assistant')}"
    )
    assert len(set(by_item(items["message"], "context_sha256")[("mmlu", "anatomy", 0)])) == 1
    assert first[0] in (bench.folder / "turns" / "prompts.txt").read_text()
    assert "  'B'\n" in (bench.folder / "turns" / "prompts.txt").read_text()
    identity = bench.manifest("turns")["identity"]
    assert identity["chat_template"] == "turns"
    assert identity["template"] == ChatTemplate(HEADERS, {"bos_token": "<s>"}).sha256
    assert "chat_template" not in bench.manifest("plain")["identity"]
    joined = compare(bench.folder / "plain", bench.folder / "turns")
    assert any('differ in chat_template ("off", "turns")' in remark for remark in joined.remarks)
    assert any(
        remark.endswith(f"is told {DAY:%d %b %Y} on every day, so that prompts stay the same")
        for remark in turns.remarks
    )
    chats = [body["tokens"] for body in endpoint.bodies if body["tokens"][0] == 96]
    assert len(chats) == 2 * 48
    assert all(tokens.count(96) == 1 for tokens in chats)  # the start token, never doubled


async def test_a_folder_keeps_to_its_kind_of_prompt(bench: Bench) -> None:
    """A run folder of chats refuses plain text, and the other way round, naming what differs."""
    source = with_template(bench, "chatml", CHATML)
    async with FakeEndpoint() as endpoint:
        url = f"{endpoint.base_url}#m"
        await bench.run(url, out="chats", tasks="hellaswag", tokenizer=(source,), chat_template="message")
        await bench.run(url, out="plain", tasks="hellaswag", tokenizer=(source,))
        for out, mode in (("chats", "turns"), ("chats", "off"), ("plain", "message")):
            with pytest.raises(UsageError, match="holds a run of another suite: chat_template is"):
                await bench.run(url, out=out, tasks="hellaswag", tokenizer=(source,), chat_template=mode)


async def test_a_template_that_loses_the_description(bench: Bench) -> None:
    """It is scored without, as in the reference, and said beside the numbers."""
    source = with_template(bench, "no_system", NO_SYSTEM)
    async with FakeEndpoint() as endpoint:
        result = await bench.run(
            f"{endpoint.base_url}#m", tasks="mmlu,hellaswag", tokenizer=(source,), chat_template="message"
        )
    assert result.exit is Exit.DONE
    assert "m: the chat template leaves out the description of mmlu" in result.remarks
    assert not any("question" in remark for remark in result.remarks)


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        ("{{ messages[0].content }}", "turns"),
        ("{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}", "message"),
        ("{% for m in messages %}{{ m.content[:9] }}{% endfor %}", "message"),
        ("Answer: {{ messages | length }}", "turns"),
    ],
)
def test_a_template_that_loses_the_question(bench: Bench, body: str, mode: str) -> None:
    """Nothing that it gives would say anything of the model: the run ends in one line, before a request."""
    source = with_template(bench, "forgets", body)
    changes: dict[str, Any] = {"tasks": "mmlu", "shots": 1, "tokenizer": (source,), "chat_template": mode}
    with pytest.raises(UsageError) as caught:
        prepare(bench.settings("http://h/v1#m", **changes), {})
    assert str(caught.value) == (
        f"--chat-template {mode}: m cannot be asked mmlu: the chat template leaves out the question; mend the"
        " template, or take another"
    )


def test_a_template_that_loses_the_choices(bench: Bench) -> None:
    """Where each choice stands in a context of its own, a template that drops these is found too."""
    source = with_template(bench, "forgets", "{{ messages | length }}")
    rows = [{"sentence": "A _ b.", "option1": "x", "option2": "y", "answer": "1"}]
    (bench.data / "winogrande").mkdir()
    (bench.data / "winogrande" / "validation.jsonl").write_text(json.dumps(rows[0]) + "\n")
    settings = bench.settings(
        "http://h/v1#m", tasks="winogrande", shots=0, tokenizer=(source,), chat_template="message"
    )
    with pytest.raises(UsageError, match="cannot be asked winogrande: the chat template leaves out the"):
        prepare(settings, {})


@pytest.mark.parametrize("change", ["upper", "replace(' ', '')", "e | replace('t', '&#116;')"])
def test_a_template_that_changes_what_is_said(bench: Bench, change: str) -> None:
    """Letters or spaces that differ are no loss: it is scored, and said of question and description alike."""
    body = f"{{% for m in messages %}}{{{{ m.content | {change} }}}}{{% endfor %}}"
    source = with_template(bench, "shouts", body)
    settings = bench.settings("http://h/v1#m", tasks="mmlu", tokenizer=(source,), chat_template="message")
    assert prepare(settings, {}).chat_remarks == [
        "m: the chat template changes the description of mmlu",
        "m: the chat template changes the question of mmlu",
    ]


def test_what_a_template_changes_is_said_first(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A long run begins with it: whoever reads may stop it at once."""
    source = with_template(bench, "shouts", "{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    command = bench.command("http://127.0.0.1:9/v1#m", extra=["--chat-template", "turns", "--patience", "0"])
    command[command.index("--tokenizer") + 1] = source
    assert main(command[2:]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert said.index("changes the question of hellaswag, mmlu") < said.index("requests in")


async def test_endpoints_with_templates_of_their_own(bench: Bench) -> None:
    """Each endpoint of a run is asked in its own template, and they are joined all the same."""
    tokenizers = tuple(
        f"{name}={with_template(bench, name, template)}"
        for name, template in (("a", CHATML), ("b", INSTRUCTIONS))
    )
    async with FakeEndpoint(texts=Texts()) as endpoint:
        urls = [f"{name}={endpoint.base_url}#{name}" for name in ("a", "b")]
        await bench.run(*urls, tasks="hellaswag", tokenizer=tokenizers, chat_template="message")
    items = pd.read_parquet(bench.folder / "run" / "items.parquet")
    a, b = (items[items["endpoint"] == name] for name in ("a", "b"))
    assert by_item(a, "prompt_hash") == by_item(b, "prompt_hash")
    sent = [{name: list(each) for name, each in by_item(frame, "context_sha256").items()} for frame in (a, b)]
    assert sent[0] != sent[1]
    assert bench.manifest()["identity"]["template"] == "one for each endpoint"


@pytest.mark.parametrize(
    ("endpoint", "template", "said"),
    [
        (
            "http://h/v1#m",
            None,
            "has no chat template: neither a chat_template.jinja beside its tokenizer.json",
        ),
        ("embedded", "", "--chat-template message: embedded has no chat template"),
        ("http://h/v1#m", "{% for %}", "m cannot be asked hellaswag: chat template: TemplateSyntaxError"),
        (
            "http://h/v1#m",
            "{{ raise_exception('no') }}",
            "m cannot be asked hellaswag: chat template: TemplateE",
        ),
        (
            "http://h/v1#m",
            "{{ messages[0].content + 1 }}",
            "cannot be asked hellaswag: chat template: TypeError",
        ),
    ],
)
def test_what_is_found_before_the_first_request(
    bench: Bench, endpoint: str, template: str | None, said: str
) -> None:
    """No template, or one that cannot render the first prompt of a task: one line, and nothing was sent."""
    tokenizer = () if endpoint == "embedded" else (with_template(bench, "own", template),)
    settings = bench.settings(endpoint, tasks="hellaswag", tokenizer=tokenizer, chat_template="message")
    with pytest.raises(UsageError) as caught:
        prepare(settings, {})
    assert said in str(caught.value)
    assert str(caught.value).startswith("--chat-template message: ")


def test_an_endpoint_that_tokenizes_for_itself_tells_no_template(bench: Bench) -> None:
    """Its template is not known here, and a way out is named."""
    settings = bench.settings("http://h/v1#m", tokenizer=("endpoint",), chat_template="turns")
    with pytest.raises(UsageError, match=r"turns: m tokenizes for itself.*give a folder or a hub id"):
        prepare(settings, {})
