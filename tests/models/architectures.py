"""Tiny random models of every architecture that white-box code is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCAB_SIZE = 97  # no power of two, so that a wrong reshape or a wrong chunk does not pass unnoticed
MAX_POSITIONS = 128
SPECIAL: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    **SPECIAL,
}


def _builder(name: str, **settings: Any) -> Callable[[], PreTrainedModel]:
    """Builds one model in evaluation mode: the same weights at each call, the caller's random state untouched."""

    def build() -> PreTrainedModel:
        architecture = getattr(transformers, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: PreTrainedModel = architecture(architecture.config_class(**settings))
            # Freshly initialised models are so flat that a wrong position hardly shows in their log-probabilities.
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=0.15)
        return model.eval()

    return build


GROUPED = {**COMMON, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
GEMMA["layer_types"] = ["sliding_attention", "full_attention"]

ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _builder("LlamaForCausalLM", **GROUPED),
    "qwen2": _builder("Qwen2ForCausalLM", **GROUPED),
    "qwen3": _builder("Qwen3ForCausalLM", **GROUPED, head_dim=8),
    # Caps low enough to bend a tiny model's logits.
    "gemma2": _builder("Gemma2ForCausalLM", **GEMMA, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma3": _builder("Gemma3ForCausalLM", **GEMMA),
    "mistral": _builder("MistralForCausalLM", **GROUPED, sliding_window=16),
    "phi": _builder("PhiForCausalLM", **GROUPED),
    "phi3": _builder("Phi3ForCausalLM", **GROUPED),
    "gpt2": _builder(
        "GPT2LMHeadModel", n_embd=32, n_inner=64, n_layer=2, n_head=4, n_positions=MAX_POSITIONS, **SPECIAL
    ),
    "gpt_neox": _builder("GPTNeoXForCausalLM", **COMMON),
    "mixtral": _builder("MixtralForCausalLM", **GROUPED, num_local_experts=4, num_experts_per_tok=2),
}
