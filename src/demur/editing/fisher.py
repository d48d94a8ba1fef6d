"""How much each weight matters to a set: the diagonal of the empirical Fisher information, and its label-free kin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.data.batch import Encoded, collate
from demur.errors import UsageError
from demur.files import atomic_write
from demur.models.scored import score
from demur.models.threads import few_threads

if TYPE_CHECKING:
    from demur.data.labelled import Labelled
    from demur.models.classifier import Classifier
    from demur.models.language_model import LanguageModel

__all__ = ["Fisher", "Importances", "Loss", "fisher_diagonal", "token_fisher"]

Fisher = Literal["sample", "batch"]
Loss = Literal["cross_entropy", "logit_norm"]

_ROWS = 256
_NUMBERS = 2**26


def fisher_diagonal(
    model: Classifier,
    data: Labelled,
    *,
    fisher: Fisher = "sample",
    loss: Loss = "cross_entropy",
    batch_size: int = 64,
) -> dict[str, Tensor]:
    """The importance of each parameter for a set (Foster et al. 2023, arXiv 2308.07707).

    I = mean (∂ℓ/∂θ)², over samples or over batches; in evaluation mode, in float32.

    Args:
        model: left as it is.
        data: the set, in its own order.
        fisher: "sample" squares each sample's gradient, as the paper writes; "batch" that of a batch's mean loss, as
            its code does, so that size and order of the batches change the outcome.
        loss: cross entropy with the labels; or the squared norm of the logits, which needs none, with |∂ℓ/∂θ| in place
            of the square (arXiv 2402.19308).
        batch_size: samples in a batch; of no consequence for "sample".

    Returns:
        Parameter → importance, of its shape; zero for parameters that are frozen.

    Raises:
        UsageError: an option is unknown, or the set is empty.
    """
    if fisher not in ("sample", "batch") or loss not in ("cross_entropy", "logit_norm"):
        raise UsageError(
            f"importance needs fisher sample or batch and loss cross_entropy or logit_norm, not {fisher}, {loss}"
        )
    if not len(data):
        raise UsageError(f"{data.name} is empty: nothing is important for it")
    parameters = dict(model.module.named_parameters())
    trained: dict[str, Tensor] = {name: p for name, p in parameters.items() if p.requires_grad}
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    measure = torch.square if loss == "cross_entropy" else torch.abs
    size = 1 if fisher == "sample" else batch_size
    with model.evaluating(), few_threads(model.module):
        found = _of_samples(model, data, trained, loss)
        if fisher == "batch":
            found = _of_batches(model, data, trained, loss, batch_size)
        for grads in found:
            for name, grad in grads.items():
                total[name] += measure(grad.float()).sum(0)
    return {name: value / -(-len(data) // size) for name, value in total.items()}


def _mean_loss(logits: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    return F.cross_entropy(logits, labels) if loss == "cross_entropy" else logits.square().sum(1).mean()


def _of_samples(
    model: Classifier, data: Labelled, trained: dict[str, Tensor], loss: Loss
) -> Iterator[dict[str, Tensor]]:
    """Gradients of single samples, many at once: (samples, *shape) each."""
    weights = {name: p.detach() for name, p in trained.items()}

    def sample_loss(given: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        return _mean_loss(model.logits_with(given, row[None]), label[None], loss)

    of_each = torch.func.vmap(torch.func.grad(sample_loss), (None, 0, 0))
    at_once = max(1, min(_ROWS, _NUMBERS // max(1, sum(p.numel() for p in weights.values()))))
    for start in range(0, len(data), at_once):
        yield of_each(weights, *data.batch(slice(start, start + at_once)))


def _of_batches(
    model: Classifier, data: Labelled, trained: dict[str, Tensor], loss: Loss, batch_size: int
) -> Iterator[dict[str, Tensor]]:
    """Gradients of batches' mean losses: (1, *shape) each."""
    for start in range(0, len(data), batch_size):
        inputs, labels = data.batch(slice(start, start + batch_size))
        found = torch.autograd.grad(
            _mean_loss(model.logits(inputs), labels, loss), list(trained.values()), allow_unused=True
        )
        yield {name: grad[None] for name, grad in zip(trained, found, strict=True) if grad is not None}


def token_fisher(lm: LanguageModel, rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """The importance of each parameter of a language model: the mean over rows of squared gradients.

    Args:
        lm: left as it is.
        rows: prompts with answers; a row's loss is the mean over its answer's tokens.

    Returns:
        As `fisher_diagonal`.
    """
    parameters = dict(lm.model.named_parameters())
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    mode = lm.model.training
    lm.model.eval()
    for row in rows:
        loss = score(lm.model, collate([row], lm.pad_id)).nll
        for name, grad in zip(
            trained, torch.autograd.grad(loss, list(trained.values()), allow_unused=True), strict=True
        ):
            if grad is not None:
                total[name] += grad.float().square()
    lm.model.train(mode)
    return {name: value / len(rows) for name, value in total.items()}


@dataclass(frozen=True)
class Importances:
    """Importances of the parameters for rows that need not be kept.

    Rows that come in parts are measured part by part and merged: `day1.merged(day2)`, and may then be deleted.

    Attributes:
        values: parameter → importance.
        rows: how many rows they are a mean over.
        fisher, loss: how they were measured, see `fisher_diagonal`.
    """

    values: Mapping[str, Tensor]
    rows: int
    fisher: Fisher = "sample"
    loss: Loss = "cross_entropy"

    @classmethod
    def measured(
        cls,
        model: Classifier,
        data: Labelled,
        *,
        fisher: Fisher = "sample",
        loss: Loss = "cross_entropy",
        batch_size: int = 64,
    ) -> Importances:
        """Those of a set, see `fisher_diagonal`."""
        values = fisher_diagonal(model, data, fisher=fisher, loss=loss, batch_size=batch_size)
        return cls(values, len(data), fisher, loss)

    def merged(self, *others: Importances) -> Importances:
        """Those of all rows together: the mean, weighed by rows.

        With fisher "batch" this is that of all batches only where all batches but the last have one size.

        Raises:
            UsageError: they are of different models, or were measured differently.
        """
        return reduce(_merge, others, self)

    def save(self, file: str | Path) -> None:
        """Write them as safetensors."""
        from safetensors.torch import save_file

        facts = {"rows": str(self.rows), "fisher": self.fisher, "loss": self.loss}
        with atomic_write(file) as temporary:
            save_file({name: value.contiguous() for name, value in self.values.items()}, temporary, facts)

    @classmethod
    def load(cls, file: str | Path) -> Importances:
        """Read what `save` wrote.

        Raises:
            UsageError: the file is missing, damaged, or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(file), "pt") as opened:
                facts = opened.metadata() or {}
                values = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return cls(values, int(facts["rows"]), facts["fisher"], facts["loss"])
        except (OSError, SafetensorError, KeyError) as error:
            raise UsageError(f"{file}: cannot be read as importances: {error}") from error


def _merge(one: Importances, other: Importances) -> Importances:
    if _shapes(one.values) != _shapes(other.values) or (one.fisher, one.loss) != (other.fisher, other.loss):
        raise UsageError("importances can be merged when they are of one model and were measured in the same way")
    rows = one.rows + other.rows
    values = {
        name: (one.rows * value.double() + other.rows * other.values[name].double()).div(rows).float()
        for name, value in one.values.items()
    }
    return replace(one, values=values, rows=rows)


def _shapes(values: Mapping[str, Tensor]) -> set[tuple[str, Iterable[int]]]:
    return {(name, value.shape) for name, value in values.items()}
