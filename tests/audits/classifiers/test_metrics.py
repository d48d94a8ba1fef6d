from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from demur.audits.classifiers import (
    activation_distance,
    average_gap,
    entropy,
    gaussian_lira,
    kl_of_margins,
    margins,
    mia_class_threshold,
    mia_confidence,
    mia_entropy,
    mia_loss,
    modified_entropy,
    output_kl,
    prediction_agreement,
    tug_of_war,
    u_lira,
    u_lira_tpr,
    zero_retrain_forgetting,
)
from demur.errors import UsageError

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64)
Q = torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.3, 0.4]], dtype=torch.float64)


def test_a_margin_is_the_logit_of_the_label_s_probability() -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0]], dtype=torch.float64)
    found = margins(logits, torch.tensor([0]))
    torch.testing.assert_close(found, torch.logit(logits.softmax(1)[:, 0]))
    assert float(found) == pytest.approx(1.298587, abs=1e-6)
    many = margins(torch.stack([logits, logits + 5]), torch.tensor([0]))
    assert many.shape == (2, 1) and many[0] == pytest.approx(float(many[1]))


def test_tug_of_war_and_average_gap_on_worked_numbers() -> None:
    wanted = {"forget": 0.90, "retain": 1.0, "test": 0.94}
    assert tug_of_war({"forget": 0.95, "retain": 0.99, "test": 0.93}, wanted) == pytest.approx(0.931095)
    assert tug_of_war(wanted, wanted) == 1
    retrained = {"UA": 5.24, "RA": 100.0, "TA": 94.26, "MIA": 12.88}
    found = {"UA": 2.85, "RA": 99.62, "TA": 93.93, "MIA": 14.39}
    assert average_gap(found, retrained) == pytest.approx(1.1525)
    with pytest.raises(UsageError, match="the metrics differ"):
        average_gap({"UA": 1.0}, retrained)
    with pytest.raises(UsageError, match="accuracy 'retain'"):
        tug_of_war({"forget": 0.1, "retain": 95.0, "test": 0.1}, wanted)


def test_zrf_is_one_less_the_mean_divergence_and_one_for_the_untrained_model() -> None:
    assert zero_retrain_forgetting(P, Q) == pytest.approx(1 - 0.050716, abs=1e-6)
    assert zero_retrain_forgetting(P, Q, compat=True) == pytest.approx(0.982228, abs=1e-6)
    assert zero_retrain_forgetting(P, P) == pytest.approx(1)
    apart = zero_retrain_forgetting(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert apart == pytest.approx(1 - np.log(2), abs=1e-6)


def test_activation_distance_is_euclidean() -> None:
    assert activation_distance(P[:1], Q[:1]) == pytest.approx(np.sqrt(0.09 + 0.04 + 0.01))


def test_agreement_and_output_divergence() -> None:
    assert prediction_agreement(P.log(), Q.log()) == 0.5  # 0, 1 and 0, 2, where a tie goes to the first
    wanted = np.mean([scipy_entropy(q, p) for p, q in zip(P.numpy(), Q.numpy(), strict=True)])
    assert output_kl(P.log() + 3, Q.log()) == pytest.approx(wanted)
    assert output_kl(P.log(), P.log()) == pytest.approx(0)


def test_entropies_on_worked_numbers() -> None:
    p = np.array([[0.7, 0.2, 0.1]])
    assert entropy(p)[0] == pytest.approx(0.801819, abs=1e-6) == pytest.approx(scipy_entropy(p[0]), abs=1e-6)
    assert modified_entropy(p, np.array([0]))[0] == pytest.approx(0.162167, abs=1e-6)
    assert modified_entropy(np.array([[1.0, 0.0]]), np.array([0]))[0] == 0


def test_the_attacks_count_in_the_directions_they_are_named_by() -> None:
    draw = np.random.default_rng(0)
    known, unseen = draw.uniform(0.9, 1, 200), draw.uniform(0.2, 0.8, 200)
    assert mia_confidence(known, unseen, known[:50]) < 0.1 < 0.9 < mia_confidence(known, unseen, unseen[:50])
    sure, unsure = draw.uniform(0, 0.1, 200), draw.uniform(0.5, 1, 200)
    assert mia_entropy(sure, unsure, sure[:50]) > 0.9 > 0.1 > mia_entropy(sure, unsure, unsure[:50])
    assert mia_loss(sure, unsure) > 0.95
    assert mia_loss(sure, draw.uniform(0, 0.1, 200)) == pytest.approx(0.5, abs=0.15)


def test_modified_entropy_as_the_copied_code_has_it_is_another_number() -> None:
    p, labels = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]]), np.array([0, 1])
    # Classes 0 and 1 are some row's label, so (1 - p) stands for p in both columns of both rows.
    wanted = [
        -(0.3 * np.log(0.7) + 0.8 * np.log(0.2) + 0.1 * np.log(0.1)),
        -(0.8 * np.log(0.2) + 0.5 * np.log(0.5) + 0.3 * np.log(0.3)),
    ]
    assert modified_entropy(p, labels, compat=True) == pytest.approx(wanted)
    assert modified_entropy(p[:1], labels[:1])[0] == pytest.approx(0.162167, abs=1e-6)


