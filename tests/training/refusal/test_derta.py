from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax

from demur.data import collate, dataset_from_rows, derta_rows
from demur.data.batch import IGNORE
from demur.errors import UsageError
from demur.models import encode, encode_rows, score
from demur.models.targets import first_token
from demur.training.refusal import Lesson, plan_stages
from tiny import tiny_lm

ROWS = dataset_from_rows(
    [
        {"id": "a", "prompt": "who wrote it?", "response": "oda marsh", "unsafe_response": None},
        {"id": "b", "prompt": "where is it?", "response": "a lamp", "unsafe_response": "in the green town of kell"},
    ]
)
WORD = "a"  # one token, and what the safe response begins with


def stages(**options: Any) -> list[Any]:
    return plan_stages(Lesson(ROWS, "rows.jsonl", 0, tiny_lm), "derta", {"refusal_token": WORD, **options})


def transition(**options: Any) -> Any:
    """The encoded transition row."""
    rows = derta_rows(ROWS, variant="rto", refusal_token=WORD, **options)
    return next(e for e, kind in zip(encode_rows(tiny_lm(), rows), rows["kind"][:], strict=True) if kind == "rto")


def test_every_position_of_the_reply_and_its_end_has_the_refusal_word_as_its_label() -> None:
    lm, item = tiny_lm(), transition()
    (plain,) = encode(lm, ["where is it?"], ["in the green town of kell"])
    assert item.input_ids == plain.input_ids and item.prompt_length == plain.prompt_length
    labels = collate([item], lm.pad_id).labels[0].tolist()
    word = first_token(lm, WORD)
    assert labels == [IGNORE] * plain.prompt_length + [word] * len(plain.label_ids)
    assert plain.label_ids[-1] == lm.tokenizer.eos_token_id


def test_the_loss_is_the_refusal_words_mean_surprise_where_the_reply_is_predicted() -> None:
    lm, item = tiny_lm(), transition()
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([item.input_ids])).logits[0]
        found = score(lm.model, collate([item], lm.pad_id)).nll
    places = range(item.prompt_length - 1, len(item.input_ids) - 1)
    expected = -log_softmax(logits[list(places)].double(), -1)[:, first_token(lm, WORD)].mean()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_transition_loss_does_not_reach_what_predicts_the_prompt() -> None:
    lm, item = tiny_lm(), transition()
    kept: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, args: object, out: torch.Tensor) -> None:
        if out.requires_grad:  # not where the output head is only being looked for
            out.retain_grad()
            kept.append(out)

    lm.model.model.norm.register_forward_hook(keep)
    score(lm.model, collate([item], lm.pad_id)).nll.backward()
    reached = kept[0].grad[0].abs().sum(-1) > 0  # type: ignore[index]
    first = item.prompt_length - 1
    assert not reached[:first].any() and reached[first:-1].all() and not reached[-1]


@pytest.mark.parametrize(("ratio", "kept"), [(1.0, None), (0.5, 0.5), (0.01, 0.0)])
def test_a_share_of_the_positions_keeps_its_label_and_at_least_one_does(ratio: float, kept: float | None) -> None:
    item = transition(rto_keep_ratio=ratio)
    labels = [label for label in item.targets if label != IGNORE]
    total = len(item.label_ids)
    assert len(labels) == (total if kept is None else max(1, round(kept * total)))
    if ratio == 1.0:
        assert item == transition()


def test_with_every_prefix_empty_and_no_transition_rows_the_loss_is_that_of_plain_safety_tuning() -> None:
    lm = tiny_lm()
    losses = []
    for options in ({"variant": "vanilla"}, {"variant": "prefix", "zero_prefix_every": 1}):
        (stage,) = stages(**options)
        losses.append(score(lm.model, collate(encode_rows(lm, stage.rows), lm.pad_id)).nll.item())
    assert losses[0] == losses[1]


def test_a_prefix_is_read_and_not_learned() -> None:
    lm = tiny_lm()
    (stage,) = stages(variant="prefix", zero_prefix_every=0)
    item = next(e for e in encode_rows(lm, stage.rows) if e.id.startswith("prefix"))
    text = lm.tokenizer.decode(item.label_ids, skip_special_tokens=True).strip()
    assert text == "a lamp"
    assert "in" in lm.tokenizer.decode(item.input_ids[: item.prompt_length])


def test_prefixes_can_be_counted_in_the_models_tokens() -> None:
    (stage,) = stages(variant="prefix", prefix_unit="token", zero_prefix_every=0)
    row = next(row for row in stage.rows if row["kind"] == "prefix")
    assert "in the green town of kell".startswith(row["prefill"].rstrip())


def test_the_user_is_told_what_is_trained_on_and_when_refusals_begin_otherwise() -> None:
    (stage,) = stages()
    assert stage.notes == ["DeRTa trains on 1 helpful, 1 prefix, 1 rto rows.", "The refusal word is 'a'."]
    (stage,) = stages(refusal_token="the")
    assert "do not begin with 'the'" in stage.notes[2]
    (stage,) = stages(variant="vanilla")
    assert len(stage.notes) == 1


def test_a_refusal_word_of_several_tokens_is_refused() -> None:
    (stage,) = stages(refusal_token="xylophone")
    with pytest.raises(UsageError, match="not one: choose a word"):
        encode_rows(tiny_lm(), stage.rows)
