from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.guards import PhraseTrie, Restriction, find_phrase
from demur.guards.beam_search import beam_search
from demur.guards.restriction import Pieces, token_trie
from demur.models import LanguageModel, LocalEngine, encode_prompts
from tiny import tiny_lm

PROMPTS = ["who wrote the lamp?", "where?", "was oda marsh born in kell or in the town?", "the green lamp"]


def restriction(lm: LanguageModel, phrases: Sequence[str], pieces: Pieces | None = None) -> Restriction:
    pieces = pieces or Pieces(lm.tokenizer, lm.model.config.vocab_size)
    return Restriction(phrases, token_trie(lm.tokenizer, phrases), pieces, lm.tokenizer)


LM = tiny_lm()
PIECES = Pieces(LM.tokenizer, LM.model.config.vocab_size)


@pytest.fixture
def lm() -> LanguageModel:
    return LM


@pytest.fixture
def pieces() -> Pieces:
    return PIECES


@pytest.fixture(scope="module")
def reference_beams() -> Callable[..., tuple[tuple[int, ...], float]]:
    def answer(lm: LanguageModel, prompt: str, width: int, tokens: int) -> tuple[tuple[int, ...], float]:
        """transformers' best beam and the sum of its log-probabilities."""
        ids = torch.tensor(encode_prompts(lm, [prompt]))
        out = lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            num_beams=width,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=True,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=lm.pad_id,
        )
        found = out.sequences[0, ids.shape[1] :].tolist()
        end = lm.tokenizer.eos_token_id
        return tuple(found[: found.index(end) + 1] if end in found else found), float(out.sequences_scores[0])

    return answer


def test_width_one_without_phrases_is_the_greedy_answer(lm: LanguageModel, pieces: Pieces):
    found = beam_search(lm, encode_prompts(lm, PROMPTS), [restriction(lm, (), pieces)] * 4, width=1, max_new_tokens=12)
    assert [f.tokens for f in found] == [g.token_ids for g in LocalEngine(lm).generate(PROMPTS, max_new_tokens=12)]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("width", [2, 7])
def test_without_penalties_scores_are_those_of_transformers(
    architecture: str, width: int, reference_beams: Callable[..., tuple[tuple[int, ...], float]]
):
    lm = tiny_lm(architecture)
    free = restriction(lm, ())
    found = beam_search(lm, encode_prompts(lm, PROMPTS), [free] * 4, width=width, max_new_tokens=10)
    for prompt, best in zip(PROMPTS, found, strict=True):
        tokens, score = reference_beams(lm, prompt, width, 10)
        assert best.tokens == tokens and best.score == pytest.approx(score, abs=1e-5)


def test_answers_that_end_early_score_as_in_transformers(
    reference_beams: Callable[..., tuple[tuple[int, ...], float]],
):
    lm = tiny_lm()
    with torch.no_grad():  # ends become likely
        lm.model.get_output_embeddings().weight[lm.tokenizer.eos_token_id] *= 8.0
    found = beam_search(lm, encode_prompts(lm, PROMPTS), [restriction(lm, ())] * 4, width=3, max_new_tokens=10)
    assert any(f.finish == "stop" for f in found)
    for prompt, best in zip(PROMPTS, found, strict=True):
        tokens, score = reference_beams(lm, prompt, 3, 10)
        assert best.tokens == tokens and best.score == pytest.approx(score, abs=1e-5)


def test_company_in_the_batch_changes_no_answer(lm: LanguageModel, pieces: Pieces):
    rules = [restriction(lm, phrases, pieces) for phrases in (("oda",), ("e",), (), ("the", "kell"))]
    ids = encode_prompts(lm, PROMPTS)
    together = beam_search(lm, ids, rules, width=4, max_new_tokens=10)
    alone = [beam_search(lm, [i], [r], width=4, max_new_tokens=10)[0] for i, r in zip(ids, rules, strict=True)]
    assert [f.tokens for f in together] == [f.tokens for f in alone]


