"""What training did to both answers, against log-probabilities taken apart by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from demur.data import collate
from demur.models import LanguageModel, encode, score
from demur.probes import LikelihoodDisplacement
from tiny import tiny_lm

ROWS = [
    {"prompt": "who wrote the lamp?", "chosen": "oda marsh", "rejected": "the town of kell wrote it"},
    {"prompt": "where was oda born?", "chosen": "in kell, in the town", "rejected": "in kell"},
    {"prompt": "who?", "chosen": "oda", "rejected": "she was born"},
]


def moved(lm: LanguageModel) -> LanguageModel:
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return lm


def logps(lm: LanguageModel, side: str) -> np.ndarray:
    rows = [encode(lm, [row["prompt"]], [row[side]]) for row in ROWS]
    with torch.no_grad():
        return np.array([float(score(lm.model, collate(row, 0)).logps) for row in rows])


def first_tokens(lm: LanguageModel) -> torch.Tensor:
    out = []
    for row in ROWS:
        (item,) = encode(lm, [row["prompt"]], [row["chosen"]])
        with torch.no_grad():
            out.append(lm.model(torch.tensor([item.input_ids])).logits[0, item.prompt_length - 1].softmax(0))
    return torch.stack(out).mean(0)


def test_changes_and_rising_tokens_are_those_of_the_single_rows() -> None:
    lm, after = tiny_lm(), moved(tiny_lm())
    measure = LikelihoodDisplacement(lm, Dataset.from_list(ROWS), batch_size=2, top=3)
    found = measure(after, 4)
    for side in ("chosen", "rejected"):
        expected = logps(after, side) - logps(lm, side)
        np.testing.assert_allclose(getattr(found, side), expected, atol=1e-4)
    assert found.epoch == 4 and measure.measured == [found]
    assert found.displaced_share == pytest.approx(np.mean(found.chosen < 0))
    gain = first_tokens(after) - first_tokens(lm)
    best = gain.topk(3)
    assert [token for token, _ in found.rising] == lm.tokenizer.convert_ids_to_tokens(best.indices.tolist())
    np.testing.assert_allclose([g for _, g in found.rising], best.values, atol=1e-5)


def test_the_model_is_left_as_it_was_and_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, after = tiny_lm(), moved(tiny_lm())
    after.model.train()
    before = after.weights_hash()
    whole = LikelihoodDisplacement(lm, Dataset.from_list(ROWS))(after, 0)
    assert after.model.training and after.weights_hash() == before
    monkeypatch.setattr("demur.probes.displacement._WINDOW", 2)
    windowed = LikelihoodDisplacement(lm, Dataset.from_list(ROWS), batch_size=1)(after, 0)
    np.testing.assert_allclose(windowed.chosen, whole.chosen, atol=1e-4)
    assert [t for t, _ in windowed.rising] == [t for t, _ in whole.rising]


def test_nothing_rises_where_nothing_moved() -> None:
    found = LikelihoodDisplacement(tiny_lm(), Dataset.from_list(ROWS))(tiny_lm(), 0)
    assert found.displaced_share == 0 and found.rising == () and not found.chosen.any()
