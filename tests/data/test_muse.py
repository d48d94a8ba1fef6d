from __future__ import annotations

import json
from pathlib import Path

import pytest

from audits.muse_world import FORGET, HOLDOUT, RETAIN, texts
from cli.command import demur
from demur.data import (
    completion_rows,
    dataset_from_rows,
    find_overlap,
    muse_split,
    read_rows,
    require_disjoint,
    write_muse,
)
from demur.data.muse import corpus_sets, muse_corpus
from demur.errors import RowError, UnknownNameError, UsageError

QUESTIONS = dataset_from_rows([{"id": str(i), "question": f"Q{i}?", "answer": f"A{i}."} for i in range(7)])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    sets = texts(FORGET, "forget"), texts(RETAIN, "retain"), texts(HOLDOUT, "holdout")
    return write_muse(tmp_path / "corpus", *sets, forget_qa=QUESTIONS, retain_qa=QUESTIONS, shots=2)


def test_every_set_of_a_corpus_is_read_by_its_name(corpus: Path) -> None:
    def said(name: str) -> list[str]:
        return read_rows(f"muse:{corpus}:{name}")["text"][:]

    assert said("raw:forget") == said("privleak:forget") == said("scal:forget_4") == FORGET
    assert said("raw:retain1") + said("raw:retain2") == RETAIN == said("privleak:retain")
    assert said("raw:holdout") == HOLDOUT
    assert [text for k in "1234" for text in said(f"sust:forget_{k}")] == FORGET
    assert said("scal:forget_2") == FORGET[:2]
    questions = [len(read_rows(f"muse:{corpus}:knowmem:{s}")) for s in ("forget_qa", "forget_qa_icl", "retain_qa_icl")]
    assert questions == [5, 2, 2]


def test_a_beginning_and_its_end_make_the_text(corpus: Path) -> None:
    rows = read_rows(f"muse:{corpus}:verbmem:forget")
    assert [f"{row['prompt']} {row['gt']}" for row in rows] == FORGET
    assert [len(row["prompt"].split()) for row in rows] == [round(len(text.split()) / 2) for text in FORGET]
    short = completion_rows(texts(["One two", "a  b c"], "short"), share=1.0)
    assert list(short["prompt"]) == ["One", "a  b"] and list(short["gt"]) == ["two", "c"]
    with pytest.raises(RowError, match="line 2, column 'text': has fewer than 2 words"):
        completion_rows(texts(["One two", "one"], "short"))


def test_muse_s_own_json_and_the_hub_s_parts_are_read(tmp_path: Path) -> None:
    for config in ("raw", "verbmem"):
        (tmp_path / config).mkdir()
    (tmp_path / "raw" / "forget.json").write_text(json.dumps(FORGET))
    (tmp_path / "raw" / "forget.txt").write_text("\n\n".join(FORGET))
    assert muse_split(tmp_path, "raw", "forget")["text"][:] == FORGET
    for part in range(2):
        file = tmp_path / "verbmem" / f"forget-0000{part}-of-00002.parquet"
        dataset_from_rows([{"prompt": f"p{part}", "gt": "g"}]).to_parquet(str(file))
    assert muse_split(tmp_path, "verbmem", "forget")["prompt"][:] == ["p0", "p1"]


def test_the_benchmark_s_own_corpora_come_from_the_shared_folder(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus.parent / "muse").mkdir()
    corpus.rename(corpus.parent / "muse" / "News")
    monkeypatch.setenv("DEMUR_SHARED_DATA", str(corpus.parent))
    assert read_rows("muse:news:raw:forget")["text"][:] == FORGET
    assert corpus_sets("muse:News")["retain_verbmem"] == "muse:News:verbmem:retain"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("News", "write muse:CORPUS:CONFIGURATION:SET"),
        ("{corpus}:row:forget", "MUSE has no configuration 'row': did you mean raw"),
        ("{corpus}:raw:forgt", "has no set 'forgt': did you mean forget"),
        ("Nwes:raw:forget", "no MUSE corpus 'Nwes': did you mean News"),
    ],
)
def test_a_wrong_name_is_met_with_the_right_one(corpus: Path, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read_rows("muse:" + name.format(corpus=corpus))


def test_a_broken_row_is_named(corpus: Path) -> None:
    (corpus / "verbmem" / "forget.jsonl").write_text('{"prompt": "a", "gt": "b"}\n{"prompt": "a", "gt": 5}\n')
    with pytest.raises(RowError, match="line 2, column 'gt': must be text, not"):
        muse_split(corpus, "verbmem", "forget")
    (corpus / "raw" / "forget.jsonl").unlink()
    with pytest.raises(UnknownNameError, match="has no set 'forget': known names: holdout"):
        muse_split(corpus, "raw", "forget")


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs 4 forget texts and 2 retain texts, not 3 and 3"):
        write_muse(tmp_path / "c", texts(FORGET[:3], "f"), texts(RETAIN, "r"), texts(HOLDOUT, "h"))
    sets = texts(FORGET, "f"), texts(RETAIN, "r"), texts(HOLDOUT, "h")
    with pytest.raises(UsageError, match="7 questions leave none beside 7"):
        write_muse(tmp_path / "c", *sets, forget_qa=QUESTIONS, shots=7)
    assert not (tmp_path / "c").exists()


def test_a_source_tells_its_corpus() -> None:
    assert muse_corpus("muse:a:b/c:raw:forget") == "muse:a:b/c"
    assert muse_corpus("tofu:forget10") is muse_corpus(None) is None


def test_texts_that_are_in_both_sets_are_found() -> None:
    forget, retain = texts(FORGET, "f"), texts([RETAIN[0], FORGET[1].upper().replace(" ", "  ")], "r")
    assert find_overlap(forget, retain) == [("f-1", "r-1")]
    with pytest.raises(UsageError, match="1 of 4 forget rows are also retain rows"):
        require_disjoint(forget, retain)
    assert find_overlap(forget, QUESTIONS) == []


def test_the_command_puts_texts_into_the_layout(tmp_path: Path) -> None:
    for name, said in (("forget", FORGET), ("retain", RETAIN), ("holdout", HOLDOUT)):
        texts(said, name).to_json(str(tmp_path / f"{name}.jsonl"))
    words = [tmp_path / "forget.jsonl", "--retain", tmp_path / "retain.jsonl", "--holdout", tmp_path / "holdout.jsonl"]
    done = demur("data", "muse-layout", *words, "--out", tmp_path / "corpus")
    assert done.code == 0, done.err
    assert read_rows(f"muse:{tmp_path / 'corpus'}:raw:forget")["text"][:] == FORGET