@settings(max_examples=25)
@given(st.lists(st.text("aeodlrs tn", min_size=1, max_size=4), min_size=1, max_size=4))
def test_no_answer_says_a_forbidden_phrase(phrases: list[str]):
    wanted = [p for p in phrases if p.strip()]
    rule = restriction(LM, wanted, PIECES)
    found = beam_search(LM, encode_prompts(LM, PROMPTS[:2]), [rule] * 2, width=3, max_new_tokens=8)
    for best in found:
        assert find_phrase(wanted, LM.tokenizer.decode(best.tokens, skip_special_tokens=True)) is None


def test_a_word_is_judged_when_it_ends_and_its_beam_is_taken_back(lm: LanguageModel, pieces: Pieces):
    ids = encode_prompts(lm, PROMPTS[:1])
    (free,) = beam_search(lm, ids, [restriction(lm, (), pieces)], width=3, max_new_tokens=12)
    words = lm.tokenizer.decode(free.tokens, skip_special_tokens=True).split()
    assert len(words) > 1

    def dear(wanted: Sequence[tuple[Restriction, str]]) -> None:
        for rule, word in wanted:
            rule.penalties[word] = math.inf if word == words[0] else 0.0

    (found,) = beam_search(lm, ids, [restriction(lm, (), pieces)], width=3, max_new_tokens=12, word_penalties=dear)
    assert words[0] not in lm.tokenizer.decode(found.tokens, skip_special_tokens=True).split()


def test_a_penalty_below_the_threshold_is_taken_off_the_score_once_a_word(lm: LanguageModel, pieces: Pieces):
    ids = encode_prompts(lm, PROMPTS[:1])
    (free,) = beam_search(lm, ids, [restriction(lm, (), pieces)], width=1, max_new_tokens=12)
    seen: set[str] = set()

    def light(wanted: Sequence[tuple[Restriction, str]]) -> None:
        for rule, word in wanted:
            seen.add(word)
            rule.penalties[word] = 1e-3

    (found,) = beam_search(lm, ids, [restriction(lm, (), pieces)], width=1, max_new_tokens=12, word_penalties=light)
    assert found.tokens == free.tokens and seen
    words = "".join(c if c.isalnum() else " " for c in lm.tokenizer.decode(free.tokens, skip_special_tokens=True))
    assert found.score == pytest.approx(free.score - 1e-3 * len(words.split()), abs=1e-5)


def plain_search(
    prompt: str, phrases: Sequence[str], costs: Callable[[str], float], width: int, room: int
) -> tuple[tuple[int, ...], float]:
    """The same search with everything worked out anew at every step, from whole texts, for one prompt."""
    ids, end, size = encode_prompts(LM, [prompt])[0], LM.tokenizer.eos_token_id, LM.model.config.vocab_size

    def text(tokens: Sequence[int]) -> str:
        return str(LM.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def word(tokens: Sequence[int]) -> str:
        said = text(tokens).casefold()
        return said[max((i + 1 for i, c in enumerate(said) if not (c.isalnum() or c in "'’-_")), default=0) :]

    def cost(tokens: Sequence[int]) -> float:
        return costs(word(tokens)) if word(tokens) else 0.0

    beams: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []
    while True:
        found = []
        for tokens, score in beams:
            with torch.no_grad():
                logps = LM.model(torch.tensor([[*ids, *tokens]])).logits[0, -1].log_softmax(0).tolist()
            allowed, before, price_of_end = [], text(tokens), cost(tokens)
            longer = LM.tokenizer.batch_decode([[*tokens, t] for t in range(size)], skip_special_tokens=True)
            for token, said in enumerate(longer):
                added = said[len(before) :]
                ends_word = token == end or (bool(added) and not (added[0].isalnum() or added[0] in "'’-_"))
                price = price_of_end if ends_word else 0.0
                if find_phrase(phrases, said) is None and price < math.inf:
                    allowed.append((score + logps[token] - price, (*tokens, token)))
            found += sorted(allowed, reverse=True)[: 2 * width]
        dead_end, beams = beams[0], []
        for rank, (score, tokens) in enumerate(sorted(found, reverse=True)):
            if tokens[-1] == end:
                finished += [(tokens, score)] if rank < width else []
            else:
                beams.append((tokens, score))
            if len(beams) == width:
                break
        if beams and len(beams[0][0]) == room:
            finished += [(tokens, score - cost(tokens)) for tokens, score in beams if cost(tokens) < math.inf]
            beams = []
        best = max((score for _, score in finished), default=-math.inf)
        if not beams or len(finished) >= width or best >= beams[0][1]:
            return max(finished, key=lambda f: f[1], default=dead_end)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.text("aeodlrs tn", min_size=1, max_size=4).filter(str.strip), max_size=4),
    st.sampled_from(PROMPTS),
    st.integers(1, 4),
)
def test_answers_and_scores_are_those_of_a_plain_search_over_whole_texts(phrases: list[str], prompt: str, width: int):
    def costs(word: str) -> float:
        return math.inf if len(word) > 4 else len(set(word)) / 50

    def penalties(wanted: Sequence[tuple[Restriction, str]]) -> None:
        for rule, word in wanted:
            rule.penalties[word] = costs(word)

    rule = Restriction(phrases, PhraseTrie(()), PIECES, LM.tokenizer)
    ids = encode_prompts(LM, [prompt])
    (found,) = beam_search(LM, ids, [rule], width=width, max_new_tokens=5, word_penalties=penalties)
    tokens, score = plain_search(prompt, phrases, costs, width, 5)
    assert found.tokens == tokens and found.score == pytest.approx(score, abs=1e-4)


