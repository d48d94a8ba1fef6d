"""One TOFU audit: `python -m benchmarks.tofu_audit`.

The audited model knows the retain rows and the facts by heart and has never seen the forget rows, as a well unlearned
model would; its 128k vocabulary is that of a small trained model, filled up with tokens that are never likely.
demur measures more than the peer (three more attacks, exact memorisation, intervals); what both measure must agree.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure, peer, world

SETS = {
    "forget": ("forget", slice(0, 20)),
    "holdout": ("forget", slice(20, 40)),
    "retain": ("retain", slice(0, 40)),
    "real_authors": ("real_authors", slice(0, 20)),
    "world_facts": ("world_facts", slice(0, 20)),
}
BATCH = 32


def rows(name: str) -> Any:
    """The rows of one set of the audit."""
    split, part = SETS[name]
    return world.rows(split).select(range(*part.indices(10**6)))


def build(folder: Path) -> None:
    """Train the model that both sides audit, and fill its vocabulary up."""
    from demur.lab import new_model
    from demur.models import load_model
    from demur.training import TrainSettings, train

    torch.set_num_threads(2)
    folder.mkdir(parents=True, exist_ok=True)
    new_model(world.texts(), vocabulary=4096, seed=0).save(folder / "new")
    known = [row for name in ("retain", "real_authors", "world_facts") for row in rows(name)]
    data = folder / "known.jsonl"
    data.write_text("".join(json.dumps({k: r[k] for k in ("question", "answer")}) + "\n" for r in known))
    learn = {"learning_rate": 4e-3, "epochs": 14, "batch_size": 16, "warmup": 0.1, "device": "cpu"}
    run = train(TrainSettings.make(model=str(folder / "new"), data=str(data), **learn), folder / "run")
    lm = load_model(run.model_path)
    pad = lm.model.get_input_embeddings().weight[lm.pad_id].detach().clone()
    known_tokens = len(lm.tokenizer)
    lm.model.resize_token_embeddings(world.VOCABULARY, mean_resizing=False)
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[known_tokens:] = pad  # as unlikely as padding
    lm.save(folder / "model")


def demur(folder: Path) -> dict[str, Any]:
    """demur's side."""
    from demur.audits import TofuData, audit_tofu
    from demur.models import load_model

    torch.set_num_threads(2)
    lm = load_model(folder / "model")
    data = TofuData(**{name: rows(name) for name in SETS})
    report, seconds, peak = measure.measured(lambda: audit_tofu(lm, data, batch_size=BATCH))
    summary = report.summary
    names = ("forget_probability", "forget_rouge", "forget_truth_ratio", "forget_extraction_strength", "model_utility")
    return {"seconds": seconds, "peak_bytes": peak, **{name: summary[name] for name in names}}


def plain(folder: Path) -> dict[str, Any]:
    """The peer's side: a forward pass for each answer of each metric, results shared only between whole metrics."""
    from rouge_score.rouge_scorer import RougeScorer
    from scipy.stats import hmean

    from demur.models import encode, encode_prompts, load_model

    torch.set_num_threads(2)
    lm = load_model(folder / "model")
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def losses(data: Any, answers: list[str]) -> Any:
        return np.array(peer.mean_losses(lm.model, encode(lm, data["question"][:], answers), lm.pad_id))

    def wrong_probability(data: Any) -> Any:
        columns = zip(*data["perturbed_answer"][:], strict=True)
        return np.exp(-np.mean([losses(data, list(column)) for column in columns], axis=0))

    def truth_ratio(data: Any, true: str) -> Any:
        return wrong_probability(data) / (np.exp(-losses(data, data[true][:])) + 1e-10)

    def rouge(data: Any) -> float:
        texts = peer.generate(lm.model, lm.tokenizer, encode_prompts(lm, data["question"][:]), BATCH)
        return float(np.mean([scorer.score(a, t)["rougeL"].recall for a, t in zip(data["answer"], texts, strict=True)]))

    def audit() -> dict[str, float]:
        sets = {name: rows(name) for name in SETS}
        forget, retain = sets["forget"], sets["retain"]
        answers = encode(lm, forget["question"][:], forget["answer"][:])
        ratios = truth_ratio(forget, "paraphrased_answer")
        out = {
            "forget_probability": float(np.exp(-losses(forget, forget["answer"][:])).mean()),
            "forget_rouge": rouge(forget),
            "forget_truth_ratio": float(np.minimum(ratios, 1 / (ratios + 1e-10)).mean()),
            "forget_extraction_strength": float(np.mean(peer.extraction_strengths(lm.model, answers, lm.pad_id))),
        }
        for name in ("forget", "holdout"):
            data = sets[name]
            peer.min_k_scores(lm.model, encode(lm, data["question"][:], data["answer"][:]), lm.pad_id)
        parts = [
            np.exp(-losses(retain, retain["answer"][:])).mean(),
            rouge(retain),
            np.maximum(0, 1 - truth_ratio(retain, "paraphrased_answer")).mean(),
        ]
        for name in ("real_authors", "world_facts"):
            data = sets[name]
            right = np.exp(-losses(data, data["answer"][:]))
            wrong = np.array([np.exp(-losses(data, list(c))) for c in zip(*data["perturbed_answer"][:], strict=True)])
            geometric = np.exp(np.log(wrong).mean(0))
            parts += [
                (right / (right + wrong.sum(0) + 1e-10)).mean(),
                rouge(data),
                np.maximum(0, 1 - geometric / (right + 1e-10)).mean(),
            ]
        return {**out, "model_utility": float(hmean(parts))}

    values, seconds, peak = measure.measured(audit)
    return {"seconds": seconds, "peak_bytes": peak, **values}


def compare(folder: Path, rounds: int = 3) -> dict[str, Any]:
    """Both sides in turn, the ratios, and the metrics' agreement."""
    build(folder)
    records = measure.in_turn(__spec__.name, ("demur", "plain"), rounds, [str(folder)])
    for ours, theirs in zip(records["demur"], records["plain"], strict=True):
        for name, value in theirs.items():
            if name not in ("seconds", "peak_bytes") and abs(ours[name] - value) > 1e-3:
                raise SystemExit(f"the two sides disagree on {name}: {ours[name]} and {value}")
    result = {
        "benchmark": f"TOFU audit, {sum(len(rows(n)) for n in SETS)} questions, batch {BATCH}, "
        f"vocabulary {world.VOCABULARY}",
        "target": {"seconds": 0.33},
        "ratio": {f: measure.ratio(records, "demur", "plain", f) for f in ("seconds", "peak_bytes")},
        "runs": records,
    }
    measure.save("tofu_audit", result)
    return result


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps({"demur": demur, "plain": plain}[sys.argv[1]](Path(sys.argv[2]))))
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as holder:
            print(json.dumps(compare(Path(holder))["ratio"], indent=1))
