"""CHES of 10,000 preference pairs against a loop over pairs: `python -m benchmarks.ches [PAIRS]`.

The loop tokenises each answer with its prompt, has the whole model read it, and takes the sums from all hidden states,
as the paper's script for single pairs does; a bare loop gets its tokens beforehand and has no head. demur tokenises,
batches by length, reads each prompt once for both answers and leaves the head out. demur is measured with half of the
pairs too: its memory must not grow with their number.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from benchmarks import measure, world

PAIRS, BATCH = 10_000, 64


def prepared(count: int) -> tuple[Any, Any]:
    """A model of the size of the lab's, and as many pairs, each with a prompt of its own."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    from demur.data import question_answer
    from demur.lab import train_tokenizer
    from demur.models import LanguageModel

    torch.set_num_threads(2)
    tokenizer = train_tokenizer(world.texts(), 4096)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    lm = LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, "chat", "2 layers")
    source = [row for split in ("forget", "retain") for row in _pairs(question_answer, world.rows(split))]
    rows = [(f"({i}) {q}", won, lost) for i in range(count) for q, won, lost in [source[i % len(source)]]]
    return lm, Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows])


def _pairs(question_answer: Any, rows: Any) -> list[tuple[str, str, str]]:
    questions, answers = question_answer(rows)
    wrong = rows["perturbed_answer"][:]
    return [(q, a, w) for q, a, others in zip(questions, answers, wrong, strict=True) for w in others]


def demur(count: int) -> dict[str, Any]:
    """demur's side."""
    from demur.probes import ches_scores

    lm, dataset = prepared(count)
    ches_scores(lm, dataset.select(range(4 * BATCH)), batch_size=BATCH)
    scores, seconds, peak = measure.measured(lambda: ches_scores(lm, dataset, batch_size=BATCH))
    return {"seconds": seconds, "peak_bytes": peak, **summary(scores)}


def loop(count: int, bare: bool = False) -> dict[str, Any]:
    """The straightforward way: an answer at a time, tokenised and read by the whole model."""
    from demur.models import encode

    lm, dataset = prepared(count)
    beforehand = [encode(lm, dataset["prompt"][:], dataset[side][:]) for side in ("chosen", "rejected")] if bare else []

    @torch.no_grad()
    def embedded(row: int, side: int) -> Any:
        if bare:
            item = beforehand[side][row]
        else:
            pair = dataset[row]
            (item,) = encode(lm, [pair["prompt"]], [pair[("chosen", "rejected")[side]]])
        model: Any = lm.model.model if bare else lm.model
        output = model(torch.tensor([item.input_ids]), output_hidden_states=True)
        return output.hidden_states[-1][0, item.prompt_length - 1 : -1].float().sum(0)

    def work() -> Any:
        scores = []
        for row in range(count):
            one, other = embedded(row, 0), embedded(row, 1)
            scores.append(float(one @ other - one.square().sum()))
        return np.array(scores)

    scores, seconds, peak = measure.measured(work)
    return {"seconds": seconds, "peak_bytes": peak, **summary(scores)}


def bare_loop(count: int) -> dict[str, Any]:
    """The same from tokens made beforehand and without the head: what batching and shared prompts alone save."""
    return loop(count, bare=True)


def summary(scores: Any) -> dict[str, float]:
    """Enough of the scores to see that both sides have the same."""
    return {"mean": float(np.mean(scores)), "spread": float(np.std(scores)), "last": float(scores[-1])}


def compare(pairs: int = PAIRS, rounds: int = 2) -> dict[str, Any]:
    """Both sides in turn, then demur alone with fewer pairs."""
    records = measure.in_turn(__spec__.name, ("demur", "loop"), rounds, [str(pairs)])
    records |= measure.in_turn(__spec__.name, ("bare_loop",), 1, [str(pairs)])
    ours = records["demur"][0]
    for theirs in (*records["loop"], *records["bare_loop"]):
        for field in ("mean", "spread", "last"):
            if abs(ours[field] - theirs[field]) > 1e-3 * ours["spread"]:
                raise SystemExit(f"the two sides did not do the same work: {ours}, {theirs}")
    few = measure.in_turn(__spec__.name, ("demur",), 2, [str(pairs // 2)])["demur"]
    grown = [r["peak_bytes"] / min(f["peak_bytes"] for f in few) for r in records["demur"]]
    result = {
        "benchmark": f"CHES of {pairs} pairs, batches of {BATCH}",
        "target": {"seconds": 0.2},
        "ratio": {"seconds": measure.ratio(records, "demur", "loop", "seconds")},
        "seconds to the bare loop's": ours["seconds"] / records["bare_loop"][0]["seconds"],
        "peak_bytes, all pairs to half of them": {"low": min(grown), "high": max(grown)},
        "runs": {**records, "demur, half": few},
    }
    measure.save("ches", result)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps({"demur": demur, "loop": loop, "bare_loop": bare_loop}[sys.argv[1]](int(sys.argv[2]))))
    else:
        result = compare(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
        print(json.dumps({k: v for k, v in result.items() if k.startswith(("ratio", "peak", "seconds"))}, indent=1))
