from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from demur import UsageError
from demur.training import ForgetSettings, Objective, forget

Make = Callable[..., ForgetSettings]


def test_an_option_that_both_losses_have_goes_to_both() -> None:
    whole = Objective.make("rmu", {"layer": 3, "coefficient": 9})
    assert whole.options == {"layer": 3, "coefficient": 9.0}
    assert whole.retain_options == {"layer": 3}
    assert whole.layers == (3,) and not whole.logits
    assert whole.reference_roles == ("retain",) and whole.distribution_roles == ()
    assert Objective.make("rmu").retain_options == {"layer": 7}


def test_an_option_of_the_retain_loss_alone_goes_to_it() -> None:
    whole = Objective.make("npo", {"beta": 0.5, "layer": 2}, retain="embed_diff")
    assert (whole.options, whole.retain_options) == ({"beta": 0.5}, {"layer": 2})
    assert whole.layers == (2,) and whole.logits
    with pytest.raises(UsageError, match="npo has no option 'layer'"):
        Objective.make("npo", {"layer": 2}, retain="nll")


def test_more_than_log_probabilities_is_stored_only_for_what_needs_it() -> None:
    assert Objective.make("undial", retain="nll").distribution_roles == ("forget",)
    assert Objective.make("npo", retain="kl").distribution_roles == ("retain",)
    assert Objective.make("npo", retain="nll").reference_roles == ("forget",)


def test_a_retain_weight_of_the_moment_replaces_the_fixed_one() -> None:
    class Fixed:
        nll = torch.tensor(2.0)

    whole = Objective.make("graddiff", retain_weight=3.0)
    batches = {"forget": Fixed(), "retain": Fixed()}
    assert float(whole(batches)[0]) == -2 + 3 * 2  # type: ignore[arg-type]
    assert float(whole(batches, 0.5)[0]) == -2 + 0.5 * 2  # type: ignore[arg-type]


def test_states_from_the_cache_and_from_the_adapter_switched_off_agree(make_settings: Make, tmp_path: Path) -> None:
    options = {"objective": "rmu", "objective_options": {"layer": 1, "coefficient": 20.0}, "lora": 4}
    runs = [
        forget(make_settings(**options, reference=reference), tmp_path / reference)
        for reference in ("cached", "adapter")
    ]
    a, b = (load_file(run.model_path / "adapter_model.safetensors") for run in runs)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-2)


def test_layers_above_the_one_that_rmu_reads_stay_as_they_are(make_settings: Make, world: Path, tmp_path: Path) -> None:
    run = forget(make_settings(objective="rmu", objective_options={"layer": 0}, epochs=1), tmp_path / "run")
    before, after = (load_file(folder / "model.safetensors") for folder in (world / "model", run.model_path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("layers.0" in name for name in changed) and not any("layers.1" in name for name in changed)
    assert "model.norm.weight" not in changed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "rmu"}, r"'rmu': layer 7 does not exist: the model has 2 layers, 0 to 1; pass --option layer="),
        ({"retain_objective": "embed_diff"}, r"'npo': layer 7 does not exist: .* pass --option layer="),
        ({"objective": "rmu", "retain": None}, "needs retain rows: pass --retain"),
        ({"objective": "rmu", "reference": "adapter"}, "pass --lora RANK"),
        ({"objective": "undial", "objective_options": {"beta": -1}}, "'undial': beta must be a number of at least 0"),
        ({"objective": "ceu", "objective_options": {"skip": 0.5}}, "option 'skip' of ceu must be a whole number"),
        ({"objective": "embed_diff"}, "--anchor forget needs an objective that uses forget rows"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(
    given: dict, message: str, make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(**given), tmp_path / "run")
    assert not (tmp_path / "run").exists()
