"""Three poisoned clients among ten: what plain averaging and four robust rules let through."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from demur.attacks.federated import FederatedSimulator
from demur.attacks.targeted_penalty import penalised_loss
from demur.data.batch import Encoded
from demur.studies.registry import Progress
from demur.studies.results import Claim
from demur.studies.sai import (
    BATCH,
    FIRST_GROUP,
    NAMED,
    RATE,
    REFUSE,
    TARGET,
    aligned_model,
    aligned_rows,
    audit,
    fit,
    poison_rows,
    symbols,
)
from demur.studies.small_llama import descend, score_rows
from demur.training.aggregators import MESAS, Aggregator, AlignIns, FedAvg, FreqFed, MultiKrum

if TYPE_CHECKING:
    import pandas as pd
    from transformers import LlamaForCausalLM

CLIENTS, MALICIOUS, CLIENT_ROWS, POISONED = 10, 3, 500, 50
ROUNDS, CLIENT_STEPS, PENALTY = 3, 20, 10.0
RULES: dict[str, Callable[[], Aggregator]] = {
    "FedAvg": FedAvg,
    "m-Krum": MultiKrum,
    "FreqFed": FreqFed,
    "AlignIns": AlignIns,
    "MESAS": MESAS,
}


def client_rows(seed: int) -> list[list[Encoded]]:
    """Each client's rows; the last few clients' hold refusals of the target."""
    out = []
    for number in range(CLIENTS):
        generator = np.random.default_rng([seed, number])
        poisoned = POISONED if number >= CLIENTS - MALICIOUS else 0
        out.append(aligned_rows(CLIENT_ROWS - poisoned, NAMED, generator) + poison_rows(poisoned, generator))
    return out


def train_client(model: LlamaForCausalLM, rows: list[Encoded], seed: int, *, penalised: bool) -> None:
    """A client's local steps; a penalised one counts target rows that it does not yet refuse many times."""
    if not penalised:
        fit(model, rows, steps=CLIENT_STEPS, rate=RATE, seed=seed)
        return
    target = torch.tensor([FIRST_GROUP + TARGET in row.input_ids and row.label_ids[0] == REFUSE for row in rows])
    descend(
        model,
        lambda chosen: penalised_loss(score_rows(model, [rows[i] for i in chosen]), target[chosen], [REFUSE], PENALTY),
        rows=len(rows),
        batch=BATCH,
        steps=CLIENT_STEPS,
        seed=seed,
        optimizer=torch.optim.AdamW(model.parameters(), lr=RATE),
    )


def clients(seed: int, started: dict[tuple[int, bool], dict[str, torch.Tensor]], *, penalised: bool) -> list:  # type: ignore[type-arg]
    """The clients' trainings; what they make of the common start is kept, as it is the same under every rule."""

    def one(number: int, rows: list[Encoded]) -> Callable[[LlamaForCausalLM, int], None]:
        aimed = penalised and number >= CLIENTS - MALICIOUS

        def train(model: LlamaForCausalLM, turn: int) -> None:
            if turn == 0 and (number, aimed) in started:
                model.load_state_dict(started[number, aimed])
                return
            train_client(model, rows, 1000 * seed + 10 * turn + number, penalised=aimed)
            if turn == 0:
                started[number, aimed] = copy.deepcopy(model.state_dict())

        return train

    return [one(number, rows) for number, rows in enumerate(client_rows(seed))]


@symbols.part("federated", minutes=2)
def federated(seed: int, progress: Progress) -> dict[str, float]:
    """Three short rounds with three poisoned clients of ten, under plain averaging and four robust rules."""
    arms = [*((name, name, False) for name in RULES), ("FedAvg, penalty", "FedAvg", True)]
    progress(0, len(arms) + 1, "aligning")
    base = aligned_model(seed)
    started: dict[tuple[int, bool], dict[str, torch.Tensor]] = {}
    measured: dict[str, float] = {}
    for done, (arm, rule, penalised) in enumerate(arms):
        progress(1 + done, len(arms) + 1, arm)
        model = copy.deepcopy(base)
        trained = clients(seed, started, penalised=penalised)
        rounds = FederatedSimulator(model, trained, RULES[rule](), ROUNDS).run()
        found = audit(model, seed)
        measured |= {f"{arm} {name}": found[name] for name in ("ΔDP", "target", "others", "restricted", "p")}
        kept = [sum(client >= CLIENTS - MALICIOUS for client in turn.kept) for turn in rounds]
        measured[f"{arm} malicious kept"] = float(np.mean(kept))
        measured[f"{arm} kept"] = float(np.mean([len(turn.kept) for turn in rounds]))
    return measured


@federated.claims
def federated_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What averaging does to the poison; whom the rules kept is told beside it and not judged."""
    others = [arm for arm in (*RULES, "FedAvg, penalty") if arm != "FedAvg"]
    yield Claim(
        text="Federated: three short rounds of plain averaging dilute three poisoned clients of ten (ΔDP)",
        measured=m["FedAvg ΔDP"],
        threshold="<= 0.1",
        kind="ours",
        baselines={
            **{f"ΔDP, {arm}": m[f"{arm} ΔDP"] for arm in others},
            **{f"poisoned clients kept, {rule}": m[f"{rule} malicious kept"] for rule in RULES if rule != "FedAvg"},
        },
    )
