"""From a preference structure to a loss, by weighted model counting (arXiv 2412.17696)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.objectives.checks import check_beta
from demur.objectives.preference_logic.formula import assignments
from demur.objectives.preference_logic.structure import PreferenceStructure
from demur.objectives.registry import objective
from demur.objectives.scored import Scored

Link = Literal["logistic", "squared", "hinge", "perceptron"]

__all__ = ["Link", "compile_loss", "log_ratio", "logic", "logic_reference"]

_LARGEST = -1e-6  # log-probability: beyond it log(1 - p) loses its gradient


def log_ratio(structure: PreferenceStructure, logps: Mapping[str, Tensor]) -> Tensor:
    """ρ = log of the good event's probability over the bad event's, the atoms being independent.

    Args:
        structure: which rows of the truth table are good and bad.
        logps: (batch,) log-probability of each atom, in nats; a copy such as W2 has the weight of W.

    Returns:
        (batch,), differentiable in the log-probabilities.

    Raises:
        ValueError: an atom has no log-probability, or one of the events is empty.
    """
    if not any(structure.good) or not any(structure.bad):
        side = "good" if not any(structure.good) else "bad"
        raise ValueError(f"no row of the truth table is {side}: the loss would be infinite")
    weights = {}
    for atom in structure.atoms:
        base = re.sub(r"\d+$", "", atom)
        found = logps.get(atom, logps.get(base))
        if found is None:
            raise ValueError(f"atom {atom} has no probability here: the atoms are {', '.join(logps)}")
        weights[atom] = found.clamp(max=_LARGEST)
    rows = []
    for world in assignments(structure.atoms):
        terms = [weights[a] if true else torch.log(-torch.expm1(weights[a])) for a, true in world.items()]
        rows.append(torch.stack(terms).sum(0))
    table = torch.stack(rows)
    good = table[torch.tensor(structure.good, device=table.device)].logsumexp(0)
    return good - table[torch.tensor(structure.bad, device=table.device)].logsumexp(0)


def compile_loss(
    structure: PreferenceStructure, link: Link = "logistic", beta: float = 1.0, margin: float = 0.0
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The loss that a structure means.

    With the logistic link and β = 1 it is -log P(good | good or bad), the semantic loss where every row counts.

    Args:
        structure: what is preferred.
        link: of ρ: "logistic" -log σ(βρ), "squared" (ρ - 1/(2β))², "hinge" max(0, β - ρ), "perceptron" max(0, -ρ).
        beta: > 0.
        margin: subtracted from ρ: log of a reference's ratio that is a constant, as SimPO has it (γ/β).

    Returns:
        A function of the atoms' log-probabilities (see `log_ratio`): scalar loss, mean over the batch.

    Raises:
        ValueError: the link is unknown or beta is not positive.
    """
    check_beta(beta)
    links: dict[str, Callable[[Tensor], Tensor]] = {
        "logistic": lambda rho: -F.logsigmoid(beta * rho),
        "squared": lambda rho: (rho - 0.5 / beta).square(),
        "hinge": lambda rho: (beta - rho).clamp(min=0),
        "perceptron": lambda rho: (-rho).clamp(min=0),
    }
    if link not in links:
        raise ValueError(f"link must be {', '.join(get_args(Link))}, not {link!r}")
    return lambda logps: links[link](log_ratio(structure, logps) - margin).mean()


@functools.lru_cache(maxsize=64)
def _compiled(
    core: str, condition: str, additive: str, link: Link, beta: float, margin: float
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    return compile_loss(PreferenceStructure.of(core, condition, additive), link, beta, margin)


@objective("logic", paper="2412.17696")
def logic(
    chosen: Scored,
    rejected: Scored,
    core: str = "L -> W",
    condition: str = "true",
    additive: str = "false",
    link: Link = "logistic",
    beta: float = 1.0,
    margin: float = 0.0,
    per_token: bool = True,
) -> Tensor:
    """A preference loss written as propositional formulas about W and L, "the chosen (rejected) response is valid".

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        core: what is preferred.
        condition: cases that count at all.
        additive: cases that count for both sides.
        link, beta, margin: as for `compile_loss`.
        per_token: take the geometric mean probability of a response's tokens as its probability; the probability of
            a whole sequence is so small that 1 - p is 1 and most losses coincide.

    Returns:
        Scalar loss; see `compile_loss` (arXiv 2412.17696).

    Raises:
        ValueError: a formula cannot be read, leaves one side empty, or has another atom; beta or link is unfit.
    """
    weights = {"W": _logps(chosen, per_token), "L": _logps(rejected, per_token)}
    return _compiled(core, condition, additive, link, beta, margin)(weights)


@objective("logic-reference", paper="2412.17696", reference=True)
def logic_reference(
    chosen: Scored,
    rejected: Scored,
    core: str = "RW & L -> W & RL",
    condition: str = "RW & L | W & RL",
    additive: str = "W & L & RW & RL",
    link: Link = "logistic",
    beta: float = 1.0,
    per_token: bool = True,
) -> Tensor:
    """As `logic`, with RW and RL beside W and L: the same about the frozen reference. By default the loss is DPO's.

    Args:
        chosen, rejected: responses to the same prompts, row by row.
        core, condition, additive: as for `logic`, over W, L, RW and RL.
        link, beta: as for `compile_loss`.
        per_token: as for `logic`.

    Returns:
        Scalar loss; see `compile_loss` (arXiv 2412.17696).

    Raises:
        ValueError: as for `logic`.
    """
    weights = {
        "W": _logps(chosen, per_token),
        "L": _logps(rejected, per_token),
        "RW": _logps(chosen.reference, per_token).detach(),
        "RL": _logps(rejected.reference, per_token).detach(),
    }
    return _compiled(core, condition, additive, link, beta, 0.0)(weights)


def _logps(scored: Scored, per_token: bool) -> Tensor:
    return scored.mean_logps if per_token else scored.logps
