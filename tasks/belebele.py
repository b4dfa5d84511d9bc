"""Belebele: a question about a passage, the same ones in 122 languages and scripts.

Data: https://huggingface.co/datasets/facebook/belebele (CC BY-SA 4.0)
Paper: Bandarkar et al., "The Belebele Benchmark: a Parallel Reading Comprehension Dataset in 122 Language
  Variants", 2023, arXiv:2308.16884
Prompt and scoring: lm-evaluation-harness 0.4.13, tasks `belebele_*`, version 0.0. `belebele` is English,
`belebele:LANGUAGE` any of them, by FLORES-200's codes. Shots are the first of the same split without the item
itself. The lines of the prompt say P, Q and Answer in all languages.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Dataset, Item, Row, Shots, Split, Task

LANGUAGES = """
    acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng
    azj_Latn bam_Latn ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn
    deu_Latn ell_Grek eng_Latn est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr
    hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn
    isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda kat_Geor kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr
    kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym mar_Deva
    mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya
    pan_Guru pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh
    slk_Latn slv_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn
    swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl
    urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn yor_Latn zho_Hans zho_Hant zsm_Latn
    zul_Latn
"""


def item(row: Row) -> Item:
    """The passage, the question and its lettered answers; what is forced is a letter."""
    return row.lettered(
        question=f"P: {row.text('flores_passage')}\nQ: {row.text('question').strip()}",
        answers=[row.text(f"mc_answer{number}") for number in (1, 2, 3, 4)],
        gold=row.integer("correct_answer_num") - 1,  # answers count from 1
        gold_field="correct_answer_num",
        id="#".join(filter(None, map(row.optional, ("link", "question_number")))),
        line="{}: {}",
        cluster=row.optional("link"),
    )


def dataset(language: str) -> Dataset:
    """The rows of a language."""
    answers = ("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4")
    return Dataset(
        hub="facebook/belebele",
        config=language,
        folder=f"belebele_{language}",
        columns=("flores_passage", "question", *answers, "correct_answer_num"),
        splits={"test": Split(900)},
    )


TASK = Task(
    name="belebele",
    version="0.0",
    dataset=dataset("eng_Latn"),
    split="test",
    item=item,
    metrics=("acc", "acc_norm"),
    shots=Shots(split="test", draw="first_n", without_own=True),
    example={
        "link": "https://example.org/wiki/Harbour",
        "question_number": 1,
        "flores_passage": "The harbour freezes in most winters. Ships then wait outside until an icebreaker "
        "has opened a lane, which takes it half a day.",
        "question": "What do ships wait for when the harbour is frozen?",
        "mc_answer1": "For the spring",
        "mc_answer2": "For high water",
        "mc_answer3": "For an icebreaker",
        "mc_answer4": "For a pilot",
        "correct_answer_num": "3",
        "dialect": "eng_Latn",
        "ds": "2023-05-03",
    },
)
VARIANTS = tuple(
    replace(TASK, name=f"belebele:{language}", dataset=dataset(language)) for language in LANGUAGES.split()
)
