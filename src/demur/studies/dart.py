"""Difficulty-aware rejection sampling (arXiv 2407.13690): hard queries need their share of examples.

Sums modulo 10 of two to six digits. A response takes the digits in any order and writes the running sum after each, so
that most queries have many right responses. The teacher is an oracle that is the less often right the more digits.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

from demur.data.batch import Encoded
from demur.data.builders import dart
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.studies.small_llama import descend, score_rows, small_llama

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from transformers import LlamaForCausalLM

SUM, START, EQUALS, END = 10, 20, 21, 22  # sums have symbols of their own: ten more
PASS = {2: 0.95, 3: 0.70, 4: 0.35, 5: 0.10, 6: 0.03}
HARD = (5, 6)
QUERIES, EXAMPLES, TRIALS, TESTS = 300, 4000, 34, 80
WIDTH, STEPS, BATCH, RATE = 64, 900, 48, 2e-3
SHRINK = 1 / 3  # of the first weights: with larger ones it takes twice the steps
STRATEGIES = ("rejection", "uniform", "prop2diff", "by pass rate")


def _teach(prompts: Sequence[str], seed: int) -> list[str]:
    """The oracle: digits in a random order, each with the sum so far; where it fails that is off from some digit on."""
    seen: Counter[str] = Counter()
    out = []
    for prompt in prompts:
        seen[prompt] += 1
        rng = random.Random(f"{seed} {prompt} {seen[prompt]}")
        digits = [int(c) for c in prompt]
        rng.shuffle(digits)
        added = list(digits)
        if rng.random() >= PASS[len(prompt)]:
            added[rng.randrange(len(added))] += rng.randrange(1, 10)
        out.append(" ".join(f"{d}={s % 10}" for d, s in zip(digits, accumulate(added), strict=True)))
    return out


def _right(answer: str, row: Mapping[str, Any]) -> bool:
    return answer[-1:] == row["answer"]


def _digits(count: int, n: int, rng: np.random.Generator, known: Collection[str] = ()) -> list[str]:
    """Different queries of n digits that are not among the known ones, as far as there are so many."""
    found: dict[str, None] = {}
    count = min(count, 10**n - sum(len(q) == n for q in known))
    while len(found) < count:
        query = "".join(str(d) for d in rng.integers(10, size=n))
        if query not in known:
            found[query] = None
    return list(found)


def _rows(queries: Sequence[str]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list([{"id": q, "question": q, "answer": str(sum(map(int, q)) % 10)} for q in queries])


def _fitting(rates: Sequence[float], strategy: str) -> list[int]:
    """The largest targets of a strategy that ask for no more examples than there are to be."""
    k = 1
    while sum(dart.dars_targets(rates, strategy, k=k + 1)) <= EXAMPLES:
        k += 1
    return dart.dars_targets(rates, strategy, k=k)


def collect(seed: int, progress: Progress) -> tuple[dict[str, Dataset], dict[str, float]]:
    """Examples of each strategy, and what is to know of them before anything is trained."""
    rng = np.random.default_rng(seed)
    per = QUERIES // len(PASS)
    queries = _rows([q for n in PASS for q in _digits(per, n, rng)])
    rates = dart.estimate_fail_rate(_teach, _right, queries, seed=seed)
    targets = {s: _fitting(rates, s) for s in ("uniform", "prop2diff")}
    # A slip that must show: proportional to how often a query is solved, and rounded down.
    passing = [1 - d for d in rates]
    slip = [int(EXAMPLES * p / sum(passing)) for p in passing]
    asked = dict.fromkeys(STRATEGIES, queries) | {"by pass rate": queries.select([i for i, k in enumerate(slip) if k])}
    targets["by pass rate"] = [k for k in slip if k]
    sampling = {s: partial(dart.difficulty_aware_sampling, targets=t, dedup=False) for s, t in targets.items()}
    sampling["rejection"] = partial(dart.vanilla_rejection_sampling, k=TRIALS, budget=EXAMPLES, dedup=False)
    examples, measured = {}, {}
    for done, strategy in enumerate(STRATEGIES):
        progress(done, 2 * len(STRATEGIES), f"sampling, {strategy}")
        examples[strategy], report = sampling[strategy](_teach, _right, asked[strategy], seed=seed)
        found = Counter(examples[strategy]["query"][:])
        measured |= {
            f"{strategy} examples": sum(found.values()),
            f"{strategy} trials": sum(report.trials),
            f"{strategy} coverage": len(found) / len(queries),
            **{f"{strategy} n={n}": sum(c for q, c in found.items() if len(q) == n) for n in PASS},
        }
    measured["rank correlation"] = float(spearmanr(targets["prop2diff"], rates).statistic)
    k, hardest = max(targets["prop2diff"]), max(rates)
    measured["floor coverage"] = float(np.mean([int(k * d / hardest) > 0 for d in rates]))
    return examples, measured


def _encoded(prompt: str, response: str) -> Encoded:
    steps = [symbol for step in response.split() for symbol in (int(step[0]), SUM + int(step[-1]))]
    return Encoded([START, *map(int, prompt), EQUALS, *steps, END], len(prompt) + 2)


@torch.no_grad()
def solve(model: LlamaForCausalLM, queries: Sequence[str]) -> float:
    """Share of queries of one length whose greedy answer ends in the right sum after as many steps as there are."""
    n = len(queries[0])
    tokens = torch.tensor([[START, *map(int, q), EQUALS] for q in queries])
    for _ in range(2 * n + 1):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(2)], dim=1)
    sums = torch.tensor([SUM + sum(map(int, q)) % 10 for q in queries])
    return float(((tokens[:, -2] == sums) & (tokens[:, -1] == END)).float().mean())


@study("dart", paper="2407.13690", minutes=2, seeds=(1, 2, 3))
def modular_sums(seed: int, progress: Progress) -> dict[str, float]:
    """A student of the oracle's right answers, collected in three ways and, wrongly, in a fourth."""
    examples, measured = collect(seed, progress)
    rng = np.random.default_rng([seed, 1])
    known = {q for rows in examples.values() for q in rows["prompt"][:]}
    fresh = {n: _digits(TESTS, n, rng, known) for n in PASS}
    for done, (strategy, rows) in enumerate(examples.items()):
        progress(len(STRATEGIES) + done, 2 * len(STRATEGIES), f"learning, {strategy}")
        encoded = [_encoded(p, r) for p, r in zip(rows["prompt"][:], rows["response"][:], strict=True)]
        model = small_llama(END + 1, WIDTH, seed)
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(SHRINK if weights.dim() > 1 else 1.0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)

        def loss(chosen: list[int], model=model, encoded=encoded) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return score_rows(model, [encoded[i] for i in chosen]).nll

        descend(model, loss, rows=len(encoded), batch=BATCH, steps=STEPS, seed=seed, optimizer=optimizer)
        solved = {n: solve(model, queries) for n, queries in fresh.items()}
        measured |= {f"{strategy} accuracy n={n}": value for n, value in solved.items()}
        measured[f"{strategy} hard"] = float(np.mean([solved[n] for n in HARD]))
        with torch.no_grad():
            measured[f"{strategy} training loss"] = float(score_rows(model, encoded[:400]).nll)
    return measured


