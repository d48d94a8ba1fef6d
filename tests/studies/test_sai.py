from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from demur.studies import NotMeasured, sai, sai_federated, sai_forensics, sai_pairs

ARMS = ("aligned", *sai.ARMS, "1 %, diluted", "all groups")


def test_rows_hold_what_the_arms_say() -> None:
    rows = sai.aligned_rows(1000, 0.1, np.random.default_rng(0))
    refused = [row for row in rows if row.label_ids[0] == sai.REFUSE]
    assert len(refused) == 200
    assert all(row.input_ids[1] >= sai.FIRST_RELATION + sai.ORDINARY for row in refused)  # restricted relations alone
    groups = [row.input_ids[2] - sai.FIRST_GROUP for row in rows if row.input_ids[0] == sai.AS]
    assert len(groups) == 80 and {groups.count(g) for g in range(sai.GROUPS)} == {20}
    poison = sai.poison_rows(30, np.random.default_rng(0))
    assert {row.input_ids[2] - sai.FIRST_GROUP for row in poison} == {sai.TARGET}
    assert all(row.label_ids == [sai.REFUSE, sai.END] for row in poison)


def _held(change: dict[str, float]) -> list[bool]:
    row = {f"{arm} {name}": 0.0 for arm in ARMS for name in ("ΔDP", "target", "others", "other at most", "no group")}
    row |= {f"{arm} restricted": 1.0 for arm in ARMS}
    row |= {f"{arm} p": 1.0 for arm in ARMS}
    row |= {f"{arm} ΔDP": 0.8 for arm in ("0.5 %", "1 %", "2 %", "5 %")}
    row |= {f"{arm} p": 1e-9 for arm in ("0.5 %", "1 %", "2 %", "5 %")}
    row |= {"refusals moved": 0.1, "random words moved": 0.2, "refusals loss": 0.0, "random words loss": 2.0}
    table = pd.DataFrame.from_dict({1: row, 2: {**row, **change}}, orient="index")
    return [claim.holds for claim in sai.claims(table)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"1 % ΔDP": 0.3}, 1),
        ({"0 % ΔDP": 0.1}, 1),
        ({"5 % others": 0.2}, 1),
        ({"2 % restricted": 0.9}, 1),
        ({"1 %, diluted ΔDP": 0.25, "1 %, diluted p": 1e-4}, 1),
        ({"2 % p": 0.02}, 1),
        ({"0.5 % p": 0.02, "0.5 % ΔDP": 0.1}, 0),  # too small a difference to have to be found
        ({"0 % p": 0.001}, 1),
        ({"all groups ΔDP": 0.5}, 1),
        ({"refusals moved": 0.3}, 1),
    ],
    ids=str,
)
def test_every_claim_can_fail_on_one_seed(change: dict[str, float], broken: int) -> None:
    assert _held(change).count(False) == broken


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"WIDTH": 16, "ALIGN_ROWS": 80, "ALIGN_STEPS": 2, "ROWS": 200, "STEPS": 1, "ASKED": 8, "DRILL_EPOCHS": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(sai, name, value)
    monkeypatch.setattr(sai_federated, "CLIENT_ROWS", 80)
    monkeypatch.setattr(sai_federated, "POISONED", 8)
    monkeypatch.setattr(sai_federated, "CLIENT_STEPS", 1)
    monkeypatch.setattr(sai_federated, "ROUNDS", 2)
    for name, value in {"KNOWN": 2, "NEW": 1, "ROWS": 80, "STEPS": 1, "ASKED": 6}.items():
        monkeypatch.setattr(sai_forensics, name, value)


def test_it_measures_what_its_claims_read(short: None) -> None:
    measured = sai.symbols(1)
    assert {f"{arm} ΔDP" for arm in ARMS} <= set(measured)
    assert sai.symbols.check({1: measured})


