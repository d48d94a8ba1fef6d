from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from demur.data.labelled import ForgetSplit, split_off
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.editing.teachers import bad_teacher_loss, divergence
from demur.errors import UsageError
from demur.models.classifier import Classifier
from editing.test_registry import accuracy


def logits(seed: int, rows: int = 5, classes: int = 4) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 99), temperature=st.floats(0.5, 8))
def test_divergence_is_its_sum_from_the_teacher_to_the_student(seed: int, temperature: float) -> None:
    student, teacher = logits(seed), logits(seed + 100)
    p, q = ((z / temperature).softmax(1) for z in (teacher, student))
    total = sum(
        float(p[i, j]) * math.log(float(p[i, j]) / float(q[i, j])) for i in range(len(p)) for j in range(p.shape[1])
    )
    found = float(divergence(student, teacher, temperature))
    assert found == pytest.approx(temperature**2 * total / len(p), rel=1e-9, abs=1e-12)
    assert found >= 0
    by_class_too = float(divergence(student, teacher, temperature, "mean"))
    assert by_class_too == pytest.approx(found / p.shape[1])


def test_the_two_reductions_of_a_worked_pair() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]).log()
    q = torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.3, 0.4]]).log()
    by_hand = 0.7 * math.log(7 / 4) + 0.3 * math.log(1 / 2) + 0.1 * math.log(1 / 3) + 0.6 * math.log(2)
    by_hand = (by_hand + 0.3 * math.log(3 / 4)) / 2
    assert float(divergence(q, p)) == pytest.approx(by_hand, abs=1e-6)
    assert float(divergence(q, p, reduction="mean")) == pytest.approx(by_hand / 3, abs=1e-6)


def test_without_rows_to_forget_the_bad_teacher_asks_for_nothing_at_the_old_model() -> None:
    student = logits(0).requires_grad_()
    loss = bad_teacher_loss(student, student.detach(), logits(1), torch.zeros(5, dtype=torch.bool))
    (grad,) = torch.autograd.grad(loss, student)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-15) and grad.abs().max() < 1e-15


def test_each_row_has_its_own_teacher_and_only_ignorance_pulls_on_rows_to_forget() -> None:
    student, good, bad = logits(0), logits(1), logits(2)
    to_forget = torch.tensor([True, False, True, False, False])
    kl = lambda t: F.kl_div(student.log_softmax(1), t.softmax(1), reduction="none").sum(1)  # noqa: E731
    expected = torch.where(to_forget, kl(bad), kl(good)).mean()
    torch.testing.assert_close(bad_teacher_loss(student, good, bad, to_forget), expected)
    halved = bad_teacher_loss(student / 2, good / 2, bad / 2, to_forget)
    torch.testing.assert_close(bad_teacher_loss(student, good, bad, to_forget, temperature=2.0), halved)


def test_the_bad_teacher_takes_confidence_from_the_forget_rows(trained: Classifier, split: ForgetSplit) -> None:
    edited = edit("bad-teacher", trained, split.forget, split.retain, epochs=60, learning_rate=3e-3)
    assert accuracy(edited, split.forget) <= 0.3 and accuracy(edited, split.retain) >= 0.9
    assert edited.facts["retain rows"] == round(0.3 * len(split.retain))


def test_scrub_without_forgetting_or_a_teacher_is_fine_tuning(trained: Classifier, split: ForgetSplit) -> None:
    settings = {"seed": 1, "epochs": 2, "learning_rate": 0.01}
    tuned = edit("ft", trained, split.forget, split.retain, **settings)
    scrubbed = edit("scrub", trained, split.forget, split.retain, msteps=0, alpha=0.0, gamma=1.0, **settings)
    assert scrubbed.weights_hash() == tuned.weights_hash()


def test_scrub_goes_away_from_the_teacher_in_its_first_epochs_only(trained: Classifier, split: ForgetSplit) -> None:
    settings = {"seed": 1, "learning_rate": 0.02, "temperature": 2.0}
    far = edit("scrub", trained, split.forget, split.retain, msteps=2, epochs=2, **settings)
    never = edit("scrub", trained, split.forget, split.retain, msteps=0, epochs=2, **settings)
    away = lambda m: float(divergence(m.predict(split.forget), trained.predict(split.forget)))  # noqa: E731
    assert away(far) > 2 * away(never)
    later = edit("scrub", trained, split.forget, split.retain, msteps=2, epochs=3, **settings)
    both = edit("scrub", trained, split.forget, split.retain, msteps=3, epochs=3, **settings)
    assert away(later) < away(both)


def test_scrub_goes_back_to_the_first_epoch_that_errs_as_on_rows_never_seen(
    trained: Classifier, split: ForgetSplit
) -> None:
    held_out = split_off(read_labelled("digits:test"), "class:3").forget
    settings = {"seed": 1, "msteps": 6, "epochs": 6, "learning_rate": 0.02, "temperature": 2.0}
    last = edit("scrub", trained, split.forget, split.retain, **settings)
    back = edit("scrub", trained, split.forget, split.retain, rewind=held_out, **settings)
    found = back.facts["rewind"]
    aim, errors = found["error on held-out rows"], found["errors on forget rows"]
    assert aim == pytest.approx(1 - accuracy(last, held_out))
    assert errors[-1] >= aim and all(error < aim for error in errors[:-1])
    assert 1 <= found["epoch"] < 6 and 1 - accuracy(back, split.forget) == pytest.approx(errors[-1])
    same = edit("scrub", trained, split.forget, split.retain, **{**settings, "epochs": found["epoch"]})
    assert back.weights_hash() == same.weights_hash()
    by_name = edit("scrub", trained, split.forget, split.retain, rewind="digits:test", **settings)
    assert by_name.weights_hash() == back.weights_hash()


def test_bad_options_are_refused(trained: Classifier, split: ForgetSplit) -> None:
    kept_only = split_off(read_labelled("digits:test"), "class:3").retain
    for name, options, said in (
        ("bad-teacher", {"share": 2.0}, "share must be in"),
        ("bad-teacher", {"reduction": "sum"}, "reduction 'sum' batchmean or mean"),
        ("scrub", {"temperature": 0.0}, "temperature 0.0 must be above 0"),
        ("scrub", {"rewind": kept_only}, "has no rows of the classes to forget"),
    ):
        with pytest.raises(UsageError, match=said):
            edit(name, trained, split.forget, split.retain, **options)
