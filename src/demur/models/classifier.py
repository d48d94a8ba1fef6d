"""Classifiers behind one face: transformers' image models, any torch module, or a linear model of scikit-learn."""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from demur.errors import UsageError
from demur.files import write_json
from demur.models.language_model import hash_weights, quiet_transformers, resolve_model

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = ["Classifier", "load_classifier"]

_FACTS = "classifier.json"
_HEADS = ("classifier", "head", "fc")
_CHUNK = 1024


@dataclass
class Classifier:
    """A module that gives logits, and what else must be known of it.

    To use a module of your own: `Classifier(module, head="fc")`, where `head` names the layer whose input are the
    features; `load_classifier("package.module:function")` calls a function that returns one.

    Attributes:
        module: gives (batch, classes) logits, or an output that has `.logits`.
        head: name of the last linear layer, as in `module.get_submodule(head)`.
        name: what messages call it.
        path: where it was loaded from.
        facts: what was measured while it was made.
    """

    module: nn.Module
    head: str
    name: str = "classifier"
    path: Path | None = field(default=None, compare=False)
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        try:
            found = self.module.get_submodule(self.head)
        except AttributeError:
            found = None
        if not isinstance(found, nn.Linear):
            linear = [name for name, m in self.module.named_modules() if isinstance(m, nn.Linear)]
            raise UsageError(f"{self.name} has no linear layer {self.head!r}: it has {', '.join(linear) or 'none'}")

    @property
    def head_layer(self) -> nn.Linear:
        """The last linear layer."""
        layer: Any = self.module.get_submodule(self.head)
        return layer

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.head_layer.out_features

    def logits(self, inputs: Tensor) -> Tensor:
        """(batch, classes) logits."""
        out = self.module(inputs)
        return out if isinstance(out, Tensor) else out.logits

    def logits_with(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """(batch, classes) logits under other weights (`torch.func`): parameters or buffers by name."""
        out = torch.func.functional_call(self.module, dict(weights), (inputs,))
        return out if isinstance(out, Tensor) else out.logits

    def features_and_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, features) inputs of the last layer, and (batch, classes) logits, of one forward pass."""
        seen: list[Tensor] = []
        handle = self.head_layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            logits = self.logits(inputs)
        finally:
            handle.remove()
        return seen[0].flatten(1), logits

    @torch.no_grad()
    def predict(self, data: Labelled, batch_size: int = _CHUNK) -> Tensor:
        """(rows, classes) logits of a set, in evaluation mode."""
        with self.evaluating():
            parts = [
                self.logits(data.batch(slice(i, i + batch_size))[0]) for i in range(0, max(len(data), 1), batch_size)
            ]
        return torch.cat(parts)

    @torch.no_grad()
    def features(self, data: Labelled, batch_size: int = _CHUNK) -> Tensor:
        """(rows, features) inputs of the last layer, in evaluation mode."""
        with self.evaluating():
            parts = [
                self.features_and_logits(data.batch(slice(i, i + batch_size))[0])[0]
                for i in range(0, max(len(data), 1), batch_size)
            ]
        return torch.cat(parts)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """In evaluation mode within the block."""
        was = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(was)

    def copied(self, **facts: Any) -> Classifier:
        """A copy with weights of its own, without gradients."""
        module = copy.deepcopy(self.module)
        module.zero_grad(set_to_none=True)
        return replace(self, module=module, facts=dict(facts))

    def weights_hash(self) -> str:
        """SHA-256 (hex) over names, types, shapes and bytes of all weights and buffers."""
        return hash_weights(self.module.state_dict())

    def save(self, folder: str | Path) -> None:
        """Write the model: in Hugging Face format where it is one of transformers', else its weights as safetensors."""
        folder = Path(folder)
        module: Any = self.module
        if hasattr(module, "save_pretrained"):
            with quiet_transformers():
                module.save_pretrained(folder)
        else:
            from safetensors.torch import save_model

            folder.mkdir(parents=True, exist_ok=True)
            save_model(self.module, str(folder / "model.safetensors"))
        write_json(folder / _FACTS, {"head": self.head, "name": self.name})


def load_classifier(name: str | Path, weights: str | Path | None = None) -> Classifier:
    """A classifier by name.

    Args:
        name: a folder or hub name of a transformers image classifier, a lab model (`lab:digits-resnet`), a run folder,
            or `package.module:function` for a function that returns a `Classifier`.
        weights: a folder with other weights for it, as `Classifier.save` wrote them.

    Raises:
        UsageError: it cannot be loaded.
    """
    text = str(name)
    module, colon, function = text.partition(":")
    by_function = colon and "." in module and function.isidentifier()
    made = _made(text, module, function) if by_function else _pretrained(text)
    if weights is not None:
        from safetensors.torch import load_model

        try:
            load_model(made.module, str(Path(weights) / "model.safetensors"))
        except (OSError, RuntimeError) as error:
            raise UsageError(f"the weights in {weights} do not fit {name}: {error}") from error
    made.module.eval()
    return made


def _made(text: str, module: str, function: str) -> Classifier:
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the classifier {text} cannot be made: {error}") from error
    if not isinstance(made, Classifier):
        raise UsageError(f"{text} returned {type(made).__name__}, not a Classifier")
    return replace(made, name=text)


def _pretrained(name: str) -> Classifier:
    import transformers

    path = resolve_model(name)
    try:
        with quiet_transformers():
            module: Any = transformers.AutoModelForImageClassification.from_pretrained(path, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UsageError(f"cannot load {path} as an image classifier: {first}") from error
    linear = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    named = [n for n in linear if n.partition(".")[0] in _HEADS]
    folder = Path(path)
    return Classifier(module, (named or linear)[-1], name, folder if folder.is_dir() else None)