def test_the_best_allowed_sequence_of_a_bigram_model_is_found(monkeypatch: pytest.MonkeyPatch):
    from demur.guards import beam_search as module

    vocabulary, length, end = 4, 4, 3
    for seed in range(20):
        table = torch.randn(vocabulary + 1, vocabulary, generator=torch.Generator().manual_seed(seed)).log_softmax(1)
        banned = [[0, 1], [2]] if seed % 2 else [[1, 1], [0, 2, 0]]
        found = _search(module, table, banned, vocabulary, length, end)
        assert found == pytest.approx(_brute(table, banned, vocabulary, length, end), abs=1e-5)


def _brute(table: torch.Tensor, banned: list[list[int]], vocabulary: int, length: int, end: int) -> float:
    best = -math.inf
    for n in range(1, length + 1):
        for tokens in itertools.product(range(vocabulary), repeat=n):
            ended = tokens[-1] == end
            if end in tokens[:-1] or (n < length and not ended):
                continue
            if any(list(tokens[i : i + len(b)]) == b for b in banned for i in range(n)):
                continue
            path = zip((vocabulary, *tokens), tokens, strict=False)
            best = max(best, sum(float(table[a, b]) for a, b in path))
    return best


def _search(
    module: object, table: torch.Tensor, banned: list[list[int]], vocabulary: int, length: int, end: int
) -> float:
    """The search's own steps on a bigram table in place of a model."""

    class Tokenizer:
        eos_token_id = end

        def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
            return ""

    class Model:
        generation_config = None

    class Stub:
        model, tokenizer, device = Model(), Tokenizer(), torch.device("cpu")

    class Blank:
        texts = tails = [""] * vocabulary
        within = [True] * vocabulary
        breaks = torch.zeros(vocabulary, dtype=torch.bool)

        def containing(self, phrase: str) -> list[int]:
            return []

    rule = Restriction((), PhraseTrie(banned), Blank(), Tokenizer())  # type: ignore[arg-type]
    search = module._Search(Stub(), Blank(), vocabulary, (), None, None)  # type: ignore[attr-defined]
    row = module._Row(rule, length, [module._Beam((), 0.0, rule.start, 0)])  # type: ignore[attr-defined]
    while not row.done:
        last = [beam.tokens[-1] if beam.tokens else vocabulary for beam in row.beams]
        search.step([row], table[last].clone())
    return max(found.score for found in row.finished)
