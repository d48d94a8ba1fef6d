"""Many small classifiers trained at once: all members take a step together, each on its own rows in its own order."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demur.editing.finetune import fresh
from demur.errors import UsageError
from demur.files import atomic_write, hash_json, writable_cache
from demur.models.descent import batches, descend, tell
from demur.processes import Progress

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier

__all__ = ["Ensemble", "cached_ensemble", "descend_together", "margins", "train_ensemble"]

_TOGETHER = 50
_ROWS = 1024
_AT_ONCE: weakref.WeakKeyDictionary[nn.Module, dict[bool, bool]] = weakref.WeakKeyDictionary()


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(…, rows) log(p_y / (1 - p_y)), computed as z_y - logsumexp of the other logits, which stays finite.

    Args:
        logits: (…, rows, classes).
        labels: (rows,) class numbers.
    """
    places = labels.expand(logits.shape[:-1])[..., None]
    own = logits.gather(-1, places)[..., 0]
    return own - logits.scatter(-1, places, -torch.inf).logsumexp(-1)


@dataclass(frozen=True)
class Ensemble:
    """Classifiers of one architecture.

    Attributes:
        model: tells the architecture; its own weights play no part.
        weights: parameters and buffers by name, each with a leading dimension for the members.
    """

    model: Classifier
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, models: Sequence[Classifier]) -> Ensemble:
        """Models of one architecture as an ensemble; their weights are copied."""
        states = [{**dict(m.module.named_parameters()), **dict(m.module.named_buffers())} for m in models]
        return cls(models[0], {name: torch.stack([s[name].detach() for s in states]) for name in states[0]})

    def __len__(self) -> int:
        return len(next(iter(self.weights.values())))

    def __getitem__(self, members: slice | Tensor) -> Ensemble:
        """Some of the members; a slice shares their weights."""
        return Ensemble(self.model, {name: w[members] for name, w in self.weights.items()})

    def member(self, number: int) -> Classifier:
        """One member as a model of its own."""
        made = self.model.copied()
        made.module.load_state_dict({name: w[number] for name, w in self.weights.items()}, strict=False)
        made.module.eval()
        made.name = f"{self.model.name}, member {number}"
        return made

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits of each member for its own inputs, in the mode that `model` is in; gradients flow into the weights.

        Args:
            inputs: (members, batch, …).

        Returns:
            (members, batch, classes).
        """
        if len(self) > 1 and self._at_once(inputs):
            return torch.func.vmap(self.model.logits_with, randomness="different")(self.weights, inputs)
        parts = {name: w.unbind(0) for name, w in self.weights.items()}
        members = ({name: w[i] for name, w in parts.items()} for i in range(len(self)))
        return torch.stack([self.model.logits_with(m, own) for m, own in zip(members, inputs, strict=True)])

    @torch.no_grad()
    def _at_once(self, inputs: Tensor) -> bool:
        """Whether the architecture can be run on many weights at once; tried once, on copies of two members."""
        module = self.model.module
        known = _AT_ONCE.setdefault(module, {})
        if module.training not in known:
            # Copies, since a failing pass may have moved some running statistics already.
            copies = {name: w[:2].clone() for name, w in self.weights.items()}
            try:
                torch.func.vmap(self.model.logits_with, randomness="different")(copies, inputs[:2])
                known[module.training] = True
            except RuntimeError as error:
                known[module.training] = False
                reason = str(error).partition("\n")[0]
                warnings.warn(f"the members of {self.model.name} are run one by one: {reason}", stacklevel=3)
        return known[module.training]

    @torch.no_grad()
    def logits(self, data: Labelled) -> Tensor:
        """(members, rows, classes) logits of a set, in evaluation mode."""
        out = []
        with self.model.evaluating():
            for start in range(0, len(self), _TOGETHER):
                part = self[start : start + _TOGETHER]
                rows = (data.batch(slice(i, i + _ROWS))[0] for i in range(0, max(len(data), 1), _ROWS))
                out.append(torch.cat([part(inputs.expand(len(part), *inputs.shape)) for inputs in rows], 1))
        return torch.cat(out)

    def margins(self, data: Labelled) -> Tensor:
        """(members, rows) log(p_y / (1 - p_y)) of the right class."""
        return margins(self.logits(data), data.labels)


def descend_together(
    ensemble: Ensemble,
    losses: Callable[[Ensemble, int], Iterator[Tensor]],
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float = 5e-4,
    steps: int | None = None,
) -> Ensemble:
    """Train all members at once, as `models.descend` trains one: SGD with momentum.

    Args:
        ensemble: the members as they begin; it is left as it is.
        losses: from members and epoch, each step's (members,) losses, computed when they are asked for.
        epochs, learning_rate, weight_decay: of the descent.
        steps: in an epoch, where the rate is to rise for a fifth of all steps and to fall again; else it is constant.

    Returns:
        The members as they end.
    """
    model = ensemble.model.copied()
    trainable = {name for name, _ in model.module.named_parameters()}
    weights = {name: w.clone().requires_grad_(name in trainable) for name, w in ensemble.weights.items()}
    moving = Ensemble(model, weights)
    descend(
        model,
        lambda epoch: (loss.sum() for loss in losses(moving, epoch)),
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        schedule="constant" if steps is None else "one-cycle",
        steps=steps,
        parameters=[weights[name] for name in sorted(trainable)],  # type: ignore[misc]
    )
    return Ensemble(model, {name: w.detach() for name, w in weights.items()})


def train_ensemble(
    model: Classifier,
    data: Labelled,
    n: int,
    *,
    masks: Tensor | None = None,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    weight_decay: float = 5e-4,
    seed: int = 0,
    together: int = _TOGETHER,
    progress: Progress = tell,
) -> Ensemble:
    """Train models from the beginning, many at a time.

    Member i is what `train_classifier` makes of `fresh(model, seed + i)` with `seed + i` on its rows, up to rounding;
    where a model drops out at random, up to what is dropped. A model that `torch.func.vmap` cannot run on many weights
    at once is run member by member, with a warning: the outcome is the same, only slower.

    Args:
        model: tells the architecture.
        data: the training set.
        n: how many members.
        masks: (n, rows) bool, the rows that each member sees, as many for each; all rows by default.
        epochs, learning_rate, batch_size, weight_decay: of each member, as in `train_classifier`.
        seed: of the first member; the others count on from it.
        together: how many members take their steps at once, which bounds the memory.
        progress: called with the members done.

    Raises:
        UsageError: there are no members, or the masks do not fit or let members see different numbers of rows.
    """
    seen = _rows_seen(data, n, masks)
    steps = -(-seen.shape[1] // batch_size)
    parts = []
    for start in range(0, n, together):
        rows = seen[start : start + together]
        seeds = range(seed + start, seed + start + len(rows))

        def losses(members: Ensemble, epoch: int, rows: Tensor = rows, seeds: range = seeds) -> Iterator[Tensor]:
            for orders in zip(*(batches(rows.shape[1], batch_size, (own, epoch)) for own in seeds), strict=True):
                yield member_losses(members, data, rows.gather(1, torch.stack(orders)))

        begun = Ensemble.of([fresh(model, own) for own in seeds])
        parts.append(
            descend_together(
                begun, losses, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay, steps=steps
            ).weights
        )
        progress(start + len(rows), n, "models")
    return Ensemble(model.copied(), {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def member_losses(members: Ensemble, data: Labelled, rows: Tensor) -> Tensor:
    """(members,) mean cross entropy of each member on its own rows of a set, (members, batch)."""
    inputs, labels = data.batch(rows)
    return F.cross_entropy(members(inputs).transpose(1, 2), labels, reduction="none").mean(1)


def _rows_seen(data: Labelled, n: int, masks: Tensor | None) -> Tensor:
    """(members, rows) numbers of the rows that each member sees."""
    if n < 1:
        raise UsageError(f"an ensemble needs at least one member, not {n}")
    if not len(data):
        raise UsageError(f"{data.name} is empty: nothing can be trained on it")
    if masks is None:
        return torch.arange(len(data)).expand(n, -1)
    if masks.dtype != torch.bool or masks.shape != (n, len(data)):
        raise UsageError(f"masks must be bool of shape ({n}, {len(data)}), not {masks.dtype} of {tuple(masks.shape)}")
    counts = masks.sum(1)
    if int(counts.min()) != int(counts.max()) or not int(counts.min()):
        raise UsageError(
            f"each member must see as many rows: the masks hold {int(counts.min())} to {int(counts.max())}"
        )
    return masks.nonzero()[:, 1].reshape(n, -1)


def cached_ensemble(
    model: Classifier,
    data: Labelled,
    n: int,
    *,
    masks: Tensor | None = None,
    epochs: int = 12,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    weight_decay: float = 5e-4,
    seed: int = 0,
    progress: Progress = tell,
) -> Ensemble:
    """`train_ensemble`, or what it made of the same arguments before: one file in the cache for whoever asks.

    Args:
        model, data, n, masks, epochs, learning_rate, batch_size, weight_decay, seed, progress: as there.

    Raises:
        UsageError: as there, or the cache cannot be written.
    """
    from safetensors.torch import load_file, save_file

    rows = _rows_seen(data, n, masks)
    recipe = {
        "kind": "ensemble",
        "version": 1,
        # What a member begins with tells the architecture, and whatever else the seed does not decide.
        "first": fresh(model, seed).weights_hash(),
        "module": repr(model.module),
        "data": data.hash(),
        "rows": None if masks is None else hash_json(np.packbits(masks.numpy()).tolist()),
        **{"n": n, "epochs": epochs, "rate": learning_rate, "batch": batch_size, "decay": weight_decay, "seed": seed},
    }
    file = writable_cache() / "ensembles" / f"{hash_json(recipe)[:16]}.safetensors"
    if not file.is_file():
        made = train_ensemble(
            model,
            data,
            len(rows),
            masks=masks,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            weight_decay=weight_decay,
            seed=seed,
            progress=progress,
        )
        with atomic_write(file) as temporary:
            save_file({name: w.contiguous() for name, w in made.weights.items()}, temporary)
    return Ensemble(model.copied(), load_file(file))
