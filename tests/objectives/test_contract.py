"""What every registered objective must be, whoever wrote it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from demur import UsageError
from demur.data import collate
from demur.models import encode, score
from demur.objectives import objectives, roles
from demur.registry import Component
from demur.training import Objective
from tiny import tiny_lm

DOCS = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
NAMES = objectives.names()


@pytest.fixture(params=NAMES)
def component(request: pytest.FixtureRequest) -> Component:
    return objectives.get(request.param)


def scored(component: Component, with_reference: bool = True) -> dict:
    lm, base = tiny_lm(), tiny_lm()
    with torch.no_grad():
        base.model.model.layers[0].mlp.down_proj.weight.mul_(0.7)
    batches = {}
    for i, role in enumerate(roles(component)):
        batch = collate(encode(lm, ["who wrote it?", "where?"], ["oda marsh"[i:], "in the town of kell"[i:]]), 0)
        layers = range(2)
        reference = score(base.model, batch, layers=layers) if with_reference else None
        batches[role] = score(lm.model, batch, layers=layers, reference=reference)
    return batches


def options(component: Component) -> dict:
    """The defaults, but a layer that the tiny model has."""
    return {"layer": 1} if "layer" in component.options else {}


def test_docstring_says_what_goes_in_and_comes_out(component: Component) -> None:
    text = inspect.getdoc(component.function) or ""
    assert "Args:" in text and "Returns:" in text
    assert all(f"{name}:" in text or f"{name}," in text for name in (*roles(component), *component.options))


def test_docs_have_a_row_for_it(component: Component) -> None:
    assert f"| `{component.name}` |" in DOCS


def test_gives_a_finite_scalar_with_gradients_and_the_same_again(component: Component) -> None:
    batches = scored(component)
    loss = component.function(*batches.values(), **options(component))
    assert loss.shape == () and bool(loss.isfinite())
    loss.backward()
    again = scored(component)
    assert torch.equal(component.function(*again.values(), **options(component)).detach(), loss.detach())


def test_missing_reference_is_said_and_only_where_one_is_needed(component: Component) -> None:
    batches = scored(component, with_reference=False)
    if component.facts["reference"]:
        with pytest.raises(UsageError, match="needs a reference model"):
            component.function(*batches.values(), **options(component))
    else:
        component.function(*batches.values(), **options(component))


def test_its_retain_term_exists(component: Component) -> None:
    whole = Objective.make(component.name)
    assert (whole.retain is None) == (component.facts["retain"] is None)
    assert set(roles(component)) <= set(whole.roles)
