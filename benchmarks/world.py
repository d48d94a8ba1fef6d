"""The model and the data that both sides share: real TOFU rows where they are at hand, else the Almanac's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from demur.models import LanguageModel

VOCABULARY = 128_256
"""Llama 3's; the tokenizer uses fewer, which changes nothing for the projection."""


_TOFU = {
    "forget": "tofu:forget10_perturbed",
    "retain": "tofu:retain_perturbed",
    "real_authors": "tofu:real_authors_perturbed",
    "world_facts": "tofu:world_facts_perturbed",
}


def rows(split: str) -> Dataset:
    """Rows in TOFU's format of `forget`, `retain`, `real_authors` or `world_facts`."""
    from demur.data import read_rows

    folder = Path(os.environ.get("DEMUR_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "tofu").is_dir():
        return read_rows(f"lab:almanac:{split}")
    os.environ["DEMUR_SHARED_DATA"] = str(folder)
    return read_rows(_TOFU[split])


def texts() -> list[str]:
    """All text that the tokenizer is trained on."""
    from demur.data import row_texts

    return [text for split in _TOFU for text in row_texts(rows(split))]


def model(tokenizer: Any, hidden: int = 256, layers: int = 4) -> LanguageModel:
    """A Llama-like model with tied embeddings and a 128k vocabulary, seeded."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, "chat", "128k")


def prepared(count: int) -> tuple[Any, dict[str, list[Any]]]:
    """The model, and `count` encoded rows of either role."""
    from demur.data import question_answer
    from demur.lab import train_tokenizer
    from demur.models import encode

    torch.set_num_threads(2)
    lm = model(train_tokenizer(texts(), 4096))
    tables = {}
    for role in ("forget", "retain"):
        chosen = rows(role).select(range(count))
        tables[role] = encode(lm, *question_answer(chosen), chosen["id"])
    return lm, tables
