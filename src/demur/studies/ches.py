"""Likelihood displacement (Razin et al. 2025, arXiv 2410.08847): CHES foretells which pairs drag the good answer down.

Preference pairs over continuations of Shakespeare's lines: the true one against a copy with some characters changed, or
against a snippet from elsewhere. Groups of pairs, ranked before any training, go through the same DPO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from demur.data.batch import Encoded
from demur.objectives import dpo_loss
from demur.probes import ches_from_hidden, token_edit_distances
from demur.studies.registry import Progress, study
from demur.studies.results import Claim
from demur.studies.shakespeare import PROMPT, Shakespeare
from demur.studies.small_llama import score_rows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from transformers import GPT2LMHeadModel

LEARN = {"width": 96, "steps": 400}
PAIRS, GROUP = 160, 32
DRAWS = 8  # of pairs: which 32 are the highest changes the fall that is found by a factor of two
LENGTHS, CHANGES, SNIPPETS = (8, 12, 16), (1, 2, 4), 0.75
BETA, RATE, STEPS = 0.1, 0.05, 24
ALIKE = {"pairs": 24, "length": 8, "changes": 1}  # pairs of one kind: the control
GROUPS = ("lowest", "middle", "highest")


def small_gpt2(symbols: int, width: int, seed: int) -> GPT2LMHeadModel:
    """Two layers with four heads, learned positions and layer norms; seeds torch's global random state."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=symbols,
        n_positions=128,
        n_embd=width,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.04,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def make_pairs(lab: Shakespeare, generator: np.random.Generator) -> tuple[list[Encoded], list[Encoded]]:
    """True continuations, and what each is preferred to: itself with slips, or a snippet of any of the lengths."""
    won, lost = [], []
    for _ in range(PAIRS):
        passage = lab.excerpt(generator, PROMPT + int(generator.choice(LENGTHS)))
        if generator.random() < SNIPPETS:
            other = passage[:PROMPT] + lab.excerpt(generator, int(generator.choice(LENGTHS)))
        else:
            other = with_slips(lab, generator, passage, int(generator.choice(CHANGES)))
        won.append(Encoded(passage, PROMPT))
        lost.append(Encoded(other, PROMPT))
    return won, lost


def with_slips(lab: Shakespeare, generator: np.random.Generator, passage: list[int], changes: int) -> list[int]:
    """The passage with some characters of its continuation changed into any others."""
    out, symbols = list(passage), len(lab.characters)
    for place in generator.choice(len(passage) - PROMPT, size=changes, replace=False) + PROMPT:
        out[place] = (out[place] + 1 + int(generator.integers(symbols - 1))) % symbols
    return out


