from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

from audits.tiny_world import tiny_data, tiny_lm
from demur.audits.membership import ATTACKS
from demur.audits.rouge import rouge_scores
from demur.audits.tofu import audit_tofu
from demur.audits.tofu_data import TofuData, TofuSamples, TofuSettings
from demur.audits.tofu_scoring import tofu_samples
from demur.errors import UsageError
from demur.models import Generation, LanguageModel, encode

NUMBERS = [
    "loss",
    "probability",
    "paraphrased_loss",
    "truth_ratio",
    "truth_share",
    "probability_normalised",
    "exact_memorization",
    "extraction_strength",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus_plus",
    "mia_gradnorm",
    "rougeL_recall",
]
MODES = [None, "open-unlearning"]


def _measure(lm: LanguageModel, data: TofuData, **options: Any) -> TofuSamples:
    return tofu_samples(lm, data, TofuSettings(attacks=ATTACKS, max_new_tokens=12, **options))


def _assert_same(first: TofuSamples, second: TofuSamples) -> None:
    for name, table in first.tables.items():
        other = second.tables[name].set_index("id").loc[list(table["id"])].reset_index()
        for column in (c for c in NUMBERS if c in table):
            np.testing.assert_allclose(table[column].astype(float), other[column].astype(float), atol=1e-4, rtol=1e-4)
        if "generation" in table:
            assert list(table["generation"]) == list(other["generation"])


class _PlainForward:
    """Each answer alone, one forward of the whole model, full logits."""

    def __init__(self, lm: LanguageModel, prompt: str, answer: str) -> None:
        (item,) = encode(lm, [prompt], [answer])
        ids = torch.tensor([item.input_ids])
        with torch.no_grad():
            log_p = lm.model(input_ids=ids).logits[0].float().log_softmax(-1)
        self.labels = item.input_ids[item.prompt_length :]
        at = range(item.prompt_length - 1, len(item.input_ids) - 1)
        self.rows = [log_p[t].double() for t in at]
        self.logps = [float(row[label]) for row, label in zip(self.rows, self.labels, strict=True)]
        self.hits = [int(row.argmax()) == label for row, label in zip(self.rows, self.labels, strict=True)]

    @property
    def loss(self) -> float:
        return -sum(self.logps) / len(self.logps)

    def min_k_plus_plus(self) -> float:
        scores = []
        for row, logp in zip(self.rows[:-1], self.logps[:-1], strict=True):
            mean = float((row.exp() * row).sum())
            variance = float((row.exp() * (row - mean) ** 2).sum())
            scores.append((logp - mean) / math.sqrt(max(variance, 1e-6)))
        count = max(1, int(len(scores) * 0.4))
        return -sum(sorted(scores)[:count]) / count


def test_the_fused_pass_equals_one_plain_forward_an_answer(knowing_lm: LanguageModel) -> None:
    data = tiny_data()
    table = _measure(knowing_lm, data).tables["forget"].set_index("id")
    assert 0.1 < table["exact_memorization"].mean() < 0.95  # else hits would not be tested
    for row in data.forget:
        found = table.loc[row["id"]]
        plain = _PlainForward(knowing_lm, row["question"], row["answer"])
        paraphrased = _PlainForward(knowing_lm, row["question"], row["paraphrased_answer"]).loss
        false = [_PlainForward(knowing_lm, row["question"], text).loss for text in row["perturbed_answer"]]
        lowest = sorted(plain.logps[:-1])[: max(1, int(len(plain.logps[:-1]) * 0.4))]
        expected = {
            "loss": plain.loss,
            "probability": math.exp(-plain.loss),
            "paraphrased_loss": paraphrased,
            "truth_ratio": math.exp(-np.mean(false)) / (math.exp(-paraphrased) + 1e-10),
            "exact_memorization": float(np.mean(plain.hits[:-1])),
            "mia_min_k": -float(np.mean(lowest)),
            "mia_min_k_plus_plus": plain.min_k_plus_plus(),
        }
        assert dict(found[list(expected)]) == pytest.approx(expected, abs=1e-4, rel=1e-4)
        assert list(found["perturbed_losses"]) == pytest.approx(false, abs=1e-4)


@pytest.mark.parametrize("compat", MODES)
def test_batch_size_changes_nothing(knowing_lm: LanguageModel, compat: Any) -> None:
    one = _measure(knowing_lm, tiny_data(), compat=compat, batch_size=1)
    _assert_same(one, _measure(knowing_lm, tiny_data(), compat=compat, batch_size=5))


@pytest.mark.parametrize("compat", MODES)
def test_row_order_and_the_tokenizers_padding_side_change_nothing(knowing_lm: LanguageModel, compat: Any) -> None:
    data = tiny_data()
    turned = TofuData(**{name: rows.select(range(len(rows))[::-1]) for name, rows in data.sets.items()})
    first = _measure(knowing_lm, data, compat=compat)
    side = knowing_lm.tokenizer.padding_side
    try:
        knowing_lm.tokenizer.padding_side = "left" if side == "right" else "right"
        _assert_same(first, _measure(knowing_lm, turned, compat=compat))
    finally:
        knowing_lm.tokenizer.padding_side = side


