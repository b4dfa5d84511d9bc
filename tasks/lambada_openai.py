"""LAMBADA, as OpenAI prepared it: the last word of a passage, which takes the whole passage to be guessed.

Data: https://huggingface.co/datasets/EleutherAI/lambada_openai (modified MIT licence, by its card)
Paper: Paperno et al., "The LAMBADA dataset: Word prediction requiring a broad discourse context", 2016,
  arXiv:1606.06031
Prompt and scoring: lm-evaluation-harness 0.4.13, task `lambada_openai`, version 1.0. Its "acc" is `greedy`
here: whether the word is what greedy decoding would say. One choice an item, so there is none to be guessed.

With shots the reference puts two spaces before the last word of a shot; here there is one.
"""

from __future__ import annotations

from harness import Dataset, FieldError, Item, Row, Shots, Split, Task


def item(row: Row) -> Item:
    """The passage without its last word, which is forced with the space before it."""
    before, space, word = row.text("text").rpartition(" ")
    if not before.strip() or not word.strip():
        raise FieldError("text", "has no last word behind a space, with words before it")
    return row.item(
        context=before, choices=(word,), continuations=(f"{space}{word}",), gold=0, gold_field="text"
    )


TASK = Task(
    name="lambada_openai",
    version="1.0",
    dataset=Dataset(
        hub="EleutherAI/lambada_openai",
        config="default",
        folder="lambada_openai",
        columns=("text",),
        splits={"test": Split(5_153)},
    ),
    split="test",
    item=item,
    metrics=("greedy", "perplexity"),
    shots=Shots(split="test", draw="random"),
    delimiter="",  # the space belongs to the word
    chance=0.0,  # of all words, one
    example={
        "text": "Nora had hidden the key under the third pot on the balcony, and she told nobody. When her "
        "brother asked how he could get in while she was away, she sighed and showed him the pot",
    },
)
