from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audits.muse_world import FORGET, muse_data, muse_lm, texts
from audits.worked_example import ROWS
from cli.command import demur
from demur.audits.muse import audit_muse, muse_sources, report_muse
from demur.audits.muse_data import AUC_RETRAIN, MuseData
from demur.audits.muse_scoring import muse_samples
from demur.audits.open_unlearning import MUSE, read_eval
from demur.audits.request import AuditRequest
from demur.audits.rouge import rouge_scores
from demur.audits.token_scores import token_scores
from demur.data import completion_rows, write_muse
from demur.errors import UsageError
from demur.models import LanguageModel, LocalEngine, encode, token_stats
from demur.runs import RunFolder

# open-unlearning's own metric functions at commit d3d7cf9 on `muse_data()` and `muse_lm(template)`: float32, batches of
# three, 24 new tokens of continuation. The two templates differ in what the model is asked, not in how texts are read.
OPEN_UNLEARNING = {
    "exact_memorization": 0.0125,
    "extraction_strength": 0.026053114,
    "mia_gradnorm": 0.7,
    "mia_loss": 0.45,
    "mia_min_k": 0.4,
    "mia_min_k_plus_plus": 0.5,
    "mia_zlib": 1.0,
    "privleak": 20.0,
}
MIN_K_OF_FORGET_ROWS = [7.283835, 7.168623, 7.24147, 7.266181]
PROBABILITY = 0.0019358491
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm")


@pytest.fixture(scope="module")
def learned() -> LanguageModel:
    """The tiny model after it has learned the forget texts and the questions about them by heart."""
    import torch

    from demur.data.batch import collate
    from demur.models import encode_completion, score

    lm, data = muse_lm("chat"), muse_data().sets
    questions = data["forget_knowmem"]
    rows = encode_completion(lm, [""] * len(FORGET), FORGET)
    rows += encode(lm, questions["question"][:], questions["answer"][:])
    batch = collate(rows, lm.pad_id)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        (-score(lm.model, batch).mean_logps.mean()).backward()
        optimizer.step()
    lm.model.eval()
    return lm


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_compat_equals_open_unlearning(template: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"verbmem_tokens": 24, "attacks": ATTACKS, "batch_size": 3}
    report = audit_muse(muse_lm(template), muse_data(), compat="open-unlearning", **options)
    report.save_open_unlearning(tmp_path)
    log = json.loads((tmp_path / "MUSE_EVAL.json").read_text())
    assert {name: log[name]["agg_value"] for name in OPEN_UNLEARNING} == pytest.approx(OPEN_UNLEARNING, rel=2e-6)
    assert list(report.measured.tables["forget"]["mia_min_k"]) == pytest.approx(MIN_K_OF_FORGET_ROWS, abs=1e-5)
    assert report.summary["forget_verbmem_probability"] == pytest.approx(PROBABILITY, rel=1e-5)
    assert list(report.measured.tables["forget_verbmem"]["truth"]) == list(muse_data().sets["forget_verbmem"]["gt"])
    summary = json.loads((tmp_path / "MUSE_SUMMARY.json").read_text())
    assert {"forget_knowmem_ROUGE", "retain_knowmem_ROUGE", "forget_verbmem_ROUGE", "privleak"} <= set(summary)
    assert set(log["mia_min_k"]) == {"forget", "holdout", "auc", "agg_value"}
    again = read_eval(tmp_path, MUSE)
    assert report_muse(again, again).summary["privleak"] == 0


