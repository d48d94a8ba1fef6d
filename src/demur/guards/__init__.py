"""What stands around a model while it answers, and leaves its weights alone."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Dropped": "beam_search",
        "Explanation": "guard",
        "FitReport": "detector",
        "ForbiddenPhraseLogitsProcessor": "logits_processor",
        "ForgetItem": "memory",
        "Guard": "guard",
        "MeanEmbedding": "encoders",
        "PhraseTrie": "trie",
        "Restriction": "restriction",
        "TfidfEncoder": "encoders",
        "find_phrase": "phrases",
        "guards": "registry",
        "key_phrases": "phrases",
        "open_guard": "registry",
        "prompt_embeddings": "detector",
    },
)

if TYPE_CHECKING:
    from demur.guards.beam_search import Dropped as Dropped
    from demur.guards.detector import FitReport as FitReport
    from demur.guards.detector import prompt_embeddings as prompt_embeddings
    from demur.guards.encoders import MeanEmbedding as MeanEmbedding
    from demur.guards.encoders import TfidfEncoder as TfidfEncoder
    from demur.guards.guard import Explanation as Explanation
    from demur.guards.guard import Guard as Guard
    from demur.guards.logits_processor import ForbiddenPhraseLogitsProcessor as ForbiddenPhraseLogitsProcessor
    from demur.guards.memory import ForgetItem as ForgetItem
    from demur.guards.phrases import find_phrase as find_phrase
    from demur.guards.phrases import key_phrases as key_phrases
    from demur.guards.registry import guards as guards
    from demur.guards.registry import open_guard as open_guard
    from demur.guards.restriction import Restriction as Restriction
    from demur.guards.trie import PhraseTrie as PhraseTrie
