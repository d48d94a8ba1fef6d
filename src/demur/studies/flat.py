"""FLAT (Wang et al. 2024, arXiv 2410.11143): forgetting with nothing at hand but the forget set and template answers.

The small language model has seen "I don't know" answers to questions about strangers: what a model never says, a loss
on probabilities cannot teach it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.studies.authors import NEVER, TEMPLATES, UNLEARN, Authors, authors, mean_nlls, mean_probability
from demur.studies.registry import Progress, study
from demur.studies.results import Claim

if TYPE_CHECKING:
    import pandas as pd

    from demur.models import LanguageModel

ABSTAINING = 40  # questions to which the model has learnt to give one of the templates
STRONG, GENTLE = 2e-4, 5e-5
PATIENCE = 2  # times as many epochs at the gentle rate: after ten one of the divergences has hardly begun to forget
DIVERGENCES = ("tv", "kl", "js", "pearson")
OPENING = 3  # words by which an answer is known for a template


def answers_of(lm: LanguageModel, questions: Sequence[str]) -> list[str]:
    """The beginnings of the greedy answers."""
    from demur.models import LocalEngine

    generations = LocalEngine(lm, batch_size=40).generate(list(questions), max_new_tokens=10)
    return [generation.text for generation in generations]


def opening(text: str) -> tuple[str, ...]:
    """The first words of an answer."""
    return tuple(text.lower().split()[:OPENING])


def template_share(answers: Sequence[str], lines: Sequence[str]) -> float:
    """Share of the answers that start like one of the templates."""
    known = {opening(line) for line in lines}
    return sum(opening(answer) in known for answer in answers) / len(answers)


class World:
    """The model to change, and what is measured of what comes out of it.

    Args:
        seed: of the model, of the runs, and of the templates that are measured.
        progress: told of the training of the model.
        work: folder for the runs.
    """

    def __init__(self, seed: int, progress: Progress, work: Path) -> None:
        self.authors: Authors = authors(seed, progress, abstaining=ABSTAINING)
        self.seed, self.work = seed, work
        self.lines = Path(self.authors.templates).read_text(encoding="utf-8").splitlines()[:TEMPLATES]
        self.templates = work / "templates.txt"
        self.templates.write_text("\n".join(self.lines), encoding="utf-8")
        draws = np.random.default_rng(seed).integers(len(self.lines), size=len(self.authors.forget))
        self.drawn = [self.lines[i] for i in draws]

    def examine(self, model: Path) -> dict[str, float]:
        """Probabilities of the answers and of templates, and how often greedy answers start like a template."""
        from demur.models import load_model

        lm, forget, kept = load_model(model), self.authors.forget, self.authors.kept
        return {
            "forget": mean_probability(lm, forget),
            "retain": mean_probability(lm, kept),
            "template": float(np.exp(-mean_nlls(lm, forget["question"], self.drawn)).mean()),
            "forget abstains": template_share(answers_of(lm, forget["question"]), self.lines),
            "retain abstains": template_share(answers_of(lm, kept["question"]), self.lines),
        }

    def unlearn(
        self, name: str, turned: bool = False, on_epoch: Callable[..., None] | None = None, **given: Any
    ) -> dict[str, float]:
        """What a run leaves behind; `turned` gives the loss the sign that sources give three of its divergences."""
        from demur.training import ForgetSettings, forget

        world = {"model": str(self.authors.base), "forget": self.authors.forget_file, "seed": self.seed}
        settings = ForgetSettings(**{**UNLEARN, **NEVER, **world, **given})
        if turned:
            settings = settings.model_copy(update={"forget_weight": -1.0})
        return self.examine(forget(settings, self.work / name, on_epoch).model_path)

    def flat(self, name: str, divergence: str, **given: Any) -> dict[str, float]:
        """A run of FLAT."""
        options: dict[str, Any] = {"objective_options": {"divergence": divergence}, "alternates": str(self.templates)}
        return self.unlearn(name, objective="flat", **options, **given)

    def point(self, lm: LanguageModel) -> tuple[float, float]:
        """Forget and retain probability of a model under way."""
        return mean_probability(lm, self.authors.forget), mean_probability(lm, self.authors.kept)

    def abstain(self) -> dict[str, float]:
        """Plain fine-tuning on as many pairs of a forget question and a template as FLAT sees."""
        from demur.training import TrainSettings, train

        questions = [q for q in self.authors.forget["question"] for _ in range(UNLEARN["epochs"])]
        draws = np.random.default_rng([self.seed, 1]).integers(len(self.lines), size=len(questions))
        rows = [{"question": q, "answer": self.lines[i]} for q, i in zip(questions, draws, strict=True)]
        file = self.work / "abstain.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        settings = {**UNLEARN, "epochs": 1, "learning_rate": STRONG}
        run = train(
            TrainSettings(model=str(self.authors.base), data=str(file), seed=self.seed, **settings, **NEVER),
            self.work / "abstain",
        )
        return self.examine(run.model_path)


def retain_at(curve: Sequence[tuple[float, float]], forget: float) -> float:
    """The retain probability of a run, given by its (forget, retain) points, at a forget probability."""
    points = np.array(sorted(curve))
    return float(np.interp(forget, points[:, 0], points[:, 1]))


@study("flat", paper="2410.11143", minutes=4)
def tofu(seed: int, progress: Progress) -> dict[str, float]:
    """A small language model that has answers for what it does not know unlearns two TOFU authors; probabilities."""
    found: dict[str, dict[str, float]] = {}
    curve: list[tuple[float, float]] = []
    half: dict[str, tuple[float, float]] = {}
    total = 2 + 5 + 4 + 4

    def start(name: str) -> str:
        progress(2 + len(found), total, name)
        return name

    with tempfile.TemporaryDirectory() as holder:
        world = World(seed, lambda done, _, note="": progress(done, total, note), Path(holder))
        measured = {f"before {what}": value for what, value in world.examine(world.authors.base).items()}

        def watch(lm: LanguageModel, epoch: int) -> None:
            curve.append(world.point(lm))

        found["GA"] = world.unlearn(start("GA"), objective="ga", learning_rate=STRONG)
        slow = {"learning_rate": GENTLE, "epochs": PATIENCE * UNLEARN["epochs"]}
        found["GA gently"] = world.unlearn(start("GA gently"), objective="ga", on_epoch=watch, **slow)
        for divergence in DIVERGENCES:

            def at_half(lm: LanguageModel, epoch: int, divergence: str = divergence) -> None:
                if epoch == UNLEARN["epochs"]:
                    half[divergence] = world.point(lm)

            found[divergence] = world.flat(start(divergence), divergence, learning_rate=STRONG)
            found[f"{divergence} gently"] = world.flat(
                start(f"{divergence} gently"), divergence, on_epoch=at_half, **slow
            )
        found["turned"] = world.flat(start("turned"), "hellinger", learning_rate=STRONG, turned=True)
        found["abstain"] = (start("abstain"), world.abstain())[1]
        found["NPO+GD"] = world.unlearn(
            start("NPO+GD"), objective="npo", retain_objective="nll", retain=world.authors.kept_file
        )
    for divergence in DIVERGENCES:
        ended = found[f"{divergence} gently"]
        for when, (forget, retain) in {"": (ended["forget"], ended["retain"]), " halfway": half[divergence]}.items():
            measured[f"{divergence} lead{when}"] = retain - retain_at(curve, forget)
        measured[f"{divergence} forget halfway"] = half[divergence][0]
    return measured | {f"{name} {what}": value for name, values in found.items() for what, value in values.items()}


@tofu.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says, as far as so small a model can show it."""

    def worst(what: str, over: str = "") -> pd.Series:
        table = m[[f"{divergence} {what}" for divergence in DIVERGENCES]]
        return table.min(axis=1) / (m[over] if over else 1.0)

    yield Claim(
        text="Before, the model knows the answers and hardly ever gives a template (forget probability)",
        measured=m["before forget"],
        threshold=">= 0.9",
        kind="ours",
        baselines={"retain": m["before retain"], "template": m["before template"]},
    )
    yield Claim(
        text="FLAT makes templates at least four times as likely, whichever of its four divergences (smallest ratio)",
        measured=worst("template", "before template"),
        threshold=">= 4",
        baselines={f"{d}, probability": m[f"{d} template"] for d in DIVERGENCES},
    )
    yield Claim(
        text="… and so it does at the gentle rate",
        measured=worst("gently template", "before template"),
        threshold=">= 4",
        baselines={f"{d}, probability": m[f"{d} gently template"] for d in DIVERGENCES},
    )
    yield Claim(
        text="Gradient ascent makes them less likely (ratio)",
        measured=m["GA template"] / m["before template"],
        threshold="< 1",
        baselines={"gently": m["GA gently template"] / m["before template"]},
    )
    yield Claim(
        text="Without any retain data FLAT keeps a share of the rest (smallest retain probability)",
        measured=worst("retain"),
        threshold=">= 0.005",
        baselines={
            **{f"{d}, retain": m[f"{d} retain"] for d in DIVERGENCES},
            **{f"{d}, forget": m[f"{d} forget"] for d in DIVERGENCES},
            "NPO+GD with retain data": m["NPO+GD retain"],
            "NPO+GD, forget": m["NPO+GD forget"],
            "fine-tuning on templates": m["abstain retain"],
            "fine-tuning on templates, forget": m["abstain forget"],
        },
    )
    yield Claim(
        text="… where gradient ascent keeps nothing (retain probability)",
        measured=m["GA retain"],
        threshold="<= 1e-4",
        baselines={"GA, forget": m["GA forget"]},
    )
    yield Claim(
        text="At equal forgetting it keeps no less than gradient ascent, gentle rate (smallest difference of retain)",
        measured=worst("lead"),
        threshold=">= 0",
        baselines={
            **{d: m[f"{d} lead"] for d in DIVERGENCES},
            **{f"{d}, forget": m[f"{d} gently forget"] for d in DIVERGENCES},
            **{f"{d}, after half of the epochs": m[f"{d} lead halfway"] for d in DIVERGENCES},
            **{f"{d}, forget after half of the epochs": m[f"{d} forget halfway"] for d in DIVERGENCES},
        },
    )
    yield Claim(
        text="It answers forgotten questions like a template (smallest share of greedy answers)",
        measured=worst("forget abstains"),
        threshold=">= 0.6",
        baselines={
            "fine-tuning on templates": m["abstain forget abstains"],
            "GA": m["GA forget abstains"],
            "NPO+GD": m["NPO+GD forget abstains"],
            "before": m["before forget abstains"],
            **{f"{d}, also on questions to keep": m[f"{d} retain abstains"] for d in DIVERGENCES},
            "fine-tuning on templates, also on questions to keep": m["abstain retain abstains"],
            "NPO+GD, also on questions to keep": m["NPO+GD retain abstains"],
        },
    )
    yield Claim(
        text="With the sign of the sources' squared Hellinger nothing is forgotten (forget probability)",
        measured=m["turned forget"],
        threshold="> 0.9",
        kind="ours",
    )
    yield Claim(
        text="… and templates become less likely (ratio)",
        measured=m["turned template"] / m["before template"],
        threshold="< 1",
        kind="ours",
    )
