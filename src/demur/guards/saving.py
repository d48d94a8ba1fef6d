"""Guards on disk: `guard.json` with settings and forget items, `guard.safetensors` with everything that is numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import UsageError
from demur.files import atomic_directory, write_json
from demur.guards.classifier import PromptClassifier, Seen
from demur.guards.encoders import Encoder, MeanEmbedding, TfidfEncoder
from demur.guards.guard import Guard
from demur.guards.memory import ForgetItem, Memory
from demur.guards.recogniser import FittedState
from demur.guards.registry import GUARD_FILE, guards, read_guard_file

if TYPE_CHECKING:
    from demur.models import Engine, LanguageModel

__all__ = ["load_guard", "save_guard"]

_FORMAT = 2
_TENSORS = "guard.safetensors"
_PARTS = ("data", "indices", "indptr")
_SETTINGS = (
    "beam_width",
    "hard_threshold",
    "soft_threshold",
    "prompt_threshold",
    "features",
    "layer",
    "key",
    "on_dead_end",
    "resamples",
    "seed",
)


def save_guard(guard: Guard, folder: str | Path) -> None:
    """Write a fitted guard; see `Guard.save`."""
    from safetensors.numpy import save_file

    state, lm = guard.state(), guard.lm
    encoder, keys = state.memory.encoder, state.memory.keys
    tensors = {f"classifier.{name}": value for name, value in state.classifier.tensors().items()}
    for kind, seen in state.features.items():
        for part, table in seen._asdict().items():
            tensors |= {} if table is None else _packed(f"features.{kind}.{part}", table)
    facts: dict[str, Any] = {"encoder": "own", "vocabulary": None}
    if isinstance(encoder, TfidfEncoder):
        facts = {"encoder": "tfidf", "vocabulary": encoder.vocabulary}
        tensors["idf"] = encoder.idf
    elif isinstance(encoder, MeanEmbedding):
        facts["encoder"] = "embeddings"
    tensors |= _packed("keys", keys)
    with atomic_directory(folder) as inner:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, inner / _TENSORS)
        write_json(
            inner / GUARD_FILE,
            {
                "kind": "guard",
                "format": _FORMAT,
                "model": None if lm is None else {"name": lm.name, "template": lm.template},
                "weights": None if lm is None else lm.weights_hash(),
                "settings": {name: getattr(guard, name) for name in _SETTINGS},
                **facts,
                "items": [[i.id, i.question, i.answer, list(i.phrases)] for i in guard.items],
            },
        )


@guards.register("guard", paper="2505.13312")
def load_guard(folder: str | Path, engine: Engine | LanguageModel, encoder: Encoder | None = None) -> Guard:
    """A saved guard around an engine; see `Guard.load`."""
    from safetensors.numpy import load_file

    said = read_guard_file(folder)
    try:
        if said["kind"] != "guard" or said["format"] != _FORMAT:
            raise UsageError(
                f"{folder} holds a guard of kind {said['kind']!r}, format {said.get('format')}: save it anew"
            )
        items = [ForgetItem(i, q, a, tuple(phrases)) for i, q, a, phrases in said["items"]]
        guard = Guard(engine, [(item.question, item.answer) for item in items[:1]], **said["settings"])
        _check_model(folder, said, guard.lm)
        tensors = load_file(Path(folder) / _TENSORS)
        found = _encoder(folder, said, tensors, guard.lm, encoder)
        memory = Memory(found, _unpacked("keys", tensors))
        features = {
            kind: Seen(*(_unpacked(f"features.{kind}.{part}", tensors) for part in Seen._fields))
            for kind in ("forget", "negatives")
        }
        prefix = "classifier."
        learned = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
        guard.restore(FittedState(items, memory, PromptClassifier.restore(learned), features))
    except (KeyError, TypeError, OSError) as error:
        raise UsageError(f"{folder} holds no whole guard: {type(error).__name__}: {error}") from error
    return guard


def _check_model(folder: str | Path, said: dict[str, Any], lm: LanguageModel | None) -> None:
    """Refuse a model that the classifier was not fitted on."""
    if (said["weights"] is None) != (lm is None):
        kind = (
            "a model whose hidden states can be seen" if lm is None else "an engine whose hidden states cannot be seen"
        )
        raise UsageError(f"the guard in {folder} was fitted on {kind}: fit another for this engine")
    if lm is not None and lm.weights_hash() != said["weights"]:
        raise UsageError(
            f"the guard in {folder} was fitted on other weights ({said['model']['name']}) than {lm.name} has: "
            "fit a guard for this model"
        )


def _encoder(
    folder: str | Path, said: dict[str, Any], tensors: dict[str, Any], lm: LanguageModel | None, given: Encoder | None
) -> Encoder:
    if given is not None:
        return given
    if said["encoder"] == "tfidf":
        return TfidfEncoder.restore(said["vocabulary"], tensors["idf"])
    if said["encoder"] == "embeddings" and lm is not None:
        return MeanEmbedding(lm)
    raise UsageError(f"the guard in {folder} was fitted with an encoder of your own: pass it as encoder=")


def _packed(name: str, table: Any) -> dict[str, Any]:
    """A table as tensors; a sparse one in its parts."""
    if not hasattr(table, "toarray"):
        return {name: table}
    return {f"{name}.{part}": getattr(table, part) for part in _PARTS} | {f"{name}.shape": np.array(table.shape)}


def _unpacked(name: str, tensors: dict[str, Any]) -> Any:
    """What was packed under a name; None where there is nothing."""
    if f"{name}.shape" not in tensors:
        return tensors.get(name)
    from scipy.sparse import csr_matrix

    parts = tuple(tensors[f"{name}.{part}"] for part in _PARTS)
    return csr_matrix(parts, shape=tuple(int(n) for n in tensors[f"{name}.shape"]))
