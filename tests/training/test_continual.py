from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from demur.data.labelled import Labelled
from demur.data.labelled_sources import read_labelled
from demur.errors import DemurError, UsageError
from demur.objectives import supcon
from demur.training import PrototypeRelationDistillation, stream_scores
from demur.training.continual import parted, shifted_view, small_encoder, small_projection

TASKS = [[0, 1], [2, 3], [4, 5]]


@pytest.fixture(scope="module")
def stream() -> list[Labelled]:
    torch.set_num_threads(1)
    return parted(read_labelled("digits:train[0:300]"), TASKS)


def learner(**options: Any) -> PrototypeRelationDistillation:
    chosen = {"epochs": 2, "first_epochs": 2, "seed": 1, **options}
    return PrototypeRelationDistillation(small_encoder(seed=1), small_projection(seed=1), **chosen)


@pytest.fixture(scope="module")
def learned(stream: list[Labelled]) -> PrototypeRelationDistillation:
    """After two tasks; the tests leave it as it is."""
    return learner(epochs=15, first_epochs=15).fit_task(stream[0]).fit_task(stream[1])


def weights(made: PrototypeRelationDistillation) -> list[Tensor]:
    return [*made.encoder.state_dict().values(), *made.projection.state_dict().values(), *made.prototypes]


def test_it_learns_and_answers_with_the_classes_of_the_task_that_is_named(
    learned: PrototypeRelationDistillation, stream: list[Labelled]
) -> None:
    assert min(learned.accuracies(stream)) > 0.8
    assert set(learned.predict(stream[0], task=1).tolist()) <= {2, 3}
    assert set(learned.predict(stream[0]).tolist()) <= {0, 1, 2, 3}


def test_predictions_are_the_nearest_prototypes_in_angle_whatever_their_length(
    learned: PrototypeRelationDistillation, stream: list[Labelled]
) -> None:
    every = torch.cat(list(learned.prototypes)).detach()
    with torch.no_grad():
        features = learned.features(stream[1].batch()[0])
    cosine = F.cosine_similarity(features[:, None], every[None], dim=2)
    assert torch.equal(learned.predict(stream[1]), cosine.argmax(1))
    stretched = copy.deepcopy(learned)
    with torch.no_grad():
        stretched.prototypes[0] *= 7
    assert torch.equal(stretched.predict(stream[1]), learned.predict(stream[1]))


def test_without_prototype_losses_a_step_is_one_of_contrastive_loss(stream: list[Labelled]) -> None:
    made = learner(prototypes_coef=0.0, distill_coef=0.0, batch_size=500, learning_rate=0.1, first_epochs=1)
    encoder, projection = copy.deepcopy(made.encoder), copy.deepcopy(made.projection)
    made.fit_task(stream[0])
    # The same views: prototypes are drawn first, then two views of the one batch.
    generator = torch.Generator().manual_seed(1000)
    torch.rand(2, 64, generator=generator)
    from demur.models.descent import batches

    rows = next(batches(len(stream[0]), 500, (1, 0, 0)))
    inputs, labels = stream[0].batch(rows)
    views = torch.cat([shifted_view(inputs, generator) for _ in range(2)])
    encoder.train()
    parameters = [*encoder.parameters(), *projection.parameters()]
    grads = torch.autograd.grad(supcon(projection(encoder(views)), labels.repeat(2), 0.1), parameters)
    moved = [*made.encoder.parameters(), *made.projection.parameters()]
    for before, grad, after in zip(parameters, grads, moved, strict=True):
        torch.testing.assert_close(after, before - 0.1 * (grad + 1e-4 * before), rtol=1e-4, atol=1e-6)


def test_the_first_task_has_nothing_to_distil(stream: list[Labelled]) -> None:
    one, other = (learner(distill_coef=c).fit_task(stream[0]) for c in (0.0, 100.0))
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_a_teacher_as_old_as_the_model_asks_for_nothing(
    learned: PrototypeRelationDistillation, stream: list[Labelled]
) -> None:
    made = copy.deepcopy(learned)
    made.prototypes.append(made.prototypes[0])  # a task under way; the teacher knows the others
    made.encoder.train()
    views, _ = stream[0].batch(slice(0, 20))
    loss = made._distillation(views, made.features(views))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    made.teacher_mode = "eval"
    assert made._distillation(views, made.features(views)).item() > 1e-4


