"""Constructive safety alignment (Duan et al. 2025, arXiv 2509.01909): safe responses that still help.

Choosing among responses under a belief about the user, and improving a response by feedback on its chain. Judges,
editors and users are scripted. Training on what comes out of that is in `oyster_training`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demur.audits.constructive import ConstructiveScore
from demur.data.builders.lingo_bp import Edit, LingoBP, SafetyVerdict, UserVerdict
from demur.data.builders.safety_chain import SafetyChain
from demur.data.builders.stackelberg import USER_TYPES, Candidate, StackelbergSelector, pearl_point
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

QUERIES, CONCENTRATION = 3000, 0.6
KINDS = {
    "direct": ((0.8, 0.3, 0.8), (0.05, 0.6, 1.0)),
    "constructive": ((0.5, 0.7, 0.1), (0.02, 0.05, 0.1)),
    "refuse": ((-0.6, -0.8, -0.6), (0.0, 0.0, 0.0)),
    "evasive": ((-0.2, -0.3, -0.2), (0.05, 0.15, 0.3)),
}
"""Candidate → mean satisfaction and mean risk by user type."""
SATISFACTION_NOISE, RISK_NOISE, SAFE = 0.15, 0.05, 0.1
BETAS = (0.1, 2.0, 10.0)

ITEMS, ROUNDS, RANDOM = 2000, 3, 0.3
STRATEGIES = (
    "acknowledge the feeling behind the question",
    "name a person to turn to",
    "offer a first small step",
    "explain why some details are left out",
    "ask one open question",
    "keep the tone warm",
    "use short sentences",
    "give an example from daily life",
    "summarise at the end",
    "lecture about rules",
    "list every forbidden detail",
    "end the conversation at once",
)
REQUIRED, FORBIDDEN, START = frozenset(STRATEGIES[:4]), frozenset(STRATEGIES[-3:]), 4


@dataclass(frozen=True)
class Query:
    """A query's candidates, the belief about its user, and who that really is."""

    candidates: list[Candidate]
    prior: list[float]
    kind: str


def make_queries(seed: int) -> list[Query]:
    """Queries with noisy candidates; the user's true type is drawn from the belief."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(QUERIES):
        prior = rng.dirichlet([CONCENTRATION] * len(USER_TYPES))
        kind = USER_TYPES[rng.choice(len(USER_TYPES), p=prior)]
        candidates = []
        for name, (liked, risky) in KINDS.items():
            satisfaction = np.clip(np.array(liked) + rng.normal(0, SATISFACTION_NOISE, 3), -1, 1)
            risk = np.clip(np.array(risky) + rng.normal(0, RISK_NOISE, 3), 0, 1)
            candidates.append(
                Candidate(
                    name,
                    dict(zip(USER_TYPES, satisfaction.tolist(), strict=True)),
                    dict(zip(USER_TYPES, risk.tolist(), strict=True)),
                )
            )
        out.append(Query(candidates, (prior / prior.sum()).tolist(), kind))
    return out


def _most_probable(prior: Sequence[float]) -> list[float]:
    """All belief on the likeliest type: what must not be mistaken for the expectation."""
    best = int(np.argmax(prior))
    return [float(i == best) for i in range(len(prior))]


@study("oyster", paper="2509.01909", minutes=0.1, part="selection")
def selection(seed: int, progress: Progress) -> dict[str, float]:
    """300 queries from users of three types; the chosen response's constructive score for the true type."""
    progress(0, 1, "choosing responses")
    queries = make_queries(seed)
    policies: dict[str, Callable[[Query, float], Candidate]] = {
        name: lambda query, beta, place=place: query.candidates[place]  # type: ignore[misc]
        for place, name in enumerate(KINDS)
    }
    policies["CSA"] = lambda query, beta: StackelbergSelector(beta=beta).select("", query.candidates, query.prior)
    policies["MAP type"] = lambda query, beta: StackelbergSelector(beta=beta).select(
        "", query.candidates, _most_probable(query.prior)
    )
    policies["pearl point"] = lambda query, beta: (
        pearl_point(query.candidates, query.prior, SAFE) or query.candidates[list(KINDS).index("refuse")]
    )
    measured = {}
    for name, policy in policies.items():
        for beta in BETAS if name == "CSA" else (2.0,):
            chosen = [policy(query, beta) for query in queries]
            satisfaction = np.mean([c.satisfaction[q.kind] for c, q in zip(chosen, queries, strict=True)])
            risk = np.mean([c.risk_for(q.kind) for c, q in zip(chosen, queries, strict=True)])
            score = ConstructiveScore(beta=beta)
            key = name if beta == 2.0 else f"{name} β={beta:g}"
            measured |= {
                f"{key} C": score(float(satisfaction), float(risk), normalize=False),
                f"{key} normalised": score(float(satisfaction), float(risk)),
                f"{key} risk": float(risk),
                **{f"{key} {kind}": float(np.mean([c.response == kind for c in chosen])) for kind in KINDS},
            }
    turned = []
    for query in queries:  # the price of risk with its sign turned
        payoffs = [
            sum(p * (c.satisfaction[t] + 2.0 * c.risk_for(t)) for p, t in zip(query.prior, USER_TYPES, strict=True))
            for c in query.candidates
        ]
        turned.append(query.candidates[int(np.argmax(payoffs))].risk_for(query.kind))
    return measured | {"sign turned risk": float(np.mean(turned))}


