"""An editor of reasoning chains that asks a language model, for `LingoBP` (Duan et al. 2025, arXiv 2509.01909)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from demur.data.builders.lingo_bp import MAY_CHANGE, Edit, UnreadableReply, read_nodes
from demur.data.builders.safety_chain import SafetyChain

__all__ = ["TextEditor"]

_TRIES = 3

_REVISE = """You improve an assistant's answer by revising the plan that it was written from.
{goal}
First change at most one strategy: add, drop or reword it. Then rewrite the earlier nodes so that the new strategies \
follow from them, going backwards: guideline, intent, needs. Where safety and usefulness conflict, safety wins.

The user asks:
{query}

The plan:
{chain}

The answer:
{response}

What the judges say:
{verdicts}

Reply with the revised nodes as a JSON object in a fenced block, with the keys {keys}."""

_PLAN = """Below are a user's request and an assistant's first answer to it. Write down the plan that such an answer \
follows from, as a JSON object in a fenced block, with the keys
needs: what the user needs;
intent: what risk the request carries, or "no risk";
guideline: what a safety guideline says to such a request, or nothing;
safety_strategies: a list of what keeps the answer safe;
usefulness_strategies: a list of what makes it useful.

The user asks:
{query}

The first answer:
{response}"""

_GOALS = {
    "both": "If the answer is not safe, make it safe first; else loosen restrictions that safety does not need.",
    "user": "Make the answer serve the user better.",
    "developer": "Make the answer safer.",
}

_RESPOND = """Think the user's request through along this plan, then write the answer. Mention neither the plan nor \
that there is one.

The plan:
{chain}

The user asks:
{query}

Put your thinking between <think> and </think>, and the answer after it."""


@dataclass(frozen=True)
class TextEditor:
    """An `Editor` that asks a language model, which can also say what a query's first chain is.

    Attributes:
        ask: prompt, seed → reply; the seed differs from try to try.
    """

    ask: Callable[[str, int], str]

    def plan(self, query: str) -> SafetyChain:
        """The chain behind the model's own answer, to begin with.

        Args:
            query: what the user asks.

        Raises:
            UnreadableReply: none of three replies has a chain.
        """
        prompt, problem = _fill(_PLAN, {"query": query, "response": self.ask(query, 0)}), ""
        for attempt in range(_TRIES):
            reply = self.ask(prompt, attempt)
            try:
                nodes = read_nodes(reply, MAY_CHANGE["both"])
            except ValueError as error:
                problem = str(error)
                continue
            if nodes.get("needs"):
                return SafetyChain.read(nodes)
            problem = "the needs are missing"
        raise UnreadableReply(f"the plan of {query[:60]!r} cannot be read ({problem}): use another editor")

    def revise(self, edit: Edit) -> str:
        """See `Editor`."""
        verdicts = []
        if edit.safety is not None:
            verdicts.append(f"safety {edit.safety.score:g} of 1. {edit.safety.advice}")
        if edit.satisfaction is not None:
            verdicts.append(f"satisfaction {edit.satisfaction.score:g} of 1. {' '.join(edit.satisfaction.suggestions)}")
        nodes = {name: getattr(edit.chain, name) for name in MAY_CHANGE[edit.side]}
        values = {
            "goal": _GOALS[edit.side],
            "query": edit.query,
            "chain": json.dumps(nodes, ensure_ascii=False, indent=1),
            "response": edit.response,
            "verdicts": "\n".join(verdicts),
            "keys": ", ".join(MAY_CHANGE[edit.side]),
        }
        return self.ask(_fill(_REVISE, values), edit.attempt)

    def respond(self, query: str, chain: SafetyChain) -> tuple[str, str]:
        """See `Editor`."""
        plan = json.dumps(chain.nodes(), ensure_ascii=False, indent=1)
        reply = self.ask(_fill(_RESPOND, {"chain": plan, "query": query}), 0)
        thinking, mark, response = reply.partition("</think>")
        return (thinking.replace("<think>", "").strip(), response.strip()) if mark else ("", reply.strip())


def _fill(template: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)
