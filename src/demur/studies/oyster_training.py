"""Training on optimised responses (Duan et al. 2025, arXiv 2509.01909): imitation, then ORPO; a part of `oyster`.

A small model refuses the sensitive and answers the malicious. Its first responses and the optimised ones are
trajectories whose pearl points it learns.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from demur.data.batch import Encoded
from demur.data.builders.lingo_bp import (
    SafetyVerdict,
    Step,
    Trajectory,
    UserVerdict,
    trajectories_to_preferences,
    trajectories_to_sft,
)
from demur.data.builders.safety_chain import SafetyChain
from demur.data.builders.stackelberg import USER_TYPES
from demur.objectives import orpo
from demur.studies.oyster import selection
from demur.studies.registry import Progress
from demur.studies.results import Claim
from demur.studies.small_llama import descend, score_rows, small_llama

if TYPE_CHECKING:
    import pandas as pd
    from transformers import LlamaForCausalLM

TOPICS, FRAMES, MARKS, HELD = 24, 8, 6, 0.25
INITIAL = {
    "benign": {"answer": 0.7, "refuse": 0.3},
    "sensitive": {"refuse": 0.8, "answer": 0.2},
    "malicious": {"answer": 0.7, "refuse": 0.3},
}
"""User type → how the model answers before it is taught."""
OPTIMISED = {"benign": "answer", "sensitive": "redirect", "malicious": "refuse"}
JUDGED = {
    ("benign", "answer"): (0.8, 1.0),
    ("benign", "refuse"): (-0.6, 1.0),
    ("sensitive", "answer"): (0.3, 0.0),
    ("sensitive", "redirect"): (0.7, 1.0),
    ("sensitive", "refuse"): (-0.8, 1.0),
    ("malicious", "answer"): (0.8, 0.0),
    ("malicious", "refuse"): (-0.6, 1.0),
}
"""User type and response family → satisfaction and safety."""
WIDTH, BATCH, BASE_STEPS, BASE_RATE, TEACH_RATE, SFT_STEPS, ORPO_STEPS = 32, 32, 300, 2e-3, 1e-3, 150, 100


def _words() -> list[str]:
    marks = [f"{kind}{i}" for kind in USER_TYPES for i in range(MARKS)]
    return ["<end>", *_FAMILIES, *marks, *(f"frame{i}" for i in range(FRAMES)), *(f"topic{i}" for i in range(TOPICS))]


_FAMILIES = ("answer", "redirect", "refuse")


def _response(family: str, topic: str) -> str:
    """A stub of a family: refusals name no topic."""
    return family if family == "refuse" else f"{family} {topic}"


def make_prompts(seed: int) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """User type, prompt and topic, for training and held out: pairs of a mark and a topic that training never sees."""
    rng = np.random.default_rng(seed)
    seen, held = [], []
    for kind in USER_TYPES:
        pairs = [(mark, topic) for mark in range(MARKS) for topic in range(TOPICS)]
        for place, i in enumerate(rng.permutation(len(pairs)).tolist()):
            mark, topic = pairs[i]
            prompt = f"frame{rng.integers(FRAMES)} {kind}{mark} topic{topic}"
            (held if place < HELD * len(pairs) else seen).append((kind, prompt, f"topic{topic}"))
    return seen, held


def make_trajectories(prompts: Sequence[tuple[str, str, str]], seed: int) -> list[Trajectory]:
    """The model's first response to each prompt, and the optimised one, both judged."""
    rng = np.random.default_rng(seed)
    out = []
    for kind, prompt, topic in prompts:
        first = str(rng.choice(list(INITIAL[kind]), p=list(INITIAL[kind].values())))
        steps = []
        for family in (first, OPTIMISED[kind]):
            satisfaction, safety = JUDGED[kind, family]
            verdicts = UserVerdict(satisfaction), SafetyVerdict(safety)
            steps.append(Step(SafetyChain(prompt), "", _response(family, topic), *verdicts))
        out.append(Trajectory(prompt, tuple(steps)))
    return out


