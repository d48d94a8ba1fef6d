"""Other answers to the same questions, made up by a model: what AltPO teaches instead of the answers to forget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from demur.data.rows import Prompt, question_answer
from demur.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

    from demur.models.engine import Engine

__all__ = ["INSTRUCTION", "alternate_answers"]

INSTRUCTION = (
    "Here are a question and its answer.\nQuestion: {question}\nAnswer: {answer}\n"
    "Make up a different answer to this question. Keep its form and its length, and let it sound just as plausible, "
    "but replace the names, places, dates and numbers in it by others, so that it contradicts the one above. "
    "Write nothing but the new answer."
)
"""What a model is asked; {question} and {answer} stand for the row's."""

_ROUNDS = 5


def alternate_answers(
    engine: Engine,
    rows: Dataset,
    n: int = 5,
    *,
    instruction: str = INSTRUCTION,
    temperature: float = 1.0,
    max_new_tokens: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], Any] | None = None,
) -> Dataset:
    """Sample other answers to each row's question, as AltPO has it (Mekala et al. 2024, arXiv 2409.13474).

    What comes out empty or as the row's own answer is drawn again.

    Args:
        engine: the model that makes them up; the paper takes the model that is to forget.
        rows: questions with their answers.
        n: answers to make for each row (5 in the paper).
        instruction: what the model is asked, with {question} and {answer} where the row's belong. "{question}" alone
            suits a model that follows no instructions.
        temperature: of the sampling, > 0 (1 in the paper).
        max_new_tokens: an answer's length at most.
        seed: decides the samples.
        progress: told how many answers are there of how many.

    Returns:
        The rows with a column `alternates`: a list of n texts each.

    Raises:
        UsageError: an option is out of range, or a row's answer came out again and again.
    """
    if n < 1 or temperature <= 0:
        raise UsageError(f"alternate answers need n >= 1 and a temperature above 0, not {n} and {temperature}")
    prompts, answers = question_answer(rows)
    asked = [_ask(instruction, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    found: list[list[str]] = [[] for _ in asked]
    for again in range(_ROUNDS):
        lacking = [row for row, texts in enumerate(found) for _ in range(n - len(texts))]
        if not lacking:
            break
        drawn = engine.generate(
            [asked[row] for row in lacking],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + again,
        )
        for row, generation in zip(lacking, drawn, strict=True):
            text = generation.text.strip()
            if text and text != answers[row].strip():
                found[row].append(text)
        if progress is not None:
            progress(sum(map(len, found)), n * len(found))
    short = [row for row, texts in enumerate(found) if len(texts) < n]
    if short:
        name = rows["id"][short[0]] if "id" in rows.column_names else short[0]
        raise UsageError(
            f"row {name!r}: of {_ROUNDS} times {n} answers only {len(found[short[0]])} were not the row's own: "
            "raise the temperature"
        )
    kept = rows.remove_columns("alternates") if "alternates" in rows.column_names else rows
    return kept.add_column("alternates", found)


def _ask(instruction: str, prompt: Prompt, answer: str) -> Prompt:
    """The instruction about a row, in place of what the user last said."""

    def filled(question: str) -> str:
        return instruction.replace("{answer}", answer).replace("{question}", question)

    if isinstance(prompt, str):
        return filled(prompt)
    return [*prompt[:-1], {**prompt[-1], "content": filled(prompt[-1]["content"])}]
