"""Trained classifiers made to forget: every method takes a model and the rows to forget and to keep, and gives another.

`edit("ssd", model, forget, retain)` leaves the model it was given as it is.
"""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Ensemble": "ensembles",
        "Importances": "fisher",
        "cached_ensemble": "ensembles",
        "EditSettings": "settings",
        "edit": "registry",
        "edit_run": "run",
        "editor": "registry",
        "editors": "registry",
        "fisher_diagonal": "fisher",
        "leave_out": "linear",
        "newton_step": "linear",
        "ssd_language_model": "ssd",
        "train_ensemble": "ensembles",
    },
)

if TYPE_CHECKING:
    from demur.editing.ensembles import Ensemble as Ensemble
    from demur.editing.ensembles import cached_ensemble as cached_ensemble
    from demur.editing.ensembles import train_ensemble as train_ensemble
    from demur.editing.fisher import Importances as Importances
    from demur.editing.fisher import fisher_diagonal as fisher_diagonal
    from demur.editing.linear import leave_out as leave_out
    from demur.editing.linear import newton_step as newton_step
    from demur.editing.registry import edit as edit
    from demur.editing.registry import editor as editor
    from demur.editing.registry import editors as editors
    from demur.editing.run import edit_run as edit_run
    from demur.editing.settings import EditSettings as EditSettings
    from demur.editing.ssd import ssd_language_model as ssd_language_model