def test_the_teacher_keeps_its_weights_while_the_model_learns(stream: list[Labelled]) -> None:
    made = learner().fit_task(stream[0])
    assert made._teacher is not None
    teacher = made._teacher
    before = [p.clone() for p in (*teacher.encoder.parameters(), *teacher.prototypes)]
    made.fit_task(stream[1])
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*teacher.encoder.parameters(), *teacher.prototypes), strict=True)
    )
    assert not torch.equal(before[0], next(iter(made.encoder.parameters())))


def test_old_prototypes_move_only_with_what_is_distilled(stream: list[Labelled]) -> None:
    for coefficient, moves in ((0.0, False), (4.0, True)):
        made = learner(distill_coef=coefficient).fit_task(stream[0])
        before = made.prototypes[0].detach().clone()
        made.fit_task(stream[1])
        assert torch.equal(before, made.prototypes[0]) is not moves


def test_the_same_seed_gives_the_same_learner(stream: list[Labelled]) -> None:
    one, other, third = (learner(seed=seed).fit_task(stream[0]).fit_task(stream[1]) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert not torch.equal(one.prototypes[0], third.prototypes[0])


def test_a_saved_learner_answers_and_learns_on_as_if_it_had_never_stopped(
    learned: PrototypeRelationDistillation, stream: list[Labelled], tmp_path: Path
) -> None:
    learned.save(tmp_path / "kept")
    assert sorted(file.suffix for file in (tmp_path / "kept").iterdir()) == [".json"] + [".safetensors"] * 3
    back = learner().restore(tmp_path / "kept")
    assert torch.equal(back.predict(stream[0]), learned.predict(stream[0]))
    gone_on = copy.deepcopy(learned)
    gone_on.epochs = back.epochs
    for made in (gone_on, back):
        made.fit_task(stream[2])
    assert all(torch.equal(a, b) for a, b in zip(weights(gone_on), weights(back), strict=True))
    with pytest.raises(UsageError, match="does not hold this encoder"):
        PrototypeRelationDistillation(small_encoder(3), small_projection()).restore(tmp_path / "kept")
    with pytest.raises(UsageError, match="does not hold this encoder"):
        learner().restore(tmp_path)


def test_bad_calls_are_refused(learned: PrototypeRelationDistillation, stream: list[Labelled]) -> None:
    made = copy.deepcopy(learned)
    for call, said in (
        (lambda: made.fit_task(stream[1]), "task 2: class '2' belongs to an earlier task"),
        (lambda: made.fit_task(stream[2].subset([])), "task 2: a task has no rows"),
        (lambda: made.predict(stream[0], task=2), "there is no task 2: 2 are learned"),
        (lambda: made.predict(stream[0], task=-1), "there is no task -1"),
        (lambda: learner().predict(stream[0]), "no task yet"),
        (lambda: learner(axis="rows"), "axis is classes or samples"),
        (lambda: learner(teacher_mode="half"), "teacher_mode train or eval"),
    ):
        with pytest.raises(UsageError, match=said):
            call()
    with pytest.raises(DemurError, match="task 0: the loss is no number"):
        learner(learning_rate=1e38).fit_task(stream[0])


def test_views_move_pictures_and_keep_them_pictures() -> None:
    picture = torch.zeros(200, 1, 8, 8)
    picture[:, 0, 4, 4] = 10
    view = shifted_view(picture, torch.Generator().manual_seed(0))
    assert view.shape == picture.shape
    places = {divmod(int(p), 8) for p in view.flatten(1).argmax(1)}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}
    brightest = view.flatten(1).amax(1)
    assert brightest.min() > 7.5 and brightest.max() < 12.5


def test_what_a_stream_leaves_behind() -> None:
    matrix = [[0.9], [0.8, 1.0], [0.85, 0.7, 0.6]]
    assert stream_scores(matrix) == pytest.approx(
        {
            "accuracy": (0.85 + 0.7 + 0.6) / 3,
            "learned": (0.9 + 1.0 + 0.6) / 3,
            "forgetting": (0.05 + 0.3 + 0) / 3,
            "backward_transfer": (-0.05 - 0.3) / 2,
        }
    )
    assert stream_scores([[0.5]])["backward_transfer"] == 0
    for wrong in ([], [[0.5, 0.5]], [[0.5], [0.5]]):
        with pytest.raises(UsageError, match="row t of an accuracy matrix"):
            stream_scores(wrong)
