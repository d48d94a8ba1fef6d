from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from demur.errors import UnknownNameError, UsageError
from demur.models.activations import decoder_layers, edit, first_layers, record
from models.architectures import ARCHITECTURES, MAX_POSITIONS, VOCAB_SIZE

torch.set_num_threads(1)

IDS = torch.tensor([[5, 17, 96, 33, 8, 41], [9, 3, 60, 71, 12, 20]])
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return ARCHITECTURES[request.param]()


@pytest.fixture
def llama() -> PreTrainedModel:
    return ARCHITECTURES["llama"]()


def with_lora(model: PreTrainedModel) -> nn.Module:
    peft = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:  # zero at first, so that an adapter left out would not show
                parameter.normal_(std=0.1)
    return peft.eval()


def final_norm(model: nn.Module) -> nn.Module:
    base = next(m for m in model.modules() if isinstance(m, PreTrainedModel))
    return next(m for name, m in base.get_decoder().named_children() if name in FINAL_NORMS)


def hook_count(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def hidden_states(model: nn.Module) -> tuple[Tensor, ...]:
    return model(input_ids=IDS, output_hidden_states=True).hidden_states


@torch.no_grad()
def assert_recorded_states_are_the_models(model: nn.Module) -> None:
    expected = hidden_states(model)
    with record(model) as activations:
        model(input_ids=IDS)
    assert list(activations) == [0, 1]
    torch.testing.assert_close(activations[0], expected[1], rtol=0, atol=0)
    torch.testing.assert_close(final_norm(model)(activations[1]), expected[2], rtol=0, atol=0)
    assert not torch.allclose(activations[1], expected[2])  # before the final norm


def test_recorded_layers_equal_output_hidden_states(model: PreTrainedModel) -> None:
    assert_recorded_states_are_the_models(model)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral"])
def test_recorded_layers_equal_output_hidden_states_under_peft(architecture: str) -> None:
    plain = ARCHITECTURES[architecture]()
    without = hidden_states(plain)[1]
    adapted = with_lora(plain)
    assert not torch.allclose(hidden_states(adapted)[1], without)
    assert_recorded_states_are_the_models(adapted)


def test_decoder_layers_are_all_layers_in_order(model: PreTrainedModel) -> None:
    layers = decoder_layers(model)
    assert len(layers) == model.config.num_hidden_layers
    assert len({type(layer) for layer in layers}) == 1
    # Together with embeddings and the final norm the layers hold every weight of the decoder.
    inside = {id(p) for layer in layers for p in layer.parameters()}
    outside = {name for name, p in model.get_decoder().named_parameters() if id(p) not in inside}
    assert all(any(part in name for part in ("emb", "wte", "wpe", *FINAL_NORMS)) for name in outside)
    seen: list[nn.Module] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(module))
    model(input_ids=IDS)
    assert seen == layers


def test_decoder_layers_of_a_wrapped_model_are_those_of_the_model(llama: PreTrainedModel) -> None:
    layers = decoder_layers(llama)
    assert decoder_layers(nn.DataParallel(llama)) == layers
    assert decoder_layers(llama.model) == layers
    assert decoder_layers(with_lora(llama)) == layers


def test_a_list_of_experts_as_long_as_the_stack_is_not_taken_for_the_layers(llama: PreTrainedModel) -> None:
    layers = decoder_layers(llama)
    layers[0].experts = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    assert decoder_layers(llama) == layers


def test_two_possible_stacks_are_refused(llama: PreTrainedModel) -> None:
    llama.model.tower = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    with pytest.raises(UsageError, match="2 lists of 2 modules"):
        decoder_layers(llama)


def test_a_module_that_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(UsageError, match="Linear is no transformers model"):
        decoder_layers(nn.Linear(2, 2))


@given(
    lengths=st.lists(st.integers(3, 8), min_size=1, max_size=4),
    positions=st.lists(st.integers(-3, 2), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_positions_give_each_row_what_it_gives_alone_whatever_the_padding(
    lengths: list[int], positions: list[int], side: str, seed: int
) -> None:
    model = ARCHITECTURES["llama"]()
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, VOCAB_SIZE, (n,), generator=generator) for n in lengths]
    width = max(lengths) + 2
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        columns = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[i, columns], mask[i, columns] = row, 1
    with torch.no_grad(), record(model, positions=positions) as together:
        model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    assert together[1].shape == (len(rows), len(positions), 32)
    for i, row in enumerate(rows):
        with torch.no_grad(), record(model) as alone:
            model(input_ids=row[None])
        for layer in (0, 1):
            torch.testing.assert_close(together[layer][i], alone[layer][0, positions], rtol=1e-4, atol=1e-5)


def test_positions_work_on_every_architecture(model: PreTrainedModel) -> None:
    with torch.no_grad(), record(model) as everything:
        model(input_ids=IDS)
    with torch.no_grad(), record(model, positions=[0, -1]) as chosen:
        model(input_ids=IDS, attention_mask=torch.ones_like(IDS))
    torch.testing.assert_close(chosen[1], everything[1][:, [0, -1]])


