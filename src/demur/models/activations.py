"""The residual stream of any transformers causal LM: recorded or edited by hooks that are gone when the block ends.

with record(model, layers=[10, -1], positions=[-1]) as activations:
    model(input_ids=input_ids, attention_mask=attention_mask)
activations[10]  # (B, 1, H): what layer 10 gave at each row's last token

with edit(model, [10], lambda hidden, layer: hidden + direction):
    model.generate(...)
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from demur.errors import UnknownNameError, UsageError

__all__ = ["Activations", "decoder_layers", "edit", "first_layers", "record"]


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of a causal LM, first to last, found by structure and not by name.

    Args:
        model: a transformers causal LM, as it is or wrapped (PEFT, data parallel).

    Raises:
        UsageError: it is no transformers model, or its stack of layers cannot be told apart.
    """
    return list(_decoder(model)[1])


class Activations(Mapping[int, Tensor]):
    """What the chosen layers gave, by layer; filled by the forward passes made inside `record`.

    `activations[layer]` is (B, P, H): B rows, one forward pass after another; P chosen positions, or all tokens; H
    hidden size. A layer may be named from the end, as in a list.
    """

    def __init__(self, layers: Sequence[int], count: int) -> None:
        self._count = count
        self._passes: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def passes(self, layer: int) -> list[Tensor]:
        """One tensor (B, P, H) for each forward pass, for passes whose lengths differ (as in generation).

        Raises:
            UnknownNameError: the layer is not recorded.
        """
        index = layer + self._count if layer < 0 else layer
        if index not in self._passes:
            known = ", ".join(map(str, self._passes))
            raise UnknownNameError(f"layer {layer} was not recorded: recorded layers are {known}")
        return self._passes[index]

    def __getitem__(self, layer: int) -> Tensor:
        passes = self.passes(layer)
        if not passes:
            raise UsageError(f"layer {layer} holds nothing yet: run the model inside `with record(...)`")
        if len({hidden.shape[1] for hidden in passes}) > 1:
            raise UsageError(
                f"the {len(passes)} forward passes differ in length: choose positions, or read passes({layer})"
            )
        return torch.cat(passes) if len(passes) > 1 else passes[0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._passes)

    def __len__(self) -> int:
        return len(self._passes)


