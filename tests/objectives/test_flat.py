"""FLAT against worked numbers, brute-force conjugates, and the sign that makes it forget."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from demur import UsageError
from demur.data.batch import IGNORE, Batch
from demur.models.head import Head
from demur.models.scored import Scored
from demur.objectives import flat, flat_loss, objectives
from demur.objectives.flat import DIVERGENCES
from demur.training import Objective

_ = IGNORE
LABELS = [[_, _, 0, 2, 4, 2], [_, _, _, 1, 3, _]]
TEMPLATE_LABELS = [[_, _, 1, 0, 2, 3], [_, _, _, 2, 0, _]]
probabilities = st.floats(0, 1)


def worked(labels: list[list[int]], frequency: float, phase: float) -> Scored:
    """A batch whose logits are 2 sin(frequency t + phase v + 1.3 b), in float64."""
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(6), torch.arange(5), indexing="ij")
    tokens = torch.tensor(labels).clamp(min=0)
    batch = Batch(tokens, torch.ones_like(tokens), torch.tensor(labels), ["0", "1"])
    logits = 2 * torch.sin(frequency * t.double() + phase * v + 1.3 * b)
    return Scored(batch, logits, Head(torch.eye(5, dtype=torch.float64)))


def pair() -> tuple[Scored, Scored]:
    return worked(TEMPLATE_LABELS, 1.1, 0.6), worked(LABELS, 1.7, 0.9)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("normalise", "divergence", "expected"),
    [
        ("answer", "kl", 0.254016),
        ("answer", "tv", -0.000520),
        ("answer", "js", 0.008483),
        ("answer", "pearson", 0.007907),
        ("answer", "jeffrey", 0.008333),
        ("padded", "kl", 0.281071),
        ("padded", "tv", -0.001744),
        ("padded", "js", 0.003066),
        ("padded", "pearson", 0.001168),
        ("padded", "jeffrey", 0.001330),
    ],
)
def test_flat_gives_the_worked_numbers(normalise: str, divergence: str, expected: float) -> None:
    assert float(flat(*pair(), divergence, normalise)) == pytest.approx(expected, abs=6e-7)


def test_total_variation_is_the_default_over_the_answers_own_tokens() -> None:
    assert float(flat(*pair())) == float(flat(*pair(), "tv", "answer"))


# The generator f of D_f(P ‖ Q) = Σ q f(p / q).
GENERATORS: dict[str, Callable[[float], float]] = {
    "kl": lambda u: u * math.log(u),
    "tv": lambda u: abs(u - 1) / 2,
    "js": lambda u: -(u + 1) * math.log((1 + u) / 2) + u * math.log(u),
    "pearson": lambda u: (u - 1) ** 2,
    "jeffrey": lambda u: (u - 1) * math.log(u),
    "hellinger": lambda u: (math.sqrt(u) - 1) ** 2,
    "reverse_kl": lambda u: -math.log(u),
    "neyman": lambda u: (1 - u) ** 2 / u,
}


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("v", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_the_second_link_is_the_conjugate_at_the_first(divergence: str, v: float) -> None:
    activation, conjugate = DIVERGENCES[divergence]
    point = torch.tensor(v, dtype=torch.float64)
    witness, f = float(activation(point)), GENERATORS[divergence]
    # sup over u > 0 of u · g - f(u), concave in u, searched on a logarithmic scale.
    found = minimize_scalar(
        lambda s: f(math.exp(s)) - math.exp(s) * witness, bounds=(-12, 8), method="bounded", options={"xatol": 1e-10}
    )
    # Jeffrey's is a series that is exact at 0 and 1 % low at 0.9.
    tolerance = {"rel": 0.011} if divergence == "jeffrey" else {"rel": 1e-6}
    assert float(conjugate(point)) == pytest.approx(-found.fun, abs=1e-5, **tolerance)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@given(probabilities, probabilities)
def test_every_divergence_raises_the_template_and_lowers_the_answer(
    divergence: str, first: float, second: float
) -> None:
    template, answer = leaf(first), leaf(second)
    flat_loss(template, answer, divergence).backward()
    assert float(template.grad) < 0 < float(answer.grad)


SLOPES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "tv": (lambda e: -0.5 / math.cosh(e) ** 2, lambda f: 0.5 / math.cosh(f) ** 2),
    "kl": (lambda e: -1, lambda f: math.exp(f - 1)),
    "js": (lambda e: -1 / (1 + math.exp(e)), lambda f: 1 / (1 + math.exp(-f))),
    "pearson": (lambda e: -1, lambda f: 1 + f / 2),
    "jeffrey": (lambda e: -1, lambda f: 1 + f / 2 + 3 * f**2 / 16),
}


@pytest.mark.parametrize("divergence", SLOPES)
@given(probabilities, probabilities)
def test_slopes_are_the_published_ones(divergence: str, first: float, second: float) -> None:
    template, answer = leaf(first), leaf(second)
    flat_loss(template, answer, divergence).backward()
    of_template, of_answer = SLOPES[divergence]
    assert float(template.grad) == pytest.approx(of_template(first), rel=1e-9)
    assert float(answer.grad) == pytest.approx(of_answer(second), rel=1e-9)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_slopes_are_those_of_finite_differences(divergence: str) -> None:
    points = (leaf(0.2, 0.6), leaf(0.9, 0.05))
    assert torch.autograd.gradcheck(lambda e, f: flat_loss(e, f, divergence), points)


@given(probabilities, probabilities)
def test_total_variation_is_antisymmetric(first: float, second: float) -> None:
    one, other = leaf(first), leaf(second)
    assert float(flat_loss(one, other, "tv")) == pytest.approx(-float(flat_loss(other, one, "tv")), abs=1e-15)


def test_total_variation_of_small_probabilities_is_half_their_difference() -> None:
    assert float(flat_loss(leaf(3e-4), leaf(1e-4), "tv")) == pytest.approx(-0.5 * (3e-4 - 1e-4), rel=1e-6)


def test_the_batch_is_averaged_before_the_divergence_is_taken() -> None:
    template, answer = leaf(0.1, 0.9), leaf(0.0, 0.8)
    whole = flat_loss(template, answer, "pearson")
    assert float(whole) == pytest.approx(0.4 + 0.4**2 / 4 - 0.5)
    single = torch.stack([flat_loss(template[i], answer[i], "pearson") for i in range(2)]).mean()
    assert float(single) != pytest.approx(float(whole), abs=1e-3)


def test_padding_matters_only_where_it_is_asked_for() -> None:
    template, answer = pair()
    labels = torch.nn.functional.pad(answer.batch.labels, (0, 3), value=IGNORE)
    tokens = torch.nn.functional.pad(answer.batch.input_ids, (0, 3))
    b, t, v = torch.meshgrid(torch.arange(2), torch.arange(9), torch.arange(5), indexing="ij")
    hidden = 2 * torch.sin(1.7 * t.double() + 0.9 * v + 1.3 * b)
    wider = Scored(Batch(tokens, torch.ones_like(tokens), labels, ["0", "1"]), hidden, answer.head)
    assert float(flat(template, wider)) == pytest.approx(float(flat(template, answer)), rel=1e-12)
    # Both sides are divided by the positions of the wider one.
    assert float(flat(template, wider, "kl", "padded")) == pytest.approx(
        math.exp(0.137462 * 5 / 8 - 1) - 0.141019 * 5 / 8, abs=1e-6
    )


def test_unknown_names_and_answers_without_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown divergence 'hellinga': use tv, kl"):
        flat(*pair(), "hellinga")
    with pytest.raises(ValueError, match="unknown normalisation 'sum': use answer or padded"):
        flat(*pair(), "tv", "sum")
    with pytest.raises(ValueError, match="an answer has no tokens"):
        flat(pair()[0], worked([LABELS[0], [_] * 6], 1.7, 0.9))
    with pytest.raises(ValueError, match="shapes differ"):
        flat_loss(leaf(0.1, 0.2), leaf(0.1))


def test_a_retain_term_is_refused_and_none_is_brought() -> None:
    assert Objective.make("flat").retain is None and Objective.make("flat", retain="none").retain is None
    assert objectives.get("flat").facts["reference"] is False
    for given_ in ({"retain": "nll"}, {"retain": "kl"}, {"retain_weight": 0.5}):
        with pytest.raises(UsageError, match="nothing but the forget set may be used"):
            Objective.make("flat", **given_)
