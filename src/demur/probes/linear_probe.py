"""Linear probes: whether a model's states at the end of a question tell an attribute of whom it is about.

The probe learns the attribute from one half of the entities and is asked about the other half, so that it cannot know
an entity by heart. A model that never saw the entities sets the level of chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import UsageError
from demur.probes.states import prompt_states

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from demur.models import LanguageModel, Prompt

__all__ = ["probe_accuracy", "probe_attack"]


def probe_accuracy(
    states: ArrayLike, labels: Sequence[str], entities: Sequence[str], *, seed: int = 0, penalty: float = 1.0
) -> NDArray[np.float64]:
    """Whether each row's label is told by a logistic regression trained on the entities of the other half.

    Args:
        states: (n, features) one row a question.
        labels: (n,) the attribute.
        entities: (n,) whom the row is about; each entity falls into one half as a whole.
        seed: decides the halves.
        penalty: inverse strength of the L2 penalty on standardised features.

    Returns:
        (n,) 1 where the label was told, 0 where not; each half is told by a probe trained on the other.

    Raises:
        UsageError: there are fewer than two entities, or a half knows one label only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, truth, whose = np.asarray(states, dtype=np.float64), np.asarray(labels), np.asarray(entities)
    names = np.random.default_rng(seed).permutation(np.unique(whose))
    first = np.isin(whose, names[: len(names) // 2])
    if len(names) < 2 or any(len(np.unique(truth[half])) < 2 for half in (first, ~first)):
        raise UsageError("a probe needs two entities, and two different labels in each half of them")
    told = np.zeros(len(truth))
    for train in (first, ~first):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
        probe.fit(features[train], truth[train])
        told[~train] = probe.predict(features[~train]) == truth[~train]
    return told


def probe_attack(
    lm: LanguageModel, prompts: Sequence[Prompt], labels: Sequence[str], entities: Sequence[str], *, seed: int = 0
) -> NDArray[np.float64]:
    """Probe every layer at the end of the prompts.

    Args:
        lm: the model.
        prompts: (n,) questions that do not give the attribute away.
        labels: (n,) the attribute of the entity that each question is about.
        entities: (n,) whom it is about.
        seed: decides which half of the entities a probe is trained on.

    Returns:
        (n, layers) 1 where the layer's probe told the label, 0 where not.

    Raises:
        UsageError: as for `probe_accuracy`.
    """
    states = prompt_states(lm, prompts).numpy()
    columns = [probe_accuracy(states[:, layer], labels, entities, seed=seed) for layer in range(states.shape[1])]
    return np.stack(columns, axis=1)
