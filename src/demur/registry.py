"""Registries: plain dictionaries from a name to a component, filled by decorators and by entry points.

Built-in components are declared by name and module, so that listing names imports nothing. A third party adds a
component with an entry point in the registry's group, whose target is the decorated function.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from demur.errors import UnknownNameError, UsageError

__all__ = ["Component", "Registry", "nearest"]

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
_OPTIONAL = {f"{kind.__name__} | None": kind for kind in _KINDS}  # as postponed annotations are spelt


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the known names nearest to `name`, or lists all of them when none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(known) or 'none'}"


@dataclass(frozen=True)
class Component:
    """A registered function together with the facts it carries.

    Attributes:
        name: the name used in Python, in recipe files and on the command line.
        function: the component itself.
        facts: what it declares of itself, for instance `paper`, `needs`, `better`.
    """

    name: str
    function: Callable[..., Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, Any]:
        """The component's options and their defaults: its parameters that have one."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}

    def check_options(self, given: Mapping[str, Any]) -> None:
        """Refuse an option that the component does not have.

        Raises:
            UsageError: an option is unknown.
        """
        for option in given:
            if option not in self.options:
                raise UsageError(f"{self.name} has no option {option!r}: {nearest(option, self.options)}")

    def typed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options in the types of their defaults, for YAML reads `1e-1` as a word; None is left where it is one.

        Raises:
            UsageError: an option is unknown, or a value is of another type.
        """
        self.check_options(given)
        parameters, out = inspect.signature(self.function).parameters, {}
        for name, value in given.items():
            default, annotation = self.options[name], parameters[name].annotation
            if default is None and (value is None or annotation not in _OPTIONAL):
                out[name] = value
                continue
            if isinstance(value, str) and f"Literal[{value!r}]" in str(annotation):  # as in float | Literal['quantile']
                out[name] = value
                continue
            kind = _OPTIONAL[annotation] if default is None else type(default)
            if kind is str and isinstance(value, bool):  # in a formula, true is a word
                value = str(value).lower()
            try:
                typed = float(value) if kind is float else int(value) if kind is int else value
                fits = kind not in _KINDS or (isinstance(typed, kind) and (typed == value or kind is float))
            except (TypeError, ValueError):
                fits = False
            if not fits or (kind is not bool and isinstance(value, bool)):
                wanted = _KINDS.get(kind, f"a {kind.__name__}")
                raise UsageError(f"option {name!r} of {self.name} must be {wanted}, not {value!r}")
            out[name] = typed
        return out


class Registry:
    """The components of one kind.

    Args:
        kind: what a component is called in messages, for instance "objective".
        group: the entry-point group that third parties use.
        builtins: name → module that registers it when imported, for components that are not imported with the room.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, str] | None = None) -> None:
        self.kind, self.group = kind, group
        self._builtins = dict(builtins or {})
        self._components: dict[str, Component] = {}

    def register(self, name: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator that files a function under `name` and returns it unchanged.

        Raises:
            ValueError: the name is taken by another function.
        """

        def file(function: Callable[..., Any]) -> Callable[..., Any]:
            known = self._components.get(name)
            if known is not None and (known.function.__module__, known.function.__qualname__) != (
                function.__module__,
                function.__qualname__,
            ):
                raise ValueError(f"{self.kind} {name!r} is already registered by {known.function.__module__}")
            self._components[name] = Component(name, function, facts)
            return function

        return file

    def names(self) -> list[str]:
        """All names, built-in and third-party, without importing any component."""
        return sorted({*self._builtins, *self._components, *(e.name for e in entry_points(group=self.group))})

    def get(self, name: str) -> Component:
        """The component called `name`, imported now if it was not yet.

        Raises:
            UnknownNameError: no component has that name.
        """
        if name not in self._components:
            if name in self._builtins:
                importlib.import_module(self._builtins[name])
            else:
                for entry in entry_points(group=self.group, name=name):
                    entry.load()
        if name not in self._components:
            raise UnknownNameError(f"unknown {self.kind} {name!r}: {nearest(name, self.names())}")
        return self._components[name]
