"""Linear models of scikit-learn forget in closed form: least squares exactly, logistic regression by Newton steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.editing.registry import editor
from demur.errors import UsageError
from demur.models.linear_classifier import LinearClassifier

if TYPE_CHECKING:
    from demur.data.labelled import Labelled

__all__ = ["downdate", "leave_out", "newton", "newton_step", "refit"]

_EXACT = 1e-5
_NEVER = -1e3
_SMALL = 2000  # coefficients whose second derivatives are soon at hand


def _design(inputs: Tensor, intercept: bool) -> Tensor:
    """(rows, features + 1) in double precision; the last column is one, or zero without an intercept."""
    flat = inputs.flatten(1).to(torch.float64)
    return torch.cat([flat, torch.full((len(flat), 1), float(intercept), dtype=flat.dtype)], 1)


def _free(features: int, penalty: float, intercept: bool) -> Tensor:
    """The penalty's diagonal: none on the intercept; where there is none, a one keeps it at 0."""
    return torch.tensor([penalty] * (features - 1) + [0.0 if intercept else 1.0], dtype=torch.float64)


def leave_out(
    inputs: Tensor, targets: Tensor, forget: Tensor, solution: Tensor, *, alpha: float = 0.0, intercept: bool = True
) -> Tensor:
    """Ridge or least squares as if some rows had never been there (Sherman–Morrison–Woodbury).

    θ' = θ - A⁻¹ X_fᵀ (I - X_f A⁻¹ X_fᵀ)⁻¹ (Y_f - X_f θ), with A = XᵀX + αI over all rows, the column of ones for the
    intercept unpenalised. Exact up to rounding.

    Args:
        inputs: (rows, features) all rows, those to forget among them.
        targets: (rows, outputs) what was fitted; any numbers.
        forget: (rows,) true where a row is to go.
        solution: (features + 1, outputs) θ fitted to all rows, the intercepts last.
        alpha: penalty on the squared coefficients, ≥ 0.
        intercept: whether there is one.

    Returns:
        θ', of the shape of `solution`.

    Raises:
        ValueError: θ is not the fit of these rows, or no unique fit is left without the rows to forget.
    """
    design, wanted = _design(inputs, intercept), targets.to(torch.float64)
    penalty = torch.diag(_free(design.shape[1], alpha, intercept))
    gram, moments = design.T @ design + penalty, design.T @ wanted
    off = float((gram @ solution - moments).norm() / (gram.norm() * solution.norm() + moments.norm()))
    if off > _EXACT:
        raise ValueError(
            f"the model is not the exact fit of these rows (normal equations off by {off:.1e}): give the rows, in the "
            "scale and with the classes that it was fitted on, in double precision"
        )
    gone = design[forget]
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed and float((factor.diagonal().amin() / factor.diagonal().amax()).square()) > 1e-14:
        spread = torch.cholesky_solve(gone.T, factor)
        left = torch.eye(len(gone), dtype=gram.dtype) - gone @ spread
        inner, failed = torch.linalg.cholesky_ex((left + left.T) / 2)
        if not failed and (not len(gone) or float(inner.diagonal().amin().square()) > 1e-10):
            return solution - spread @ torch.cholesky_solve(wanted[forget] - gone @ solution, inner)
    raise ValueError("the rows that stay do not decide all coefficients: drop dependent columns or use ridge")


@editor("downdate", paper="none", kinds=("ridge", "ridge-classifier", "least-squares"))
def downdate(model: LinearClassifier, forget: Labelled, retain: Labelled, *, seed: int = 0) -> LinearClassifier:
    """The exact ridge or least-squares fit without the forget rows, from that with them (see `leave_out`).

    Args:
        model: fitted on both sets.
        forget, retain: the two parts of the training set.
        seed: not used.

    Raises:
        ValueError: the model is not the fit of these rows, or the retain rows decide no unique fit.
    """
    gone = torch.arange(len(forget) + len(retain)) < len(forget)
    rows = forget.joined(retain)
    solution = leave_out(
        rows.batch()[0],
        model.targets(rows.labels),
        gone,
        model.solution,
        alpha=model.fit.penalty,
        intercept=model.fit.intercept,
    )
    return model.solved(solution, moved=float((solution - model.solution).norm()))


def newton_step(
    inputs: Tensor, labels: Tensor, solution: Tensor, *, penalty: float, intercept: bool = True
) -> tuple[Tensor, float]:
    """One Newton step towards an L2-regularised logistic regression (Guo et al. 2020, arXiv 1911.03030, section 3).

    θ' = θ - H⁻¹ ∇L(θ), L = ½‖coefficients‖² + C Σ ℓ over the rows to keep. Where θ is the fit of more rows this is
    their removal by influence, whose error is O((N_f/N)²); the gradient that is left measures it.

    Args:
        inputs: (rows, features) rows to keep.
        labels: (rows,) class numbers, from 0.
        solution: (features + 1, outputs) θ, the intercepts last; one output is the log-odds of class 1.
        penalty: scikit-learn's C, > 0.
        intercept: whether there is one.

    Returns:
        θ', and the norm of the gradient at θ.
    """
    design = _design(inputs, intercept)
    outputs = solution.shape[1]
    diagonal = _free(design.shape[1], 1.0, intercept)
    gradient, shares = _gradient(design, labels, solution, penalty, diagonal)
    size = len(diagonal)
    hessian = torch.zeros(outputs, size, outputs, size, dtype=torch.float64)
    for i in range(outputs):
        for j in range(i, outputs):
            curve = shares[:, i] * (float(i == j) - shares[:, j])
            block = penalty * (design.T * curve) @ design + (torch.diag(diagonal) if i == j else 0)
            hessian[i, :, j], hessian[j, :, i] = block, block.T
    if outputs > 1 and intercept:
        # The softmax does not see a shift of all intercepts: it is held at 0.
        hessian[:, -1, :, -1] += 1.0
    flat = hessian.reshape(outputs * size, -1)
    step = torch.linalg.solve(flat, gradient.T.reshape(-1, 1)).reshape(outputs, size).T
    return solution - step, float(gradient.norm())


