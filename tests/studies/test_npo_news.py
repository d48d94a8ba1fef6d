from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from demur.studies import npo_news, studies
from demur.studies.npo_news import METHODS, news, news_claims, news_corpus
from demur.studies.registry import NotMeasured

SIDES = ("forget", "retain", "holdout")
AS_IT_SHOULD_BE = {
    "before": (1.0, 1.0, 0.1, -100.0),
    "gold": (0.1, 1.0, 0.1, 0.0),
    "GradDiff": (0.05, 0.6, 0.05, 60.0),
    "NPO+RT": (0.12, 0.99, 0.1, -60.0),
    "NPO+RT, β = 0.1": (0.3, 1.0, 0.1, -100.0),
    "SimNPO": (0.9, 1.0, 0.1, -100.0),
}


def measurements() -> pd.DataFrame:
    """Three seeds on which every claim holds."""
    row: dict[str, float] = {}
    for name, (forget, retain, holdout, privleak) in AS_IT_SHOULD_BE.items():
        for side, value in zip(SIDES, (forget, retain, holdout), strict=True):
            row |= {f"{name} {side}": value, f"{name} {side} extraction": value / 2 if value < 0.5 else value}
        row |= {f"{name} auc": 0.5 - privleak / 200, f"{name} privleak": privleak}
    return pd.DataFrame([row] * 3, index=[1, 2, 3])


def test_every_claim_holds_on_what_it_describes() -> None:
    assert all(claim.holds for claim in news_claims(measurements()))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("before forget", 0.8, "known by heart"),
        ("gold forget", 0.25, "cannot go on with them"),
        ("before privleak", -70.0, "An outsider sees"),
        ("NPO+RT forget", 0.25, "hardly better than the gold model"),
        ("NPO+RT forget extraction", 0.2, "extracted"),
        ("NPO+RT retain", 0.85, "stay known by heart"),
        ("GradDiff retain", 1.0, "at the cost"),
        ("GradDiff privleak", -100.0, "overshoots"),
    ],
)
def test_each_claim_fails_on_one_seed(column: str, value: float, words: str) -> None:
    table = measurements()
    table.loc[2, column] = value
    failed = [claim.text for claim in news_claims(table) if not claim.holds]
    assert any(words in text for text in failed), failed


@pytest.fixture
def ag_news(shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(shared_data("text_small").parent))


def test_the_articles_of_a_seed_are_real_and_apart(ag_news: None) -> None:
    first, again, other = news_corpus(1), news_corpus(1), news_corpus(2)
    assert first == again != other
    texts = [text for side in SIDES for text in first[side]]
    assert len(set(texts)) == len(texts) == sum(npo_news.SIZES.values())


def test_without_ag_news_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(tmp_path))
    with pytest.raises(NotMeasured, match="AG news is not at hand"):
        news_corpus(1)


def test_it_is_a_part_of_the_npo_study() -> None:
    assert news in studies.get("npo").facts["parts"]


def test_the_measuring_runs(ag_news: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path))
    monkeypatch.setattr(npo_news, "SIZES", {"forget": 4, "retain": 4, "holdout": 3})
    monkeypatch.setattr(npo_news, "VOCABULARY", 600)
    for settings in (npo_news.LEARN, npo_news.UNLEARN):
        monkeypatch.setitem(settings, "epochs", 1)
    measured = news(1)
    assert set(measured) == {
        *(
            f"{name} {side}{what}"
            for name in ("before", "gold", *METHODS)
            for side in SIDES
            for what in ("", " extraction")
        ),
        *(f"{name} {what}" for name in ("before", "gold", *METHODS) for what in ("auc", "privleak")),
    }
    assert measured["gold privleak"] == 0
