from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from demur.guards import RefusalTokenConfig, RefusalTokenGuard
from demur.models import encode, encode_prompts
from demur.studies import NotMeasured, refusal_tokens
from demur.training.refusal import add_refusal_tokens

GOOD = {
    "AUC": 0.94,
    "largest rise": 0.0,
    "span": 0.08,
    "F1": 0.93,
    "rate comparing": 0.7,
    **{"T=0.1 TPR": 0.97, "T=0.1 FPR": 0.3, "T=0.9 TPR": 0.9, "T=0.9 FPR": 0.15},
}
MEASURED = {
    **GOOD,
    **{f"no token {name}": value for name, value in GOOD.items()},
    **{f"sub-token {name}": value for name, value in {**GOOD, "AUC": 0.5, "span": 0.0}.items()},
    "TF-IDF AUC": 0.95,
    "no [respond] rate": 1.0,
    "least rate before": 0.8,
    "least own drop": 0.7,
    "others' drop": 0.06,
    "every category, others' drop": 0.9,
}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"AUC": 0.84}, 1),
        ({"largest rise": 0.003}, 1),
        ({"T=0.9 FPR": 0.25}, 1),
        ({"least own drop": 0.49}, 1),
        ({"others' drop": 0.13}, 1),
        ({"sub-token span": 0.05}, 1),
        ({"every category, others' drop": 0.3}, 1),
        ({"no [respond] rate": 0.8}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int):
    table = pd.DataFrame.from_dict({1: MEASURED, 2: {**MEASURED, **change}}, orient="index")
    assert [claim.holds for claim in refusal_tokens.claims(table)].count(False) == broken


def test_without_the_prompts_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="coconot-eval"):
        refusal_tokens.read_prompts(1)


def test_the_reader_sees_words_and_one_token_before_its_stub():
    lm = refusal_tokens.new_reader(["how", "tall"], 1)
    config = RefusalTokenConfig({"refuse": "[refuse]"})
    ids = add_refusal_tokens(lm, config)
    (row,) = encode(lm, ["how tall is it"], ["[refuse]refused"])
    assert lm.tokenizer.convert_ids_to_tokens(row.label_ids) == ["[refuse]", "refused", "<end>"]
    assert lm.tokenizer.convert_ids_to_tokens(row.input_ids[: row.prompt_length])[-1] == "<answer>"
    assert row.input_ids[: row.prompt_length] == encode_prompts(lm, ["how tall is it"])[0]
    wrong = RefusalTokenConfig({"refuse": refusal_tokens.BRACKET})
    assert ids[0] != lm.tokenizer.get_vocab()["]"] and RefusalTokenGuard(lm, wrong)


def test_real_prompts_are_cut_and_split_by_the_seed(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("coconot-eval").parent))
    one, again, other = (refusal_tokens.read_prompts(seed) for seed in (1, 1, 2))
    assert one.test["prompt"][:] == again.test["prompt"][:] != other.test["prompt"][:]
    assert (len(one.train), len(one.test)) == (1035, 345)
    labels = [*one.train["label"][:], *one.test["label"][:]]
    assert (labels.count("refuse"), labels.count("comply")) == (1001, 379)
    assert max(len(prompt.split()) for prompt in one.train["prompt"][:]) == refusal_tokens.WORDS
    assert not {word for p in one.train["prompt"][:] for word in p.split()} <= set(one.vocabulary)


def test_it_measures_what_its_claims_read(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("coconot-eval").parent))
    for name, value in {"STEPS": 2, "WIDTH": 16, "BATCH": 4, "WORDS": 6}.items():
        monkeypatch.setattr(refusal_tokens, name, value)
    measured = refusal_tokens.refusal_tokens(1)
    assert set(MEASURED) == set(measured)
    claims = refusal_tokens.refusal_tokens.check({1: measured})
    assert len(claims) == 8 and next(c for c in claims if "never refuses more" in c.text).holds
    assert np.isfinite(list(measured.values())).all()
