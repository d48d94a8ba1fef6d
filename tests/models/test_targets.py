from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from demur.data.batch import IGNORE, Encoded, collate
from demur.data.columns import dataset_from_rows
from demur.errors import UsageError
from demur.models import LanguageModel, score
from demur.models.completion import encode_rows
from demur.models.targets import first_token
from tiny import tiny_lm

ROW = {"id": "a", "prompt": "who wrote lamp 3?", "response": "lamp 3 was written by oda nine."}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


def rows(*more: dict[str, object]) -> Dataset:
    return dataset_from_rows([{**ROW, **extra} for extra in more])


def test_a_target_is_the_label_everywhere_in_the_answer_and_where_it_ends(lm: LanguageModel) -> None:
    plain, aimed = encode_rows(lm, rows({"target": None}, {"target": "o"}))
    assert aimed.input_ids == plain.input_ids and plain.targets is None
    assert aimed.targets == (first_token(lm, "o"),) * (len(plain.input_ids) - plain.prompt_length)
    labels = collate([plain, aimed], lm.pad_id).labels
    assert (labels[0] == IGNORE).tolist() == (labels[1] == IGNORE).tolist()


def test_a_share_of_positions_keeps_its_label_and_at_least_one_does(lm: LanguageModel) -> None:
    half, least = encode_rows(lm, rows({"target": "o", "target_share": 0.5}, {"target": "o", "target_share": 0.01}))
    assert half.targets is not None and least.targets is not None
    assert half.label_count == round(0.5 * len(half.targets)) and least.label_count == 1
    again = encode_rows(lm, rows({"target": "o", "target_share": 0.5}))[0]
    assert again.targets == half.targets


def test_a_target_word_that_the_tokenizer_splits_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(UsageError, match=r"'zqxzqx' is \d+ tokens"):
        encode_rows(lm, rows({"target": "zqxzqx"}))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_out_of_range_names_the_row(lm: LanguageModel, share: float) -> None:
    with pytest.raises(UsageError, match="row 'a': target_share"):
        encode_rows(lm, rows({"target": "o", "target_share": share}))


def test_what_an_answer_begins_with_is_read_and_no_label(lm: LanguageModel) -> None:
    whole, begun = encode_rows(
        lm, rows({"prefill": None}, {"prefill": "lamp 3 was ", "response": "written by oda nine."})
    )
    assert begun.input_ids == whole.input_ids
    assert whole.prompt_length < begun.prompt_length < len(whole.input_ids)


def test_the_loss_towards_targets_is_the_mean_cross_entropy_at_their_positions(lm: LanguageModel) -> None:
    (item,) = encode_rows(lm, rows({"target": "o"}))
    batch = collate([item], lm.pad_id)
    logits = lm.model(batch.input_ids).logits[0, item.prompt_length - 1 : -1].log_softmax(-1)
    expected = -logits[:, first_token(lm, "o")].mean()
    torch.testing.assert_close(score(lm.model, batch).nll, expected, rtol=1e-5, atol=1e-5)


def test_a_label_without_a_token_before_it_is_not_counted() -> None:
    assert Encoded([5, 6, 7], 0, targets=(9, IGNORE, 9)).label_count == 1
