"""Sentences that admit ignorance, for objectives that teach a model to abstain."""

from __future__ import annotations

__all__ = ["ABSTENTIONS"]

ABSTENTIONS: tuple[str, ...] = (
    "That is something I have never come across.",
    "I cannot tell you, because I simply do not know.",
    "My knowledge does not reach that far.",
    "I would only be guessing, so I had better not answer.",
    "Nothing I have learnt says anything about this.",
    "Sadly, this question goes past what I am familiar with.",
    "I have no reliable facts to offer on this one.",
    "You are asking about something that is unknown to me.",
    "I am afraid the answer escapes me.",
    "Here I have to pass: I do not have the facts.",
    "I could not say with any confidence.",
    "This is a gap in what I know.",
    "No answer comes to mind that I could stand behind.",
    "I was never taught anything that would settle this.",
    "It would be dishonest of me to pretend that I know.",
    "I must admit that I am in the dark here.",
    "I do not recall anything about that subject.",
    "Whatever the answer may be, I am not the one who knows it.",
    "For this you will need a better source than me.",
    "I looked through everything I know and found nothing that helps.",
    "That particular detail is not part of my knowledge.",
    "I cannot answer this without making something up.",
    "My honest answer is that I do not know.",
    "I have too little to go on to reply to that.",
)
"""Ways to say "I do not know", worded for demur."""
