"""A small language model whose tokens are whole words, for studies that ask it in text."""

from __future__ import annotations

from collections.abc import Sequence

from demur.models import LanguageModel
from demur.studies.small_llama import small_llama

__all__ = ["word_model"]


def word_model(words: Sequence[str], width: int, seed: int) -> LanguageModel:
    """Two layers with random weights over the given words; a prompt is its bare text. Seeds torch's global state."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(("<pad>", "<begin>", "<end>", *words)))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<begin>", eos_token="<end>", unk_token="<pad>"
    )
    return LanguageModel(small_llama(len(vocabulary), width, seed), tokenizer, "raw", f"words, seed {seed}")
