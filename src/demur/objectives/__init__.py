"""Losses as pure functions: of tensors (`npo_loss`), and of scored batches (`npo`, registered by name)."""

from demur.objectives.dpo import dpo, dpo_loss, idkdpo
from demur.objectives.gradient_ascent import ga, graddiff
from demur.objectives.likelihood import kl, nll, sft
from demur.objectives.npo import npo, npo_loss
from demur.objectives.registry import objective, objectives, roles
from demur.objectives.scored import Scored
from demur.objectives.simnpo import simnpo, simnpo_loss

__all__ = [
    "Scored",
    "dpo",
    "dpo_loss",
    "ga",
    "graddiff",
    "idkdpo",
    "kl",
    "nll",
    "npo",
    "npo_loss",
    "objective",
    "objectives",
    "roles",
    "sft",
    "simnpo",
    "simnpo_loss",
]
