from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demur.attacks import noised, pruned, quantization_attack, quantized, restored, round_to_nearest
from demur.errors import UsageError
from demur.models import encode
from models.architectures import ARCHITECTURES
from tiny import TEXTS, tiny_lm

WEIGHTS = st.integers(0, 10_000).map(lambda seed: torch.randn(5, 17, generator=torch.Generator().manual_seed(seed)))


@given(WEIGHTS, st.integers(2, 8))
def test_rounding_is_off_by_half_a_step_at_most_and_keeps_to_its_levels(weight: torch.Tensor, bits: int):
    rounded, levels = round_to_nearest(weight, bits), 2 ** (bits - 1) - 1
    step = weight.abs().amax(1, keepdim=True) / levels
    assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-5)).all()
    for row, unit in zip(rounded, step, strict=True):
        counts = row / unit
        assert torch.allclose(counts, counts.round(), atol=1e-4)
        assert counts.abs().max().round() == levels
        assert len(row.unique()) <= 2 * levels + 1


@given(WEIGHTS, st.integers(2, 8), st.sampled_from([torch.float32, torch.bfloat16]))
def test_rounding_twice_is_rounding_once(weight: torch.Tensor, bits: int, dtype: torch.dtype):
    once = round_to_nearest(weight.to(dtype), bits)
    assert torch.equal(round_to_nearest(once, bits), once)


def test_more_bits_are_nearer():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    errors = [(round_to_nearest(weight, bits) - weight).abs().mean() for bits in (3, 4, 8)]
    assert errors[0] > errors[1] > errors[2]


def test_a_row_of_zeros_stays_one():
    assert torch.equal(round_to_nearest(torch.zeros(2, 3), 4), torch.zeros(2, 3))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_only_the_weights_of_linear_maps_inside_are_rounded_and_all_are_put_back(name: str):
    model = ARCHITECTURES[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with quantized(model, 3):
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not any("embed" in key or "lm_head" in key or "wte" in key or "norm" in key for key in changed)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_output_channel_has_its_own_step_also_where_it_is_a_column():
    for name in ("llama", "gpt2"):
        model = ARCHITECTURES[name]()
        part = model.model.layers[0].mlp.up_proj if name == "llama" else model.transformer.h[0].mlp.c_fc
        with torch.no_grad():
            (part.weight[0] if name == "llama" else part.weight[:, 0]).mul_(100)
        before = part.weight.detach().clone()
        with quantized(model, 8):
            error = (part.weight - before).abs()
        other = error[1:] if name == "llama" else error[:, 1:]
        assert other.max() < 0.01, "a large channel must not coarsen the others"


def test_noise_of_size_zero_and_pruning_of_nothing_are_the_identity():
    lm = tiny_lm()
    before = lm.weights_hash()
    with noised(lm.model, 0.0):
        assert lm.weights_hash() == before
    with pruned(lm.model, 0.0):
        assert lm.weights_hash() == before
    with noised(lm.model, 0.1, seed=1):
        first = lm.weights_hash()
    with noised(lm.model, 0.1, seed=1):
        assert lm.weights_hash() == first != before
    assert lm.weights_hash() == before


def test_pruning_cuts_the_smallest_weights():
    lm = tiny_lm()
    weight = lm.model.model.layers[0].mlp.up_proj.weight
    whole = weight.detach().clone()
    with pruned(lm.model, 0.25):
        gone = weight == 0
        assert gone.sum() == int(0.25 * weight.numel())
        assert whole[gone].abs().max() <= whole[~gone].abs().min()


def test_weights_come_back_when_the_block_fails():
    lm = tiny_lm()
    before = lm.weights_hash()
    with pytest.raises(RuntimeError), restored(lm.model.parameters()):
        with torch.no_grad():
            lm.model.lm_head.weight.zero_()
        raise RuntimeError
    assert lm.weights_hash() == before


def test_the_attack_measures_each_number_of_bits_and_leaves_the_model_alone():
    lm = tiny_lm()
    before = lm.weights_hash()
    found = quantization_attack(lm, encode(lm, [TEXTS[0][:25]] * 2, ["oda marsh", "kell"]), bits=(8, 2))
    assert list(found) == [8, 2] and all(values.shape == (2,) for values in found.values())
    assert abs(found[8] - found[2]).max() > 0
    assert lm.weights_hash() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda m: round_to_nearest(torch.ones(1, 1), 1),
        lambda m: noised(m, -1).__enter__(),
        lambda m: pruned(m, 1.0).__enter__(),
    ],
)
def test_impossible_sizes_are_refused(call):
    with pytest.raises(UsageError):
        call(tiny_lm().model)
