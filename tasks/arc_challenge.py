"""ARC, challenge set: science questions of school exams that simple methods get wrong.

Data: https://huggingface.co/datasets/allenai/ai2_arc (CC BY-SA 4.0)
Paper: Clark et al., "Think you have Solved Question Answering? Try ARC, the AI2 Reasoning Challenge", 2018,
  arXiv:1803.05457
Prompt and scoring: lm-evaluation-harness 0.4.13, task `arc_challenge`, version 1.0.
Variants: `openllm` as the first Open LLM Leaderboard has it, 25 shots and acc_norm first; `mc` with lettered
answers; `olmes` and `olmes_mc` as in `_olmes.py`.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Shots, Split, Task

from . import _arc, _olmes

TASK = Task(
    name="arc_challenge",
    version="1.0",
    dataset=Dataset(
        hub="allenai/ai2_arc",
        config="ARC-Challenge",
        folder="arc_challenge",
        columns=("question", "choices", "answerKey"),
        splits={
            "test": Split(1_172),
            "validation": Split(299, "d973b9ef417649731fc4e96ddcfdde54e764bfa25b10de3694798f16d5515e58"),
            "train": Split(1_119),
        },
    ),
    split="test",
    item=_arc.item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    chance=0.250156,  # 3 to 5 answers: mean of one over their number, over the 1,172 items
    example={
        "id": "c1",
        "question": "A wet towel dries faster on a windy day. What does the wind do?",
        "choices": {
            "text": [
                "It cools the towel until the water freezes.",
                "It carries moist air away from the towel.",
                "It presses the water out of the towel.",
                "It makes the water in the towel lighter.",
            ],
            "label": ["1", "2", "3", "4"],
        },
        "answerKey": "2",
    },
)
VARIANTS = (
    replace(
        TASK,
        name="arc_challenge:openllm",
        metrics=("acc_norm", "acc", "acc_bytes", "acc_token"),
        shots=replace(TASK.shots, default=25),
    ),
    replace(TASK, name="arc_challenge:mc", item=_arc.lettered, metrics=("acc",)),
    *_olmes.variants(
        TASK,
        _arc.olmes,
        metrics=("acc_pmi", "acc", "acc_norm", "acc_token"),
        shots=_olmes.chosen(
            "Mercury_SC_415702",
            "MCAS_2009_5_6516",
            "Mercury_7233695",
            "Mercury_7041615",
            "MCAS_1998_4_3",
        ),
    ),
)