def _gradient(
    design: Tensor, labels: Tensor, solution: Tensor, penalty: float, diagonal: Tensor
) -> tuple[Tensor, Tensor]:
    """∇L at θ, and (rows, outputs) probabilities."""
    scores = design @ solution
    if solution.shape[1] == 1:
        shares, wanted = scores.sigmoid(), labels[:, None].to(scores)
    else:
        shares, wanted = scores.softmax(1), F.one_hot(labels, solution.shape[1]).to(scores)
    return penalty * design.T @ (shares - wanted) + diagonal[:, None] * solution, shares


@editor("newton", paper="1911.03030", kinds=("logistic",))
def newton(
    model: LinearClassifier, forget: Labelled, retain: Labelled, *, seed: int = 0, steps: int = 1
) -> LinearClassifier:
    """Newton steps from the fit on all rows towards that on the rows to keep.

    One step is the update of certified removal; without the noise of its training it certifies nothing. A class
    without rows to keep leaves the softmax: its intercept becomes -1000.

    Args:
        model: a logistic regression fitted on both sets.
        forget: not read.
        retain: rows to keep.
        seed: not used.
        steps: how many; more converge to the fit on the rows to keep.

    Raises:
        ValueError: steps is below 1, or the rows to keep are of one class.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    inputs = retain.batch()[0]
    present, labels = _present(retain)
    solution = model.solution[:, present] if model.outputs > 1 else model.solution
    norms = []
    for _ in range(steps):
        solution, norm = newton_step(inputs, labels, solution, penalty=model.fit.penalty, intercept=model.fit.intercept)
        norms.append(norm)
    design = _design(inputs, model.fit.intercept)
    diagonal = _free(design.shape[1], 1.0, model.fit.intercept)
    left = _gradient(design, labels, solution, model.fit.penalty, diagonal)[0]
    facts = {"gradient_before": norms[0], "gradient_after": float(left.norm())}
    return model.solved(_with_absent(solution, present, model), **facts)


def _present(data: Labelled) -> tuple[Tensor, Tensor]:
    """The classes that have rows, and the rows' labels among these."""
    present, labels = data.labels.unique(return_inverse=True)
    if len(present) < 2:
        raise UsageError(f"{data.name} holds class {data.classes[int(present[0])]} only: nothing is left to tell apart")
    return present, labels


def _with_absent(solution: Tensor, present: Tensor, model: LinearClassifier) -> Tensor:
    """A solution for some of the classes as one for all: the others are never foretold."""
    if solution.shape[1] == model.outputs:
        return solution
    whole = torch.zeros(len(solution), model.outputs, dtype=solution.dtype)
    whole[-1] = _NEVER
    whole[:, present] = solution
    return whole


def refit(model: LinearClassifier, data: Labelled) -> LinearClassifier:
    """The model as scikit-learn fits it to a set, with the penalty that it had.

    Args:
        model: tells kind and penalty.
        data: the set; a class of a logistic regression that has no rows there is never foretold, and the others stay a
            softmax, of two classes too.

    Raises:
        UsageError: all rows are of one class.
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

    inputs, fit = data.batch()[0].flatten(1).to(torch.float64).numpy(), model.fit
    fitted: Any
    if fit.kind != "logistic":
        regression = LinearRegression(fit_intercept=fit.intercept)
        ridge = Ridge(fit.penalty, fit_intercept=fit.intercept)
        fitted = regression if fit.kind == "least-squares" else ridge
        fitted.fit(inputs, model.targets(data.labels).numpy())
        return model.solved(_stacked(fitted))
    present, labels = _present(data)
    # Of a softmax over two classes scikit-learn fits the difference alone, which is penalised half as much there.
    pair = len(present) == 2 and model.outputs > 1
    fitted = LogisticRegression(
        C=fit.penalty * (2 if pair else 1),
        fit_intercept=fit.intercept,
        solver="newton-cholesky" if inputs.shape[1] * len(present) <= _SMALL else "lbfgs",
        tol=1e-8,
        max_iter=10_000,
    ).fit(inputs, labels.numpy())
    solution = _stacked(fitted)
    if pair:
        solution = torch.cat([-solution / 2, solution / 2], 1)
    return model.solved(_with_absent(solution, present, model))


def _stacked(fitted: Any) -> Tensor:
    coef = torch.as_tensor(fitted.coef_, dtype=torch.float64)
    coef = coef[None] if coef.ndim == 1 else coef
    intercept = torch.as_tensor(fitted.intercept_, dtype=torch.float64).reshape(-1).expand(len(coef))
    return torch.cat([coef, intercept[:, None]], 1).T
