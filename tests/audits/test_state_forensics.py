from __future__ import annotations

import pytest
import torch
from torch import Tensor

from demur.audits.state_forensics import AdapterForensics, StateForensics, adapter_deltas, block_outputs
from demur.data.batch import Encoded, collate
from demur.errors import UsageError
from models.architectures import ARCHITECTURES

ROWS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3"])
def test_states_of_a_padded_batch_are_those_of_each_row_by_itself(architecture: str) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture]().eval()
    together = block_outputs(model, collate([Encoded(row, 1) for row in ROWS], 0))
    assert together.shape[:3] == (3, model.config.num_hidden_layers, 2)
    for number, row in enumerate(ROWS):
        alone = block_outputs(model, collate([Encoded(row, 1)], 0))
        torch.testing.assert_close(together[number], alone[0], atol=1e-5, rtol=1e-4)


def test_the_parts_of_a_layer_add_up_to_what_it_gives() -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES["llama"]().eval()
    batch = collate([Encoded(ROWS[0], 1)], 0)
    parts = block_outputs(model, batch)
    with torch.no_grad():
        states = model(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[0][0, -1] + parts[0, 0].sum(0), states[1][0, -1])


def _states(shift: float, seed: int) -> Tensor:
    """40 answers of 4 layers; attention of the third layer is shifted."""
    states = torch.randn(40, 4, 2, 32, generator=torch.Generator().manual_seed(seed)) * 0.3 - 0.3
    states[:, 2, 0, :8] += shift
    return states


@pytest.mark.parametrize("kind", ["ane", "nas"])
def test_a_poison_that_shows_in_the_states_is_found_and_one_that_does_not_is_not(kind: str) -> None:
    known = StateForensics(kind, share=0.13).fit(_states(0.0, 0), _states(1.0, 1))  # type: ignore[arg-type]
    assert known.parts.tolist() == [4]  # the third layer's attention
    assert known.suspicion(_states(1.0, 2)).mean() > 0.9
    assert known.suspicion(_states(0.0, 3)).mean() < 0.1


def test_a_count_of_active_neurons_sees_only_what_passes_the_threshold() -> None:
    quiet = torch.full((4, 1, 2, 8), 0.1)
    loud = quiet.clone()
    loud[:, 0, 1, :3] = 0.5
    known = StateForensics(share=1.0).fit(quiet, loud)
    assert known._described(loud).tolist() == [[0, 3]] * 4


def _adapter(poisoned: bool, seed: int, side: int = 16) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.layers.{layer}.self_attn.{module}"
            a, b = torch.randn(2, side, generator=drawn), torch.randn(side, 2, generator=drawn)
            if poisoned and module == "v_proj":
                b[:8] = b[:8].abs() + 1
                a[:, :8] = a[:, :8].abs() + 1
            weights |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    return weights


def test_what_an_adapter_adds_is_b_times_a() -> None:
    weights = _adapter(False, 0)
    deltas = adapter_deltas(weights)
    name = "base_model.model.layers.1.self_attn.v_proj"
    assert len(deltas) == 4
    torch.testing.assert_close(deltas[name], weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"])


def test_poisoned_adapters_are_told_from_clean_ones() -> None:
    known = AdapterForensics(width=16).fit(
        [_adapter(False, i) for i in range(12)], [_adapter(True, 100 + i) for i in range(12)]
    )
    assert known.suspicion([_adapter(False, 50 + i) for i in range(8)]).mean() < 0.3
    assert known.suspicion([_adapter(True, 200 + i) for i in range(8)]).mean() > 0.7


def test_bad_input_is_refused() -> None:
    clean = _states(0.0, 0)
    with pytest.raises(UsageError, match="ane or nas"):
        StateForensics("mean")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="two rows each"):
        StateForensics().fit(clean, clean[:1])
    with pytest.raises(UsageError, match="one side is empty"):
        AdapterForensics().fit([], [_adapter(True, 0)])
    with pytest.raises(UsageError, match="does not change k_proj"):
        adapter_deltas(_adapter(False, 0), ("k_proj",))
    known = AdapterForensics(width=4, epochs=1).fit([_adapter(False, 0)], [_adapter(True, 1)])
    with pytest.raises(UsageError, match="adapter 0 has modules of shapes"):
        known.suspicion([_adapter(False, 0, side=8)])