def test_the_confidence_attack_takes_the_first_rows_or_draws_them() -> None:
    draw = np.random.default_rng(0)
    retain = np.concatenate([draw.uniform(0, 0.3, 60), draw.uniform(0.9, 1, 540)])  # the first ones are unusual
    test, forget = draw.uniform(0.3, 0.9, 60), draw.uniform(0.9, 1, 40)
    assert mia_confidence(retain, test, forget) == mia_confidence(retain, test, forget, seed=0) < 0.1
    assert mia_confidence(retain, test, forget, seed=None) > 0.9
    both = [np.stack([side, side], 1) for side in (retain, test, forget)]
    assert mia_confidence(*both) < 0.1


def test_the_confidence_attack_is_scikit_learn_s_machine() -> None:
    draw = np.random.default_rng(2)
    retain, test, forget = draw.beta(5, 1, 50), draw.beta(3, 1, 50), draw.beta(4, 1, 30)
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(np.concatenate([retain, test])[:, None], np.repeat([1, 0], 50))
    assert mia_confidence(retain, test, forget) == 1 - attack.predict(forget[:, None]).mean()


def test_class_thresholds_by_brute_force() -> None:
    draw = np.random.default_rng(3)
    sides = [(draw.normal(shift, 1, 40).round(1), draw.integers(0, 2, 40)) for shift in (1, 0, 0.8, 0)]
    members, unseen, target, target_unseen = sides
    called = {"target": 0.0, "unseen": 0.0}
    for label in (0, 1):
        known, other = (side[0][side[1] == label] for side in (members, unseen))
        best = max((((known >= t).mean() + (other < t).mean()) / 2, -i, t) for i, t in enumerate([*known, *other]))[2]
        called["target"] += (target[0][target[1] == label] >= best).sum()
        called["unseen"] += (target_unseen[0][target_unseen[1] == label] < best).sum()
    found = mia_class_threshold(members, unseen, target, target_unseen)
    assert found.member_rate == pytest.approx(called["target"] / 40)
    assert found.nonmember_rate == pytest.approx(called["unseen"] / 40)


def test_a_class_without_shadow_rows_has_no_threshold() -> None:
    some = (np.ones(4), np.array([0, 0, 1, 1]))
    with pytest.raises(UsageError, match="no shadow rows of class 2"):
        mia_class_threshold(some, some, (np.ones(1), np.array([2])), some)


def test_the_entropy_attack_is_scikit_learn_s_regression() -> None:
    draw = np.random.default_rng(1)
    retain, test, forget = draw.normal(0, 1, 60), draw.normal(1, 1, 30), draw.normal(0.4, 1, 20)
    attack = LogisticRegression(class_weight="balanced").fit(
        np.concatenate([retain, test])[:, None], np.repeat([1, 0], [60, 30])
    )
    assert mia_entropy(retain, test, forget) == attack.predict(forget[:, None]).mean()


