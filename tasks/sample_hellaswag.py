"""Sample of HellaSwag's kind: 120 everyday activities, four endings each, to try things out with.

Data: ships with the program (Apache-2.0), written for it; `harness/schooling` makes it.
Prompt and scoring: as `hellaswag`, for text without WikiHow's markup; the headline is acc_norm, by which
HellaSwag is usually quoted.

The reference model that ships with the program has read stories of these very activities: its scores here
show that the harness works, and nothing more.
"""

from __future__ import annotations

from harness import Dataset, Item, Row, Shots, Split, Task


def item(row: Row) -> Item:
    """The scene with its activity in front, and the four endings."""
    return row.item(
        context=f"{row.text('activity_label')}: {row.text('ctx_a')} {row.text('ctx_b')}",
        choices=row.texts("endings", exactly=4),
        gold=row.integer("label"),
        gold_field="label",
        id=row.optional("ind"),
    )


TASK = Task(
    name="sample_hellaswag",
    version="1.0",
    dataset=Dataset(
        hub=None,
        folder="sample_hellaswag",
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        splits={"validation": Split(120)},
    ),
    split="validation",
    item=item,
    metrics=("acc_norm", "acc"),
    shots=Shots(split="validation", draw="random", without_own=True),
    example={
        "ind": 0,
        "activity_label": "Making toast",
        "ctx_a": "A boy is hungry in the morning. He puts two slices of bread into the toaster. When the "
        "toast pops up,",
        "ctx_b": "the boy",
        "endings": [
            "kicks the ball past the goalkeeper and into the net.",
            "gets some butter and spreads it over the toast.",
            "waters the roses and pulls the weeds out of the garden.",
            "puts the toaster on his head and butters his hair.",
        ],
        "label": "1",
    },
)