def test_answers_that_start_from_the_scored_truth_equal_plain_greedy_decoding(knowing_lm: LanguageModel) -> None:
    tables = _measure(knowing_lm, tiny_data()).tables
    for name, table in tables.items():
        if name == "holdout":
            continue
        for row in table.itertuples():
            chat = [{"role": "user", "content": row.prompt}]
            ids = knowing_lm.tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=False
            )
            with torch.no_grad():
                made = knowing_lm.model.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
                )
            text = knowing_lm.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()
            assert row.generation == text
            assert row.rougeL_recall == rouge_scores(row.truth, text).rougeL_recall
    assert tables["forget"]["rougeL_recall"].mean() > 0


def test_a_token_that_reaches_across_the_border_keeps_the_answer_from_being_assumed() -> None:
    lm = tiny_lm("plain")
    table = _measure(lm, tiny_data()).tables["forget"]
    ids = lm.tokenizer(f"Question: {table['prompt'][1]}\nAnswer: ", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        made = lm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    assert table["generation"][1] == lm.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_paraphrased_questions_are_asked_of_forget_and_retain_rows_only(knowing_lm: LanguageModel) -> None:
    tables = tofu_samples(
        knowing_lm, tiny_data(), TofuSettings(question_key="paraphrased_question", generation=False)
    ).tables
    assert list(tables["forget"]["prompt"]) == tiny_data().forget["paraphrased_question"][:]
    assert tables["real_authors"]["prompt"][0].startswith("Where was")
    assert tables["holdout"]["prompt"][0].startswith("Where was")


def test_rows_without_false_answers_have_no_truth_ratio(knowing_lm: LanguageModel) -> None:
    rows = [dict(r) for r in tiny_data().forget]
    rows[2]["perturbed_answer"] = None
    table = tofu_samples(knowing_lm, TofuData(Dataset.from_list(rows)), TofuSettings(generation=False)).tables["forget"]
    assert list(table["truth_ratio"].isna()) == [i == 2 for i in range(6)]
    assert table["loss"].notna().all()


def test_forget_rows_without_a_paraphrase_have_no_truth_ratio_and_world_facts_need_none(
    knowing_lm: LanguageModel,
) -> None:
    data = tiny_data()
    bare = TofuData(data.forget.remove_columns("paraphrased_answer"), world_facts=data.world_facts)
    report = audit_tofu(knowing_lm, bare, generation=False)
    assert "forget_truth_ratio" not in report.summary
    assert "needs perturbed_answer, and paraphrased_answer" in report.notes["forget_truth_ratio"]
    assert "world_facts_truth_ratio" in report.summary


def test_a_tokenizer_without_an_end_token_is_refused(knowing_lm: LanguageModel) -> None:
    lm = tiny_lm()
    lm.tokenizer.eos_token = None
    for compat in MODES:
        with pytest.raises(UsageError, match="no end-of-text token"):
            _measure(lm, tiny_data(), compat=compat)


def test_a_missing_question_column_is_named(knowing_lm: LanguageModel) -> None:
    data = TofuData(tiny_data().holdout)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no column 'paraphrased_question'"):
        tofu_samples(knowing_lm, data, TofuSettings(question_key="paraphrased_question"))


def test_a_wrapping_engine_answers_and_a_scorer_judges(knowing_lm: LanguageModel) -> None:
    class Refuses:
        def generate(self, prompts: Sequence[Any], **_: Any) -> list[Generation]:
            made = [Generation("I cannot say.", (), "stop") for _ in prompts]
            return [*made[:-1], Generation("", (), "error", "connection lost")]

        def score(self, prompts: Any, responses: Any) -> Any:
            raise AssertionError("the suite scores with the model itself")

    tables = tofu_samples(
        knowing_lm, tiny_data(), engine=Refuses(), fluency=lambda texts: [float(len(t)) for t in texts]
    ).tables
    table, last = tables["forget"], tables["world_facts"].iloc[-1]
    assert pd.isna(last["generation"]) and pd.isna(last["rougeL_recall"])  # no answer is no score, not 0
    assert set(table["generation"]) == {"I cannot say."}
    assert set(table["fluency"]) == {13.0}


def test_progress_counts_up_to_the_total_of_every_stage(knowing_lm: LanguageModel) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        assert done > seen.get(stage, (0, 0))[0]
        seen[stage] = (done, total)

    tofu_samples(knowing_lm, tiny_data(), TofuSettings(attacks=("gradnorm",), max_new_tokens=3), progress=progress)
    assert seen == {
        "scoring answers": (87, 87),
        "answering questions": (19, 19),
        "taking gradients": (11, 11),
    }


def test_a_model_with_broken_weights_is_measured_and_counted_as_unscored() -> None:
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.lm_head.weight.fill_(float("nan"))
    table: pd.DataFrame = tofu_samples(lm, tiny_data(), TofuSettings(max_new_tokens=3)).tables["forget"]
    assert table["probability"].isna().all()
    assert (table["exact_memorization"] == 0).all()