def test_attacks_without_rows_are_refused() -> None:
    none, some = np.zeros(0), np.ones(12)
    with pytest.raises(UsageError, match="needs forget rows"):
        mia_confidence(some, some, none)
    with pytest.raises(UsageError, match="ten rows"):
        mia_loss(some, some[:3])


def test_lira_on_worked_numbers() -> None:
    unlearned, unseen = np.array([[4.0], [5.0], [6.0]]), np.array([[1.0], [2.0], [3.0]])
    found = gaussian_lira(np.array([[3.4], [3.6]]), unlearned, unseen)[:, 0]
    assert found == pytest.approx([0.389361, 0.610639], abs=1e-6)


def test_lira_tells_apart_what_differs_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    same = u_lira(draw.normal(0, 1, (80, 50)), draw.normal(0, 1, (80, 50)))
    apart = u_lira(draw.normal(8, 1, (80, 50)), draw.normal(0, 1, (80, 50)))
    assert same.mean() == pytest.approx(0.5, abs=0.05) and apart.mean() > 0.99
    with pytest.raises(UsageError, match="four models"):
        u_lira(np.zeros((3, 5)), np.zeros((9, 5)))


def test_the_sure_part_of_an_attack_is_counted_at_a_share_of_false_alarms() -> None:
    draw = np.random.default_rng(0)
    unseen = draw.normal(0, 1, (80, 50))
    assert u_lira_tpr(draw.normal(9, 1, (80, 50)), unseen) == 1
    assert u_lira_tpr(draw.normal(0, 1, (80, 50)), unseen) == pytest.approx(0.01, abs=0.015)
    # Five rows of fifty are known beyond doubt: mean accuracy hardly shows them, this does.
    few = np.concatenate([draw.normal(9, 1, (80, 5)), draw.normal(0, 1, (80, 45))], 1)
    assert u_lira(few, unseen).mean() < 0.58 and u_lira_tpr(few, unseen) == pytest.approx(0.1, abs=0.02)
    with pytest.raises(UsageError, match="needs 100 judged rows, not 10"):
        u_lira_tpr(np.zeros((10, 2)), np.zeros((10, 2)))


def test_lira_attacks_each_row_by_itself() -> None:
    """Rows whose margins lie elsewhere: a single threshold for all would tell nothing."""
    draw = np.random.default_rng(0)
    places = np.linspace(-50, 50, 40)
    unlearned, unseen = (draw.normal(places + shift, 0.3, (60, 40)) for shift in (1, -1))
    assert u_lira(unlearned, unseen).mean() > 0.98


def test_klom_on_worked_numbers() -> None:
    unlearned, oracle = np.arange(1.0, 9)[:, None], np.array([2.0, 3, 3, 4, 4, 5, 6, 9])[:, None]
    with pytest.warns(UserWarning, match="few for 4 bins"):
        assert kl_of_margins(oracle, unlearned, bins=4)[0] == pytest.approx(0.173287, abs=1e-6)
        released = kl_of_margins(oracle, unlearned, bins=4, direction="unlearned||oracle", compat=True)[0]
    assert released == pytest.approx(2.431519, abs=1e-6)


@given(seed=st.integers(0, 99), shift=st.floats(-50, 50))
def test_klom_is_zero_for_one_set_positive_else_and_blind_to_order_and_shift(seed: int, shift: float) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.normal(0, 1, (25, 6)), draw.normal(1, 1, (25, 6))
    assert kl_of_margins(one, one) == pytest.approx(np.zeros(6))
    apart = kl_of_margins(one, other)
    assert (apart > 0).all() and (apart < -np.log(1e-5)).all()
    assert kl_of_margins(one[::-1], other[::-1]) == pytest.approx(apart)
    # A shift may move a margin across the edge of a bin by rounding.
    assert kl_of_margins(one + shift, other + shift).mean() == pytest.approx(apart.mean(), rel=0.2)
    both = (kl_of_margins(one, other) + kl_of_margins(one, other, direction="unlearned||oracle")) / 2
    assert kl_of_margins(one, other, direction="symmetric") == pytest.approx(both)
