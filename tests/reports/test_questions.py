from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from demur.reports.evidence import read_runs
from demur.reports.questions import embed_json, questions_data
from reports.made_runs import AT_GOLD, REMEMBERS

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(JSON)
def test_embedded_json_reads_back_and_cannot_end_its_element(data):
    text = embed_json(data)
    assert json.loads(text) == data
    assert not set("<>&\u2028\u2029") & set(text)


def test_embedded_json_escapes_the_end_of_a_script_and_can_be_written():
    text = embed_json({"a": "</script><!-- \u2028 \ud800 שלום 😀"})
    assert "</script" not in text and "<!--" not in text
    text.encode("utf-8")
    assert json.loads(text)["a"].startswith("</script><!-- \u2028")


def read(data, row, model_label):
    index = next(i for i, m in enumerate(data["models"]) if m["label"] == model_label)
    given = next((a for a in row[4] if a[0] == index), None)
    return None if given is None else (None if given[1] is None else data["strings"][given[1]], given[2:])


def test_every_question_appears_once_with_the_answers_of_all_models(maker):
    data = questions_data(read_runs([maker.run("npo", REMEMBERS), maker.run("simnpo", AT_GOLD)]))
    assert len(data["rows"]) == sum(maker.sizes.values())
    assert data["splits"] == ["Forget set", "Retain set", "Real authors", "World facts", "Hold-out set"]
    assert [m["label"] for m in data["models"]] == ["before", "gold", "npo", "simnpo"]
    assert all(len(row[4]) == 4 for row in data["rows"])
    assert data["runs"] == [
        {"label": "npo", "run": 2, "before": 0, "reference": 1},
        {"label": "simnpo", "run": 3, "before": 0, "reference": 1},
    ]


def test_answers_and_numbers_are_those_of_the_samples(maker):
    folder = maker.run("npo", REMEMBERS)
    data = questions_data(read_runs([folder]))
    frame = folder.samples("tofu_forget")
    want = frame[(frame.role == "run") & (frame.id == "3")].iloc[0]
    row = next(r for r in data["rows"] if r[0] == 0 and r[1] == "3")
    text, numbers = read(data, row, "npo")
    assert (text, data["strings"][row[2]], data["strings"][row[3]]) == (want.generation, want.prompt, want.truth)
    keys = [number["key"] for number in data["numbers"]]
    assert numbers[keys.index("loss")] == float(f"{want.loss:.4g}")


def test_equal_texts_are_stored_once(maker):
    data = questions_data(read_runs([maker.run("npo", REMEMBERS)]))
    assert len(set(data["strings"])) == len(data["strings"])


def frame_of(**columns) -> pd.DataFrame:
    base = {"role": ["run"], "id": ["1"], "prompt": ["q"], "truth": ["t"], "generation": ["g"], "probability": [0.5]}
    return pd.DataFrame(base | columns)


def test_missing_pieces_stay_missing(maker):
    folder = maker.run("npo", AT_GOLD, samples=())
    folder.write_samples("tofu_forget", frame_of(generation=[None], probability=[math.nan], loss=[math.inf]))
    data = questions_data(read_runs([folder]))
    assert data["numbers"] == [{"key": "loss", "label": "Loss", "meaning": data["numbers"][0]["meaning"]}]
    assert read(data, data["rows"][0], "npo") == (None, [None])
    embed_json(data)


def test_no_samples_at_all_give_no_rows(maker):
    data = questions_data(read_runs([maker.run("npo", AT_GOLD, samples=())]))
    assert (data["rows"], data["splits"]) == ([], [])


def test_a_chat_prompt_is_shown_as_its_turns(maker):
    folder = maker.run("npo", AT_GOLD, samples=())
    chat = np.array([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}], dtype=object)
    folder.write_samples("tofu_forget", frame_of(prompt=[list(chat)]))
    data = questions_data(read_runs([folder]))
    assert data["strings"][data["rows"][0][2]] == "system: Be brief.\nuser: Who?"


def test_other_questions_under_the_same_id_are_kept_apart(maker):
    folders = [maker.run("a", AT_GOLD, samples=()), maker.run("b", REMEMBERS, samples=())]
    folders[0].write_samples("tofu_forget", frame_of(prompt=["one?"]))
    folders[1].write_samples("tofu_forget", frame_of(prompt=["two?"]))
    data = questions_data(read_runs(folders))
    assert [data["strings"][row[2]] for row in data["rows"]] == ["one?", "two?"]


def test_samples_of_another_suite_are_left_out(maker):
    folder = maker.run("npo", AT_GOLD, samples=("forget",))
    folder.write_samples("tofu_open_unlearning_forget", frame_of())
    assert questions_data(read_runs([folder]))["splits"] == ["Forget set"]