@contextlib.contextmanager
def record(
    model: nn.Module,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    *,
    detach: bool = True,
    device: torch.device | str | None = None,
) -> Iterator[Activations]:
    """Keep the output of decoder layers in the forward passes made inside the block.

    Layer l's output is `output_hidden_states[l + 1]` of the model, except that transformers reports the last one after
    the final norm and this one is before it. Edits made by `edit` are in what is recorded.

    Args:
        model: a transformers causal LM, as it is or wrapped.
        layers: which layers, from 0, or negative from the end; None for all.
        positions: which tokens of each row, counted over the tokens that the attention mask keeps, so that padding on
            either side changes nothing: 0 is a row's first token, -1 its last; None keeps all (B, T, H) as they come,
            padding included. In generation they count within the tokens of each single pass, and a static cache is
            refused, since the model then gets no plain mask.
        detach: False keeps the graph, to train through the activations.
        device: where to keep them; None leaves them where the model put them.

    Yields:
        The activations; readable inside the block and after it.

    Raises:
        UsageError: a layer does not exist, a row has no such position, or the model is not understood.
    """
    decoder, stack = _decoder(model)
    chosen = _layer_indices(layers, len(stack))
    activations = Activations(chosen, len(stack))
    mask: Tensor | None = None
    current: dict[int, Tensor] | None = None

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal mask, current
        mask = _attention_mask(module, args, kwargs) if positions is not None else None
        current = {}

    def keep(layer: int, output: Any) -> None:
        if current is None:  # gradient checkpointing computes a layer again, outside the forward pass
            return
        hidden = _hidden(output)
        if positions is not None:
            hidden = _select(hidden, mask, positions)
        if detach:
            hidden = hidden.detach()
        current[layer] = hidden if device is None else hidden.to(device)

    def end(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal current
        for layer, hidden in (current or {}).items():
            activations.passes(layer).append(hidden)
        current = None

    with contextlib.ExitStack() as hooks:
        hooks.enter_context(decoder.register_forward_pre_hook(begin, with_kwargs=True))
        for layer in chosen:
            hook = stack[layer].register_forward_hook(lambda module, args, output, layer=layer: keep(layer, output))
            hooks.enter_context(hook)
        hooks.enter_context(decoder.register_forward_hook(end))
        yield activations


@contextlib.contextmanager
def edit(model: nn.Module, layers: Sequence[int] | None, function: Callable[[Tensor, int], Tensor]) -> Iterator[None]:
    """Replace the output of decoder layers by a function of it, in all forward passes made inside the block.

    Of nested edits of one layer the inner one is applied first. `record` and `output_hidden_states` see the result.

    Args:
        model: a transformers causal LM, as it is or wrapped.
        layers: which layers, from 0, or negative from the end; None for all.
        function: gets a layer's output (B, T, H) and the layer's number from 0; returns what takes its place, of the
            same shape. The result is brought to the output's dtype and device. In generation with a key–value cache T
            is 1 after the first pass.

    Raises:
        UsageError: a layer does not exist, or the function returns another shape.
    """
    stack = _decoder(model)[1]

    def replace(layer: int, output: Any) -> Any:
        hidden = _hidden(output)
        new = function(hidden, layer)
        if not isinstance(new, Tensor) or new.shape != hidden.shape:
            got = f"shape {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            raise UsageError(
                f"the edit of layer {layer} must return a tensor of shape {tuple(hidden.shape)}, it returned {got}"
            )
        new = new.to(device=hidden.device, dtype=hidden.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    with contextlib.ExitStack() as hooks:
        for layer in _layer_indices(layers, len(stack)):
            # First in line, so that recording hooks see the edited output whenever they were registered.
            hook = stack[layer].register_forward_hook(
                lambda module, args, output, layer=layer: replace(layer, output), prepend=True
            )
            hooks.enter_context(hook)
        yield


@contextlib.contextmanager
def first_layers(model: nn.Module, count: int) -> Iterator[None]:
    """Within the context forward passes run the first `count` decoder layers only.

    What follows the stack (a final norm, the head) still runs, on states it was not made for: of such a pass only
    what the remaining layers give is of use.

    Args:
        model: a transformers causal LM, as it is or wrapped.
        count: layers that are left, at least 1.
    """
    decoder, stack = _decoder(model)
    name = next(name for name, child in decoder.named_children() if child is stack)
    setattr(decoder, name, stack[:count])
    try:
        yield
    finally:
        setattr(decoder, name, stack)


def _decoder(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder layers, and the layers: its list as long as the config says."""
    base = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    if base is None:
        raise UsageError(f"{type(model).__name__} is no transformers model: its decoder layers cannot be found")
    count = getattr(base.config.get_text_config(decoder=True), "num_hidden_layers", None)
    found: list[tuple[nn.Module, nn.ModuleList]] = []
    inside: set[nn.Module] = set()
    for parent in base.get_decoder().modules():
        for child in parent.children():
            # A list within a layer, for instance of as many experts as there are layers, is not the stack of layers.
            if isinstance(child, nn.ModuleList) and len(child) == count and child not in inside:
                found.append((parent, child))
                inside.update(child.modules())
    if len(found) != 1:
        raise UsageError(
            f"{type(base).__name__} has {len(found)} lists of {count} modules that could be its decoder layers: "
            "pass the causal LM itself"
        )
    return found[0]


def _layer_indices(layers: Sequence[int] | None, count: int) -> list[int]:
    """The layers as numbers from 0, each once."""
    for layer in layers or ():
        if not -count <= layer < count:
            raise UsageError(f"layer {layer} does not exist: the model has {count} layers, 0 to {count - 1}")
    return list(range(count)) if layers is None else list(dict.fromkeys(layer % count for layer in layers))


def _hidden(output: Any) -> Tensor:
    """A layer's hidden states; some architectures return them first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _attention_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The attention mask (B, S) of a call of the decoder."""
    mask = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        raise UsageError("positions need an attention mask of shape (batch, tokens): pass that one, or positions=None")
    return mask


def _select(hidden: Tensor, mask: Tensor | None, positions: Sequence[int]) -> Tensor:
    """The hidden states (B, P, H) at `positions` of each row's kept tokens."""
    rows, length = hidden.shape[:2]
    if mask is None:
        kept = torch.ones(rows, length, dtype=torch.bool, device=hidden.device)
    else:
        kept = mask[:, -length:].to(hidden.device).bool()  # with a cache the mask also covers earlier passes
    lengths = kept.sum(1, keepdim=True)
    wanted = torch.tensor(positions, dtype=torch.long, device=hidden.device).expand(rows, -1)
    index = torch.where(wanted < 0, wanted + lengths, wanted)
    outside = (index < 0) | (index >= lengths)
    if outside.any():
        row, column = (int(i) for i in outside.nonzero()[0])
        raise UsageError(f"position {positions[column]} lies outside row {row}, which has {int(lengths[row])} tokens")
    order = torch.argsort((~kept).int(), dim=1, stable=True)  # the columns of kept tokens, in order, come first
    columns = order.gather(1, index)
    return hidden.gather(1, columns.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
