"""A tiny language model and a tiny TOFU world, the same on every machine: nothing in them is drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from demur.audits.tofu_data import TofuData
from demur.models import LanguageModel

END = "<|end|>"
CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MERGES = [
    *("t h", "i n", "e r", "a n", "o r", "th e", "o n", "in g", "an d", "e d", "r e", "a t"),
    *("Ġ a", "Ġ the", "Ġ i", "Ġ w", "Ġ b", "Ġ T", "ĠT h", "ĠTh e"),  # these reach across a space
    *("T h", "Th e"),
]


def tokenizer() -> Any:
    """Byte-level BPE with a few merges, some of which reach across the border between prompt and answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [tuple(m.split(" ")) for m in MERGES]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    inner = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    out = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|begin|>",
        eos_token=END,
        pad_token="<|pad|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
    )
    out.chat_template = CHAT_TEMPLATE
    return out


def tiny_lm(template: str = "chat", pad_is_end: bool = False, spread: float = 0.3) -> LanguageModel:
    """A Llama with two layers of width 32 whose weights follow from their place alone.

    Args:
        template: "chat" or "plain".
        pad_is_end: the end-of-text token is also the pad token, as for tokenizers that come without one.
        spread: size of the weights; large ones make sharp distributions.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    if pad_is_end:
        words.pad_token = words.eos_token
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for offset, weight in enumerate(model.parameters()):
            if weight.dim() > 1:
                noise = np.modf(np.sin(np.arange(weight.numel()) * 12.9898 + offset * 78.233) * 43758.5453)[0]
                weight.copy_(torch.tensor(noise * spread, dtype=torch.float32).reshape(weight.shape))
    return LanguageModel(model, words, template, "tiny")


def _rows(names: list[str], places: list[str], wrong: list[str], options: bool = True, paraphrase: bool = True) -> Any:
    rows = []
    for i, (name, place) in enumerate(zip(names, places, strict=True)):
        row: dict[str, Any] = {
            "id": f"{name}-{i}",
            "question": f"Where was {name} born?",
            "answer": f"The author {name} was born in {place}." if i % 3 else place,
        }
        if paraphrase:
            row["paraphrased_question"] = f"What is the birthplace of {name}?"
            row["paraphrased_answer"] = f"{place} is the place and home of {name}."
        if options:
            row["perturbed_answer"] = [f"The author {name} was born in {w}." for w in wrong]
        rows.append(row)
    return Dataset.from_list(rows)


def tiny_data(holdout: bool = True) -> TofuData:
    """Six forget rows, five retain rows, four rows about the world each, five hold-out rows."""
    forget = _rows(
        ["Ana", "Boris", "Chen", "Dara", "Edith", "Farid"],
        ["Lima", "Kyiv", "Bath", "Oslo", "Rome", "Tunis"],
        ["Paris", "Quito", "the northern islands"],
    )
    retain = _rows(
        ["Gita", "Hugo", "Ines", "Jon", "Kim"], ["Pune", "Lyon", "Faro", "Bergen", "Seoul"], ["Cairo", "Perth"]
    )
    authors = _rows(
        ["Jane Austen", "Goethe", "Kafka", "Basho"],
        ["Steventon", "Frankfurt", "Prague", "Ueno"],
        ["London", "Vienna", "Kyoto"],
        paraphrase=False,
    )
    facts = _rows(
        ["the Rhine", "chess", "paper", "tea"],
        ["the Alps", "India", "China", "Yunnan"],
        ["Mars", "the sea", "Peru"],
        paraphrase=False,
    )
    unseen = _rows(
        ["Lea", "Milo", "Nora", "Otto", "Pia"],
        ["Gent", "Porto", "Turku", "Graz", "Bern"],
        [],
        options=False,
        paraphrase=False,
    )
    return TofuData(forget, retain, authors, facts, unseen if holdout else None)
