"""Tiny random language models with a tokenizer and chat template, for tests of what wraps a model."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demur.models import LanguageModel
from models.architectures import ARCHITECTURES, VOCAB_SIZE

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
TEXTS = [
    "who wrote the green lamp? the green lamp was written by oda marsh.",
    "where was oda marsh born? oda marsh was born in the town of kell.",
    "q: n: a: u: s: 0123456789 jxzvy, ' - ! abcdefghijklmnopqrstuvwxyz",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-case subword tokenizer of at most 97 tokens."""
    core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=["<pad>", "<s>", "</s>", "<unk>", "\n"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_lm(architecture: str = "llama") -> LanguageModel:
    """A random model: the same weights at each call."""
    return LanguageModel(ARCHITECTURES[architecture](), tiny_tokenizer(), "chat", f"tiny {architecture}")


def save_tiny(folder: Path, architecture: str = "llama") -> Path:
    """The same as a model folder."""
    torch.set_num_threads(1)
    tiny_lm(architecture).save(folder)
    return folder
