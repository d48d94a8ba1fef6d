from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from demur import UnknownNameError, UsageError, registry
from demur.registry import Registry, nearest


def margin(forget: object, floor: float = -50.0) -> float:
    """Push below a floor.

    More words.
    """
    return floor


def test_registered_component_carries_its_facts_options_and_summary() -> None:
    things = Registry("thing", "demur.nothings")
    assert things.register("margin", paper="x")(margin) is margin
    component = things.get("margin")
    assert (component.facts["paper"], component.options, component.summary) == (
        "x",
        {"floor": -50.0},
        "Push below a floor.",
    )


def test_unknown_name_suggests_the_nearest() -> None:
    things = Registry("thing", "demur.nothings")
    things.register("margin")(margin)
    with pytest.raises(UnknownNameError) as error:
        things.get("margn")
    assert str(error.value) == "unknown thing 'margn': did you mean margin?"
    assert nearest("zzz", ["b", "a"]) == "known names: a, b"


def test_unknown_option_is_refused() -> None:
    things = Registry("thing", "demur.nothings")
    things.register("margin")(margin)
    with pytest.raises(UsageError, match="margin has no option 'flor': did you mean floor"):
        things.get("margin").check_options({"flor": 1})


def test_a_name_belongs_to_one_function() -> None:
    things = Registry("thing", "demur.nothings")
    things.register("margin")(margin)
    things.register("margin")(margin)  # the same again, as after a reload
    with pytest.raises(ValueError, match="already registered"):
        things.register("margin")(lambda: None)


def test_third_party_component_is_listed_unimported_and_imported_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    things = Registry("thing", "demur.nothings")
    loaded = []

    def load() -> object:
        loaded.append(1)
        return things.register("margin")(margin)

    entry = SimpleNamespace(name="margin", load=load)
    monkeypatch.setattr(registry, "entry_points", lambda group, name=None: [entry] if group == "demur.nothings" else [])
    assert things.names() == ["margin"] and not loaded
    assert things.get("margin").function is margin and loaded == [1]


def test_builtin_sources_are_declared_as_entry_points() -> None:
    from importlib.metadata import entry_points

    found: list[EntryPoint] = [*entry_points(group="demur.row_sources"), *entry_points(group="demur.model_sources")]
    assert {e.name for e in found} >= {"tofu", "lab"}
    assert all(callable(e.load()) for e in found)
