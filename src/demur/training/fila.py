"""FILA: adapters that start as the part of each weight that matters to the forget set and not to the retain set.

Each adapted weight W is divided into a low-rank part, which becomes the adapter, and a rest, which becomes the base
(LoKU; Cha et al. 2024, arXiv 2408.06621). The function stays the same, but training moves what lies in the adapter
first. As the base changes, an adapter saved alone would lose the model: `convert_to_standard_lora` folds the change
back, onto the base as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from demur.data.batch import Batch
from demur.errors import UsageError
from demur.models.scored import score

__all__ = ["convert_to_standard_lora", "fila_init", "relative_fisher", "start_from", "weighted_low_rank"]

_ADAPTER = "default"
_WHOLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def relative_fisher(
    model: nn.Module,
    forget: Iterable[Batch],
    retain: Iterable[Batch],
    eps: float = 1e-5,
    *,
    per_sample: bool = False,
    on_batch: Callable[[], object] = lambda: None,
) -> dict[str, Tensor]:
    """How much more each adapted weight matters to the forget rows than to the retain rows.

    F = Σ over batches of (∂ℓ/∂W)² · n / Σ n, with ℓ a batch's token-mean negative log-likelihood and n its number of
    labels; the importance is F_forget / (eps + F_retain), elementwise      (arXiv 2408.06621)

    Gradients are used up one weight at a time, so that besides the model there are two float32 copies of the adapted
    weights and one gradient.

    Args:
        model: a peft model with adapters that do not change it yet; in eval mode, so that the result is the same again.
        forget, retain: batches, read once each.
        eps: keeps weights that the retain rows do not touch from an infinite importance.
        per_sample: square the gradient of each sequence, as the Fisher information has it, in place of each batch's.
        on_batch: called after every batch.

    Returns:
        By adapted module, a float32 tensor in the shape of its weight.

    Raises:
        UsageError: a set is empty, or an adapted module is not linear or is quantised.
    """
    weights = {name: layer.get_base_layer().weight for name, layer in _layers(model)}
    trained = {p: p.requires_grad for p in model.parameters()}
    model.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        importance = _fisher(model, weights, forget, "forget", per_sample, on_batch)
        below = _fisher(model, weights, retain, "retain", per_sample, on_batch)
    finally:
        for parameter, wanted in trained.items():
            parameter.requires_grad_(wanted)
    for name, value in importance.items():
        value.div_(below.pop(name).add_(eps))
    return importance


@torch.enable_grad()
def _fisher(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    batches: Iterable[Batch],
    role: str,
    per_sample: bool,
    on_batch: Callable[[], object],
) -> dict[str, Tensor]:
    sums = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    tokens = seen = 0

    def add_to(total: Tensor) -> Callable[[Tensor], None]:
        def hook(weight: Tensor) -> None:
            if weight.grad is not None:
                gradient, weight.grad = weight.grad.float(), None
                total.addcmul_(gradient, gradient, value=tokens)

        return hook

    hooks = [weight.register_post_accumulate_grad_hook(add_to(sums[name])) for name, weight in weights.items()]
    try:
        for batch in batches:
            for part in _single(batch) if per_sample else [batch]:
                tokens = part.label_tokens
                score(model, part).nll.backward()
                seen += tokens
            on_batch()
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise UsageError(f"the importance of weights needs {role} rows: there are none")
    return {name: total.div_(seen) for name, total in sums.items()}


def _single(batch: Batch) -> Iterator[Batch]:
    for i in range(len(batch)):
        rows = slice(i, i + 1)
        yield Batch(batch.input_ids[rows], batch.attention_mask[rows], batch.labels[rows], batch.ids[rows])


def weighted_low_rank(
    weight: Tensor,
    rows: Tensor,
    rank: int,
    eps: float = 1e-5,
    svd: Literal["exact", "lowrank"] = "exact",
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The best approximation of a matrix by one of low rank, where errors in some rows weigh more than in others.

    Minimises ‖diag(d) (W - B A)‖_F: with U S Vᵀ the truncated decomposition of diag(d) W,
    A = (V √S)ᵀ and B = diag(1 / (d + eps)) U √S      (arXiv 2408.06621)

    Args:
        weight: (out, in).
        rows: (out,) d, at least 0.
        rank: at most the smaller side.
        eps: keeps rows without weight finite.
        svd: "exact", or "lowrank" for the randomised one with two power iterations, faster on large matrices.
        seed: of the randomised one.

    Returns:
        A (rank, in) and B (out, rank).
    """
    weighted = rows[:, None] * weight
    if svd == "exact":
        left, values, right = torch.linalg.svd(weighted, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank].T
    else:
        with torch.random.fork_rng(devices=[weight.device] if weight.is_cuda else []):
            torch.manual_seed(seed)
            left, values, right = torch.svd_lowrank(weighted, q=min(rank + 8, *weighted.shape))
        left, values, right = left[:, :rank], values[:rank], right[:, :rank]
    root = values.sqrt()
    return (right * root).T.contiguous(), (left * root) / (rows + eps)[:, None]


