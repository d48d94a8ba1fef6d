from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.editing.ensembles import Ensemble, cached_ensemble, train_ensemble
from demur.editing.finetune import fresh
from demur.errors import UsageError
from demur.lab.digits import new_resnet
from demur.models import train_classifier
from demur.models.classifier import Classifier


def net() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)), head="3")


@pytest.fixture(scope="module")
def data() -> Labelled:
    return read_labelled("digits:train[0:120]")


def halves(n: int, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(rows, generator=generator) < rows // 2 for _ in range(n)])


@pytest.mark.parametrize("together", [2, 5])
@pytest.mark.parametrize("model", [net(), new_resnet()], ids=["perceptron", "residual network"])
def test_a_member_is_the_model_trained_alone(model: Classifier, data: Labelled, together: int) -> None:
    masks = halves(3, len(data))
    made = train_ensemble(model, data, 3, masks=masks, epochs=2, batch_size=25, seed=4, together=together)
    assert len(made) == 3
    for i in range(3):
        rows = data.subset(masks[i].nonzero()[:, 0])
        alone = train_classifier(fresh(model, 4 + i), rows, epochs=2, batch_size=25, seed=4 + i)
        assert torch.allclose(made.logits(data)[i], alone.predict(data), atol=1e-5)
        assert torch.allclose(made.member(i).predict(data), alone.predict(data), atol=1e-5)
        running = {k: v for k, v in alone.module.state_dict().items() if v.is_floating_point()}
        assert all(torch.allclose(made.weights[name][i], value, atol=1e-5) for name, value in running.items())


class ReadsItsWeights(nn.Module):
    """Asks a weight for its value, which torch.func.vmap refuses, after a layer with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out if float(self.layers[2].bias.detach()[0]) < 1e9 else -out


def test_what_cannot_run_at_once_is_run_one_by_one(data: Labelled) -> None:
    model = Classifier(ReadsItsWeights(), head="layers.2")
    with pytest.warns(UserWarning, match="one by one"):
        made = train_ensemble(model, data, 2, epochs=1, seed=4)
    alone = train_classifier(fresh(model, 5), data, epochs=1, seed=5)
    assert torch.allclose(made.member(1).predict(data), alone.predict(data), atol=1e-5)


def test_training_leaves_its_model_alone(data: Labelled) -> None:
    model = net()
    before = model.weights_hash()
    train_ensemble(model, data, 2, epochs=1)
    assert model.weights_hash() == before and not any(p.grad is not None for p in model.module.parameters())


def test_members_part_and_come_together(data: Labelled) -> None:
    made = train_ensemble(net(), data, 3, epochs=1)
    again = Ensemble.of([made.member(i) for i in range(3)])
    assert all(torch.equal(again.weights[name], w) for name, w in made.weights.items())
    assert torch.equal(made[1:].logits(data), made.logits(data)[1:])


def test_margins_are_the_log_odds_of_the_right_class(data: Labelled) -> None:
    made = train_ensemble(net(), data, 2, epochs=1)
    p = made.logits(data).softmax(-1)[:, torch.arange(len(data)), data.labels]
    assert torch.allclose(made.margins(data), (p / (1 - p)).log(), atol=1e-4)


def test_who_asks_for_the_same_gets_the_same_file(
    data: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    told: list[float] = []

    def ask(**change: object) -> Ensemble:
        given = {"masks": halves(2, len(data)), "epochs": 1, **change}
        return cached_ensemble(net(), data, 2, progress=lambda done, total, note="": told.append(done), **given)  # type: ignore[arg-type]

    first, second = ask(), ask()
    assert told == [2] and len(list((tmp_path / "ensembles").iterdir())) == 1
    assert all(torch.equal(second.weights[name], w) for name, w in first.weights.items())
    ask(masks=~halves(2, len(data)))
    ask(seed=1)
    assert len(list((tmp_path / "ensembles").iterdir())) == 3


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (torch.ones(2, 5, dtype=torch.bool), r"of shape \(2, 120\)"),
        (torch.ones(2, 120), "must be bool"),
        (torch.zeros(2, 120, dtype=torch.bool), "0 to 0"),
        (torch.arange(240).reshape(2, 120) < 130, "10 to 120"),
    ],
)
def test_masks_that_do_not_fit_are_refused(data: Labelled, masks: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train_ensemble(net(), data, 2, masks=masks)


def test_an_ensemble_of_nobody_or_of_nothing_is_refused(data: Labelled) -> None:
    with pytest.raises(UsageError, match="at least one member"):
        train_ensemble(net(), data, 0)
    with pytest.raises(UsageError, match="is empty"):
        train_ensemble(net(), data.subset([]), 2)
