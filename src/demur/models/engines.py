"""Engines by name: a model on this machine, or one behind an address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from demur.models.engine import Engine
    from demur.models.language_model import Template

__all__ = ["open_engine"]


def open_engine(
    name: str,
    batch_size: int = 32,
    *,
    template: Template | Literal["auto"] = "auto",
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[Engine, str]:
    """The engine that a name means, and what tells its answers from those of others.

    Args:
        name: `MODEL@ADDRESS` for a model of an OpenAI-compatible server, as in `Qwen/Qwen3-8B@http://localhost:8000/v1`
            (the key is `$DEMUR_API_KEY` or `$OPENAI_API_KEY`); anything else is a model for `load_model`.
        batch_size: prompts in one forward pass of a local model, or requests under way at once.
        template, dtype, device, trust_remote_code: of a local model; see `load_model`.

    Returns:
        The engine; and for a local model the hash of its weights with its template, else its name with the address.

    Raises:
        UsageError: the model cannot be loaded, or the address is none.
    """
    found = re.fullmatch(r"(.+?)@(https?://.+)", name)
    if found:
        from demur.models.openai_engine import OpenAIEngine

        server = OpenAIEngine(found[2], found[1], concurrency=batch_size)
        return server, f"{server.model}@{server.base_url}"
    from demur.models.language_model import load_model
    from demur.models.local_engine import LocalEngine

    lm = load_model(name, template=template, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    return LocalEngine(lm, batch_size), f"{lm.weights_hash()} {lm.template}"