def test_a_position_outside_a_row_is_refused_with_its_row(llama: PreTrainedModel) -> None:
    mask = torch.ones_like(IDS)
    mask[1, :3] = 0
    with (
        pytest.raises(UsageError, match="position -4 lies outside row 1, which has 3 tokens"),
        record(llama, positions=[-1, -4]),
    ):
        llama(input_ids=IDS, attention_mask=mask)
    assert hook_count(llama) == 0


def test_positions_need_a_plain_attention_mask(llama: PreTrainedModel) -> None:
    prepared = torch.zeros(2, 1, 6, 6)
    with pytest.raises(UsageError, match="attention mask of shape"), record(llama, positions=[-1]):
        llama(input_ids=IDS, attention_mask=prepared)


def test_batches_follow_one_another(llama: PreTrainedModel) -> None:
    with record(llama, [-1], positions=[-1]) as activations:
        llama(input_ids=IDS)
        llama(input_ids=IDS[:1, :4])
    assert activations[1].shape == (3, 1, 32)
    assert torch.equal(activations[-1], torch.cat(activations.passes(1)))


def test_generation_is_recorded_pass_by_pass(llama: PreTrainedModel) -> None:
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    with torch.no_grad(), record(llama) as activations:
        llama.generate(input_ids=IDS, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert [hidden.shape[1] for hidden in activations.passes(0)] == [6, 1, 1]
    with pytest.raises(UsageError, match=r"differ in length.*passes\(0\)"):
        activations[0]
    with torch.no_grad(), record(llama, positions=[-1]) as last:
        llama.generate(input_ids=IDS, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    expected = torch.cat([hidden[:, -1:] for hidden in activations.passes(0)])
    torch.testing.assert_close(last[0], expected)


def test_recording_changes_nothing_and_leaves_nothing(model: PreTrainedModel) -> None:
    before = model(input_ids=IDS).logits
    with record(model, positions=[-1]):
        during = model(input_ids=IDS).logits
        assert hook_count(model) == 4
    assert hook_count(model) == 0
    assert torch.equal(before, during)


@pytest.mark.parametrize("use", [record, lambda model: edit(model, None, lambda hidden, layer: hidden)])
def test_hooks_go_when_the_block_fails(llama: PreTrainedModel, use: Callable) -> None:
    with pytest.raises(RuntimeError, match="mine"), use(llama):
        assert hook_count(llama) > 0
        raise RuntimeError("mine")
    assert hook_count(llama) == 0


@pytest.mark.parametrize("layers", [[2], [0, -3]])
def test_a_layer_that_does_not_exist_is_refused_and_leaves_no_hooks(llama: PreTrainedModel, layers: list[int]) -> None:
    match = f"layer {layers[-1]} does not exist: the model has 2 layers, 0 to 1"
    with pytest.raises(UsageError, match=match), record(llama, layers):
        pass
    with pytest.raises(UsageError, match=match), edit(llama, layers, lambda hidden, layer: hidden):
        pass
    assert hook_count(llama) == 0


def test_what_was_not_recorded_is_named(llama: PreTrainedModel) -> None:
    with record(llama, [1]) as activations:
        with pytest.raises(UsageError, match="holds nothing yet"):
            activations[1]
        llama(input_ids=IDS)
    with pytest.raises(UnknownNameError, match="layer 0 was not recorded: recorded layers are 1"):
        activations[0]
    assert 0 not in activations and 1 in activations


def test_detach_decides_whether_gradients_flow(llama: PreTrainedModel) -> None:
    with record(llama, [0]) as detached, record(llama, [0], detach=False) as attached:
        llama(input_ids=IDS)
    assert not detached[0].requires_grad
    attached[0].sum().backward()
    assert decoder_layers(llama)[0].self_attn.v_proj.weight.grad.abs().sum() > 0
    assert decoder_layers(llama)[1].self_attn.v_proj.weight.grad is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_records_each_pass_once(llama: PreTrainedModel, reentrant: bool) -> None:
    llama.gradient_checkpointing_enable({"use_reentrant": reentrant})
    llama.train()
    with record(llama) as activations:
        llama(input_ids=IDS, labels=IDS).loss.backward()
    assert [len(activations.passes(layer)) for layer in activations] == [1, 1]


def test_a_layer_computed_again_outside_a_forward_pass_is_not_recorded() -> None:
    model = ARCHITECTURES["gpt2"]()
    with record(model) as activations:
        model(input_ids=IDS)
        decoder_layers(model)[0](torch.zeros(1, 3, 32))
    assert [len(activations.passes(layer)) for layer in activations] == [1, 1]


def test_layers_that_return_tuples_are_recorded_and_edited() -> None:
    model = ARCHITECTURES["gpt2"]()
    with record(model, [0]) as plain:
        expected = model(input_ids=IDS).logits
    layer = decoder_layers(model)[0]
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: (forward(*args, **kwargs), "extra")

    def unpack(module: nn.Module, args: tuple, output: tuple[Tensor, str]) -> Tensor:
        assert output[1] == "extra"
        return output[0]

    shifted = edit(model, [0], lambda hidden, layer: hidden + 1)
    with record(model, [0]) as activations, shifted, layer.register_forward_hook(unpack):
        logits = model(input_ids=IDS).logits
    torch.testing.assert_close(activations[0], plain[0] + 1)
    assert not torch.allclose(logits, expected)


def test_an_edit_replaces_what_later_layers_see(model: PreTrainedModel) -> None:
    shift = torch.linspace(-1, 1, 32)
    with torch.no_grad():
        plain = hidden_states(model)
        with record(model) as activations, edit(model, [0], lambda hidden, layer: hidden + shift):
            edited = hidden_states(model)
        torch.testing.assert_close(edited[1], plain[1] + shift)
        torch.testing.assert_close(activations[0], plain[1] + shift)
        assert not torch.allclose(edited[2], plain[2])
        # The same by hand: the second layer's input is the shifted output of the first.
        handle = decoder_layers(model)[1].register_forward_pre_hook(lambda module, args: (args[0] + shift, *args[1:]))
        by_hand = model(input_ids=IDS).logits
        handle.remove()
        with edit(model, [0], lambda hidden, layer: hidden + shift):
            torch.testing.assert_close(model(input_ids=IDS).logits, by_hand)
        torch.testing.assert_close(hidden_states(model)[2], plain[2], rtol=0, atol=0)


def test_an_edit_gets_the_layer_number_once_for_each_layer(llama: PreTrainedModel) -> None:
    seen: list[int] = []

    def note(hidden: Tensor, layer: int) -> Tensor:
        seen.append(layer)
        return hidden

    with edit(llama, [-1, 0, 1], note):
        llama(input_ids=IDS)
    assert seen == [0, 1]


def test_the_inner_of_two_edits_comes_first(llama: PreTrainedModel) -> None:
    with record(llama, [0]) as plain:
        llama(input_ids=IDS)
    outer, inner = (
        edit(llama, [0], lambda hidden, layer: hidden * 2),
        edit(llama, [0], lambda hidden, layer: hidden + 1),
    )
    with outer, inner, record(llama, [0]) as activations:
        llama(input_ids=IDS)
    torch.testing.assert_close(activations[0], (plain[0] + 1) * 2)


def test_an_edit_in_another_precision_is_brought_back(llama: PreTrainedModel) -> None:
    llama.to(torch.bfloat16)
    direction = torch.ones(32, dtype=torch.float32)
    with record(llama) as activations, edit(llama, None, lambda hidden, layer: hidden + direction):
        llama(input_ids=IDS)
    assert activations[1].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda hidden, layer: hidden[:, -1], r"shape \(2, 32\)"), (lambda hidden, layer: None, "NoneType")],
)
def test_an_edit_that_returns_something_else_is_refused(llama: PreTrainedModel, function: Callable, got: str) -> None:
    with (
        pytest.raises(UsageError, match=rf"edit of layer 0 .* \(2, 6, 32\), it returned {got}"),
        edit(llama, [0], function),
    ):
        llama(input_ids=IDS)
    assert hook_count(llama) == 0


