"""Trained classifiers made to forget: every method takes a model and the rows to forget and to keep, and gives another.

`edit("ssd", model, forget, retain)` leaves the model it was given as it is.
"""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "edit": "registry",
        "editor": "registry",
        "editors": "registry",
        "fisher_diagonal": "fisher",
    },
)

if TYPE_CHECKING:
    from demur.editing.fisher import fisher_diagonal as fisher_diagonal
    from demur.editing.registry import edit as edit
    from demur.editing.registry import editor as editor
    from demur.editing.registry import editors as editors
