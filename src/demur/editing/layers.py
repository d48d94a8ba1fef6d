"""Forgetting in the last layers only: go on training them, or begin them anew, while all before them stand still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from demur.editing.finetune import fresh, tuned
from demur.editing.registry import PROBABILISTIC, editor
from demur.models.descent import cross_entropies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["catastrophic_forgetting", "exact_unlearning", "last_layers"]


def last_layers(module: nn.Module, k: int) -> list[str]:
    """The names of the submodules that make up the last k layers of any network.

    A layer begins with a submodule that has a weight matrix or kernel of its own (two dimensions or more); submodules
    with vectors only, such as normalisation, belong to the layer before them. Order is that of `named_modules`, which
    is the order in which the network was put together: the fully connected layer of a ResNet is its last one, and the
    three kernels of its last basic block with a shortcut are the three before.

    Args:
        module: the network.
        k: how many layers, from 1 to all.

    Raises:
        ValueError: there are fewer layers than k, or k is not positive.
    """
    layers: list[list[str]] = []
    for name, part in module.named_modules():
        if any(p.ndim >= 2 for p in part.parameters(recurse=False)):
            layers.append([name])
        elif layers and _own(part):
            layers[-1].append(name)
    if not 0 < k <= len(layers):
        raise ValueError(f"k must be from 1 to {len(layers)}, the number of layers, not {k}")
    return [name for layer in layers[-k:] for name in layer]


def _own(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(recurse=False), *part.buffers(recurse=False)]


@editor("cf-k", paper="2201.06640", kinds=PROBABILISTIC)
def catastrophic_forgetting(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    k: int = 1,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 64,
) -> Classifier:
    """Fine-tuning of the last k layers on the rows to keep; the forget rows are not read.

    Args:
        model, forget, retain, seed: see `edit`.
        k: how many, as `last_layers` counts them.
        epochs, learning_rate, batch_size: of the descent.

    Returns:
        A changed copy; `facts` name its trained parts. All others stand still, running statistics included.

    Raises:
        ValueError: k is out of range.
    """
    student = model.copied()
    names = last_layers(student.module, k)
    return _train_only(student, names, retain, seed, batch_size, epochs=epochs, learning_rate=learning_rate)


@editor("eu-k", paper="2201.06640", kinds=PROBABILISTIC)
def exact_unlearning(
    model: Classifier,
    forget: Labelled,
    retain: Labelled,
    *,
    seed: int = 0,
    k: int = 1,
    initial_seed: int | None = None,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
) -> Classifier:
    """The last k layers begun anew and trained on the rows to keep as the model was; the forget rows are not read.

    Args:
        model, forget, retain, seed: see `edit`.
        k: how many, as `last_layers` counts them; with all of them this is `retrain`.
        initial_seed: of the weights that they begin with: the seed the model itself began with gives the same ones
            again, as SCRUB's authors do; by default `seed`, that is fresh ones.
        epochs, learning_rate, batch_size: as the model was trained (SGD, the rate rising for a fifth of the steps).

    Returns:
        A changed copy; `facts` name its trained parts. All others stand still, running statistics included.

    Raises:
        ValueError: k is out of range.
    """
    student = model.copied()
    names = last_layers(student.module, k)
    new = fresh(model, seed if initial_seed is None else initial_seed).module
    for name in names:
        for tensor, drawn in zip(*(_own(m.get_submodule(name)) for m in (student.module, new)), strict=True):
            tensor.data.copy_(drawn)
    return _train_only(
        student,
        names,
        retain,
        seed,
        batch_size,
        epochs=epochs,
        learning_rate=learning_rate,
        schedule="one-cycle",
        steps=-(-len(retain) // batch_size),
    )


def _train_only(
    student: Classifier, names: list[str], retain: Labelled, seed: int, batch_size: int, **settings: Any
) -> Classifier:
    """Train some submodules; all others that hold weights or statistics stand still."""
    trained = [student.module.get_submodule(name) for name in names]
    chosen = [p for part in trained for p in part.parameters(recurse=False)]
    still = [part for part in student.module.modules() if _own(part) and not any(part is t for t in trained)]
    wanted = [(p, p.requires_grad) for p in student.module.parameters()]
    for p, _ in wanted:
        p.requires_grad_(any(p is c for c in chosen))

    def losses(epoch: int) -> Iterator[Tensor]:
        for part in still:
            part.training = False
        return cross_entropies(student, retain, batch_size, (seed, epoch))

    tuned(student, losses, parameters=chosen, **settings)
    for p, before in wanted:
        p.requires_grad_(before)
    student.facts |= {"trained parts": names, "batch statistics": "moved in trained parts only"}
    return student
