from __future__ import annotations

from pathlib import Path

import pytest

from demur.errors import UsageError
from demur.guards import CuriosityPrompting, CuriosityTemplates, open_guard
from demur.guards.curiosity import fill_template
from demur.models import Generation, LocalEngine, ResponseScore
from tiny import tiny_lm


class Scripted:
    """A model that plays all three parts, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list = []

    def generate(self, prompts, **options):
        self.asked.append(list(prompts))
        return [self._answer(p if isinstance(p, str) else p[-1]["content"]) for p in prompts]

    def _answer(self, text: str) -> Generation:
        if "Do not answer it" in text:
            broken = "unanswerable" in text
            return Generation(
                "I cannot see {answer} pictures", (), "error" if broken else "stop", "down" if broken else None
            )
        if "The notes:" in text:
            notes, draft = text.partition("The notes:\n")[2], text.partition("The draft:\n")[2].partition("\n\n")[0]
            return Generation(f"Disclaimer: {notes}. Because I read text only. Guidance: {draft}", (), "stop")
        return Generation("describe it in words", (), "stop")

    def score(self, prompts, responses):
        return [ResponseScore(-1.0, 1) for _ in prompts]


def test_three_calls_make_an_answer_with_disclaimer_reason_and_guidance() -> None:
    engine = Scripted()
    (found,) = CuriosityPrompting(engine).run(["What is in this picture?"])
    assert len(engine.asked) == 3 and engine.asked[0] == ["What is in this picture?"]
    assert "What is in this picture?" in engine.asked[1][0] and "What is in this picture?" in engine.asked[2][0]
    assert found.merged.text == (
        "Disclaimer: I cannot see {answer} pictures. Because I read text only. Guidance: describe it in words"
    )
    assert (found.raw.text, found.confusion.text) == ("describe it in words", "I cannot see {answer} pictures")


def test_no_placeholder_of_a_template_is_left() -> None:
    engine = Scripted()
    CuriosityPrompting(engine).generate(["plain"])
    assert not [p for call in engine.asked for p in call if "{question}" in p or "{confusion}" in p]
    # What a model wrote keeps its braces, and is not filled in a second time.
    assert "I cannot see {answer} pictures" in engine.asked[2][0]


def test_a_conversation_keeps_its_turns_and_its_last_question_is_asked() -> None:
    engine = Scripted()
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What do you smell?"}]
    CuriosityPrompting(engine).generate([talk])
    assert [call[0][0] for call in engine.asked] == [talk[0]] * 3
    assert "What do you smell?" in engine.asked[2][0][1]["content"]


def test_a_call_that_failed_is_an_error_and_the_others_go_on() -> None:
    engine = Scripted()
    bad, good = CuriosityPrompting(engine).generate(["unanswerable", "fine"])
    assert (bad.finish, bad.error) == ("error", "down")
    assert good.finish == "stop" and len(engine.asked[2]) == 1


@pytest.mark.parametrize(
    ("templates", "problem"),
    [
        ({"merge": "{question} {answer}"}, "merge template: placeholder {confusion} is not in the template"),
        ({"merge": "{question} {answer} {confusion} {tone}"}, "placeholder {tone} has no value"),
        ({"confusion": "what?"}, "confusion template: placeholder {question}"),
    ],
)
def test_a_template_with_a_wrong_placeholder_is_refused(templates: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        CuriosityTemplates(**templates)
    assert problem in str(caught.value)


def test_values_are_filled_in_one_pass() -> None:
    assert fill_template("{a}{b}", {"a": "{b}", "b": "x"}) == "{b}x"


def test_it_stands_around_a_local_model_and_is_found_by_its_saved_kind(tmp_path: Path) -> None:
    templates = CuriosityTemplates("odd in {question}?", "{question} {answer} {confusion}")
    guard = CuriosityPrompting(tiny_lm(), templates)
    guard.save(tmp_path / "curious")
    opened = open_guard(tmp_path / "curious", LocalEngine(tiny_lm()))
    assert isinstance(opened, CuriosityPrompting) and opened.templates == templates
    prompts = ["who wrote it?", "where was oda born?"]
    told = guard.generate(prompts, max_new_tokens=4)
    assert [g.text for g in opened.generate(prompts, max_new_tokens=4)] == [g.text for g in told]
    assert opened.score(["who?"], ["oda"]) == LocalEngine(tiny_lm()).score(["who?"], ["oda"])