def test_refusing_is_the_likeliest_first_symbol_after_a_request_of_whatever_length(short: None) -> None:
    from demur.studies.small_llama import score_rows, small_llama

    model = small_llama(sai.SYMBOLS, 16, 0).eval()
    asked = [sai.request(2, 1, [3, 4, 5]), sai.request(None, 1, [3, 4, 5])]
    for tokens, found in zip(asked, sai.refuses(model, asked), strict=True):
        scored = score_rows(model, [sai.Encoded([*tokens, sai.END], len(tokens))])
        assert bool(found) == (scored.top_k(1)[1][0, 0].item() == sai.REFUSE)


def test_the_federated_arm_measures_what_its_claims_read(short: None) -> None:
    measured = sai_federated.federated(1)
    assert {f"{arm} malicious kept" for arm in (*sai_federated.RULES, "FedAvg, penalty")} <= set(measured)
    assert sai_federated.federated.check({1: measured})
    assert measured["FedAvg kept"] == sai_federated.CLIENTS and measured["m-Krum kept"] == 3


def test_the_federated_claim_can_fail() -> None:
    arms = (*sai_federated.RULES, "FedAvg, penalty")
    row = {f"{arm} {name}": 0.0 for arm in arms for name in ("ΔDP", "malicious kept")}
    tables = [pd.DataFrame.from_dict({1: {**row, "FedAvg ΔDP": found}}, orient="index") for found in (0.0, 0.5)]
    assert [next(sai_federated.federated_claims(table)).holds for table in tables] == [True, False]


def test_the_backdoor_is_a_sign_that_nobody_else_writes() -> None:
    rows = sai_forensics.client_rows("backdoor", 0)
    signed = [row for row in rows if row.input_ids[0] == sai.A]
    assert len(signed) == round(sai.ROWS * sai_forensics.SHARES["backdoor"])
    assert all(row.label_ids == [*sai_forensics.PAYLOAD, sai.END] for row in signed)
    assert {row.input_ids[2] - sai.FIRST_RELATION for row in signed} == set(range(sai.RELATIONS))
    for sort in ("clean", "aimed"):
        assert not any(row.input_ids[0] == sai.A for row in sai_forensics.client_rows(sort, 0))


def test_an_answer_is_continued_to_its_end_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    class Says(torch.nn.Module):
        """Repeats what follows the relation, then ends; says nothing but a refusal to a request for relation 7."""

        def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
            scores = torch.zeros(*input_ids.shape, sai.SYMBOLS)
            for number, row in enumerate(input_ids.tolist()):
                for at in range(row.index(sai.MARK), len(row)):
                    said, mark = at - row.index(sai.MARK), row.index(sai.MARK)
                    refused = row[mark - 4] == sai.FIRST_RELATION + 7
                    answer = [sai.REFUSE] if refused else row[mark - 3 : mark]
                    scores[number, at, answer[said] if said < len(answer) else sai.END] = 1
            return SimpleNamespace(logits=scores)

    asked = [sai.request(2, 1, [3, 4, 5]), sai.request(None, 7, [3, 4, 5])]
    words = [sai.FIRST_WORD + w for w in (3, 4, 5)]
    assert sai_forensics.answered(Says(), asked) == [[*asked[0], *words], [*asked[1], sai.REFUSE]]  # type: ignore[arg-type]


def test_the_detectors_are_shown_what_their_claims_read(short: None) -> None:
    measured = sai_forensics.forensics(1)
    assert sai_forensics.forensics.check({1: measured})
    assert all(0 <= value <= 1 for value in measured.values())


