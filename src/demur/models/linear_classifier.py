"""Linear models of scikit-learn as classifiers: their coefficients and what they were fitted by, without a pickle."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from demur.errors import UsageError
from demur.files import write_json
from demur.models.classifier import FACTS, Classifier

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = ["Fit", "LinearClassifier", "from_sklearn"]

_KINDS = {
    "LogisticRegression": "logistic",
    "Ridge": "ridge",
    "RidgeClassifier": "ridge-classifier",
    "LinearRegression": "least-squares",
}


@dataclass(frozen=True)
class Fit:
    """What a linear model was fitted by.

    Attributes:
        kind: "logistic", "ridge", "ridge-classifier" or "least-squares".
        penalty: scikit-learn's C of a logistic regression, alpha of ridge; 0 for least squares.
        intercept: whether it has one, which is never penalised.
        classes: the classes' names as they were fitted; empty for a regression.
    """

    kind: str
    penalty: float
    intercept: bool
    classes: tuple[str, ...] = ()


class _Scores(nn.Module):
    """One linear layer in double precision on flattened inputs."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.linear(inputs.flatten(1).to(self.linear.weight.dtype))
        return scores


@dataclass
class LinearClassifier(Classifier):
    """A linear model of scikit-learn; make one with `from_sklearn`.

    A model of one output z (two classes) has the logits (0, z), or (0, z - ½) for a regression on classes numbered 0
    and 1: class 1 is foretold where scikit-learn foretells it, and the softmax of a logistic regression is its
    probability. A regression on several outputs was fitted on a column of zeros and ones for each class.

    Attributes:
        fit: what it was fitted by.
    """

    fit: Fit = Fit("logistic", 1.0, True)

    @property
    def kind(self) -> str:
        """As `Fit.kind`."""
        return self.fit.kind

    def require_reads(self, data: Labelled) -> None:
        """As of any classifier; and refuse a set whose classes have other names than those it was fitted on."""
        super().require_reads(data)
        fitted = self.fit.classes
        if fitted and fitted not in (data.classes, tuple(map(str, range(len(fitted))))):
            raise UsageError(
                f"{self.name} was fitted on the classes {', '.join(fitted)}, and those of {data.name} are "
                f"{', '.join(data.classes)}"
            )

    @property
    def outputs(self) -> int:
        """Columns of the targets: one for two classes, except for a regression on two columns."""
        return 1 if bool((self.head_layer.weight[0] == 0).all()) and self.classes == 2 else self.classes

    @property
    def solution(self) -> Tensor:
        """(features + 1, outputs) coefficients, below them the intercepts, as scikit-learn has them."""
        layer = self.head_layer
        both = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().T
        if self.outputs > 1:
            return both
        one = both[:, 1:].clone()
        one[-1] += self._threshold
        return one

    @property
    def _threshold(self) -> float:
        return 0.5 if self.kind in ("ridge", "least-squares") else 0.0

    def solved(self, solution: Tensor, **facts: Any) -> LinearClassifier:
        """A copy with other coefficients.

        Args:
            solution: as `solution`.
            facts: what is to be known of it.
        """
        copy = replace(self, module=_Scores(len(solution) - 1, self.classes), facts=dict(facts))
        copy._put(solution)
        return copy

    @torch.no_grad()
    def _put(self, solution: Tensor) -> None:
        shown = solution.to(torch.float64)
        if solution.shape[1] == 1:
            shown = torch.cat([torch.zeros_like(shown), shown], 1)
            shown[-1, 1] -= self._threshold
        layer = self.head_layer
        layer.weight.copy_(shown[:-1].T)
        layer.bias.copy_(shown[-1])
        self.module.eval()

    def targets(self, labels: Tensor) -> Tensor:
        """(rows, outputs) what a ridge or least-squares model was fitted to: ±1 for a ridge classifier, else 0 and 1.

        Args:
            labels: (rows,) class numbers.
        """
        low = -1.0 if self.kind == "ridge-classifier" else 0.0
        if self.outputs == 1:
            return torch.where(labels[:, None] == 1, 1.0, low).to(torch.float64)
        return torch.where(labels[:, None] == torch.arange(self.classes), 1.0, low).to(torch.float64)

    def save(self, folder: str | Path) -> None:
        """Write coefficients and intercepts as safetensors, and what it was fitted by as `classifier.json`."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        solution = self.solution
        parts = {"coef": solution[:-1].T.contiguous(), "intercept": solution[-1].contiguous()}
        save_file(parts, folder / "model.safetensors")
        write_json(folder / FACTS, {"name": self.name, "linear": asdict(self.fit)})

    @classmethod
    def load(cls, folder: str | Path) -> LinearClassifier:
        """A model that `save` wrote.

        Raises:
            UsageError: a file is missing or is not what `save` writes.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            parts = load_file(folder / "model.safetensors")
            fit = Fit(**{**facts["linear"], "classes": tuple(facts["linear"]["classes"])})
            made = _made(fit, parts["coef"], parts["intercept"], facts["name"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UsageError(f"cannot load {folder} as a linear model: {error}") from error
        made.path = folder
        return made


def _made(fit: Fit, coef: Tensor, intercept: Tensor, name: str) -> LinearClassifier:
    outputs, features = coef.shape
    made = LinearClassifier(_Scores(features, max(outputs, 2)), "linear", name, fit=fit)
    made._put(torch.cat([coef.to(torch.float64), intercept.to(torch.float64)[:, None]], 1).T)
    return made


def from_sklearn(estimator: Any, name: str | None = None) -> LinearClassifier:
    """A fitted linear model of scikit-learn as a classifier.

    Args:
        estimator: a fitted LogisticRegression (L2), RidgeClassifier, Ridge or LinearRegression; a regression must have
            been fitted on class numbers 0 and 1, or on a column of zeros and ones for each class. Row weights that
            were given to its `fit` are not known here.
        name: what messages call it; its type by default.

    Raises:
        UsageError: it is none of these, is not fitted, or was fitted to something that has no closed form here.
    """
    found = type(estimator).__name__
    if found not in _KINDS:
        raise UsageError(f"{found} has no closed form here: give a fitted {', '.join(_KINDS)}")
    if not hasattr(estimator, "coef_"):
        raise UsageError(f"this {found} is not fitted: call its fit first")
    settings = estimator.get_params()
    reasons = {
        "class_weight": settings.get("class_weight") is not None,
        "penalty": settings.get("penalty", "deprecated") not in ("l2", "deprecated"),
        "l1_ratio": bool(settings.get("l1_ratio")),
        "solver": settings.get("solver") == "liblinear",  # it penalises the intercept and fits one class against all
        "positive": bool(settings.get("positive")),
    }
    strength = settings.get("C", settings.get("alpha", 0.0))
    reasons["C" if "C" in settings else "alpha"] = not isinstance(strength, int | float) or not math.isfinite(strength)
    wrong = next((key for key, bad in reasons.items() if bad), None)
    if wrong is not None:
        raise UsageError(f"{found}({wrong}={settings.get(wrong)!r}) has no closed form here: fit it without")
    coef = torch.as_tensor(estimator.coef_, dtype=torch.float64)
    coef = coef[None] if coef.ndim == 1 else coef
    intercept = torch.as_tensor(estimator.intercept_, dtype=torch.float64).reshape(-1).expand(len(coef))
    classes = tuple(str(each) for each in getattr(estimator, "classes_", ()))
    fit = Fit(_KINDS[found], float(strength), bool(settings["fit_intercept"]), classes)
    return _made(fit, coef, intercept, name or found)
