"""What the activations say: which knowledge a model's inner states hold, whatever it answers."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "lens_logits": "lens",
        "logit_lens": "lens",
        "patch_states": "patching",
        "probe_accuracy": "linear_probe",
        "probe_attack": "linear_probe",
        "prompt_states": "states",
    },
)

if TYPE_CHECKING:
    from demur.probes.lens import lens_logits as lens_logits
    from demur.probes.lens import logit_lens as logit_lens
    from demur.probes.linear_probe import probe_accuracy as probe_accuracy
    from demur.probes.linear_probe import probe_attack as probe_attack
    from demur.probes.patching import patch_states as patch_states
    from demur.probes.states import prompt_states as prompt_states
