"""What the other side does to a model that was made to forget: every attack measures and leaves the model as it was.

These attacks exist to audit models of one's own. Each works on a loaded `LanguageModel`, and either returns what it
measured or changes the model inside a `with` block only.
"""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "FederatedSimulator": "federated",
        "PROMPT_ATTACKS": "prompts",
        "Questions": "prompts",
        "adapter_detached": "adapters",
        "answer_probability": "knowledge",
        "best_of_k": "sampling",
        "completion_attack": "prefill",
        "direction_attack": "refusal",
        "directions": "refusal",
        "direction_removed": "refusal",
        "leak_at_k": "sampling",
        "noised": "weights",
        "penalised_loss": "targeted_penalty",
        "prefill_asr": "prefill",
        "prefill_attack": "prompts",
        "prompt_attack": "prompts",
        "pruned": "weights",
        "quantization_attack": "weights",
        "quantized": "weights",
        "relearn_attack": "relearning",
        "restored": "weights",
        "round_to_nearest": "weights",
        "targeted_penalty_loss": "targeted_penalty",
    },
)

if TYPE_CHECKING:
    from demur.attacks.adapters import adapter_detached as adapter_detached
    from demur.attacks.federated import FederatedSimulator as FederatedSimulator
    from demur.attacks.knowledge import answer_probability as answer_probability
    from demur.attacks.prefill import completion_attack as completion_attack
    from demur.attacks.prefill import prefill_asr as prefill_asr
    from demur.attacks.prompts import PROMPT_ATTACKS as PROMPT_ATTACKS
    from demur.attacks.prompts import Questions as Questions
    from demur.attacks.prompts import prefill_attack as prefill_attack
    from demur.attacks.prompts import prompt_attack as prompt_attack
    from demur.attacks.refusal import direction_attack as direction_attack
    from demur.attacks.refusal import direction_removed as direction_removed
    from demur.attacks.refusal import directions as directions
    from demur.attacks.relearning import relearn_attack as relearn_attack
    from demur.attacks.sampling import best_of_k as best_of_k
    from demur.attacks.sampling import leak_at_k as leak_at_k
    from demur.attacks.targeted_penalty import penalised_loss as penalised_loss
    from demur.attacks.targeted_penalty import targeted_penalty_loss as targeted_penalty_loss
    from demur.attacks.weights import noised as noised
    from demur.attacks.weights import pruned as pruned
    from demur.attacks.weights import quantization_attack as quantization_attack
    from demur.attacks.weights import quantized as quantized
    from demur.attacks.weights import restored as restored
    from demur.attacks.weights import round_to_nearest as round_to_nearest