def test_every_token_of_a_text_counts_but_in_compat_the_last_is_left_out() -> None:
    lm, stats = muse_lm(), ROWS[0]
    ended = token_scores(lm, stats, attacks=("min_k", "min_k_plus_plus"), strict=False)
    assert ended["mia_min_k"] == pytest.approx(3.443322, abs=1e-6)
    assert ended["mia_min_k_plus_plus"] == pytest.approx(2.515522, abs=1e-6)
    assert (ended["extraction_strength"], ended["exact_memorization"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    whole = token_scores(lm, stats, attacks=("min_k",), k=1.0, ended=False)
    assert whole["mia_min_k"] == pytest.approx(-stats.logps.mean())
    assert whole["exact_memorization"] == stats.hits.mean()
    assert whole["extraction_strength"] == (0.0 if not stats.hits[-1] else pytest.approx(1 / 4))


def test_what_is_known_by_heart_scores_one_and_the_unseen_nothing(learned: LanguageModel) -> None:
    report = audit_muse(learned, muse_data(), reference=muse_samples(muse_lm(spread=0.4), muse_data()))
    found = report.summary
    assert found["forget_verbmem"] == 1.0, "however short the text, a perfect memory scores 1"
    assert found["forget_verbmem_extraction_strength"] == 1.0 and found["forget_verbmem_exact_memorization"] == 1.0
    assert found["forget_verbmem_probability"] > 0.9
    assert found["holdout_verbmem"] < 0.3 and found["holdout_verbmem_extraction_strength"] < 0.2
    assert found["mia_min_k"] == 1.0 and found["privleak"] == pytest.approx(-100, abs=1e-4)
    by_name = {r.metric: r for r in report.results}
    assert by_name["forget_verbmem"].n == 4 and by_name["forget_verbmem"].low == 1.0
    assert by_name["retain_verbmem"].better == "higher" and by_name["privleak"].better == "zero"


def test_examples_are_shown_before_the_question_and_stop_words_end_the_answer(learned: LanguageModel) -> None:
    data = muse_data().sets
    alone = {name: rows for name, rows in data.items() if not name.endswith("_icl")}
    long = {"attacks": (), "knowmem_tokens": 100}
    known = audit_muse(learned, MuseData(alone), **long).summary
    shown = audit_muse(learned, MuseData(data), **long).summary
    assert known["forget_knowmem"] > 0.9 > shown["forget_knowmem"], "it never learned from examples"
    example = data["forget_knowmem_icl"][0]
    turns = [
        {"role": "user", "content": example["question"]},
        {"role": "assistant", "content": example["answer"]},
        {"role": "user", "content": data["forget_knowmem"][0]["question"]},
    ]
    one = MuseData({**alone, "forget_knowmem_icl": data["forget_knowmem_icl"].select([0])})
    table = audit_muse(learned, one, attacks=()).measured.tables["forget_knowmem"]
    (answer,) = LocalEngine(learned).generate([turns], max_new_tokens=32, stop=("\n\n", "\nQuestion", "Question:"))
    assert table["generation"][0] == answer.text
    assert not table["generation"].str.contains("Question:").any()


def test_muse_s_own_flavour(learned: LanguageModel, tmp_path: Path) -> None:
    data = muse_data()
    report = audit_muse(learned, data, compat="muse_bench", verbmem_tokens=9, reference_auc=AUC_RETRAIN["News"])
    rows = report.measured.tables["forget_verbmem"]
    first = data.sets["forget_verbmem"][0]
    cut = learned.tokenizer.decode(learned.tokenizer(first["gt"])["input_ids"][:9], skip_special_tokens=True)
    assert rows["truth"][0] == cut, "nine tokens, that which begins a text among them"
    no_stems = rouge_scores(rows["truth"][0], rows["generation"][0], stem=False)
    assert rows["rougeL_f1"][0] == no_stems.rougeL_f1
    members, others = (report.measured.tables[t]["mia_min_k"].to_numpy() for t in ("forget", "holdout"))
    muse_auc = np.mean(others[:, None] < members[None, :])  # the share of hold-out texts that look more familiar
    assert report.summary["privleak"] == pytest.approx((muse_auc - 0.4772) / 0.4772 * 100, abs=1e-6)
    assert "AUC of 0.5228" in report.notes["privleak"]
    report.save_muse_bench(tmp_path)
    header, line = (tmp_path / "muse_bench.csv").read_text().splitlines()
    assert header == "name,verbmem_f,privleak,knowmem_f,knowmem_r"
    assert float(line.split(",")[1]) == pytest.approx(100 * report.summary["forget_verbmem"])


def test_min_k_of_muse_s_flavour_takes_every_token(learned: LanguageModel) -> None:
    from demur.models import encode_completion

    (stats,) = token_stats(learned, encode_completion(learned, [""], [FORGET[0]]))
    lowest = np.sort(stats.logps)[: int(0.4 * len(stats.logps))]
    table = audit_muse(learned, muse_data(), compat="muse_bench", generation=False).measured.tables["forget"]
    assert table["mia_min_k"][0] == pytest.approx(-lowest.mean(), rel=1e-5)


def test_no_score_depends_on_the_batch_size(learned: LanguageModel) -> None:
    one, many = (audit_muse(learned, muse_data(), batch_size=size).summary for size in (1, 7))
    assert one == pytest.approx(many, rel=1e-4)


def test_settings_and_sets_that_do_not_exist_are_refused() -> None:
    lm, data = muse_lm(), muse_data()
    with pytest.raises(UsageError, match="a MUSE audit has no setting 'verbmem_token': did you mean verbmem_tokens"):
        audit_muse(lm, data, verbmem_token=3)
    with pytest.raises(UsageError, match="unknown compatibility 'muse-bench': did you mean muse_bench"):
        audit_muse(lm, data, compat="muse-bench")
    with pytest.raises(UsageError, match="a MUSE audit has no set 'verbmem'"):
        MuseData.read(verbmem="x")
    with pytest.raises(UsageError, match="needs rows to measure on"):
        MuseData.read(forget_knowmem_icl=None)
    with pytest.raises(UsageError, match="unknown membership attack"):
        audit_muse(lm, data, attacks=("min",))


def test_a_metric_without_rows_says_what_is_missing() -> None:
    report = audit_muse(muse_lm(), MuseData({"forget_verbmem": muse_data().sets["forget_verbmem"]}), generation=False)
    assert report.notes["forget_verbmem"] == "the forget verbmem rows have no rougeL_f1 (it needs generation)"
    assert report.notes["retain_knowmem"] == "no retain knowmem rows were given"
    assert report.summary["forget_verbmem_probability"] > 0


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run on a corpus in MUSE's layout."""
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    said = {name: muse_data().sets[name] for name in ("forget", "holdout")}
    write_muse(tmp_path / "corpus", said["forget"], texts([f"{t} Again." for t in FORGET], "retain"), said["holdout"])
    muse_lm(spread=0.35).save(tmp_path / "before")
    config = {"command": "forget", "model": str(tmp_path / "before"), "template": "plain"}
    config |= {name: f"muse:{tmp_path}/corpus:raw:{s}" for name, s in (("forget", "forget"), ("retain", "retain1"))}
    run = RunFolder.create(tmp_path / "run", config)
    muse_lm().save(run.model_path)
    run.update_state(status="complete")
    return run


def test_a_run_is_measured_on_its_corpus_beside_the_model_before_and_the_reference(run: RunFolder) -> None:
    gold = run.path.parent / "before"
    done = demur("audit", run.path, "--suite", "muse", "--reference", gold, "--option", "verbmem_tokens=8")
    assert done.code == 0, done.err
    table = run.results().set_index(["role", "metric"])["value"]
    assert set(run.results()["suite"]) == {"muse"}
    assert table["reference", "privleak"] == 0 and table["before", "forget_verbmem_probability"] > 0
    assert table.index.get_level_values("role").unique().tolist() == ["run", "before", "reference"]
    samples = run.samples("muse_forget_verbmem")
    assert samples is not None and samples.groupby("role").size().to_dict() == {"run": 4, "before": 4, "reference": 4}
    again = demur("audit", run.path, "--suite", "muse", "--compat", "open-unlearning", "--option", "verbmem_tokens=8")
    assert again.code == 0, again.err
    assert (run.path / "MUSE_EVAL.json").is_file() and (run.path / "before" / "MUSE_SUMMARY.json").is_file()
    log = demur(
        *("audit", run.path, "--suite", "muse", "--compat", "open-unlearning", "--no-before"),
        *("--reference", run.path / "before", "--option", "verbmem_tokens=8"),
    )
    assert log.code == 0, log.err


def test_texts_of_one_s_own_are_measured_by_their_second_halves(tmp_path: Path) -> None:
    file = tmp_path / "forget.jsonl"
    texts(FORGET, "f").to_json(str(file))
    sources = muse_sources(AuditRequest("some/model", sources={"forget": str(file)}, out=tmp_path))
    assert sources == {"forget": str(file), "forget_verbmem": str(file)}
    rows = MuseData.read(**sources).sets["forget_verbmem"]
    assert rows["gt"][:] == completion_rows(texts(FORGET, "f"))["gt"][:]


def test_another_number_of_reference_rows_is_refused(run: RunFolder, tmp_path: Path) -> None:
    shorter = dict(muse_data().sets)
    shorter["forget"] = shorter["forget"].select(range(3))
    options: dict[str, Any] = {"compat": "open-unlearning", "generation": False}
    audit_muse(muse_lm(), MuseData(shorter), **options).save_open_unlearning(tmp_path / "gold")
    done = demur("audit", run.path, "--suite", "muse", "--no-generation", "--reference", tmp_path / "gold")
    assert done.code == 2 and "was measured on 3 forget rows, not on 4" in done.sentence
