from __future__ import annotations

import pytest
import torch
from torch import nn

from demur.audits.classifiers import Relearning, anamnesis_index, relearn, relearn_time
from demur.data.labelled import Labelled
from demur.errors import UsageError
from demur.models import train_classifier
from demur.models.classifier import Classifier


def corners(rows: int, classes: int = 3) -> Labelled:
    """Points around the corners of a triangle."""
    labels = torch.arange(rows) % classes
    points = torch.eye(classes)[labels] * 3 + torch.randn(rows, classes, generator=torch.Generator().manual_seed(0)) / 2
    return Labelled(points, labels, tuple("abc"))


def linear() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Linear(3, 3)), head="0")


@pytest.fixture(scope="module")
def knows() -> Classifier:
    return train_classifier(linear(), corners(90), epochs=5, batch_size=10)


@pytest.fixture(scope="module")
def knows_two() -> Classifier:
    data = corners(90)
    return train_classifier(linear(), data.subset((data.labels != 2).nonzero()[:, 0]), epochs=5, batch_size=10)


def test_a_model_that_knows_the_rows_needs_no_step_and_one_that_never_saw_them_needs_some(
    knows: Classifier, knows_two: Classifier
) -> None:
    data = corners(90)
    forget = data.subset((data.labels == 2).nonzero()[:, 0])
    before = knows_two.weights_hash()
    assert relearn_time(knows, data, forget, accuracy=0.9, steps=50) == 0
    fresh = relearn_time(knows_two, data, forget, accuracy=0.9, steps=50)
    assert fresh is not None and fresh > 3
    assert relearn_time(knows_two, data, forget, accuracy=0.9, steps=fresh - 1) is None
    assert knows_two.weights_hash() == before


def test_the_way_back_has_a_point_before_each_step_and_repeats_itself(knows_two: Classifier) -> None:
    data = corners(90)
    ways = [relearn(knows_two, data, data, steps=steps, batch_size=20, seed=4) for steps in (7, 7, 3)]
    assert len(ways[0].accuracy) == len(ways[0].loss) == 8
    assert ways[0] == ways[1] and ways[0].accuracy[:4] == ways[2].accuracy
    assert ways[0].loss[-1] < ways[0].loss[0]


def test_a_time_is_the_first_step_at_which_the_mark_is_reached() -> None:
    way = Relearning((0.0, 0.5, 0.4, 0.95), (3.0, 1.0, 1.2, 0.1))
    assert way.time(accuracy=0.5) == 1 and way.time(accuracy=0.9) == 3 and way.time(loss=1.1) == 1
    assert way.time(accuracy=0.0) == 0 and way.time(loss=0.01) is None
    with pytest.raises(UsageError, match="give one of the two"):
        way.time()
    with pytest.raises(UsageError, match="give one of the two"):
        way.time(accuracy=0.5, loss=0.5)


def test_the_index_is_one_for_a_retrained_model_and_below_for_one_that_still_holds_the_rows() -> None:
    retrained = Relearning((0.0, 0.2, 0.5, 0.7, 0.95), (1.0,) * 5)
    hidden = Relearning((0.0, 0.95, 0.95, 0.95, 0.95), (1.0,) * 5)
    never = Relearning((0.0,) * 5, (1.0,) * 5)
    assert anamnesis_index(retrained, retrained, 1.0) == 1
    assert anamnesis_index(hidden, retrained, 1.0) == 1 / 4
    assert anamnesis_index(never, retrained, 1.0) == float("inf")
    assert anamnesis_index(hidden, hidden, 0.0) is None  # known as it is: nothing to divide by
    assert anamnesis_index(hidden, never, 1.0) is None
    assert anamnesis_index(hidden, retrained, 0.5, alpha=0.5) == 1 / 2


def test_nothing_to_relearn_is_refused(knows: Classifier) -> None:
    data = corners(9)
    with pytest.raises(UsageError, match="is empty: nothing to relearn"):
        relearn(knows, data, data.subset([]))
