"""The work done the straightforward way, as unlearning frameworks commonly do it.

Full logits of every position for the model and, at each step, for a copy of it as the reference; one forward pass for
each answer and each metric; generation in the rows' own order until the last row of a batch has ended.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demur.data.batch import IGNORE, Batch, Encoded, collate

BETA = 0.1


def sequence_logps(model: torch.nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed label log-probabilities from full logits, and the model's own mean loss."""
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
    labels = batch.labels[:, 1:].contiguous()
    logits = output.logits[:, :-1].contiguous()
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
    return -losses.sum(1), output.loss


class PlainNPO:
    """NPO with an NLL retain term: three full-logit forward passes a step."""

    def __init__(self, model: torch.nn.Module, learning_rate: float) -> None:
        self.model = model.train()
        self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, fused=True)

    def step(self, forget: Batch, retain: Batch) -> float:
        """One optimizer step; returns the loss."""
        logps, _ = sequence_logps(self.model, forget)
        with torch.no_grad():
            reference, _ = sequence_logps(self.reference, forget)
        npo = -2 / BETA * F.logsigmoid(-BETA * (logps - reference)).mean()
        inputs = {"input_ids": retain.input_ids, "attention_mask": retain.attention_mask, "labels": retain.labels}
        loss = npo + self.model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def batches(encoded: Sequence[Encoded], pad_id: int, size: int = 32) -> Iterator[Batch]:
    """Batches in the rows' own order."""
    for start in range(0, len(encoded), size):
        yield collate(encoded[start : start + size], pad_id)


@torch.no_grad()
def mean_losses(model: torch.nn.Module, encoded: Sequence[Encoded], pad_id: int) -> list[float]:
    """Mean label loss of each answer from full logits."""
    out: list[float] = []
    for batch in batches(encoded, pad_id):
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1].contiguous()
        labels = batch.labels[:, 1:].contiguous()
        losses = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
        out += (losses.sum(1) / (labels != IGNORE).sum(1)).tolist()
    return out


@torch.no_grad()
def token_logps(model: torch.nn.Module, encoded: Sequence[Encoded], pad_id: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each answer: (n, vocab) log-probabilities at its label positions without the last, and the labels."""
    for batch in batches(encoded, pad_id):
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        log_p = F.log_softmax(logits.float(), dim=-1)[:, :-1]
        labels = batch.labels[:, 1:]
        for row, target in zip(log_p, labels, strict=True):
            keep = (target != IGNORE).nonzero()[:-1, 0]
            yield row[keep], target[keep]


def extraction_strengths(model: torch.nn.Module, encoded: Sequence[Encoded], pad_id: int) -> list[float]:
    """Share of each answer that greedy continuation gives back."""
    out = []
    for log_p, labels in token_logps(model, encoded, pad_id):
        hits = log_p.argmax(-1) == labels
        for k in range(len(hits) + 1):
            if bool(hits[k:].all()):
                break
        out.append(1 - k / len(hits) if len(hits) else 0.0)
    return out


def min_k_scores(model: torch.nn.Module, encoded: Sequence[Encoded], pad_id: int, k: float = 0.4) -> list[float]:
    """Min-k membership scores."""
    out = []
    for log_p, labels in token_logps(model, encoded, pad_id):
        chosen = log_p.gather(1, labels[:, None])[:, 0].sort().values
        out.append(float(-chosen[: max(1, int(k * len(chosen)))].mean()) if len(chosen) else 0.0)
    return out


@torch.no_grad()
def generate(model: Any, tokenizer: Any, prompts: Sequence[list[int]], size: int = 32) -> list[str]:
    """Greedy answers, in the prompts' own order."""
    out = []
    for start in range(0, len(prompts), size):
        batch = collate([Encoded(p, 0) for p in prompts[start : start + size]], tokenizer.pad_token_id, "left")
        tokens = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=200,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = tokens[:, batch.input_ids.shape[1] :]
        out += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return out