@modular_sums.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of its two strategies beside rejection sampling of the same size."""
    hard = {strategy: m[f"{strategy} hard"] for strategy in STRATEGIES}
    for strategy in ("uniform", "prop2diff"):
        yield Claim(
            text=f"{strategy.capitalize()} solves more fresh sums of five and six digits than rejection (difference)",
            measured=hard[strategy] - hard["rejection"],
            threshold=">= 0.2",
            baselines=hard,
        )
    coverage = {s: m[f"{s} coverage"] for s in ("uniform", "prop2diff", "rejection")}
    yield Claim(
        text="Every query has an example under both strategies (smaller coverage)",
        measured=coverage["uniform"].combine(coverage["prop2diff"], min),
        threshold=">= 1",
        baselines={**coverage, "rounding down": m["floor coverage"]},
    )
    yield Claim(
        text="Rejection leaves queries without any example (its coverage)",
        measured=coverage["rejection"],
        threshold="< 1",
    )
    yield Claim(
        text="Prop2diff's targets rise with difficulty (rank correlation with the fail rate)",
        measured=m["rank correlation"],
        threshold=">= 0.95",
        baselines={f"{s}, examples of six digits": m[f"{s} n=6"] for s in STRATEGIES},
    )
    yield Claim(
        text="Rounded down, targets leave easy queries without an example (coverage)",
        measured=m["floor coverage"],
        threshold="< 1",
        kind="ours",
    )
    yield Claim(
        text="By pass rate and rounded down, hard sums are learned worse (prop2diff's accuracy less this one's)",
        measured=hard["prop2diff"] - hard["by pass rate"],
        threshold=">= 0.2",
        kind="ours",
        baselines={"by pass rate": hard["by pass rate"], "rejection": hard["rejection"]},
    )
