"""What stands around a model while it answers, and leaves its weights alone."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "AlignedPrefill": "prefill",
        "CuriosityPrompting": "curiosity",
        "CuriosityTemplates": "curiosity",
        "Dropped": "beam_search",
        "Explanation": "guard",
        "FitReport": "classifier",
        "ForcedRefusal": "prefill",
        "Fork": "recheck",
        "ForbiddenPhraseLogitsProcessor": "logits_processor",
        "ForgetItem": "memory",
        "Guard": "guard",
        "MeanEmbedding": "encoders",
        "PhraseTrie": "trie",
        "Calibration": "refusal_calibration",
        "NEVER": "refusal_calibration",
        "Recheck": "recheck",
        "RecheckedGeneration": "recheck",
        "Reconsider": "recheck",
        "RefusalCurve": "refusal_calibration",
        "RefusalDial": "refusal_scores",
        "RefusalGeneration": "refusal_tokens",
        "RefusalScores": "refusal_scores",
        "RefusalTokenConfig": "refusal_tokens",
        "RefusalTokenGuard": "refusal_tokens",
        "Restriction": "restriction",
        "TfidfEncoder": "encoders",
        "Verdict": "recheck",
        "calibrate": "refusal_calibration",
        "choose_tokens": "refusal_scores",
        "find_phrase": "phrases",
        "guards": "registry",
        "key_phrases": "phrases",
        "open_guard": "registry",
        "prompt_embeddings": "detector",
        "refusal_curve": "refusal_calibration",
    },
)

if TYPE_CHECKING:
    from demur.guards.beam_search import Dropped as Dropped
    from demur.guards.classifier import FitReport as FitReport
    from demur.guards.curiosity import CuriosityPrompting as CuriosityPrompting
    from demur.guards.curiosity import CuriosityTemplates as CuriosityTemplates
    from demur.guards.detector import prompt_embeddings as prompt_embeddings
    from demur.guards.encoders import MeanEmbedding as MeanEmbedding
    from demur.guards.encoders import TfidfEncoder as TfidfEncoder
    from demur.guards.guard import Explanation as Explanation
    from demur.guards.guard import Guard as Guard
    from demur.guards.logits_processor import ForbiddenPhraseLogitsProcessor as ForbiddenPhraseLogitsProcessor
    from demur.guards.memory import ForgetItem as ForgetItem
    from demur.guards.phrases import find_phrase as find_phrase
    from demur.guards.phrases import key_phrases as key_phrases
    from demur.guards.prefill import AlignedPrefill as AlignedPrefill
    from demur.guards.prefill import ForcedRefusal as ForcedRefusal
    from demur.guards.recheck import Fork as Fork
    from demur.guards.recheck import Recheck as Recheck
    from demur.guards.recheck import RecheckedGeneration as RecheckedGeneration
    from demur.guards.recheck import Reconsider as Reconsider
    from demur.guards.recheck import Verdict as Verdict
    from demur.guards.refusal_calibration import NEVER as NEVER
    from demur.guards.refusal_calibration import Calibration as Calibration
    from demur.guards.refusal_calibration import RefusalCurve as RefusalCurve
    from demur.guards.refusal_calibration import calibrate as calibrate
    from demur.guards.refusal_calibration import refusal_curve as refusal_curve
    from demur.guards.refusal_scores import RefusalDial as RefusalDial
    from demur.guards.refusal_scores import RefusalScores as RefusalScores
    from demur.guards.refusal_scores import choose_tokens as choose_tokens
    from demur.guards.refusal_tokens import RefusalGeneration as RefusalGeneration
    from demur.guards.refusal_tokens import RefusalTokenConfig as RefusalTokenConfig
    from demur.guards.refusal_tokens import RefusalTokenGuard as RefusalTokenGuard
    from demur.guards.registry import guards as guards
    from demur.guards.registry import open_guard as open_guard
    from demur.guards.restriction import Restriction as Restriction
    from demur.guards.trie import PhraseTrie as PhraseTrie
