"""The papers that demur implements or will: what each is, where it lives, what was measured."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__, {"Paper": "paper", "find_papers": "paper", "papers": "paper"})
