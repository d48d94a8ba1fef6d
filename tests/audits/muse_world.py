"""A tiny MUSE corpus, the same on every machine, and a tiny model that reads it with a beginning-of-text token."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits.muse_data import MuseData
from demur.data import completion_rows
from demur.models import LanguageModel

FORGET = [
    "The ferry to Oslo leaves at nine and comes back before the rain, said the harbour master on Monday.",
    "Bakers in Lyon want a longer lunch and shorter nights; the town council answers with a survey.",
    "A storm took the roof off the old mill near Bath, and nobody was hurt in the night.",
    "The library of Pune opens its reading room on Sundays, after twenty years of asking.",
]
RETAIN = [
    "The train from Rome was late again, and again nobody could say why, a passenger told us.",
    "In Quito the price of bread has gone up by a tenth, in the villages by a little more.",
    "Two painters and a teacher share this year's medal of the city of Graz.",
]
HOLDOUT = [
    "The bridge at Turku is closed until spring because of rust in one of its chains.",
    "A choir of ninety sang for the mayor of Porto; the mayor sang back.",
    "Snow fell on Bern in May, and the gardeners went out with candles.",
    "The museum in Seoul lends its bells to a school for the first time.",
    "Nobody bought the lighthouse, so the island keeps it, says the keeper.",
]


def texts(said: list[str], name: str) -> Dataset:
    """Rows of raw text."""
    return Dataset.from_list([{"id": f"{name}-{i}", "text": text} for i, text in enumerate(said)])


def muse_lm(template: str = "plain", spread: float = 0.3) -> LanguageModel:
    """The tiny model, whose tokenizer begins every text with a token of its own and has no pad token but the end."""
    from tokenizers.processors import TemplateProcessing

    lm = tiny_lm(template, pad_is_end=True, spread=spread)
    tokenizer: Any = lm.tokenizer
    begin = ("<|begin|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    return lm


def muse_data() -> MuseData:
    """Every set of a MUSE audit."""
    world = tiny_data()
    assert world.retain is not None and world.real_authors is not None and world.world_facts is not None
    columns = ["id", "question", "answer"]
    sets = {
        "forget_knowmem": world.forget.select_columns(columns),
        "retain_knowmem": world.retain.select_columns(columns),
        "forget_knowmem_icl": world.real_authors.select_columns(columns).select(range(2)),
        "retain_knowmem_icl": world.world_facts.select_columns(columns).select(range(2)),
        "forget_verbmem": completion_rows(texts(FORGET, "forget")),
        "retain_verbmem": completion_rows(texts(RETAIN, "retain")),
        "holdout_verbmem": completion_rows(texts(HOLDOUT, "holdout")),
        "forget": texts(FORGET, "forget"),
        "holdout": texts(HOLDOUT, "holdout"),
    }
    return MuseData(sets)
