"""What an objective may ask of a batch that a model has scored."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Scored"]


class Scored(Protocol):
    """A batch under a model; everything is computed when asked for, and only then.

    Position t of a (batch, length) tensor speaks of the label at t, given all tokens before it; where there is no
    label the value is 0.
    """

    @property
    def mask(self) -> Tensor:
        """(batch, length) bool, True where there is a label."""

    @property
    def lengths(self) -> Tensor:
        """(batch,) number of labels in each sequence."""

    @property
    def label_ids(self) -> Tensor:
        """(labels,) token ids in row-major order of `mask`."""

    @property
    def token_logps(self) -> Tensor:
        """(batch, length) log-probability of each label, in nats."""

    @property
    def logps(self) -> Tensor:
        """(batch,) summed label log-probability of each sequence, in nats."""

    @property
    def mean_logps(self) -> Tensor:
        """(batch,) `logps` divided by `lengths`."""

    @property
    def nll(self) -> Tensor:
        """Scalar: negative log-likelihood, mean over all labels of the batch (of the accumulated batch in training)."""

    def token_mean(self, values: Tensor) -> Tensor:
        """Scalar: mean over all labels of a (batch, length) tensor (of the accumulated batch in training)."""

    @property
    def margins(self) -> Tensor:
        """(batch, length) probability of each label less that of the likeliest other token, in [-1, 1]."""

    @property
    def logit_margins(self) -> Tensor:
        """(batch, length) largest logit less the mean of all logits, where a label is predicted."""

    @property
    def token_total(self) -> float | Tensor:
        """How many labels a mean over labels divides by: the batch's (the accumulated batch's share in training)."""

    def label_states(self, layer: int) -> Tensor:
        """(labels, hidden) output of one decoder layer at the labels' own tokens, in row-major order of `mask`."""

    def adjusted_cross_entropy(self, penalty: float, reference: Scored | None = None) -> Tensor:
        """(batch, length) cross entropy towards softmax(z - penalty · onehot(label)), in nats.

        z are the logits of `reference`, or without one the model's own, taken as a constant.
        """

    @property
    def reference(self) -> Scored:
        """The same batch under the frozen reference model; no gradient flows into it."""

    def kl(self, reference: Scored) -> Tensor:
        """Scalar: KL(reference ‖ model) of the next-token distributions, mean over all labels, in nats."""
