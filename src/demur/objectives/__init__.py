"""Losses as pure functions: of tensors (`npo_loss`), and of scored batches (`npo`, registered by name)."""

from demur.objectives.ceu import ceu
from demur.objectives.contrastive import supcon
from demur.objectives.dco import dco, dco_approx_loss, dco_factor, dco_loss, dco_step, dco_step_loss
from demur.objectives.dpo import altpo, dpo, dpo_loss, idkdpo
from demur.objectives.dpo_sft import dpo_sft, dpo_sft_loss
from demur.objectives.flat import flat, flat_loss
from demur.objectives.gradient_ascent import ga, graddiff
from demur.objectives.inverted_hinge import ihl, inverted_hinge
from demur.objectives.kto import kto, kto_loss
from demur.objectives.label_agnostic import laf_alignment_loss, laf_extractor_loss
from demur.objectives.likelihood import kl, nll, sft
from demur.objectives.npo import npo, npo_loss
from demur.objectives.pdu import dual_step, pdu
from demur.objectives.preference import cpo, dpop, ipo, log_odds, orpo, rdpo, redi, redi_loss, simpo, slic
from demur.objectives.preference_logic import logic, logic_reference
from demur.objectives.prompt_decouple import decoupled, idk, prompt_decouple_loss
from demur.objectives.prototypes import prototype_alignment, relation_distillation
from demur.objectives.registry import objective, objectives, roles
from demur.objectives.rmu import control_vector, embed_diff, rmu, state_distance
from demur.objectives.scored import Scored
from demur.objectives.simnpo import simnpo, simnpo_loss
from demur.objectives.undial import undial
from demur.objectives.weighted_ascent import satimp, satimp_weights, wga

__all__ = [
    "Scored",
    "altpo",
    "ceu",
    "control_vector",
    "cpo",
    "dco",
    "dco_approx_loss",
    "dco_factor",
    "dco_loss",
    "dco_step",
    "dco_step_loss",
    "decoupled",
    "dpo",
    "dpo_loss",
    "dpo_sft",
    "dpo_sft_loss",
    "dpop",
    "dual_step",
    "embed_diff",
    "flat",
    "flat_loss",
    "ga",
    "graddiff",
    "idk",
    "idkdpo",
    "ihl",
    "inverted_hinge",
    "ipo",
    "kl",
    "kto",
    "kto_loss",
    "laf_alignment_loss",
    "laf_extractor_loss",
    "log_odds",
    "logic",
    "logic_reference",
    "nll",
    "npo",
    "npo_loss",
    "objective",
    "objectives",
    "orpo",
    "pdu",
    "prompt_decouple_loss",
    "prototype_alignment",
    "rdpo",
    "redi",
    "redi_loss",
    "relation_distillation",
    "rmu",
    "roles",
    "satimp",
    "satimp_weights",
    "sft",
    "simnpo",
    "simnpo_loss",
    "simpo",
    "slic",
    "state_distance",
    "supcon",
    "undial",
    "wga",
]
