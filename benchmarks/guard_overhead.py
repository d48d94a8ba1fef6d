"""What a guard costs per generated token: `python -m benchmarks.guard_overhead`.

On the lab model, 8 prompts at a time: prompts that are not flagged against the engine's own greedy decoding, flagged
ones against the same beam search without restrictions, both with 100 and with 10,000 forget items. Time is divided by
the tokens that the model read one at a time while decoding, so that answers of other lengths compare.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks import measure

BATCH, WIDTH, TOKENS, ROUNDS = 8, 7, 40, 15
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
    """Ratio of ours to the peer in alternating rounds; the first, in which tries and words are new, stands apart."""
    first, *rounds = [(per_token(model, ours), per_token(model, peer)) for _ in range(ROUNDS + 1)]
    ratios = [a / b for a, b in rounds]
    return {
        "median": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "first": first[0] / first[1],
        "guarded_us": statistics.median(a for a, _ in rounds),
        "unguarded_us": statistics.median(b for _, b in rounds),
    }


def main() -> None:
    from demur.data import question_answer, read_rows
    from demur.guards import Guard
    from demur.guards.beam_search import beam_search
    from demur.models import LocalEngine, encode_prompts, load_model

    torch.set_num_threads(2)
    lm = load_model("lab:almanac")
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
