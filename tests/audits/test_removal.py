"""The battery on models whose truth is known: one trained without the facts, and planted suppressors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from demur.audits import RemovalData, RemovalSettings, UnlearningAudit
from demur.audits import removal as battery_module
from demur.data import read_rows
from demur.errors import UsageError
from demur.lab.dense import train_dense
from demur.lab.sources import RECIPES
from demur.models import Generation, LocalEngine, encode, load_model

FORGET, RETAIN = "lab:almanac-tiny:forget", "lab:almanac-tiny:retain"
SETTINGS = RemovalSettings(
    learning_rate=5e-4,
    factors=(1.0,),
    steps=(0, 10, 20),
    samples=1,
    max_new_tokens=12,
    seeds=2,
    checks=("relearn", "quantization", "lens", "prompts", "sampling"),
)


@pytest.fixture(scope="module")
def data() -> RemovalData:
    return RemovalData.make(read_rows(FORGET), read_rows(RETAIN), settings=SETTINGS)


@pytest.fixture(scope="module")
def audit(tiny_model: Path, tiny_gold: Path, data: RemovalData) -> UnlearningAudit:
    return UnlearningAudit(load_model(tiny_model), load_model(tiny_gold), data, SETTINGS)


@pytest.fixture
def full(tiny_model: Path):
    return load_model(tiny_model)


class Refusing(LocalEngine):
    """A prompt-level guard: whoever asks about the forgotten is told nothing."""

    def __init__(self, lm, questions):
        super().__init__(lm)
        self.questions = set(questions)

    def generate(self, prompts, **options):
        answers = super().generate(prompts, **options)
        refused = Generation("I cannot say.", (), "stop")
        asked = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
        return [refused if p in self.questions else a for p, a in zip(asked, answers, strict=True)]


def test_a_model_trained_anew_without_the_facts_is_removal_consistent(audit: UnlearningAudit):
    recipe = RECIPES["almanac-tiny-gold"]
    found = audit.run(train_dense(replace(recipe, seed=recipe.seed + 1), progress=False))
    assert found.verdict.outcome == "removal-consistent", found.verdict
    assert all(abs(e.value) < 0.2 for e in found.recoveries.values() if e.value is not None)


def test_the_control_recovers_nothing_and_the_model_before_everything(audit: UnlearningAudit):
    control = audit.run(audit.control)
    assert all(e.value == 0.0 for e in control.recoveries.values() if e.value is not None)
    assert all(share == pytest.approx(0.0) for share in control.bands.values())
    before = audit.run(audit.full)
    assert before.recoveries["answer"].value == pytest.approx(1.0)
    assert all(share == pytest.approx(1.0) for share in before.bands.values())
    assert before.verdict.outcome == "not forgotten"


def test_an_output_filter_before_the_model_is_suppression(audit: UnlearningAudit, full, data: RemovalData):
    guard = Refusing(full, [f.question for f in data.facts])
    found = audit.run(full, engine=guard)
    assert found.knowledge("run", "rouge")[1].mean() < 0.1 < 0.9 < found.knowledge("run", "answer")[1].mean()
    assert found.verdict.outcome == "suppression"
    assert found.recoveries["relearn"].low > 0.2, "the weights behind it are as they were"
    assert found.recoveries["prompt_few_shot"].low > 0.2, "likelihoods are those of the weights"
    assert found.recoveries["asked_few_shot"].high < 0.2, "asked with examples it refuses all the same"
    assert found.recoveries["asked_role_play"].value > 0.2, "asked in other words it is not known again"
    asked, weights = found.verdict.claims[2:4]
    assert not any("prompt" in line for line in asked.evidence) and any("prompt" in line for line in weights.evidence)


def test_answer_tokens_pushed_down_at_the_head_are_suppression(audit: UnlearningAudit, full, data: RemovalData):
    def tokens(pairs):
        return {t for q, a in pairs for t in encode(full, [q], [a])[0].label_ids}

    own = tokens((f.question, f.answer) for f in data.facts) - tokens(data.kept)
    bias = torch.zeros(full.model.lm_head.weight.shape[0])
    bias[sorted(own)] = -20.0
    full.model.lm_head.bias = torch.nn.Parameter(bias)
    found = audit.run(full)
    assert found.knowledge("run", "answer")[1].mean() < 0.1
    assert found.verdict.outcome == "suppression", found.verdict


def test_without_a_control_the_verdict_is_no_better_than_inconclusive(audit: UnlearningAudit, tiny_gold: Path):
    found = replace(audit, control=None).run(load_model(tiny_gold))
    assert found.verdict.outcome == "inconclusive"
    assert all(e.note for e in found.recoveries.values())


def test_the_audit_leaves_the_models_as_they_were(audit: UnlearningAudit, full):
    before = full.weights_hash(), audit.full.weights_hash()
    audit.run(full)
    assert (full.weights_hash(), audit.full.weights_hash()) == before


def test_finished_checks_are_kept_so_that_a_stopped_audit_goes_on(
    audit: UnlearningAudit, full, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    measure, made, stops = battery_module.measure, [], [True]

    def counting(check, subject):
        if check == "lens" and stops:
            stops.clear()
            raise KeyboardInterrupt
        made.append((check, id(subject.lm.model)))
        return measure(check, subject)

    monkeypatch.setattr(battery_module, "measure", counting)
    small = replace(audit, settings=replace(SETTINGS, checks=("quantization", "lens"), seeds=1))
    with pytest.raises(KeyboardInterrupt):
        small.run(full)
    finished = list(made)
    found = small.run(full)
    assert finished and len(made) == len(set(made)), "no finished check was made again"
    once = len(made)
    assert small.run(full).table().equals(found.table())
    assert len(made) == once


def test_the_table_and_the_curves_tell_all_models(audit: UnlearningAudit, full):
    found = audit.run(full)
    table = found.table().set_index("attack")
    assert {"run", "before", "reference", "recovery", "low", "high"} <= set(table.columns)
    assert {"relearn", "int4", "prefill_2", "leak_1"} <= set(table.index)
    curves = found.curves
    assert set(curves["role"]) == {"run", "before", "reference"} and set(curves["step"]) == set(SETTINGS.steps)
    steps = [found.recovered("relearn", last).value for last in SETTINGS.steps]
    assert np.all(np.diff([s for s in steps if s is not None]) >= -0.05)


def test_a_run_says_its_learning_rate(audit: UnlearningAudit):
    with pytest.raises(UsageError, match="learning rate"):
        replace(audit, settings=RemovalSettings()).run(audit.full)