@torch.no_grad()
def states(model: torch.nn.Module, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """(rows, length, hidden) states that predict each row's labels, and which of them there are."""
    scored = score_rows(model, list(rows))
    parts = scored.final_hidden.split(scored.lengths.tolist())
    padded = pad_sequence(list(parts), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < scored.lengths[:, None]


def displacement(
    lab: Shakespeare, won: Sequence[Encoded], lost: Sequence[Encoded], chosen: Sequence[int]
) -> NDArray[np.float64]:
    """Change of log π(y⁺) of each of these pairs after DPO on all of them, in nats."""
    model, rows = lab.copy(), [won[i] for i in chosen] + [lost[i] for i in chosen]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    start: tuple[Tensor, Tensor] | None = None
    for _ in range(STEPS):
        now = score_rows(model, rows).logps.chunk(2)
        start = start or (now[0].detach(), now[1].detach())
        loss = dpo_loss(*now, *start, BETA)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = score_rows(model, rows).logps.chunk(2)[0]
    assert start is not None
    return (after - start[0]).double().numpy()


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


@study("ches", paper="2410.08847", minutes=3, seeds=(1, 2, 3))
def shakespeare_pairs(seed: int, progress: Progress) -> dict[str, float]:
    """DPO on the pairs that rank lowest, in the middle and highest, by CHES and by edit distance."""

    total = 4 + 9 * DRAWS

    def learning(done: float, steps: float, note: str = "") -> None:
        progress(4 * done / steps, total, note)

    lab = Shakespeare(seed, **LEARN, make=small_gpt2, progress=learning)
    generator = np.random.default_rng([seed, 1])
    found: list[dict[str, float]] = []
    for draw in range(DRAWS):
        start = 4 + 9 * draw
        found.append(_one_draw(lab, generator, lambda done, what, start=start: progress(start + done, total, what)))  # type: ignore[misc]
    measured = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    measured["within a kind"] = _within_a_kind(lab, generator)
    return measured


def _one_draw(lab: Shakespeare, generator: np.random.Generator, told: Callable[[int, str], None]) -> dict[str, float]:
    """What DPO does to the lowest, the middle and the highest pairs of one draw, by each ranking."""
    won, lost = make_pairs(lab, generator)
    (pref, pref_mask), (other, other_mask) = states(lab.model, won), states(lab.model, lost)
    ches = ches_from_hidden(pref, other, pref_mask, other_mask).double().numpy()
    sums = [(h * m[..., None]).sum(1) for h, m in ((pref, pref_mask), (other, other_mask))]
    lengths = np.stack([pref_mask.sum(1), other_mask.sum(1)]).astype(float)
    apart = token_edit_distances([e.label_ids for e in won], [e.label_ids for e in lost])
    measured = {
        "length by CHES": rank_correlation(ches, lengths.prod(0)),
        "length by uncentred": rank_correlation((sums[0] * sums[1]).sum(1).double().numpy(), lengths.prod(0)),
    }
    rankings = {"CHES": ches, "edit distance": -apart / lengths.max(0), "length difference": lengths[1] - lengths[0]}
    middle, done = (PAIRS - GROUP) // 2, 0
    for name, score in rankings.items():
        order = np.argsort(score, kind="stable")
        groups = dict(zip(GROUPS, (order[:GROUP], order[middle : middle + GROUP], order[-GROUP:]), strict=True))
        for where, rows in groups.items():
            told(done, f"DPO on the {where} by {name}")
            change = displacement(lab, won, lost, rows.tolist())
            measured[f"{name} {where}"] = float(change.mean())
            measured[f"{name} {where} displaced"] = float((change < 0).mean())
            done += 1
    return measured


def _within_a_kind(lab: Shakespeare, generator: np.random.Generator) -> float:
    """Rank correlation of CHES and fall where every pair is of the same kind, each trained on by itself."""
    won, lost = [], []
    for _ in range(ALIKE["pairs"]):
        passage = lab.excerpt(generator, PROMPT + ALIKE["length"])
        won.append(Encoded(passage, PROMPT))
        lost.append(Encoded(with_slips(lab, generator, passage, ALIKE["changes"]), PROMPT))
    (pref, mask), (other, _) = states(lab.model, won), states(lab.model, lost)
    fall = np.array([-displacement(lab, won, lost, [i])[0] for i in range(len(won))])
    return rank_correlation(ches_from_hidden(pref, other, mask, mask).double().numpy(), fall)


@shakespeare_pairs.claims
def claims(m: pd.DataFrame) -> Iterator[Claim]:
    """What the paper says of the score, beside the edit distance."""
    lowest, middle, highest = (m[f"CHES {where}"] for where in GROUPS)
    others = ("edit distance", "length difference")
    by_text = {f"{by}, {where}": m[f"{by} {where}"] for by in others for where in GROUPS}
    yield Claim(
        text="Training on the pairs with the lowest CHES raises the good answer (change of its log-probability)",
        measured=lowest,
        threshold=">= 1",
        baselines={"middle": middle, "highest": highest, **by_text},
    )
    yield Claim(
        text="Training on the pairs with the highest CHES lowers it",
        measured=highest,
        threshold="<= -2",
        baselines={"middle": middle, "lowest": lowest, **by_text},
    )
    shares = {where: m[f"CHES {where} displaced"] for where in GROUPS}
    yield Claim(
        text="More good answers fall among the highest than among the lowest (share, difference)",
        measured=shares["highest"] - shares["lowest"],
        threshold=">= 0.4",
        baselines={**shares, **{by: m[f"{by} highest displaced"] - m[f"{by} lowest displaced"] for by in others}},
    )
    spread, by_distance = (lowest - highest), m["edit distance lowest"] - m["edit distance highest"]
    yield Claim(
        text="Edit distance tells the groups apart less than half as well (ratio of the spreads)",
        measured=by_distance.abs() / spread.abs(),
        threshold="< 0.5",
        baselines={"spread by CHES": spread, "spread by edit distance": by_distance, "with the sign turned": -spread},
    )
    yield Claim(
        text="Without its centre the score ranks pairs by length (rank correlation with the lengths' product)",
        measured=m["length by uncentred"],
        threshold=">= 0.6",
        kind="ours",
        baselines={"CHES": m["length by CHES"]},
    )
    yield Claim(
        text="Among pairs of one kind CHES explains little (rank correlation with the fall, each pair by itself)",
        measured=m["within a kind"].abs(),
        threshold="<= 0.5",
        kind="ours",
    )