def test_steering_holds_at_every_step_of_generation(llama: PreTrainedModel) -> None:
    favourite = 42
    push = 100 * llama.get_output_embeddings().weight[favourite].detach()
    with edit(llama, [-1], lambda hidden, layer: push.expand_as(hidden)):
        out = llama.generate(input_ids=IDS, max_new_tokens=4, do_sample=False)
    assert out[:, IDS.shape[1] :].eq(favourite).all()


def test_tiny_models_are_what_their_table_promises(model: PreTrainedModel) -> None:
    assert (model.config.vocab_size, model.config.hidden_size, model.config.num_hidden_layers) == (97, 32, 2)
    assert model.config.num_attention_heads == 4
    assert model.config.max_position_embeddings == MAX_POSITIONS
    assert model(input_ids=IDS).logits.shape == (2, 6, VOCAB_SIZE)
    if model.config.model_type == "gemma2":
        assert model(input_ids=IDS).logits.abs().max() < model.config.final_logit_softcapping


@torch.no_grad()
@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
def test_first_layers_give_what_they_give_in_the_whole_stack(model: PreTrainedModel, lora: bool) -> None:
    model = with_lora(model) if lora else model
    calls = []
    last = decoder_layers(model)[1].register_forward_hook(lambda *_: calls.append(1))
    with record(model) as whole:
        model(input_ids=IDS)
    with record(model, layers=[0]) as recorded, first_layers(model, 1):
        model(input_ids=IDS)
    torch.testing.assert_close(recorded[0], whole[0])
    assert len(calls) == 1 and len(decoder_layers(model)) == 2
    with record(model) as again:
        model(input_ids=IDS)
    assert torch.equal(again[1], whole[1])
    last.remove()
