"""Teaching a model when to say no: each method turns plain rows into the stages it trains in."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Lesson": "registry",
        "Stage": "registry",
        "add_refusal_tokens": "refusal_tokens",
        "plan_stages": "run",
        "refusal_method": "registry",
        "refusal_methods": "registry",
        "refuse": "run",
    },
)
