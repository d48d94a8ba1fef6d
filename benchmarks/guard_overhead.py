"""What a guard costs per generated token: `python -m benchmarks.guard_overhead`.

On the lab model, 8 prompts at a time and one thread: prompts that are not flagged against the engine's own greedy
decoding, flagged ones against the same beam search without restrictions, both with 100 and with 10,000 forget items.
The model is kept from ending an answer, so that both sides read the same number of tokens in the same number of steps;
which of them comes first changes from round to round. Time is divided by the tokens that the model read one at a time.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import measure

if TYPE_CHECKING:
    from demur.models import LanguageModel

BATCH, WIDTH, TOKENS, ROUNDS = 8, 7, 40, 31
SIZES = (100, 10_000)


def pairs(count: int) -> list[tuple[str, str]]:
    """The lab's forget rows, and made-up ones up to `count`."""
    from demur.data import question_answer, read_rows

    real = list(zip(*question_answer(read_rows("lab:almanac:forget")), strict=True))[: min(SIZES)]
    words = [word for _, answer in real for word in answer.split()]
    draw = random.Random(0)
    made = [
        (f"What does note {i} say of {draw.choice(words)}?", " ".join(draw.sample(words, 12)))
        for i in range(count - len(real))
    ]
    return [*real, *made]


@contextmanager
def counted(model: torch.nn.Module) -> Iterator[list[int]]:
    """How many tokens the model reads one at a time within the block."""
    read = [0]

    def count(module: Any, args: Any, kwargs: Any) -> None:
        ids = kwargs.get("input_ids")
        if ids is not None and ids.shape[1] == 1:
            read[0] += ids.shape[0]

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()


def per_token(model: torch.nn.Module, work: Callable[[], Any]) -> float:
    """Microseconds a decoded token."""
    with counted(model) as read:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return 1e6 * seconds / read[0]


def overhead(model: torch.nn.Module, ours: Callable[[], Any], peer: Callable[[], Any]) -> dict[str, Any]:
    """Ratio of ours to the peer in paired rounds; the first, in which tries and words are new, stands apart."""
    first, *rounds = [_pair(model, ours, peer, turn) for turn in range(ROUNDS + 1)]
    ratios = [a / b for a, b in rounds]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "median": statistics.median(ratios),
        "quartiles": [low, high],
        "first": first[0] / first[1],
        "guarded_us": statistics.median(a for a, _ in rounds),
        "unguarded_us": statistics.median(b for _, b in rounds),
    }


def _pair(model: torch.nn.Module, ours: Callable[[], Any], peer: Callable[[], Any], turn: int) -> tuple[float, float]:
    if turn % 2:
        theirs = per_token(model, peer)
        return per_token(model, ours), theirs
    return per_token(model, ours), per_token(model, peer)


def endless(lm: LanguageModel) -> LanguageModel:
    """The model with an end of text that is never likely."""
    head: Any = lm.model.get_output_embeddings()
    bias = torch.zeros(head.weight.shape[0])
    bias[lm.tokenizer.eos_token_id] = -1e4
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return lm


def main() -> None:
    from demur.data import question_answer, read_rows
    from demur.guards import Guard
    from demur.guards.beam_search import beam_search
    from demur.models import LocalEngine, encode_prompts, load_model

    torch.set_num_threads(1)
    lm = endless(load_model("lab:almanac"))
    engine = LocalEngine(lm, BATCH)
    negatives = question_answer(read_rows("lab:almanac:retain"))[0]
    result: dict[str, Any] = {"batch": BATCH, "width": WIDTH, "max_new_tokens": TOKENS}
    for size in SIZES:
        guard = Guard(engine, pairs(size), beam_width=WIDTH)
        started = time.perf_counter()
        guard.fit(negatives)
        fitted = time.perf_counter() - started
        through = [p for p, f in zip(negatives, guard.classify(negatives), strict=True) if f < 0.5][:BATCH]
        own = [item.question for item in guard.items[:100]]
        held = [q for q, f in zip(own, guard.classify(own), strict=True) if f >= 0.5][:BATCH]
        encoded, free = encode_prompts(lm, held), guard.matcher(())
        result[f"{size}"] = {
            "fit_seconds": fitted,
            "not_flagged": overhead(
                lm.model,
                lambda guard=guard, through=through: guard.generate(through, max_new_tokens=TOKENS),
                lambda through=through: engine.generate(through, max_new_tokens=TOKENS),
            ),
            "flagged": overhead(
                lm.model,
                lambda guard=guard, held=held: guard.generate(held, max_new_tokens=TOKENS),
                lambda encoded=encoded, free=free: beam_search(
                    lm, encoded, [free] * len(encoded), width=WIDTH, max_new_tokens=TOKENS
                ),
            ),
        }
        print(size, result[f"{size}"], flush=True)
    measure.save("guard_overhead", result)


if __name__ == "__main__":
    main()
