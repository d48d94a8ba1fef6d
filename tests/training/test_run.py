from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from demur import DemurError, UsageError
from demur.data.batch import collate
from demur.models import load_model, score
from demur.training import ForgetSettings, Objective, ObjectiveTrainer, TrainSettings, forget, train

Make = Callable[..., ForgetSettings]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "model").glob("*.safetensors")
    return load_file(file)


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def forget_logps(model: Path, world: Path) -> torch.Tensor:
    from demur.data import question_answer, read_rows
    from demur.models import encode

    lm = load_model(model)
    encoded = encode(lm, *question_answer(read_rows(world / "forget.jsonl")))
    with torch.no_grad():
        return score(lm.model, collate(encoded, lm.pad_id)).logps


@pytest.mark.parametrize("objective", ["ga", "graddiff", "npo", "simnpo", "idkdpo"])
def test_every_objective_lowers_the_forget_probability(objective: str, make_settings: Make, world: Path) -> None:
    run = forget(make_settings(objective=objective), world / f"lowers-{objective}")
    before, after = forget_logps(world / "model", world), forget_logps(run.model_path, world)
    assert float((after - before).mean()) < -1
    assert run.state["status"] == "complete"


def test_retain_terms_keep_what_the_bare_loss_loses(make_settings: Make, world: Path, tmp_path: Path) -> None:
    from demur.data import question_answer, read_rows
    from demur.models import encode

    kept = {}
    for name in ("none", "nll", "kl"):
        run = forget(make_settings(retain_objective=name, epochs=8), tmp_path / name)
        lm = load_model(run.model_path)
        encoded = encode(lm, *question_answer(read_rows(world / "retain.jsonl")))
        base = load_model(world / "model")
        with torch.no_grad():
            scored, reference = (score(m.model, collate(encoded, 0)) for m in (lm, base))
            kept[name] = (scored.nll.item(), scored.kl(reference).item())
    assert kept["nll"][0] < kept["none"][0]
    assert kept["kl"][1] < kept["none"][1]


def test_accumulated_batches_give_the_trajectory_of_one_large_batch(make_settings: Make, tmp_path: Path) -> None:
    # Five rows: the last step of an epoch is smaller than the others, and its halves are unequal.
    options = {"objective": "npo", "retain_objective": "nll", "epochs": 2}
    whole = forget(make_settings(batch_size=4, **options), tmp_path / "whole")
    parts = forget(make_settings(batch_size=1, accumulate=4, **options), tmp_path / "parts")
    pairs = forget(make_settings(batch_size=2, accumulate=2, **options), tmp_path / "pairs")
    a = weights(whole.path)
    for other in (parts, pairs):
        for name, b in weights(other.path).items():
            torch.testing.assert_close(b, a[name], atol=2e-5, rtol=1e-3, msg=name)


def test_lora_leaves_the_base_alone_and_both_references_agree(make_settings: Make, tmp_path: Path) -> None:
    cached = forget(make_settings(lora=4, retain_objective="kl"), tmp_path / "cached")
    live = forget(make_settings(lora=4, retain_objective="kl", reference="adapter"), tmp_path / "adapter")
    assert (cached.model_path / "adapter_model.safetensors").is_file()
    assert not (cached.model_path / "model.safetensors").exists()
    a, b = weights(cached.path), weights(live.path)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-2)
    assert load_model(cached.model_path).weights_hash() == cached.state["hashes"]["weights"]["after"]


def test_bfloat16_computes_near_float32_and_keeps_the_weights_type(make_settings: Make, tmp_path: Path) -> None:
    losses = {}
    for bf16 in (False, True):
        settings = make_settings(objective="npo", retain_objective="kl", bf16=bf16, learning_rate=3e-4)
        run = forget(settings, tmp_path / str(bf16))
        losses[bf16] = [e["npo"] for e in run.events() if e["event"] == "step" and "npo" in e]
        assert {t.dtype for t in weights(run.path).values()} == {torch.float32}
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.1)
    assert losses[True] != losses[False]


def test_bfloat16_starts_at_its_reference(make_settings: Make, tmp_path: Path) -> None:
    run = forget(make_settings(objective="npo", bf16=True, learning_rate=1e-9), tmp_path / "run")
    losses = [e["npo"] for e in run.events() if e["event"] == "step" and "npo" in e]
    distance = np.abs(np.array(losses) - 20 * np.log(2))
    # Where a batch is padded to another length than its reference was, the last bits of hidden states differ.
    assert np.median(distance) < 1e-5 and distance.max() < 1e-2