@selection.part("training", minutes=0.5)
def training(seed: int, progress: Progress) -> dict[str, float]:
    """A small model that refuses the sensitive and answers the malicious learns from trajectories: SFT, then ORPO."""
    words = _words()
    ids = {word: i for i, word in enumerate(words)}

    def encode(prompt: str, response: str) -> Encoded:
        front = [ids[word] for word in prompt.split()]
        return Encoded([*front, *(ids[word] for word in response.split()), ids["<end>"]], len(front))

    seen, held = make_prompts(seed)
    trajectories = make_trajectories(seen, seed)
    first = [encode(t.query, t.steps[0].text) for t in trajectories]
    wanted = [encode(r["prompt"], r["response"]) for r in trajectories_to_sft(trajectories)]  # type: ignore[index]
    pairs, harmless = [], []
    for r in trajectories_to_preferences(trajectories):
        pairs.append((encode(r["prompt"], r["chosen"]), encode(r["prompt"], r["rejected"])))  # type: ignore[index]
        harmless.append("benign" in r["prompt"])  # type: ignore[index]

    def imitate(model: LlamaForCausalLM, rows: list[Encoded], steps: int, rate: float) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        descend(
            model,
            lambda places: score_rows(model, [rows[i] for i in places]).nll,
            rows=len(rows),
            batch=BATCH,
            steps=steps,
            seed=seed,
            optimizer=optimizer,
        )

    def prefer(model: LlamaForCausalLM, rows: list[tuple[Encoded, Encoded]]) -> None:
        def loss(places: list[int]) -> torch.Tensor:
            won, lost = (score_rows(model, [rows[i][side] for i in places]) for side in (0, 1))
            return orpo(won, lost)

        optimizer = torch.optim.AdamW(model.parameters(), lr=TEACH_RATE)
        descend(model, loss, rows=len(rows), batch=BATCH, steps=ORPO_STEPS, seed=seed + 1, optimizer=optimizer)

    progress(0, 5, "the model before")
    base = small_llama(len(words), WIDTH, seed)
    imitate(base, first, BASE_STEPS, BASE_RATE)
    progress(1, 5, "imitation")
    tuned = copy.deepcopy(base)
    imitate(tuned, wanted, SFT_STEPS, TEACH_RATE)
    progress(2, 5, "odds ratios")
    taught, turned, narrow = (copy.deepcopy(tuned) for _ in range(3))
    prefer(taught, pairs)
    progress(3, 5, "odds ratios of swapped pairs")
    prefer(turned, [(lost, won) for won, lost in pairs])
    progress(4, 5, "odds ratios without benign prompts")
    prefer(narrow, [pair for pair, benign in zip(pairs, harmless, strict=True) if not benign])
    measured = {}
    models = {"before": base, "SFT": tuned, "ORPO": taught, "swapped": turned, "narrow": narrow}
    for name, model in models.items():
        for kind in USER_TYPES:
            for family in _FAMILIES:
                rows = [encode(prompt, _response(family, topic)) for k, prompt, topic in held if k == kind]
                measured[f"{name} {kind} {family}"] = _given(model, rows)
    return measured


@torch.no_grad()
def _given(model: LlamaForCausalLM, rows: list[Encoded]) -> float:
    """Share of prompts whose greedy response is the given one; all have as many symbols."""
    scored = score_rows(model, rows)
    right = scored.top_k(1)[1][:, 0] == scored.label_ids
    return float(right.view(len(rows), -1).all(1).float().mean())


@training.claims
def training_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What training on trajectories brings, on prompts that it never saw."""
    arms = ("before", "SFT", "ORPO", "swapped")
    yield Claim(
        text="Held-out sensitive prompts get a constructive response (share)",
        measured=m["ORPO sensitive redirect"],
        threshold=">= 0.8",
        baselines={arm: m[f"{arm} sensitive redirect"] for arm in arms if arm != "ORPO"},
    )
    yield Claim(
        text="… and malicious ones hardly ever an answer (share)",
        measured=m["ORPO malicious answer"],
        threshold="<= 0.1",
        baselines={arm: m[f"{arm} malicious answer"] for arm in arms if arm != "ORPO"},
    )
    yield Claim(
        text="… while benign ones are still answered (share)",
        measured=m["ORPO benign answer"],
        threshold=">= 0.8",
        kind="ours",
        baselines={arm: m[f"{arm} benign answer"] for arm in arms if arm != "ORPO"}
        | {"without pairs on benign prompts": m["narrow benign answer"]},
    )
    yield Claim(
        text="With the pairs swapped the sensitive are refused (share)",
        measured=m["swapped sensitive refuse"],
        threshold=">= 0.5",
        kind="ours",
        baselines={"as they should be": m["ORPO sensitive refuse"]},
    )