@torch.no_grad()
def fila_init(
    model: nn.Module,
    importance: Mapping[str, Tensor] | None,
    eps: float = 1e-5,
    svd: Literal["exact", "lowrank"] = "exact",
    seed: int = 0,
) -> dict[str, Tensor]:
    """Move the weighted low-rank part of every adapted weight from the base into its adapter.

    A weight of which nothing matters keeps its ordinary adapter: one of zeros would never be trained.

    Args:
        model: a peft model whose LoRA adapters are new; changed in place, the function it computes stays.
        importance: by module as `relative_fisher` gives it; d is the root of its row sums. None weighs all rows
            alike: the plain truncated decomposition, as PiSSA has it.
        eps: see `weighted_low_rank`.
        svd, seed: see `weighted_low_rank`.

    Returns:
        The adapter it starts from, for `start_from` and `convert_to_standard_lora`.

    Raises:
        UsageError: the importance lacks a module or is no finite number, a rank is larger than its weight allows, a
            module is not linear or is quantised, or the adapter was trained already.
    """
    layers = dict(_layers(model))
    for name, layer in layers.items():  # all are checked before any is changed
        rank, sides = layer.r[_ADAPTER], layer.get_base_layer().weight.shape
        if rank > min(sides):
            raise UsageError(f"rank {rank} is more than {name} has ({min(sides)}): lower --lora")
        if bool(layer.lora_B[_ADAPTER].weight.any()):
            raise UsageError(f"the adapter of {name} was trained already: this initialisation is for new adapters")
        if importance is not None and name not in importance:
            raise UsageError(f"the importance lacks the adapted module {name}: measure it on this model")
        if importance is not None and not bool(importance[name].isfinite().all()):
            raise UsageError(f"the importance of {name} holds numbers that are not finite")
    initial = {}
    for name, layer in layers.items():
        weight = _oriented(layer, layer.get_base_layer().weight.float())
        if importance is None:
            rows, floor = weight.new_ones(len(weight)), 0.0
        else:
            rows, floor = _oriented(layer, importance[name].to(weight)).sum(1).sqrt(), eps
        if bool(rows.any()):
            a, b = weighted_low_rank(weight, rows, layer.r[_ADAPTER], floor, svd, seed)
            root = layer.scaling[_ADAPTER] ** 0.5
            initial[f"{name}.lora_A"], initial[f"{name}.lora_B"] = a / root, b / root
    return start_from(model, initial)


@torch.no_grad()
def start_from(model: nn.Module, initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put an initial adapter into a fresh peft model and take it off the base: W ← W - s B A.

    Args:
        model: a peft model whose base is as it was; changed in place.
        initial: by module, `NAME.lora_A` (rank, in) and `NAME.lora_B` (out, rank).

    Returns:
        The adapter in the type in which it is trained.
    """
    out = {}
    for name, layer in _layers(model):
        if f"{name}.lora_A" not in initial:
            continue
        a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
        a.copy_(initial[f"{name}.lora_A"])
        b.copy_(initial[f"{name}.lora_B"])
        base = layer.get_base_layer().weight
        base.copy_(base.float() - _oriented(layer, layer.scaling[_ADAPTER] * (b.float() @ a.float())))
        out[f"{name}.lora_A"], out[f"{name}.lora_B"] = a.detach().clone(), b.detach().clone()
    return out


@torch.no_grad()
def convert_to_standard_lora(model: Any, initial: Mapping[str, Tensor], base: nn.Module) -> Any:
    """The same function as an ordinary adapter of twice the rank on the base as it was.

    W - s B₀ A₀ + s B A = W + s [B, -B₀] [A; A₀]. In bfloat16 the two sides differ by the rounding of the changed base.

    Args:
        model: the trained peft model.
        initial: the adapter it started from.
        base: the model without adapters, its weights as they were; gets them in place.

    Returns:
        A peft model that is saved and loaded like any other.
    """
    import peft

    config = copy.deepcopy(model.peft_config[_ADAPTER])
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    standard = peft.get_peft_model(base, config)
    trained = dict(_layers(model))
    for name, layer in _layers(standard):
        a, b = trained[name].lora_A[_ADAPTER].weight, trained[name].lora_B[_ADAPTER].weight
        first, second = (initial.get(f"{name}.lora_{s}", torch.zeros_like(w)).to(w) for s, w in (("A", a), ("B", b)))
        layer.lora_A[_ADAPTER].weight.copy_(torch.cat([a, first]))
        layer.lora_B[_ADAPTER].weight.copy_(torch.cat([b, -second], dim=1))
    return standard.eval()


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The adapted modules by name, refusing those whose weight cannot be divided."""
    from peft.tuners.lora import Linear, LoraLayer

    found = False
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        found = True
        base: Any = layer.get_base_layer()
        weight = getattr(base, "weight", None)
        if type(layer) is not Linear or weight is None or weight.dtype not in _WHOLE:
            raise UsageError(
                f"{name} ({type(base).__name__}) is not linear or is quantised, and its weight cannot be divided: "
                "load the model in full precision, or name linear modules with --lora-targets"
            )
        yield name, layer
    if not found:
        raise UsageError("the model has no LoRA adapters to initialise")


def _oriented(layer: Any, matrix: Tensor) -> Tensor:
    """(out, in) from a weight's shape and back: GPT-2's convolutions keep theirs the other way round."""
    return matrix.T if layer.fan_in_fan_out else matrix