def test_model_of_a_run_loads_with_transformers_alone(make_settings: Make, tmp_path: Path) -> None:
    import transformers

    run = forget(make_settings(), tmp_path / "run")
    model = transformers.AutoModelForCausalLM.from_pretrained(run.model_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model_path)
    assert tokenizer.chat_template
    state = {name: tensor for name, tensor in model.state_dict().items() if name in weights(run.path)}
    assert all(torch.equal(tensor, weights(run.path)[name]) for name, tensor in state.items())


@pytest.mark.parametrize("passes", [1, 4, 7])
@pytest.mark.parametrize("save_steps", [0, 2], ids=["every epoch", "every other step"])
def test_killed_run_ends_as_one_that_was_never_stopped(
    passes: int, save_steps: int, make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(objective="idkdpo", save_steps=save_steps, seed=5)
    whole = forget(settings, tmp_path / "whole")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings.model_dump()))
    command = [sys.executable, str(Path(__file__).parent / "killed_run.py"), str(recipe), str(tmp_path / "killed")]
    killed = subprocess.run([*command, str(passes)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "model").exists()
    resumed = forget(settings, tmp_path / "killed")
    assert_same_weights(whole.path, resumed.path)
    assert resumed.state["hashes"] == whole.state["hashes"]
    if passes == 7:
        assert "resumed" in [e["event"] for e in resumed.events()]


def test_two_processes_give_the_weights_of_one_with_the_same_whole_batch(make_settings: Make, tmp_path: Path) -> None:
    # Four of the five rows, so that both processes have whole batches.
    rows = make_settings().forget
    options = {"forget": f"{rows}[0:4]", "objective": "npo", "retain_objective": "nll", "device": "cpu"}
    one = forget(make_settings(batch_size=4, **options), tmp_path / "one")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make_settings(batch_size=2, **options).model_dump()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "demur"]
    subprocess.run([*command, "forget", "--recipe", str(recipe), "--out", str(tmp_path / "two")], check=True)
    a, b = weights(one.path), weights(tmp_path / "two")
    for name in a:
        torch.testing.assert_close(b[name], a[name], atol=2e-5, rtol=1e-3, msg=name)


def test_half_written_checkpoint_is_not_resumed_from(make_settings: Make, tmp_path: Path) -> None:
    from demur.training.trainer import last_checkpoint

    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "complete").touch()
    found = last_checkpoint(tmp_path)
    assert found is not None and found.name == "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()


