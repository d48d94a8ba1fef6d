from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits import tofu
from demur.audits.tofu import audit_tofu, cached_samples, report_tofu
from demur.audits.tofu_data import TofuData, TofuSamples, TofuSettings
from demur.audits.tofu_metrics import TOFU_METRICS
from demur.errors import UsageError
from demur.models import LanguageModel
from demur.runs import RunFolder

QUICK = TofuSettings(max_new_tokens=4)


@pytest.fixture(scope="module")
def gold() -> TofuSamples:
    return tofu.tofu_samples(tiny_lm("chat", True), tiny_data(), QUICK)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


def test_a_full_audit_has_every_metric_with_value_and_interval(knowing_lm: LanguageModel, gold: TofuSamples) -> None:
    report = audit_tofu(knowing_lm, tiny_data(), reference=gold, settings=QUICK, run="r", seed=3)
    assert [r.metric for r in report.results] == list(TOFU_METRICS)
    assert report.notes == {}
    for result in report.results:
        assert result.value is not None
        assert (result.suite, result.run, result.role, result.seed) == ("tofu", "r", "run", 3)
        if result.metric in ("forget_quality", "forget_quality_log10"):
            assert (result.method, result.low) == ("none", None)
        else:
            assert result.low is not None and result.high is not None
            assert result.low <= result.value <= result.high, result.metric


def test_metrics_without_data_are_reported_as_none_with_the_reason(knowing_lm: LanguageModel) -> None:
    data = TofuData(tiny_data().forget, tiny_data().retain)
    report = audit_tofu(knowing_lm, data, generation=False)
    assert [r.metric for r in report.results] == list(TOFU_METRICS)
    assert "no hold-out rows" in report.notes["privleak"] or "no holdout rows" in report.notes["privleak"]
    assert "no reference model was given" in report.notes["forget_quality"]
    assert "no real authors rows were given" in report.notes["model_utility"]
    by_name = {r.metric: r for r in report.results}
    assert (by_name["forget_rouge"].value, by_name["forget_rouge"].unscored) == (None, 6)
    assert by_name["forget_probability"].value is not None


def test_attacks_can_be_chosen(knowing_lm: LanguageModel) -> None:
    report = audit_tofu(knowing_lm, tiny_data(), generation=False, attacks=["gradnorm", "loss"])
    assert [r.metric for r in report.results if r.metric.startswith("mia_")] == ["mia_loss", "mia_gradnorm"]


def test_the_compat_suite_has_its_own_name_and_its_quirk(knowing_lm: LanguageModel) -> None:
    reports = [audit_tofu(tiny_lm(), tiny_data(), generation=False, compat=c) for c in (None, "open-unlearning")]
    assert [r.suite for r in reports] == ["tofu", "tofu-open-unlearning"]
    strict, compat = (r.measured.tables["forget"]["extraction_strength"] for r in reports)
    tokens = reports[0].measured.tables["forget"]["tokens"]
    np.testing.assert_allclose(compat[strict == 0], 1 / (tokens[strict == 0] - 1))
    assert (strict == 0).any()