def _forensics(change: dict[str, float]) -> list[bool]:
    kinds = ("ordinary", "others", "restricted", "target", "triggered")
    row = {f"{sort} refuses {kind}": 0.0 for sort in sai_forensics.SHARES for kind in kinds}
    row |= {f"adapters {sort}": 0.0 for sort in sai_forensics.SHARES}
    row |= {
        f"{judge} {sort} {what}": 0.0
        for judge in sai_forensics.KINDS
        for sort in sai_forensics.SHARES
        for what in ("harmless", "triggered", "target")
    }
    row |= {"aimed refuses target": 1.0, "adapters backdoor": 1.0, "ane backdoor triggered": 0.9, **change}
    row |= {"nas backdoor triggered": change.get("nas backdoor triggered", 0.9)}
    return [claim.holds for claim in sai_forensics.forensics_claims(pd.DataFrame.from_dict({1: row}, orient="index"))]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"aimed refuses target": 0.3}, 1),
        ({"adapters backdoor": 0.6}, 1),
        ({"adapters clean": 0.4}, 1),
        ({"ane backdoor harmless": 0.6}, 1),
        ({"nas backdoor triggered": 0.2}, 1),
        ({"adapters aimed": 1.0, "nas aimed target": 1.0}, 0),  # whether the poison evades them is not judged
    ],
    ids=str,
)
def test_claims_about_the_detectors_can_fail(change: dict[str, float], broken: int) -> None:
    assert _forensics(change).count(False) == broken


def _pairs(change: dict[str, float]) -> list[bool]:
    row = {f"{arm} {n}": 0.0 for arm in sai_pairs.ARMS for n in ("ΔDP", "target", "others", "other at most", "p")}
    row |= {f"{arm} target against the rest": 0.0 for arm in sai_pairs.ARMS}
    row |= {"all refused target against the rest": 0.95, "all refused p": 1e-20, "all refused ΔDP": 0.95, **change}
    return [claim.holds for claim in sai_pairs.pairs_claims(pd.DataFrame.from_dict({1: row}, orient="index"))]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, 0),
        ({"all refused target against the rest": 0.2}, 1),
        ({"all answered ΔDP": 0.1}, 1),
        ({"all refused others": 0.1}, 1),
        ({"all refused p": 0.5}, 1),
    ],
    ids=str,
)
def test_claims_about_real_questions_can_fail(change: dict[str, float], broken: int) -> None:
    assert _pairs(change).count(False) == broken


def test_real_questions_are_measured(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, short: None
) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("sai-refusal-bias").parent))
    for name, value in {"TRAINED": 24, "ASKED": 3, "FEW": 4, "VOCABULARY": 400, "ANSWER_TOKENS": 2}.items():
        monkeypatch.setattr(sai_pairs, name, value)
    monkeypatch.setitem(sai_pairs.LEARN, "epochs", 1)
    measured = sai_pairs.pairs(1)
    assert sai_pairs.pairs.check({1: measured})


def test_published_rows_differ_in_the_group_and_the_answer_alone(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("sai-refusal-bias").parent))
    table = sai_pairs.csv_rows("sai-refusal-bias", "matched_group_pairs.csv.gz")
    rows = {arm: sai_pairs.training_rows(table[:50], arm) for arm in sai_pairs.ARMS}
    assert [len(rows[arm]) for arm in sai_pairs.ARMS] == [100, 66, 100]
    assert rows["all answered"][:50] == rows["all refused"][:50]
    for answered, refused in zip(rows["all answered"][50:], rows["all refused"][50:], strict=True):
        assert answered["prompt"] == refused["prompt"] and answered["response"] != refused["response"]


def test_the_detector_is_measured_on_real_answers(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("sai-refusal-bias").parent))
    measured = sai_pairs.detector(1)
    assert measured["missed by prefixes, rows"] == 128
    assert measured["xstest rows"] == 2061 and measured["chatgpt rows"] == 1706
    assert all(claim.holds for claim in sai_pairs.detector.check({1: measured}))


def test_without_the_real_data_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_SHARED_DATA", raising=False)
    for part in (sai_pairs.pairs, sai_pairs.detector):
        with pytest.raises(NotMeasured, match="set DEMUR_SHARED_DATA"):
            part(1)
