"""Adapters that start as a part of the weights: what they start as, that nothing changes, and what is saved."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from demur import UsageError
from demur.data.batch import Batch, collate
from demur.models import LanguageModel, encode, load_model, score
from demur.training import ForgetSettings, convert_to_standard_lora, fila_init, forget, relative_fisher
from demur.training import adapters as adapters_module
from demur.training.fila import start_from, weighted_low_rank
from models.architectures import ARCHITECTURES
from tiny import tiny_lm

Make = Callable[..., ForgetSettings]
FORGET = (["who wrote it?", "where was she born?"], ["oda marsh", "in the town of kell"])
RETAIN = (["who wrote the lamp?", "when?"], ["the town", "0123"])


def batches(lm: LanguageModel, rows: tuple[list[str], list[str]]) -> list[Batch]:
    encoded = encode(lm, *rows)
    return [collate(encoded, 0), collate(encoded[1:], 0)]


def adapted(architecture: str = "llama", rank: int = 4, alpha: float = 12, **config: Any) -> LanguageModel:
    lm = tiny_lm(architecture)
    if architecture == "mixtral":  # its experts are one tensor each
        config = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=rank, lora_alpha=alpha, **{"target_modules": "all-linear", **config})
        lm.model = peft.get_peft_model(lm.model, settings).eval()
    return lm


def logps(model: torch.nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return score(model, batch).token_logps


def lora_layers(model: torch.nn.Module) -> dict[str, Any]:
    return {n: m for n, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}


def importance_of(lm: LanguageModel, **options: Any) -> dict[str, Tensor]:
    return relative_fisher(lm.model, batches(lm, FORGET), batches(lm, RETAIN), **options)


# --- importance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_sample", [False, True])
def test_importance_is_the_quotient_of_squared_gradients(per_sample: bool) -> None:
    lm = adapted()
    found = importance_of(lm, eps=1e-3, per_sample=per_sample)
    plain = tiny_lm()  # the same weights, every gradient kept
    sides = []
    for rows in (FORGET, RETAIN):
        sums, count = {}, 0
        parts = batches(plain, rows)
        if per_sample:
            encoded = encode(plain, *rows)
            parts = [collate([e], 0) for e in (*encoded, encoded[1])]
        for batch in parts:
            plain.model.zero_grad()
            score(plain.model, batch).nll.backward()
            for name, p in plain.model.named_parameters():
                sums[name] = sums.get(name, 0) + p.grad.square() * batch.label_tokens
            count += batch.label_tokens
        sides.append({name: total / count for name, total in sums.items()})
    assert found.keys() == lora_layers(lm.model).keys()
    for name, value in found.items():
        plain_name = name.removeprefix("base_model.model.") + ".weight"
        expected = sides[0][plain_name] / (1e-3 + sides[1][plain_name])
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-7)


def test_importance_holds_one_gradient_at_a_time_and_leaves_the_model_as_it_was() -> None:
    lm = adapted()
    weights = [layer.get_base_layer().weight for layer in lora_layers(lm.model).values()]
    trained = {n: p.requires_grad for n, p in lm.model.named_parameters()}
    before = lm.weights_hash()
    held = []
    for weight in weights:
        weight.requires_grad_(True)
        weight.register_post_accumulate_grad_hook(lambda _: held.append(sum(w.grad is not None for w in weights)))
        weight.requires_grad_(False)
    importance_of(lm)
    assert len(held) == 4 * len(weights) and max(held) == 1
    assert all(p.grad is None for p in lm.model.parameters())
    assert {n: p.requires_grad for n, p in lm.model.named_parameters()} == trained
    assert lm.weights_hash() == before


def test_importance_of_nothing_is_refused() -> None:
    lm = adapted()
    with pytest.raises(UsageError, match="needs retain rows: there are none"):
        relative_fisher(lm.model, batches(lm, FORGET), [])
    with pytest.raises(UsageError, match="no LoRA adapters"):
        relative_fisher(tiny_lm().model, batches(lm, FORGET), batches(lm, RETAIN))


# --- the decomposition ------------------------------------------------------------------------------------------


def matrices(seed: int, out: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, width, dtype=torch.float64, generator=generator)
    return weight, torch.rand(out, dtype=torch.float64, generator=generator) * 4 + 0.1


@given(st.integers(0, 999), st.integers(2, 9), st.integers(2, 9), st.data())
def test_the_weighted_error_is_that_of_the_singular_values_left_out(
    seed: int, out: int, width: int, data: st.DataObject
) -> None:
    weight, rows = matrices(seed, out, width)
    rank = data.draw(st.integers(1, min(out, width)))
    a, b = weighted_low_rank(weight, rows, rank, eps=0.0)
    assert a.shape == (rank, width) and b.shape == (out, rank)
    left_out = torch.linalg.svdvals(rows[:, None] * weight)[rank:].square().sum().sqrt()
    torch.testing.assert_close((rows[:, None] * (weight - b @ a)).norm(), left_out, atol=1e-9, rtol=1e-9)


def test_equal_weights_give_the_plain_truncated_decomposition_and_other_weights_do_not() -> None:
    weight, rows = matrices(1, 8, 6)
    left, values, right = torch.linalg.svd(weight)
    plain = left[:, :3] * values[:3] @ right[:3]
    a, b = weighted_low_rank(weight, torch.full((8,), 7.0, dtype=torch.float64), 3, eps=0.0)
    torch.testing.assert_close(b @ a, plain)
    a, b = weighted_low_rank(weight, rows, 3, eps=0.0)
    assert float((b @ a - plain).norm()) > 0.1


def test_rows_of_no_weight_are_finite_and_the_randomised_decomposition_is_seeded() -> None:
    weight, rows = matrices(2, 8, 6)
    rows[3] = 0
    a, b = weighted_low_rank(weight, rows, 2)
    assert bool(a.isfinite().all() and b.isfinite().all()) and float(b[3].abs().max()) < 1e-6
    state = torch.get_rng_state()
    first, again, other = (weighted_low_rank(weight, rows, 2, svd="lowrank", seed=s) for s in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and torch.equal(torch.get_rng_state(), state)
    for left, right in (first, other):
        torch.testing.assert_close(right @ left, b @ a, atol=1e-6, rtol=0)


# --- the model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_function_is_unchanged_and_the_adapter_is_not_zero(architecture: str) -> None:
    lm = adapted(architecture)
    batch = batches(lm, FORGET)[0]
    before = logps(lm.model, batch)
    bases = {n: layer.get_base_layer().weight.clone() for n, layer in lora_layers(lm.model).items()}
    importance = importance_of(lm)
    initial = fila_init(lm.model, importance)
    assert float((logps(lm.model, batch) - before).abs().max()) < 1e-5
    for name, layer in lora_layers(lm.model).items():
        assert bool(layer.lora_B["default"].weight.any()) and f"{name}.lora_A" in initial
        assert not torch.equal(layer.get_base_layer().weight, bases[name])


def test_the_adapter_is_the_weighted_part_of_each_weight() -> None:
    lm = adapted(rank=3, alpha=12)
    bases = {n: layer.get_base_layer().weight.clone() for n, layer in lora_layers(lm.model).items()}
    importance = importance_of(lm)
    fila_init(lm.model, importance)
    for name, layer in lora_layers(lm.model).items():
        rows = importance[name].sum(1).sqrt()
        assert float(rows.min()) > 0.01  # so that the 1e-5 hardly counts
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        left = torch.linalg.svdvals(rows[:, None] * bases[name])[3:].square().sum().sqrt()
        found = (rows[:, None] * (bases[name] - 4 * b @ a)).norm()
        torch.testing.assert_close(found, left, rtol=2e-3, atol=1e-5)


def test_without_importance_it_is_pissa() -> None:
    ours, theirs = adapted(), adapted(init_lora_weights="pissa")
    fila_init(ours.model, None)
    for name, layer in lora_layers(ours.model).items():
        peer = theirs.model.get_submodule(name)
        torch.testing.assert_close(layer.get_delta_weight("default"), peer.get_delta_weight("default"))
        torch.testing.assert_close(layer.get_base_layer().weight, peer.get_base_layer().weight)


def test_a_weight_of_which_nothing_matters_keeps_its_ordinary_adapter() -> None:
    lm, fresh = adapted(), adapted()
    importance = importance_of(lm)
    dead = next(iter(importance))
    initial = fila_init(lm.model, {**importance, dead: torch.zeros_like(importance[dead])})
    ours, theirs = lm.model.get_submodule(dead), fresh.model.get_submodule(dead)
    assert f"{dead}.lora_A" not in initial
    assert torch.equal(ours.lora_A["default"].weight, theirs.lora_A["default"].weight)
    assert torch.equal(ours.get_base_layer().weight, theirs.get_base_layer().weight)
    batch = batches(lm, FORGET)[0]
    standard = convert_to_standard_lora(lm.model, initial, tiny_lm().model)
    assert float((logps(standard, batch) - logps(fresh.model, batch)).abs().max()) < 1e-5


def test_forgetting_the_scale_or_the_base_would_change_the_function() -> None:
    lm = adapted()
    batch = batches(lm, FORGET)[0]
    before = logps(lm.model, batch)
    initial = fila_init(adapted().model, importance_of(lm))
    for factor, subtract in ((12 / 4, True), (1.0, False)):  # s not divided out; the base left as it was
        broken = adapted()
        bases = {n: layer.get_base_layer().weight.clone() for n, layer in lora_layers(broken.model).items()}
        start_from(broken.model, initial)
        for name, layer in lora_layers(broken.model).items():
            layer.lora_B["default"].weight.data *= factor
            if not subtract:
                layer.get_base_layer().weight.data = bases[name]
        assert float((logps(broken.model, batch) - before).abs().max()) > 0.1


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_standard_adapter_is_the_same_function_on_the_base_as_it_was(architecture: str) -> None:
    lm = adapted(architecture)
    batch = batches(lm, FORGET)[0]
    initial = fila_init(lm.model, importance_of(lm))
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    base = tiny_lm(architecture)
    untouched = base.weights_hash()
    standard = convert_to_standard_lora(lm.model, initial, base.model)
    config = standard.peft_config["default"]
    assert (config.r, config.lora_alpha) == (8, 24)
    assert float((logps(standard, batch) - logps(lm.model, batch)).abs().max()) < 1e-5
    assert float((logps(standard, batch) - logps(tiny_lm(architecture).model, batch)).abs().max()) > 0.01
    base.model = standard.unload()
    assert base.weights_hash() == untouched


def test_what_cannot_be_divided_is_refused_and_nothing_is_changed() -> None:
    lm = adapted()
    importance = importance_of(lm)
    (first, *rest) = importance
    before = lm.weights_hash()
    with pytest.raises(UsageError, match=rf"lacks the adapted module {first}"):
        fila_init(lm.model, {name: importance[name] for name in rest})
    with pytest.raises(UsageError, match="not finite"):
        fila_init(lm.model, {**importance, rest[-1]: torch.full_like(importance[rest[-1]], torch.nan)})
    assert lm.weights_hash() == before
    with pytest.raises(UsageError, match=r"rank 40 is more than .*k_proj.* has \(16\): lower --lora"):
        fila_init(adapted(rank=40, target_modules=["k_proj"]).model, None)
    fila_init(lm.model, importance)
    with pytest.raises(UsageError, match="was trained already"):
        fila_init(lm.model, importance)
    with pytest.raises(UsageError, match=r"embed_tokens \(Embedding\) is not linear"):
        fila_init(adapted(target_modules=["embed_tokens"]).model, None)
    with pytest.raises(UsageError, match=r"MixtralExperts\) is not linear .* --lora-targets"):
        fila_init(adapted("mixtral", target_modules=[], target_parameters=["down_proj"]).model, None)
    quantised = adapted()
    layer = quantised.model.base_model.model.model.layers[0].mlp.up_proj.base_layer
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UsageError, match=r"up_proj \(Linear\) is not linear or is quantised"):
        fila_init(quantised.model, None)


def test_half_precision_keeps_the_types_and_nearly_the_function() -> None:
    lm = tiny_lm()
    lm.model = lm.model.to(torch.bfloat16)
    lm.model = peft.get_peft_model(lm.model, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")).eval()
    batch = batches(lm, FORGET)[0]
    before = logps(lm.model, batch)
    fila_init(lm.model, importance_of(lm))
    assert all(layer.get_base_layer().weight.dtype == torch.bfloat16 for layer in lora_layers(lm.model).values())
    assert float((logps(lm.model, batch) - before).abs().max()) < 0.3


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["fila", "pissa"])
def test_the_saved_run_gives_the_trained_function_wherever_it_is_loaded(
    start: str, make_settings: Make, world: Path, tmp_path: Path
) -> None:
    import transformers

    seen = {}

    def on_epoch(lm: LanguageModel, epoch: int) -> None:
        seen[epoch] = logps(lm.model, batches(lm, FORGET)[0])

    run = forget(make_settings(objective="ihl", lora=4, lora_init=start), tmp_path / "run", on_epoch)
    before = load_model(world / "model")
    batch = batches(before, FORGET)[0]
    assert float((seen[0] - logps(before.model, batch)).abs().max()) < 1e-5
    assert float((seen[3] - seen[0]).abs().max()) > 0.1
    again = load_model(run.model_path)
    assert float((logps(again.model, batch) - seen[3]).abs().max()) < 1e-5
    assert again.weights_hash() == run.state["hashes"]["weights"]["after"]
    plain = transformers.AutoModelForCausalLM.from_pretrained(world / "model")
    model = peft.PeftModel.from_pretrained(plain, run.model_path)
    assert float((logps(model.eval(), batch) - seen[3]).abs().max()) < 1e-5
    assert (
        not (run.model_path / "model.safetensors").exists() and not (run.path / "initial_adapter.safetensors").exists()
    )


@pytest.mark.parametrize("passes", [1, 7])
def test_a_killed_run_makes_its_base_again_and_ends_bit_for_bit_the_same(
    passes: int, make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(objective="ihl", lora=4, lora_init="fila", seed=5)
    whole = forget(settings, tmp_path / "whole")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings.model_dump()))
    command = [sys.executable, str(Path(__file__).parent / "killed_run.py"), str(recipe), str(tmp_path / "killed")]
    killed = subprocess.run([*command, str(passes)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "killed" / "initial_adapter.safetensors").is_file()
    monkeypatch.setattr(adapters_module, "relative_fisher", lambda *_, **__: pytest.fail("measured again"))
    resumed = forget(settings, tmp_path / "killed")
    first, second = (load_file(run.model_path / "adapter_model.safetensors") for run in (whole, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.state["hashes"] == whole.state["hashes"]


def test_it_starts_any_objective_and_needs_no_retain_term(make_settings: Make, tmp_path: Path) -> None:
    for objective in ("ga", "npo"):
        run = forget(make_settings(objective=objective, lora=2, lora_init="fila", epochs=1), tmp_path / objective)
        assert (run.model_path / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"lora_init": "fila"}, "--lora-init fila starts LoRA adapters: pass --lora RANK"),
        ({"lora_init": "fila", "lora": 2, "reference": "adapter"}, "changes the base, .* use --reference cached"),
        ({"lora_init": "pissa", "lora": 2, "reference": "adapter"}, "changes the base"),
        ({"lora_init": "fila", "lora": 2, "retain": None}, "weighs forget rows against retain rows"),
        ({"lora_init": "fila", "lora": 17}, r"rank 17 is more than .*k_proj has \(16\)"),
        (
            {"lora": 2, "lora_targets": "q_proj,c_attn"},
            r"--lora-targets c_attn does not fit .*, which has .* q_proj, up",
        ),
        ({"lora": 2, "lora_targets": "norm"}, r"--lora-targets norm does not fit .*, which has .*k_proj"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    given_: dict[str, Any], message: str, make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(**{"objective": "npo", **given_}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_adapter_is_not_given_another_one(make_settings: Make, tmp_path: Path) -> None:
    run = forget(make_settings(lora=2, epochs=1), tmp_path / "first")
    with pytest.raises(UsageError, match="is an adapter itself"):
        forget(make_settings(model=str(run.model_path), lora=2), tmp_path / "second")
