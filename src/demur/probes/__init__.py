"""What the activations say: which knowledge a model's inner states hold, whatever it answers."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Displacement": "displacement",
        "LikelihoodDisplacement": "displacement",
        "ches_from_hidden": "ches",
        "ches_scores": "ches",
        "cka": "similarity",
        "filter_preferences": "ches",
        "knn_accuracy": "similarity",
        "knn_predictions": "similarity",
        "last_state_similarity": "ches",
        "lens_logits": "lens",
        "logit_lens": "lens",
        "patch_states": "patching",
        "preference_edit_distance": "edit_distance",
        "probe_accuracy": "linear_probe",
        "probe_attack": "linear_probe",
        "prompt_states": "states",
        "single_token_drift": "ches",
        "token_edit_distances": "edit_distance",
    },
)

if TYPE_CHECKING:
    from demur.probes.ches import ches_from_hidden as ches_from_hidden
    from demur.probes.ches import ches_scores as ches_scores
    from demur.probes.ches import filter_preferences as filter_preferences
    from demur.probes.ches import last_state_similarity as last_state_similarity
    from demur.probes.ches import single_token_drift as single_token_drift
    from demur.probes.displacement import Displacement as Displacement
    from demur.probes.displacement import LikelihoodDisplacement as LikelihoodDisplacement
    from demur.probes.edit_distance import preference_edit_distance as preference_edit_distance
    from demur.probes.edit_distance import token_edit_distances as token_edit_distances
    from demur.probes.lens import lens_logits as lens_logits
    from demur.probes.lens import logit_lens as logit_lens
    from demur.probes.linear_probe import probe_accuracy as probe_accuracy
    from demur.probes.linear_probe import probe_attack as probe_attack
    from demur.probes.patching import patch_states as patch_states
    from demur.probes.similarity import cka as cka
    from demur.probes.similarity import knn_accuracy as knn_accuracy
    from demur.probes.similarity import knn_predictions as knn_predictions
    from demur.probes.states import prompt_states as prompt_states
