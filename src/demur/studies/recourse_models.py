"""Recourse under deletions for models that are not linear: a small network, a decision tree, a small forest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.protect import RobustCounterfactual, train_network
from demur.protect.trees import TreeDeletion
from demur.studies.registry import Progress
from demur.studies.results import Claim
from demur.studies.right_to_explanation_vs_forgotten import REPEATS, compas, draw, judged

if TYPE_CHECKING:
    import pandas as pd

ROWS, QUERIES, DELETIONS = 1000, 8, 5
STEPS, DRAWS = 120, 5
LEAF, DEPTH, TREES = 20, 4, 10


@compas.part("networks", minutes=0.4)
def networks(seed: int, progress: Progress) -> dict[str, float]:
    """COMPAS, a network of three layers, refitted from the same first weights: eight people, five deletions."""
    people = draw("compas_recourse", "compas.csv", "score", 1, seed, ROWS)
    model = train_network(people.X, people.y, seed=seed, steps=STEPS)

    def explainer(k: int, delta: Any = 0.0) -> RobustCounterfactual:
        return RobustCounterfactual(model, people.X, people.y, k=k, delta=delta)

    judge, measured = explainer(DELETIONS), {}
    queries = people.refused(judge.scores, QUERIES)
    for done, (name, explain) in enumerate(
        {"plain": explainer(0), "δ=0": judge, "auto": explainer(DELETIONS, "auto")}.items()
    ):
        progress(done, 3, name)
        found = explain.explain_all(queries)
        measured |= {f"{name} {what}": value for what, value in judged(found, judge, DRAWS).items()}
        measured[f"{name} said valid"] = float(np.mean([c.valid for c in found]))
    return measured


@networks.claims
def networks_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What can be said of a network, whose training has more than one end."""
    yield Claim(
        text="A network's recourse with δ sought survives a refit without its five worst rows (validity)",
        measured=m["auto worst"],
        threshold=">= 0.9",
        kind="ours",
        baselines={"plain": m["plain worst"], "δ = 0": m["δ=0 worst"], "lowest score": m["auto lowest"]},
    )
    yield Claim(
        text="… and random deletions of 1 %",
        measured=m["auto random"],
        threshold=">= 0.9",
        baselines={"plain": m["plain random"], "δ = 0": m["δ=0 random"]},
    )
    yield Claim(
        text="… at a cost above the plain one's (min-max units)",
        measured=m["auto cost"] - m["plain cost"],
        threshold="<= 0.15",
        kind="ours",
        baselines={"plain": m["plain cost"], "δ = 0": m["δ=0 cost"], "δ sought": m["auto cost"]},
    )


@compas.part("trees", minutes=0.2)
def trees(seed: int, progress: Progress) -> dict[str, float]:
    """COMPAS, a decision tree and a forest of ten: leaf votes, every pair of 30 rows, and real refits at 1,000 rows."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    few = draw("compas_recourse", "compas.csv", "score", 1, seed, 30)
    many = draw("compas_recourse", "compas.csv", "score", 1, seed, ROWS)
    kinds: dict[str, Callable[[int], Any]] = {
        "tree": lambda leaf: DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=leaf, random_state=seed),
        "forest": lambda leaf: RandomForestClassifier(TREES, max_depth=DEPTH, min_samples_leaf=leaf, random_state=seed),
    }
    measured: dict[str, float] = {}
    for done, (name, make) in enumerate(kinds.items()):
        progress(done, 2, name)
        small = TreeDeletion(make(3).fit(few.X, few.y), few.X, few.y)
        below, slack = 0, []
        for x in few.others[:40]:
            bound = small.worst(x, 2)[0]
            lowest = small.recounted(x, itertools.combinations(range(30), 2)).min()
            below += lowest < bound - 1e-12
            slack.append(lowest - bound)
        measured |= {f"{name} broken bounds": float(below), f"{name} slack": float(np.mean(slack))}
        model = make(LEAF).fit(many.X, many.y)
        judge = RobustCounterfactual(model, many.X, many.y, k=2 * DELETIONS)
        counts, queries = TreeDeletion(model, many.X, many.y), many.refused(judge.scores, 2 * QUERIES)
        for arm, k, delta in (("plain", 0, 0.0), ("votes", 2 * DELETIONS, 0.0), ("auto", 2 * DELETIONS, "auto")):
            explain = RobustCounterfactual(model, many.X, many.y, k=k, delta=delta)  # type: ignore[arg-type]
            found = explain.explain_all(queries)
            measured |= {f"{name} {arm} {what}": v for what, v in judged(found, judge, REPEATS // 2).items()}
            counted = [counts.recounted(c.x, [judge.worst(c.x)[1]])[0] >= 0 for c in found]
            measured[f"{name} {arm} counted"] = float(np.mean(counted))
    return measured


@trees.claims
def trees_claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What is guaranteed while the splits stay, and what is only measured."""
    yield Claim(
        text="No pair of 30 rows takes a tree's or a forest's score below its bound while the splits stay (40 people)",
        measured=m["tree broken bounds"] + m["forest broken bounds"],
        threshold="<= 0",
        kind="ours",
        baselines={"mean slack of the tree's bound": m["tree slack"], "of the forest's": m["forest slack"]},
    )
    for name in ("tree", "forest"):
        yield Claim(
            text=f"With votes to spare a {name}'s recourse survives the loss of its ten worst rows, the splits kept",
            measured=m[f"{name} votes counted"],
            threshold=">= 1",
            kind="ours",
            baselines={
                "plain": m[f"{name} plain counted"],
                "fitted again, plain": m[f"{name} plain worst"],
                "fitted again": m[f"{name} votes worst"],
                "fitted again, δ sought": m[f"{name} auto worst"],
            },
        )
    yield Claim(
        text="A forest fitted again after random deletions of 1 % accepts it (validity, δ sought)",
        measured=m["forest auto random"],
        threshold=">= 0.95",
        kind="ours",
        baselines=_refitted(m, "forest"),
    )
    yield Claim(
        text="… a single tree, whose splits move, no less often than plain recourse (difference of validities)",
        measured=m["tree auto random"] - m["tree plain random"],
        threshold=">= 0",
        kind="ours",
        baselines=_refitted(m, "tree"),
    )


def _refitted(m: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    return {
        "plain": m[f"{name} plain random"],
        "δ = 0": m[f"{name} votes random"],
        "δ sought": m[f"{name} auto random"],
        "cost, plain": m[f"{name} plain cost"],
        "cost, δ sought": m[f"{name} auto cost"],
    }