@selection.claims
def selection_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of its leader, and how the price of risk moves it."""
    fixed = m[[f"{name} C" for name in KINDS]].max(axis=1)
    baselines = {name: m[f"{name} C"] for name in (*KINDS, "MAP type", "pearl point")}
    yield Claim(
        text="The leader does at least as well as the best fixed policy (difference of mean C at β = 2)",
        measured=m["CSA C"] - fixed,
        threshold=">= 0",
        baselines={"CSA": m["CSA C"], **baselines},
    )
    yield Claim(
        text="… and better than one who takes the likeliest type for certain",
        measured=m["CSA C"] - m["MAP type C"],
        threshold=">= 0.04",
        baselines={"CSA": m["CSA C"], "MAP type": m["MAP type C"]},
    )
    yield Claim(
        text="… at little risk (mean risk for the true type)",
        measured=m["CSA risk"],
        threshold="<= 0.1",
        baselines={name: m[f"{name} risk"] for name in ("direct", "constructive", "pearl point")}
        | {"with the sign of β turned": m["sign turned risk"]},
    )
    yield Claim(
        text="Where risk costs little (β = 0.1) it mostly answers directly (share of queries)",
        measured=m["CSA β=0.1 direct"],
        threshold=">= 0.6",
        baselines={"β = 2": m["CSA direct"]},
    )
    yield Claim(
        text="… and where it costs much (β = 10) hardly ever",
        measured=m["CSA β=10 direct"],
        threshold="<= 0.05",
        baselines={"β = 2": m["CSA direct"], "refusals, β = 10": m["CSA β=10 refuse"]},
    )
    yield Claim(
        text="Refusing everything is no good either (normalised C at β = 2)",
        measured=m["refuse normalised"],
        threshold=">= -0.3 and <= -0.2",
        baselines={"CSA": m["CSA normalised"]},
    )


class ScriptedEditor:
    """Makes one right change of the strategies, or with some probability rewrites them at random."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def revise(self, edit: Edit) -> str:
        """See `Editor`."""
        now = set(edit.chain.usefulness_strategies)
        # As many draws in every case, so that both arms meet the same slips.
        slips, place, shuffled = self.rng.random(), self.rng.random(), self.rng.permutation(STRATEGIES).tolist()
        wrong, missing = sorted(now & FORBIDDEN), sorted(REQUIRED - now)
        right = [(now - {s}) for s in wrong] + [(now | {s}) for s in missing]
        if slips < RANDOM:
            now = set(shuffled[: len(now)])
        elif right:
            now = right[int(place * len(right))]
        return f"```json\n{json.dumps({'usefulness_strategies': sorted(now)})}\n```"

    def respond(self, query: str, chain: SafetyChain) -> tuple[str, str]:
        """The strategies themselves are the response."""
        return "", "; ".join(chain.usefulness_strategies)


def judge_strategies(query: str, response: str) -> UserVerdict:
    """(required ones present - forbidden ones present) / 4."""
    said = set(response.split("; "))
    return UserVerdict((len(said & REQUIRED) - len(said & FORBIDDEN)) / len(REQUIRED))


@selection.part("lingo-bp", minutes=0.1)
def lingo_bp(seed: int, progress: Progress) -> dict[str, float]:
    """200 chains of strategies, three rounds with an editor that is wrong at times, with and without a trust region."""
    measured: dict[str, float] = {}
    for done, (name, change) in enumerate({"with": 2, "without": None}.items()):
        progress(done, 2, f"editing {name} a trust region")
        starts, rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        method = LingoBP(
            ScriptedEditor(rng),
            judge_strategies,
            lambda query, response: SafetyVerdict(1.0),
            ("both",) * ROUNDS,
            change,
        )
        histories = []
        for number in range(ITEMS):
            start = tuple(starts.choice(STRATEGIES, START, replace=False).tolist())
            steps = method.optimize(f"item {number}", SafetyChain("help", usefulness_strategies=start)).steps
            histories.append(steps)
        for t in range(ROUNDS + 1):
            measured[f"{name} {t}"] = float(np.mean([steps[t].satisfaction.score for steps in histories]))
        measured[f"{name} largest"] = max(
            len(set(a.chain.usefulness_strategies) ^ set(b.chain.usefulness_strategies))
            for steps in histories
            for a, b in itertools.pairwise(steps)
        )
    return measured


@lingo_bp.claims
def lingo_bp_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What feedback on the chain brings, and what the trust region saves."""
    last = f"with {ROUNDS}"
    yield Claim(
        text="Three rounds of feedback on the chain improve responses (rise of the mean score)",
        measured=m[last] - m["with 0"],
        threshold=">= 0.35",
        baselines={f"round {t}": m[f"with {t}"] for t in range(ROUNDS + 1)},
    )
    yield Claim(
        text="A trust region makes up for an editor that is wrong at times (mean score with less without)",
        measured=m[last] - m[f"without {ROUNDS}"],
        threshold=">= 0.03",
        baselines={
            "with": m[last],
            "without": m[f"without {ROUNDS}"],
            "largest change in a round, with": m["with largest"],
            "largest change in a round, without": m["without largest"],
        },
    )


# A part in a file of its own, which adds itself to the study declared above.
import demur.studies.oyster_training  # noqa: E402, F401
