from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demur import UsageError
from demur.data.batch import IGNORE, Batch, Encoded, collate
from demur.models import head as head_module
from demur.models import joint_score, score
from demur.models.head import Head, adjusted_cross_entropy, label_logps, logit_margins, reference_kl
from demur.models.scored import Scored, StoredScores, forward_inputs
from models.architectures import ARCHITECTURES, VOCAB_SIZE


def rows(seed: int = 0) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(20, 5), (31, 11), (9, 2), (26, 20)]
    return [
        Encoded(torch.randint(3, VOCAB_SIZE, (n,), generator=generator).tolist(), p, str(i))
        for i, (n, p) in enumerate(shapes)
    ]


def plain_logps(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The textbook way: all logits of the batch, log-softmax, gather."""
    logits = model(**forward_inputs(model, batch)).logits.float()
    logp = logits[:, :-1].log_softmax(-1)
    labels = batch.labels[:, 1:]
    picked = logp.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return torch.nn.functional.pad(picked.masked_fill(labels == IGNORE, 0.0), (1, 0))


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_token_logps_and_their_gradients_equal_those_of_full_logits(architecture: str, side: str, lora: bool) -> None:
    model = ARCHITECTURES[architecture]()
    if lora:
        import peft

        torch.manual_seed(0)
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    batch = collate(rows(), 0, side)
    weights = torch.tensor([1.0, -0.5, 2.0, 0.3])
    expected = plain_logps(model, batch)
    (expected.sum(1) * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    scored = score(model, batch)
    (scored.logps * weights).sum().backward()
    torch.testing.assert_close(scored.token_logps, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scored.logps, expected.sum(1), atol=1e-5, rtol=1e-6)
    assert gradients
    for name, parameter in model.named_parameters():
        if name in gradients:
            scale = float(gradients[name].abs().max()) + 1e-6
            torch.testing.assert_close(parameter.grad, gradients[name], atol=2e-4 * scale, rtol=1e-3, msg=name)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mixtral"])
def test_padding_side_order_and_batch_size_change_nothing(architecture: str) -> None:
    model = ARCHITECTURES[architecture]()
    alone = torch.cat([score(model, collate([row], 0)).logps for row in rows()])
    for side in ("right", "left"):
        torch.testing.assert_close(score(model, collate(rows(), 0, side)).logps, alone, atol=1e-4, rtol=1e-5)
    backwards = score(model, collate(rows()[::-1], 0)).logps.flip(0)
    torch.testing.assert_close(backwards, alone, atol=1e-4, rtol=1e-5)


def test_adapter_changes_the_score_and_disabling_it_restores_the_base() -> None:
    import peft

    base = score(ARCHITECTURES["llama"](), collate(rows(), 0)).logps
    torch.manual_seed(0)
    model = peft.get_peft_model(
        ARCHITECTURES["llama"](), peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    batch = collate(rows(), 0)
    assert not torch.allclose(score(model, batch).logps, base, atol=1e-3)
    with model.disable_adapter():
        torch.testing.assert_close(score(model, batch).logps, base)


def test_joint_forward_equals_separate_ones() -> None:
    model = ARCHITECTURES["qwen2"]()
    batches = {"forget": collate(rows(0)[:2], 0), "retain": collate(rows(1)[2:], 0)}
    joint = joint_score(model, batches, {}, 0)
    for role, batch in batches.items():
        torch.testing.assert_close(joint[role].logps, score(model, batch).logps, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("keep", [0, 2**40], ids=["recomputed", "kept"])
@pytest.mark.parametrize(("softcap", "scale", "bias"), [(None, 1.0, False), (3.0, 1.0, True), (None, 0.5, True)])
def test_projection_passes_gradcheck(
    monkeypatch: pytest.MonkeyPatch, keep: int, softcap: float | None, scale: float, bias: bool
) -> None:
    monkeypatch.setattr(head_module, "KEEP_BYTES", keep)
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 4 * 7 * 2)  # two positions a chunk
    generator = torch.Generator().manual_seed(0)
    hidden, weight, b, other = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in [(5, 3), (7, 3), (7,), (5, 3)]
    )
    labels = torch.tensor([0, 6, 3, 3, 1])
    reference, reference_head = other.detach().clone(), Head(0.7 * weight.detach().clone())

    def head(w: torch.Tensor, b: torch.Tensor) -> Head:
        return Head(w, b if bias else None, softcap, scale)

    assert torch.autograd.gradcheck(lambda h, w, b: label_logps(h, head(w, b), labels), (hidden, weight, b))
    assert torch.autograd.gradcheck(
        lambda h, w, b: reference_kl(h, head(w, b), reference, reference_head), (hidden, weight, b)
    )
    assert torch.autograd.gradcheck(
        lambda h, w, b: adjusted_cross_entropy(h, head(w, b), labels, 1.5, reference, reference_head),
        (hidden, weight, b),
    )
    assert torch.autograd.gradcheck(lambda h, w, b: logit_margins(h, head(w, b)), (hidden, weight, b))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 60), st.integers(0, 1000))
def test_chunked_logps_equal_log_softmax(n: int, vocab: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = 5 * torch.randn(n, 4, generator=generator)
    weight = torch.randn(vocab, 4, generator=generator)
    labels = torch.randint(vocab, (n,), generator=generator)
    expected = (hidden @ weight.T).log_softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(label_logps(hidden, Head(weight), labels), expected, atol=1e-5, rtol=1e-5)


def test_kl_is_zero_at_the_reference_and_equals_the_definition_elsewhere() -> None:
    model, other = ARCHITECTURES["llama"](), ARCHITECTURES["llama"]()
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    batch = collate(rows(), 0)
    reference = score(model, batch)
    assert abs(score(model, batch).kl(reference).item()) < 1e-6
    scored = score(other, batch)
    mask = batch.labels[:, 1:] != IGNORE
    log_q = model(**forward_inputs(model, batch)).logits[:, :-1][mask].log_softmax(-1)
    log_p = other(**forward_inputs(other, batch)).logits[:, :-1][mask].log_softmax(-1)
    expected = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    assert scored.kl(reference).item() == pytest.approx(expected.item(), rel=1e-4)


def test_entropy_and_top_k_equal_the_full_distribution() -> None:
    model = ARCHITECTURES["gpt_neox"]()
    batch = collate(rows(), 0)
    scored = score(model, batch)
    mask = batch.labels[:, 1:] != IGNORE
    log_p = model(**forward_inputs(model, batch)).logits[:, :-1][mask].log_softmax(-1)
    torch.testing.assert_close(scored.entropy[scored.mask], -(log_p.exp() * log_p).sum(-1), atol=1e-5, rtol=1e-5)
    values, ids = scored.top_k(3)
    torch.testing.assert_close(values, log_p.topk(3).values, atol=1e-5, rtol=1e-5)
    assert torch.equal(ids, log_p.topk(3).indices)


def test_recorded_layer_is_the_models_own_hidden_state() -> None:
    model = ARCHITECTURES["llama"]()
    batch = collate(rows(), 0)
    scored = score(model, batch, layers=[0])
    expected = model(**forward_inputs(model, batch), output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(scored.hidden(0), expected)
    with pytest.raises(UsageError, match="layer 1 was not recorded"):
        scored.hidden(1)


def test_one_forward_pass_serves_every_quantity() -> None:
    model = ARCHITECTURES["llama"]()
    score(model, collate(rows(), 0))  # the head's one-time check
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    scored = score(model, collate(rows(), 0))
    _ = scored.logps, scored.nll, scored.entropy, scored.top_k(2), scored.kl(scored)
    assert len(calls) == 1


def test_output_head_is_itself_again_after_scoring() -> None:
    model = ARCHITECTURES["llama"]()
    with pytest.raises(RuntimeError, match="boom"), head_module.capture_hidden(model):
        raise RuntimeError("boom")
    batch = collate(rows(), 0)
    assert model(**forward_inputs(model, batch)).logits.shape[-1] == VOCAB_SIZE


def test_unknown_change_of_logits_is_refused() -> None:
    model = ARCHITECTURES["llama"]()
    original = model.forward

    def forward(*args: object, **kwargs: object) -> object:
        output = original(*args, **kwargs)
        output.logits = output.logits.roll(1, -1)
        return output

    model.forward = forward
    with pytest.raises(UsageError, match="in a way that demur does not know"):
        score(model, collate(rows(), 0))


def test_missing_reference_is_a_clear_error() -> None:
    scored = score(ARCHITECTURES["llama"](), collate(rows(), 0))
    with pytest.raises(UsageError, match="needs a reference model"):
        _ = scored.reference
    with pytest.raises(UsageError, match="final states"):
        scored.kl(StoredScores(scored.mask, scored.token_logps))


def test_first_token_without_a_predecessor_is_never_a_label() -> None:
    batch = collate([Encoded([5, 6, 7], 0), Encoded([5, 6, 7, 8], 0)], 0, "left")
    assert batch.labels.tolist() == [[IGNORE, IGNORE, 6, 7], [IGNORE, 6, 7, 8]]
    hidden = torch.zeros(2, 4, 3)
    scored = Scored(batch, hidden, Head(torch.zeros(9, 3)))
    assert float(scored.nll) == pytest.approx(math.log(9))


def test_gradients_can_be_asked_for_twice() -> None:
    model = ARCHITECTURES["llama"]()
    loss = score(model, collate(rows(), 0)).nll
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


def test_stored_reference_scores_move_whole_to_another_device() -> None:
    mask = torch.tensor([[False, True, True, True]])
    stored = StoredScores(mask, torch.zeros(1, 4), torch.zeros(3, 2), Head(torch.zeros(9, 2)))
    moved = stored.to(torch.device("meta"))
    assert moved.final_hidden is not None
    assert {moved.mask.device.type, moved.logps.device.type, moved.final_hidden.device.type} == {"meta"}


def test_states_of_a_layer_carry_gradients_and_sit_at_the_labels() -> None:
    model, batch = ARCHITECTURES["llama"](), collate(rows(), 0)
    scored = score(model, batch, layers=[0, -1])
    mask = batch.labels != IGNORE
    torch.testing.assert_close(scored.label_states(0), scored.hidden(0)[mask])
    assert torch.equal(scored.hidden(-1), score(model, batch, layers=[1]).hidden(1))
    scored.label_states(0).square().sum().backward()
    assert model.model.layers[0].mlp.down_proj.weight.grad is not None
    assert model.model.layers[1].mlp.down_proj.weight.grad is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "mixtral"])
def test_a_pass_that_ends_at_a_layer_gives_its_states_and_their_gradients(architecture: str) -> None:
    model = ARCHITECTURES[architecture]()
    batches = {"forget": collate(rows(0)[:2], 0), "retain": collate(rows(1)[2:], 0)}
    found, gradients = [], []
    for logits in (True, False):
        joint = joint_score(model, batches, {}, 0, layers=[0], logits=logits)
        found.append([joint[role].label_states(0) for role in batches])
        model.zero_grad()
        sum(states.square().sum() for states in found[-1]).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for whole, ended in zip(*found, strict=True):
        torch.testing.assert_close(ended, whole)
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, msg=name)
    with pytest.raises(UsageError, match="ended at a decoder layer"):
        _ = joint["forget"].token_logps


def test_stored_states_of_a_layer_serve_as_the_computed_ones(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from demur.training import score_reference
    from tiny import tiny_lm

    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    lm, table = tiny_lm(), rows()
    for _ in range(2):  # computed, then read
        stored = score_reference(lm, table, np.arange(4), layers=[0], batch_size=3)
    chosen = [2, 0]
    batch = collate([table[i] for i in chosen], lm.pad_id)
    with torch.no_grad():
        expected = score(lm.model, batch, layers=[0])
    found = stored.batch(chosen, batch)
    torch.testing.assert_close(found.label_states(0), expected.label_states(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.token_logps, expected.token_logps, atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match=r"layer 1 of the reference was not stored"):
        found.label_states(1)


def test_adjusted_cross_entropy_in_chunks_equals_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = ARCHITECTURES["gemma2"](), ARCHITECTURES["llama"]()
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 4 * VOCAB_SIZE * 3)
    batch = collate(rows(), 0)
    scored, reference = score(model, batch), score(other, batch)
    mask = batch.labels[:, 1:] != IGNORE
    z, z_ref = (m(**forward_inputs(m, batch)).logits[:, :-1][mask].float() for m in (model, other))
    onehot = torch.nn.functional.one_hot(batch.labels[:, 1:][mask], VOCAB_SIZE)
    for penalty, target, other_scores in ((4.0, z_ref, reference), (4.0, z, None), (math.inf, z, None)):
        lowered = target - penalty * onehot if math.isfinite(penalty) else target.masked_fill(onehot.bool(), -math.inf)
        expected = -(lowered.softmax(1) * z.log_softmax(1)).sum(1)
        torch.testing.assert_close(scored.adjusted_cross_entropy(penalty, other_scores)[scored.mask], expected)
    torch.testing.assert_close(scored.logit_margins[scored.mask], z.amax(1) - z.mean(1))