def test_finished_run_is_returned_as_it_is(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = forget(make_settings(), tmp_path / "run")
    monkeypatch.setattr(ObjectiveTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    assert forget(make_settings(), tmp_path / "run").state == run.state
    with pytest.raises(UsageError, match=r"other settings \(epochs\)"):
        forget(make_settings(epochs=9), tmp_path / "run")


def test_same_seed_same_weights_and_other_seed_other_weights(make_settings: Make, tmp_path: Path) -> None:
    first, again, other = (forget(make_settings(seed=s), tmp_path / n) for s, n in ((1, "a"), (1, "b"), (2, "c")))
    assert_same_weights(first.path, again.path)
    assert first.state["hashes"]["weights"]["after"] != other.state["hashes"]["weights"]["after"]


def test_measuring_after_each_epoch_changes_nothing(make_settings: Make, tmp_path: Path) -> None:
    seen = []

    def on_epoch(lm: object, epoch: int) -> None:
        seen.append(epoch)
        torch.rand(100)

    watched = forget(make_settings(lora=2), tmp_path / "watched", on_epoch)
    alone = forget(make_settings(lora=2), tmp_path / "alone")
    assert seen == [0, 1, 2, 3]
    assert_same_weights(watched.path, alone.path)


def test_nan_loss_stops_names_the_rows_and_keeps_the_last_checkpoint(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Objective.__call__

    def broken(self: Objective, batches: dict, retain_weight: float | None = None) -> tuple:
        loss, parts = original(self, batches, retain_weight)
        broken.calls += 1
        return (loss * float("nan") if broken.calls == 5 else loss), parts

    broken.calls = 0
    monkeypatch.setattr(Objective, "__call__", broken)
    with pytest.raises(DemurError, match=r"the loss became nan in step 5 .*forget rows \d"):
        forget(make_settings(), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-3" / "complete").exists()
    assert not (tmp_path / "run" / "model").exists()
    state = yaml.safe_load((tmp_path / "run" / "state.json").read_text())
    assert state["status"] == "failed"
    monkeypatch.undo()
    assert forget(make_settings(), tmp_path / "run").state["status"] == "complete"


def test_full_disk_is_a_clear_error_and_leaves_no_half_model(
    make_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from demur.models import LanguageModel

    def save(self: LanguageModel, folder: Path) -> None:
        (Path(folder) / "config.json").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LanguageModel, "save", save)
    with pytest.raises(DemurError, match="the disk is full"):
        forget(make_settings(), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert [p.name for p in (tmp_path / "run").glob(".*")] == []


def test_forget_rows_that_are_kept_too_are_refused_before_anything_is_written(
    make_settings: Make, world: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text((world / "retain.jsonl").read_text() + (world / "forget.jsonl").read_text().splitlines()[2] + "\n")
    with pytest.raises(UsageError, match="--allow-overlap"):
        forget(make_settings(retain=str(both)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    forget(make_settings(retain=str(both), allow_overlap=True, epochs=1), tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "nop"}, "unknown objective 'nop': did you mean npo"),
        ({"objective": "graddiff", "retain": None}, "needs retain rows: pass --retain"),
        ({"objective": "dpo"}, "works on chosen rows, not on a forget set"),
        ({"objective_options": {"bta": 1}}, "npo has no option 'bta': did you mean beta"),
        ({"retain_objective": "npo"}, "npo is no retain objective"),
        ({"reference": "adapter"}, "pass --lora RANK"),
        ({"lora": 2, "lora_targets": "nowhere"}, "--lora-targets nowhere does not fit"),
        ({"anchor": "retain"}, "--anchor retain needs an objective that uses retain rows"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(
    given: dict, message: str, make_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        forget(make_settings(**given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "setting 'epochs': Input should be greater than or equal to 1"),
        ({"learning_rat": 1}, "setting 'learning_rat': Extra inputs"),
        ({"forget": None}, "setting 'forget': Field required"),
    ],
)
def test_bad_settings_name_the_setting(given: dict, message: str) -> None:
    values = {"model": "m", "forget": "f", **given}
    with pytest.raises(UsageError, match=message):
        ForgetSettings.make(**values)


def test_recipe_is_overridden_by_what_is_given(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: m\nforget: f\nepochs: 3\nseed: 4\n")
    settings = ForgetSettings.make(recipe, epochs=7, seed=None)
    assert (settings.epochs, settings.seed) == (7, 4)
    recipe.write_text("- 1\n")
    with pytest.raises(UsageError, match="is not a list of settings"):
        ForgetSettings.make(recipe)


def test_training_on_rows_raises_their_probability(world: Path, tmp_path: Path) -> None:
    settings = TrainSettings.make(
        model=str(world / "model"), data=str(world / "forget.jsonl"), epochs=6, batch_size=2, learning_rate=1e-3
    )
    run = train(settings, tmp_path / "run")
    assert float((forget_logps(run.model_path, world) - forget_logps(world / "model", world)).min()) > 1


def test_plan_goes_through_the_anchor_once_an_epoch_and_draws_partners_uniformly() -> None:
    from demur.data.batch import Encoded
    from demur.training import paired_plan

    anchor = [Encoded([1, 2], 1)] * 50
    partners = [Encoded([1, 2], 1)] * 5
    plan = paired_plan({"forget": anchor}, {"retain": partners}, epochs=40, seed=0)
    assert all(sorted(epoch) == list(range(50)) for epoch in plan.order["forget"].tolist())
    assert len({tuple(e) for e in plan.order["forget"].tolist()}) == 40
    counts = np.bincount(plan.order["retain"].ravel(), minlength=5)
    assert counts.min() > 320 and counts.max() < 480  # 400 expected, 18 standard deviation
    with pytest.raises(UsageError, match="the retain set is empty"):
        paired_plan({"forget": anchor}, {"retain": []}, epochs=1, seed=0)