def test_a_reference_measured_on_other_rows_is_refused(knowing_lm: LanguageModel, gold: TofuSamples) -> None:
    data = tiny_data()
    fewer = dataclasses.replace(data, forget=data.forget.select(range(3)))
    with pytest.raises(UsageError, match="measured on 6 forget rows, not on 3"):
        audit_tofu(knowing_lm, fewer, reference=gold)
    others = dataclasses.replace(data, forget=data.forget.select([1, 0, 2, 3, 4, 5]))
    with pytest.raises(UsageError, match="measured on other forget rows"):
        audit_tofu(knowing_lm, others, reference=gold)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"atacks": ("loss",)}, "did you mean attacks"),
        ({"attacks": ("los",)}, "did you mean loss"),
        ({"compat": "muse"}, "the only one is 'open-unlearning'"),
        ({"question_key": "q"}, "question_key must be"),
        ({"k": 0.0}, "0 < k"),
        ({"date_string": "today"}, "belong to compat"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_scored(option: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        audit_tofu(None, tiny_data(), **option)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_report(gold: TofuSamples) -> None:
    first, second, other = (report_tofu(gold, seed=s) for s in (1, 1, 2))
    strip = [dataclasses.replace(r, seconds=0, seed=None) for r in first.results]
    assert strip == [dataclasses.replace(r, seconds=0, seed=None) for r in second.results]
    assert strip != [dataclasses.replace(r, seconds=0, seed=None) for r in other.results]


def test_results_and_samples_of_every_role_land_in_the_run_folder(
    knowing_lm: LanguageModel, gold: TofuSamples, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", {"command": "forget"})
    for _ in range(2):  # a second audit replaces the first
        audit_tofu(knowing_lm, tiny_data(), reference=gold, settings=QUICK, run=run.name).save(run)
        report_tofu(gold, gold, QUICK, role="reference", run=run.name).save(run.path)
    table = run.results()
    assert sorted(table["role"].unique()) == ["reference", "run"]
    assert len(table) == 2 * len(TOFU_METRICS)
    forget = run.samples("tofu_forget")
    assert forget is not None
    assert list(forget.columns[:12]) == [
        *("role", "id", "prompt", "truth", "generation", "probability", "rougeL_recall", "rouge1_recall"),
        *("truth_ratio", "extraction_strength", "exact_memorization", "loss"),
    ]
    assert sorted(forget["role"]) == ["reference"] * 6 + ["run"] * 6
    holdout = run.samples("tofu_holdout")
    assert holdout is not None and holdout["generation"].isna().all()
    assert [e["event"] for e in run.events()] == ["audit"] * 4


def test_samples_survive_being_saved(gold: TofuSamples, tmp_path: Path) -> None:
    gold.save(tmp_path / "samples")
    again = TofuSamples.load(tmp_path / "samples")
    assert (again.model, list(again.tables)) == (gold.model, list(gold.tables))
    assert report_tofu(again).summary == report_tofu(gold).summary


def test_a_scoring_pass_is_kept_until_weights_rows_or_settings_change(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = tofu.tofu_samples

    def counted(*args: object, **options: object) -> TofuSamples:
        calls.append(1)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tofu, "tofu_samples", counted)
    lm, data = tiny_lm(), tiny_data()
    settings = TofuSettings(generation=False)
    first = cached_samples(lm, data, settings)
    second = cached_samples(tiny_lm(), data, dataclasses.replace(settings, batch_size=2))
    assert len(calls) == 1
    assert report_tofu(second).summary == report_tofu(first).summary
    cached_samples(lm, data, dataclasses.replace(settings, k=0.3))
    cached_samples(lm, TofuData(data.forget), settings)
    with torch.no_grad():
        lm.model.lm_head.weight[0, 0] += 1
    cached_samples(lm, data, settings)
    lm.tokenizer.chat_template = lm.tokenizer.chat_template.replace("\n", " ")
    cached_samples(lm, data, settings)
    assert len(calls) == 5


def test_a_broken_cache_entry_is_measured_again(tmp_path: Path) -> None:
    lm, data, settings = tiny_lm(), TofuData(tiny_data().forget), TofuSettings(generation=False)
    expected = report_tofu(cached_samples(lm, data, settings)).summary
    (facts,) = (tmp_path / "cache" / "audits").glob("*/facts.json")
    for damage in ("", "{}"):
        facts.write_text(damage)
        assert report_tofu(cached_samples(lm, data, settings)).summary == expected
    (facts.parent / "forget.parquet").write_bytes(b"no parquet")
    assert report_tofu(cached_samples(lm, data, settings)).summary == expected


def test_an_audit_takes_its_pass_from_the_cache_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TofuData(tiny_data().forget)
    first = audit_tofu(tiny_lm(), data, generation=False, cache=True)
    monkeypatch.setattr(tofu, "tofu_samples", None)
    assert audit_tofu(tiny_lm(), data, generation=False, cache=True).summary == first.summary


def test_data_are_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "forget.jsonl"
    file.write_text('{"prompt": "a?", "response": "b"}\n')
    data = TofuData.read(forget=file, retain=None)
    assert (list(data.sets), data.forget.column_names) == (["forget"], ["question", "answer", "id"])
    with pytest.raises(UsageError, match="did you mean holdout"):
        TofuData.read(forget=file, hold_out=file)
    with pytest.raises(UsageError, match="pass --forget"):
        TofuData.read(retain=file)


def test_the_hash_of_the_data_follows_rows_and_names() -> None:
    data = tiny_data()
    assert data.hash() == tiny_data().hash()
    assert data.hash() != dataclasses.replace(data, holdout=None).hash()
    assert data.hash() != dataclasses.replace(data, forget=data.forget.select(range(5))).hash()
