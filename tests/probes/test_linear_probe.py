from __future__ import annotations

import numpy as np
import pytest
import torch

from demur.errors import UsageError
from demur.models import encode_prompts, record
from demur.probes import probe_accuracy, probe_attack, prompt_states
from tiny import tiny_lm


def _world(signal: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    entities = np.repeat([f"e{i}" for i in range(12)], 5)
    labels = np.array(["north" if int(e[1:]) % 2 else "south" for e in entities])
    states = rng.normal(size=(60, 10))
    states[:, 3] += signal * (labels == "north")
    return states, labels, entities


def test_a_linear_attribute_is_told_for_entities_that_the_probe_never_met():
    assert probe_accuracy(*_world(8.0)).mean() > 0.95
    assert abs(probe_accuracy(*_world(0.0)).mean() - 0.5) < 0.25


def test_knowing_an_entity_by_heart_does_not_help():
    _, labels, entities = _world(0.0)
    names = {e: i for i, e in enumerate(sorted(set(entities)))}
    codes = np.eye(len(names))[[names[e] for e in entities]]
    assert probe_accuracy(codes * 10, labels, entities).mean() <= 0.75


@pytest.mark.parametrize(("labels", "entities"), [(["a"] * 4, ["x", "x", "y", "y"]), (["a", "b"] * 2, ["x"] * 4)])
def test_one_label_or_one_entity_is_too_few(labels, entities):
    with pytest.raises(UsageError, match="two entities"):
        probe_accuracy(np.eye(4), labels, entities)


def test_states_are_those_at_the_end_of_each_prompt_and_every_layer_is_probed():
    lm = tiny_lm()
    prompts = ["who is oda?", "where was oda marsh born?", "who wrote it?", "what is kell?"]
    states = prompt_states(lm, prompts)
    tokens = encode_prompts(lm, prompts)[1]
    with record(lm.model) as layers, torch.no_grad():
        lm.model(input_ids=torch.tensor([tokens]))
    for layer in range(2):
        torch.testing.assert_close(states[1, layer], layers[layer][0, -1], rtol=1e-4, atol=1e-5)
    told = probe_attack(lm, prompts, ["a", "b", "a", "b"], ["e0", "e0", "e1", "e1"])
    assert told.shape == (4, 2) and set(np.unique(told)) <= {0.0, 1.0}
