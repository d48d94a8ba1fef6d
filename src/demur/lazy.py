"""Public names that are imported when first used, so that `import demur` and `demur --help` stay fast."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(package: str, names: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` for a package whose public names live in its modules.

    Args:
        package: the package's `__name__`.
        names: public name → module of the package that defines it. A name must not be that of a module: importing
            the module would put it in the name's place.

    Raises:
        ValueError: a name is a module's too.
    """
    clashes = set(names) & set(names.values())
    if clashes:
        raise ValueError(f"{package}: {', '.join(sorted(clashes))} names both a module and what it holds")

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{names[name]}"), name)

    return sorted(names), find, lambda: sorted(names)
