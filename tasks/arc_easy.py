"""ARC, easy set: science questions of school exams, of which simple methods answer some.

Data: https://huggingface.co/datasets/allenai/ai2_arc (CC BY-SA 4.0)
Paper: Clark et al., "Think you have Solved Question Answering? Try ARC, the AI2 Reasoning Challenge", 2018,
  arXiv:1803.05457
Prompt and scoring: lm-evaluation-harness 0.4.13, task `arc_easy`, version 1.0.
Variants: `mc` with lettered answers; `olmes` and `olmes_mc` as in `_olmes.py`.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Shots, Split, Task

from . import _arc, _olmes

TASK = Task(
    name="arc_easy",
    version="1.0",
    dataset=Dataset(
        hub="allenai/ai2_arc",
        config="ARC-Easy",
        folder="arc_easy",
        columns=("question", "choices", "answerKey"),
        splits={
            "test": Split(2_376),
            "validation": Split(570, "80b666f5a62d4a8fd80232d157b01699332b8ae8f6ec1193f61f97bba44900a5"),
            "train": Split(2_251),
        },
    ),
    split="test",
    item=_arc.item,
    metrics=("acc", "acc_norm", "acc_bytes", "acc_token"),
    shots=Shots(split="train", draw="random"),
    chance=0.250161,  # 3 to 5 answers: mean of one over their number, over the 2,376 items
    example={
        "id": "e1",
        "question": "Which of these gives off light of its own?",
        "choices": {
            "text": ["a mirror", "a star", "a moon", "a window"],
            "label": ["A", "B", "C", "D"],
        },
        "answerKey": "B",
    },
)
VARIANTS = (
    replace(TASK, name="arc_easy:mc", item=_arc.lettered, metrics=("acc",)),
    *_olmes.variants(
        TASK,
        _arc.olmes,
        metrics=("acc_norm", "acc", "acc_token"),
        shots=_olmes.chosen(
            "MCAS_2007_8_5189",
            "Mercury_SC_401169",
            "MCAS_2004_8_27",
            "NYSEDREGENTS_2006_8_10",
            "Mercury_7013388",
        ),
    ),
)
