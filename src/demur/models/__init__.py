"""Language models and classifiers: loading, showing them prompts, scoring, asking, looking inside."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Activations": "activations",
        "Classifier": "classifier",
        "Engine": "engine",
        "Gathering": "gathering",
        "Generation": "engine",
        "Fit": "linear_classifier",
        "Head": "head",
        "ImageReader": "images",
        "LanguageModel": "language_model",
        "LinearClassifier": "linear_classifier",
        "LocalEngine": "local_engine",
        "OpenAIEngine": "openai_engine",
        "Prompt": "engine",
        "ResponseScore": "engine",
        "Scored": "scored",
        "StoredScores": "scored",
        "TokenStats": "token_statistics",
        "alternate_answers": "alternates",
        "answer_states": "prefixes",
        "decoder_layers": "activations",
        "edit": "activations",
        "encode": "chat",
        "encode_chunks": "completion",
        "encode_completion": "completion",
        "encode_prompts": "chat",
        "encode_rows": "completion",
        "from_sklearn": "linear_classifier",
        "hash_weights": "language_model",
        "joint_score": "scored",
        "load_classifier": "classifier",
        "load_model": "language_model",
        "open_engine": "engines",
        "record": "activations",
        "render": "chat",
        "resolve_model": "language_model",
        "score": "scored",
        "token_stats": "token_statistics",
        "train_classifier": "descent",
    },
)

if TYPE_CHECKING:
    from demur.models.activations import Activations as Activations
    from demur.models.activations import decoder_layers as decoder_layers
    from demur.models.activations import edit as edit
    from demur.models.activations import record as record
    from demur.models.alternates import alternate_answers as alternate_answers
    from demur.models.chat import encode as encode
    from demur.models.chat import encode_prompts as encode_prompts
    from demur.models.chat import render as render
    from demur.models.classifier import Classifier as Classifier
    from demur.models.classifier import load_classifier as load_classifier
    from demur.models.completion import encode_chunks as encode_chunks
    from demur.models.completion import encode_completion as encode_completion
    from demur.models.completion import encode_rows as encode_rows
    from demur.models.descent import train_classifier as train_classifier
    from demur.models.engine import Engine as Engine
    from demur.models.engine import Generation as Generation
    from demur.models.engine import Prompt as Prompt
    from demur.models.engine import ResponseScore as ResponseScore
    from demur.models.engines import open_engine as open_engine
    from demur.models.gathering import Gathering as Gathering
    from demur.models.head import Head as Head
    from demur.models.language_model import LanguageModel as LanguageModel
    from demur.models.language_model import hash_weights as hash_weights
    from demur.models.language_model import load_model as load_model
    from demur.models.language_model import resolve_model as resolve_model
    from demur.models.linear_classifier import Fit as Fit
    from demur.models.linear_classifier import LinearClassifier as LinearClassifier
    from demur.models.linear_classifier import from_sklearn as from_sklearn
    from demur.models.local_engine import LocalEngine as LocalEngine
    from demur.models.openai_engine import OpenAIEngine as OpenAIEngine
    from demur.models.prefixes import answer_states as answer_states
    from demur.models.scored import Scored as Scored
    from demur.models.scored import StoredScores as StoredScores
    from demur.models.scored import joint_score as joint_score
    from demur.models.scored import score as score
    from demur.models.token_statistics import TokenStats as TokenStats
    from demur.models.token_statistics import token_stats as token_stats
