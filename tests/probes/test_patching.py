from __future__ import annotations

import numpy as np
import pytest
import torch

from demur.attacks import answer_probability
from demur.errors import UsageError
from demur.models import encode
from demur.probes import patch_states
from tiny import tiny_lm

FACTS = (["who wrote the green lamp?", "where was oda marsh born?"], ["oda marsh", "in the town of kell"])


def _changed(part: str):
    lm = tiny_lm()
    with torch.no_grad():
        for name, weight in lm.model.named_parameters():
            if part in name:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) * 0.3)
    return lm


def test_a_model_s_own_states_change_nothing():
    lm = tiny_lm()
    facts = encode(lm, *FACTS)
    plain = answer_probability(lm, facts)
    np.testing.assert_allclose(patch_states(lm, tiny_lm(), facts), np.stack([plain, plain], 1), rtol=1e-4)


def test_the_source_s_layers_up_to_the_patch_take_effect_and_the_target_s_after_it():
    source, target = tiny_lm(), _changed("layers.0.")
    facts = encode(source, *FACTS)
    known, hidden = answer_probability(source, facts), answer_probability(target, facts)
    assert abs(known - hidden).max() > 1e-3
    np.testing.assert_allclose(patch_states(source, target, facts), np.stack([known, known], 1), rtol=1e-4)
    np.testing.assert_allclose(patch_states(target, source, facts), np.stack([hidden, hidden], 1), rtol=1e-4)
    late = _changed("layers.1.")
    changed = answer_probability(late, facts)
    np.testing.assert_allclose(patch_states(source, late, facts), np.stack([changed, known], 1), rtol=1e-4)


def test_models_of_other_depth_are_refused():
    other = tiny_lm()
    other.model.model.layers = other.model.model.layers[:1]
    other.model.config.num_hidden_layers = 1
    with pytest.raises(UsageError, match="same number of layers"):
        patch_states(tiny_lm(), other, encode(other, *FACTS))
