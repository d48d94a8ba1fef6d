"""Classifiers behind one face: transformers' image models, any torch module, or a linear model of scikit-learn."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from demur.errors import UsageError
from demur.files import write_json
from demur.models.language_model import hash_weights, quiet_transformers, resolve_model
from demur.models.threads import few_threads

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = ["FACTS", "Classifier", "load_classifier"]

FACTS = "classifier.json"
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
    def kind(self) -> str:
        """What methods must know of it: "network", or what a linear model was fitted as."""
        return "network"

    @property
    def head_layer(self) -> nn.Linear:
        """The last linear layer."""
        layer: Any = self.module.get_submodule(self.head)
        return layer

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.head_layer.out_features

    def require_reads(self, data: Labelled) -> None:
        """Refuse a set of other classes, or of rows that the model cannot read.

        Raises:
            UsageError: in which way they do not go together.
        """
        if self.classes != len(data.classes):
            raise UsageError(f"{self.name} knows {self.classes} classes, and {data.name} has {len(data.classes)}")
        config = getattr(self.module, "config", None)
        channels, size = getattr(config, "num_channels", None), getattr(config, "image_size", None)
        height, width = (size, size) if isinstance(size, int) else (size or (None, None))
        wanted, shape = [channels, height, width], data.inputs.shape[1:]
        if len(shape) == 3 and any(a is not None and a != b for a, b in zip(wanted, shape, strict=True)):
            reads = " × ".join("any" if each is None else str(each) for each in wanted)
            raise UsageError(
                f"{self.name} reads pictures of {reads} (channels × height × width), and those of {data.name} are "
                f"{data.row_shape}: bring them to that size first"
            )
        try:
            with self.evaluating(), torch.no_grad():
                made = self.logits(data.batch(slice(0, 2))[0])
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            first = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"{self.name} cannot read rows of shape {data.row_shape} ({data.name}): {first}"
            ) from error
        if made.shape != (min(2, len(data)), self.classes):
            raise UsageError(
                f"{self.name} gave {tuple(made.shape)} for two rows, not two rows of {self.classes} logits"
            )

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
        with self.evaluating(), few_threads(self.module):
            parts = [
                self.logits(data.batch(slice(i, i + batch_size))[0]) for i in range(0, max(len(data), 1), batch_size)
            ]
        return torch.cat(parts)

    @torch.no_grad()
    def features(self, data: Labelled, batch_size: int = _CHUNK) -> Tensor:
        """(rows, features) inputs of the last layer, in evaluation mode."""
        with self.evaluating(), few_threads(self.module):
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
        """Write the model: in Hugging Face format where it is one of transformers', else its weights as safetensors.

        `load_classifier` reads the folder again; for a module of your own it asks the function that made it.
        """
        folder = Path(folder)
        module: Any = self.module
        if hasattr(module, "save_pretrained"):
            with quiet_transformers():
                module.save_pretrained(folder)
        else:
            from safetensors.torch import save_model

            folder.mkdir(parents=True, exist_ok=True)
            save_model(self.module, str(folder / "model.safetensors"))
        write_json(folder / FACTS, {"head": self.head, "name": self.name})


def load_classifier(name: str | Path, weights: str | Path | None = None) -> Classifier:
    """A classifier by name.

    Args:
        name: a folder or hub name of a transformers image classifier, a lab model (`lab:digits-resnet`), a run folder,
            a folder that `Classifier.save` wrote, or `package.module:function` for a function, found on the path or in
            the working directory, that returns a `Classifier`.
        weights: a folder with other weights for it, as `Classifier.save` wrote them.

    Raises:
        UsageError: it cannot be loaded.
    """
    text = str(name)
    saved = _saved(Path(text))
    made = _from_function(text) or (_read_back(saved) if saved else _pretrained(text))
    if weights is not None:
        _fill(made, Path(weights))
    made.module.eval()
    return made


def _fill(made: Classifier, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(made.module, str(folder / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"the weights in {folder} do not fit {made.name}: {error}") from error


def _saved(folder: Path) -> Path | None:
    """The folder that holds a model which transformers cannot load by itself, where this is one or a run with one."""
    for each in (folder / "model", folder):
        if (each / FACTS).is_file() and not (each / "config.json").is_file():
            return each
    return None


def _read_back(folder: Path) -> Classifier:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        name = str(facts["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / FACTS} is not what a classifier writes: {error}") from error
    if "linear" in facts:
        from demur.models.linear_classifier import LinearClassifier

        return LinearClassifier.load(folder)
    made = _from_function(name)
    if made is None:
        raise UsageError(f"{folder} holds weights only: pass package.module:function of the model, and them as weights")
    _fill(made, folder)
    made.path = folder
    return made


def _from_function(text: str) -> Classifier | None:
    """What `module:function` returns; None where the text names no function of a module that is there."""
    module, colon, function = text.partition(":")
    if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return None
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that a file here hides nothing that is installed
    if "." not in module and importlib.util.find_spec(module) is None:
        return None
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
