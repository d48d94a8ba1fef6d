"""Low-rank adapters of a run: where they go, what they start from, and how they are saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from demur.data.batch import Encoded, collate
from demur.errors import UsageError
from demur.models.images import seeing_modules
from demur.models.language_model import LanguageModel
from demur.training.fila import convert_to_standard_lora, fila_init, relative_fisher, start_from
from demur.training.progress import progress_bar
from demur.training.settings import ForgetSettings, TrainSettings

__all__ = ["INITIAL", "add_adapters", "check_adapters", "fold_adapters", "start_adapters"]

INITIAL = "initial_adapter.safetensors"
"""What the adapters of an unfinished run started from, where they change the base: a resumed run makes it again."""

Settings = ForgetSettings | TrainSettings


def check_adapters(settings: Settings) -> None:
    """Refuse settings of adapters that do not go together.

    Raises:
        UsageError: they do not.
    """
    start = settings.lora_init
    if settings.reference == "adapter" and not settings.lora:
        raise UsageError("reference 'adapter' switches a LoRA adapter off: pass --lora RANK, or use 'cached'")
    if start is not None and not settings.lora:
        raise UsageError(f"--lora-init {start} starts LoRA adapters: pass --lora RANK")
    if start is not None and settings.reference == "adapter":
        raise UsageError(
            f"--lora-init {start} changes the base, so the weights with the adapter off are no reference: "
            "use --reference cached"
        )
    if start is not None and settings.lora_tokens:
        raise UsageError(f"--lora-init {start} does not go with new tokens: leave it out")
    if start == "fila" and getattr(settings, "retain", None) is None:
        raise UsageError("--lora-init fila weighs forget rows against retain rows: pass --forget and --retain")


def add_adapters(lm: LanguageModel, settings: Settings) -> None:
    """Put new adapters that change nothing into a model.

    Raises:
        UsageError: the model lacks a module that is asked for, or is an adapter itself.
    """
    import peft

    if isinstance(lm.model, peft.PeftModel):
        raise UsageError(f"{lm.name} is an adapter itself: merge it into its base before --lora gives it another")
    targets = settings.lora_targets
    wanted = [] if targets == "all-linear" else [t.strip() for t in targets.split(",")]
    modules = [name for name, _ in lm.model.named_modules()]
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            raise UsageError(f"--lora-targets {target} does not fit {lm.name}, which has {_linear_names(lm)}")
    config = peft.LoraConfig(
        r=settings.lora,
        lora_alpha=settings.lora_alpha or 2 * settings.lora,  # type: ignore[arg-type]
        target_modules=wanted or targets,
        exclude_modules=seeing_modules(lm.model, projector=not wanted) or None,
        trainable_token_indices=_token_rows(lm, settings.lora_tokens or ()) or None,
        task_type="CAUSAL_LM",
    )
    try:
        lm.model = peft.get_peft_model(lm.model, config)  # type: ignore[assignment]
    except ValueError as error:
        problem = f"--lora-targets {targets} does not fit {lm.name}, which has {_linear_names(lm)}: {error}"
        raise UsageError(problem) from error
    _name_base(lm)


def _token_rows(lm: LanguageModel, tokens: Sequence[str]) -> dict[str, list[int]]:
    """Layer → ids of the tokens whose vectors train in full: going in and, where weights are not tied, coming out.

    Raises:
        UsageError: a token is not in the vocabulary, or the output layer has a bias, which peft would drop.
    """
    if not tokens:
        return {}
    vocabulary = lm.tokenizer.get_vocab()
    unknown = [token for token in tokens if token not in vocabulary]
    if unknown:
        raise UsageError(f"setting lora_tokens: {lm.name} has no token {unknown[0]!r}")
    ids = [vocabulary[token] for token in tokens]
    layers = {"in": lm.model.get_input_embeddings(), "out": lm.model.get_output_embeddings()}
    if layers["out"].weight is layers["in"].weight:
        del layers["out"]
    elif getattr(layers["out"], "bias", None) is not None:
        raise UsageError(
            f"{lm.name} has a bias in its output layer, beside which peft trains no new tokens: leave --lora out"
        )
    names = {id(module): name for name, module in lm.model.named_modules()}
    return {names[id(layer)]: ids for layer in layers.values()}


def start_adapters(
    lm: LanguageModel, settings: Settings, kept: Path, sides: Callable[[], Mapping[str, Sequence[Encoded]]]
) -> dict[str, Tensor] | None:
    """Start new adapters as a part of the weights, where the settings ask for it.

    Args:
        lm: the model with its adapters; changed in place.
        settings: the run's.
        kept: where a killed run may have left what it started from.
        sides: gives the encoded forget and retain rows; each forget row is weighed against one retain row.

    Returns:
        What they start from; None for ordinary adapters.

    Raises:
        UsageError: as for `fila_init`.
    """
    if settings.lora_init is None:
        return None
    if kept.is_file():
        return start_from(lm.model, load_file(kept, device=str(lm.device)))
    if settings.lora_init == "pissa":
        return fila_init(lm.model, None)
    forget, retain = (sides()[role] for role in ("forget", "retain"))
    partners = np.random.default_rng([settings.seed, 2]).integers(len(retain), size=len(forget))
    above, below = (
        [collate(rows[i : i + settings.batch_size], lm.pad_id) for i in range(0, len(rows), settings.batch_size)]
        for rows in (forget, [retain[i] for i in partners])
    )
    with progress_bar() as bar:
        task = bar.add_task("importance of weights", total=len(above) + len(below), note="")
        importance = relative_fisher(lm.model, above, below, on_batch=lambda: bar.advance(task))
    return fila_init(lm.model, importance)


def fold_adapters(lm: LanguageModel, initial: Mapping[str, Tensor], base: Any) -> None:
    """Bring adapters that changed their base onto the base as it was, for saving.

    Args:
        lm: the trained model; gets the new one.
        initial: what `start_adapters` gave.
        base: the model without adapters, loaded anew.
    """
    lm.model = convert_to_standard_lora(lm.model, initial, base)
    _name_base(lm)


def _name_base(lm: LanguageModel) -> None:
    """Let the adapter know where its base lies."""
    if lm.path is not None:
        config: Any = lm.model.peft_config["default"]
        config.base_model_name_or_path = str(lm.path.resolve())


def _linear_names(lm: LanguageModel) -> str:
    """The linear modules that a model has, by the last part of their names."""
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, Conv1D)
    names = {name.rpartition(".")[2] for name, module in lm.model.named_modules() if isinstance(module, kinds)}
    return f"the linear modules {', '.join(sorted(names))}" if names else "no linear modules"
