"""What the filler of each attack is made of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.tokenizer import noncanonical_tokens
from tests.support.laboratory import (
    BLOCK_SIZE,
    CODE,
    GERMAN,
    JAPANESE,
    SENTENCE,
    library,
    material,
    spelled,
    tokenizer,
    trace,
    traces,
)
from verifier_sdk.lab import Material, apply_attack, sentences
from verifier_sdk.lab.attack import Ids, random_numbers
from verifier_sdk.lab.attacks.edits import edited
from verifier_sdk.lab.attacks.ngram import PHRASE, ngram_text
from verifier_sdk.lab.attacks.repeated import BLOCK, blocks_repeated, blocks_repeated_edited
from verifier_sdk.lab.attacks.retrieved import retrieved_near_answer, retrieved_near_trace
from verifier_sdk.lab.attacks.text import (
    cut_sentences,
    encode,
    fitting,
    ordinary_ids,
    separators,
)


def filler(name: str, target: Material, rate: float = 1.0) -> Ids:
    attacked = apply_attack(name, target, rate=rate, placement="appended", block_size=BLOCK_SIZE)
    return attacked.ids[attacked.injected]


def numbers(target: Material, seed: int = 0) -> np.random.Generator:
    return random_numbers(target, f"test {seed}")


def texts(pieces: Iterator[Ids], count: int) -> list[str]:
    return [spelled(piece).decode() for piece in islice(pieces, count)]


def grams(ids: Ids, length: int) -> set[tuple[int, ...]]:
    return set(zip(*(ids.tolist()[at:] for at in range(length)), strict=False))


# Ids and sentences


def test_control_ids_are_not_ordinary() -> None:
    assert ordinary_ids(tokenizer()).tolist() == list(range(4, tokenizer().vocabulary_size))


@pytest.mark.parametrize("text", [GERMAN, JAPANESE, CODE, SENTENCE, traces()[0].reasoning])
def test_sentences_of_ids_are_all_of_them(text: str) -> None:
    ids = encode(tokenizer(), text)
    assert np.concatenate(cut_sentences(tokenizer(), ids)).tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GERMAN, re.split(r"(?<=[.!]) ", GERMAN)),
        (CODE, [line.strip() for line in CODE.splitlines() if line.strip()]),
        ("One... two. 3", ["One...", "two.", "3"]),
        (SENTENCE, [SENTENCE]),
        ("", []),
    ],
)
def test_ids_are_cut_behind_sentences_and_lines(text: str, found: list[str]) -> None:
    pieces = cut_sentences(tokenizer(), encode(tokenizer(), text))
    assert [spelled(piece).decode().strip() for piece in pieces] == found


def test_no_sentence_of_ids_is_longer_than_128() -> None:
    pieces = cut_sentences(tokenizer(), encode(tokenizer(), "7" * 300))
    assert [len(piece) for piece in pieces] == [128, 128, 44]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two!  Three\n\n  Four ", {" ", "  ", "\n\n  "}),
        ("One", {" "}),
        ("One.  ", {" "}),
    ],
)
def test_separators_are_the_traces_own(text: str, found: set[str]) -> None:
    assert set(separators(material(trace(text)))) == found


# Random ids and the session's own


def test_random_ids_come_from_the_whole_vocabulary() -> None:
    size = tokenizer().vocabulary_size
    found = filler("random_vocabulary", material(), rate=16)
    counts = np.histogram(found, bins=10, range=(4, size))[0]
    assert counts.min() > 0.9 * counts.mean()


def test_a_bag_holds_the_sessions_own_tokens_as_often_as_it_does() -> None:
    target = material()
    visible = target.trace.question + target.trace.answer
    own = Counter([*target.ids.tolist(), *tokenizer().encode(visible)])
    found = Counter(filler("bag_of_own_tokens", target, rate=16).tolist())
    assert set(found) <= {
        *target.ids.tolist(),
        *tokenizer().encode(target.trace.question),
        *tokenizer().encode(target.trace.answer),
    }
    ((most, times),) = own.most_common(1)
    assert found[most] / found.total() == pytest.approx(times / own.total(), rel=0.1)


def test_shuffled_are_all_sentences_before_any_comes_again() -> None:
    target = material()
    found = filler("sentences_shuffled", target, rate=2)
    first, second = np.split(found, 2)
    # A sentence may begin with or without a space, as fits what it follows.
    own, *found_words = (
        sorted(tokenizer().token_bytes(one).lstrip(b" ") for one in ids)
        for ids in (target.ids, first, second)
    )
    assert found_words == [own, own]
    assert first.tolist() != second.tolist() != target.ids.tolist()
    assert sorted(map(spelled, cut_sentences(tokenizer(), first)))


# Words that sentences begin with here are known with and without a space before them.
JOINED = "The sum is two. So it is.\nThat is it? Now all is done.\n\nThis is it. What is it"


def test_shuffled_sentences_are_joined_by_the_space_that_fits() -> None:
    text = spelled(filler("sentences_shuffled", material(trace(JOINED)), rate=16)).decode()
    # None is missing, none doubled, none at a line's beginning.
    assert not re.search(r"[.?t](?=[A-Z])|  |\n ", text)
    assert set(re.findall(r"\S\s+(?=[A-Z])", text)) == {". ", "? ", "t ", ".\n", ".\n\n"}
    assert text.startswith(" ")
    words = Counter(JOINED.split())
    assert Counter(text.split()) == {word: 16 * count for word, count in words.items()}


def test_the_space_before_an_id_is_the_one_that_fits() -> None:
    def ids(*pieces: bytes) -> Ids:
        known = [tokenizer().token_bytes(at) for at in range(tokenizer().vocabulary_size)]
        return np.array([known.index(piece) for piece in pieces], np.uint32)

    before = ids(b".", b".", b".\n", b".\n", b"\n", b" is", b".")
    after = ids(b"The", b" The", b"The", b" The", b" So", b"So", b"\n")
    found = fitting(tokenizer(), before, after)
    assert found.dtype == np.uint32
    # A line feed has no twin: it stays.
    wanted = ids(b" The", b" The", b"The", b"The", b"So", b" So", b"\n")
    assert found.tolist() == wanted.tolist()


# Blocks again


def test_blocks_come_again_word_for_word_each_once_in_a_round() -> None:
    target = material()
    blocks = [target.ids[at : at + BLOCK].tolist() for at in range(0, len(target.ids), BLOCK)]
    assert len(blocks) > 4
    stream = blocks_repeated(target, numbers(target))
    rounds = [[piece.tolist() for piece in islice(stream, len(blocks))] for _ in range(3)]
    assert all(sorted(found) == sorted(blocks) for found in rounds)
    assert rounds[0] != blocks
    assert rounds[0] != rounds[1]


def test_a_short_trace_is_one_block() -> None:
    target = material(trace(SENTENCE))
    assert filler("blocks_repeated", target, rate=2).tolist() == target.ids.tolist() * 2


@pytest.mark.parametrize("number", range(10))
def test_edited_blocks_change_a_word_in_five_to_ten(number: int) -> None:
    target = material(traces()[number])
    verbatim = blocks_repeated(target, numbers(target))
    for block, found in islice(
        zip(verbatim, blocks_repeated_edited(target, numbers(target)), strict=False), 1
    ):
        before, after = spelled(block).decode().split(), spelled(found).decode().split()
        same = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
        changed = 1 - sum(part.size for part in same) / len(before)
        assert 0.07 < changed < 0.25


def test_each_round_of_edits_is_another() -> None:
    target = material(trace(GERMAN))
    assert len(set(texts(blocks_repeated_edited(target, numbers(target)), 8))) > 3


def test_edited_blocks_are_tokenized_anew() -> None:
    target = material()
    for piece in islice(blocks_repeated_edited(target, numbers(target)), 8):
        assert piece.tolist() == tokenizer().encode(spelled(piece).decode())


words = st.sampled_from(["Wait", "so", "because", "x = 3", "don't", "the", "数", "ø", "check"])
ends = st.sampled_from([" ", ", ", ". ", ".\n", "\n    ", "; ", "。", ""])
prose = st.lists(st.tuples(words, ends)).map(lambda parts: "".join(map("".join, parts)))


@given(prose, st.floats(0.1, 0.2), st.integers(0, 99))
def test_any_text_can_be_edited(text: str, share: float, seed: int) -> None:
    found = edited(text, share, np.random.default_rng(seed))
    assert found == edited(text, share, np.random.default_rng(seed))
    # Words are replaced or moved, and white space stays: what separates is never lost.
    assert re.sub(r"[^\n]", "", found) == re.sub(r"[^\n]", "", text)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=60), st.integers(0, 99))
def test_where_no_word_is_known_words_change_places(letters: list[str], seed: int) -> None:
    found = edited(" ".join(letters), 0.2, np.random.default_rng(seed)).split()
    assert sorted(found) == sorted(letters)
    moved = sum(one != other for one, other in zip(found, letters, strict=True))
    assert moved <= 2 * max(1, round(0.2 * len(letters)))


def test_capitals_are_kept() -> None:
    found = {edited("Wait", 1.0, np.random.default_rng(seed)) for seed in range(20)}
    assert found <= {"Hold on", "Hmm"}


# A language model of the session


@pytest.mark.parametrize("number", range(4))
def test_ngram_text_keeps_the_sessions_pairs_but_copies_no_sentence(number: int) -> None:
    target = material(traces()[number])
    found = filler("ngram_text", target, rate=3)
    known = np.concatenate([target.ids, encode(tokenizer(), target.trace.answer)])
    assert set(found.tolist()) <= set(known.tolist())

    def copied(length: int) -> float:
        mine = grams(found, length)
        return len(mine & grams(known, length)) / len(mine)

    assert copied(2) > 0.4
    assert copied(3) < copied(2)
    assert copied(48) < 0.1


def test_some_ngram_text_copies_more_than_other() -> None:
    # A trace that repeats itself little: what repeats is copied by all.
    target = material(traces()[1])
    known = grams(target.ids, 3)
    shares = []
    for seed in range(8):
        stream = ngram_text(target, numbers(target, seed))
        phrases = list(islice(stream, 60))
        assert {len(phrase) for phrase in phrases} == {PHRASE}
        mine = grams(np.concatenate(phrases), 3)
        shares.append(len(mine & known) / len(mine))
    assert max(shares) > min(shares) + 0.2


@pytest.mark.parametrize("text", ["a", "aa", "ab", "a b"])
def test_ngram_text_of_very_little(text: str) -> None:
    target = material(trace(text, answer=""))
    found = np.concatenate(list(islice(ngram_text(target, numbers(target)), 4)))
    assert set(found.tolist()) <= set(target.ids.tolist())


# Visible text again


@pytest.mark.parametrize(
    ("name", "part"), [("answer_repeated", "answer"), ("prompt_repeated", "question")]
)
def test_visible_text_comes_again_and_again(name: str, part: str) -> None:
    target = material()
    text = "\n\n" + getattr(target.trace, part).strip()
    ids = tokenizer().encode(text)
    found = filler(name, target, rate=3)
    assert found[: 2 * len(ids)].tolist() == (ids * 2)[: len(found)]


# Reasoning of others


def test_another_models_reasoning_on_the_same_question() -> None:
    target = material(traces()[0])
    (other,) = target.library.same_question(target.trace)
    ids = tokenizer().encode("\n\n" + other.reasoning)
    found = filler("other_model_same_question", target, rate=2)
    assert found[: len(ids)].tolist() == ids[: len(found)]


def test_a_session_of_the_same_domain_is_replayed() -> None:
    target = material(next(one for one in traces() if one.id == "code-01"))
    alike = [
        one for one in traces() if one.domain == target.trace.domain and one.qid != target.trace.qid
    ]
    found = spelled(filler("session_replayed", target, rate=0.5)).decode()
    assert any(("\n\n" + one.reasoning).startswith(found[:500]) for one in alike)


def test_without_the_domain_any_other_session_is_replayed() -> None:
    target = trace(GERMAN, domain="none of theirs")
    among = library([*traces(), target])
    found = spelled(filler("session_replayed", material(target, among=among))).decode()
    assert any(("\n\n" + one.reasoning).startswith(found) for one in traces())


def test_sessions_are_replayed_one_after_another() -> None:
    among = library([trace(f"reason {n}.", id=f"{n}", qid=f"{n}") for n in range(5)])
    target = material(among.traces[0], among=among)
    found = spelled(filler("session_replayed", target, rate=16)).decode()
    first = found.split("\n\n")[1:5]
    assert sorted(first) == [f"reason {n}." for n in range(1, 5)]


# Retrieved sentences


def test_the_sentences_nearest_to_the_answer_come_first() -> None:
    target = material()
    vector = target.library.embed([target.trace.answer])[0]
    nearest = target.library.nearest_sentences(target.trace, vector, 20)
    wanted = list(dict.fromkeys(nearest))
    found = texts(retrieved_near_answer(target, numbers(target)), len(wanted))
    assert [text.strip() for text in found] == wanted


def test_the_sentences_nearest_to_the_trace_are_near_different_ones() -> None:
    target = material()
    own = sentences(target.trace.reasoning)
    first = target.library.nearest_sentences(target.trace, target.library.embed([own[0]])[0], 1)
    last = target.library.nearest_sentences(target.trace, target.library.embed([own[-1]])[0], 1)
    found = [text.strip() for text in texts(retrieved_near_trace(target, numbers(target)), 12)]
    assert found[0] == first[0]
    assert last[0] in found


@pytest.mark.parametrize("retrieve", [retrieved_near_answer, retrieved_near_trace])
def test_no_sentence_comes_twice_before_all_came(retrieve: object) -> None:
    target = material()
    known = {
        text
        for one in target.library.other_questions(target.trace)
        for text in sentences(one.reasoning)
    }
    assert callable(retrieve)
    among = set(target.library.nearest_sentences(target.trace, np.ones(16, np.float32), 10**6))
    assert among <= known
    found = [text.strip() for text in texts(retrieve(target, numbers(target)), 2 * len(among))]
    assert set(found[: len(among)]) == among
    assert set(found[len(among) :]) == among


def test_retrieved_sentences_are_separated_as_the_traces_own() -> None:
    target = material(trace("One. Two!\n\n  Three."), among=library())
    found = filler("retrieved_near_answer", target, rate=16)
    assert noncanonical_tokens(tokenizer(), found.tolist()) <= 1
    assert "\n\n" in spelled(found).decode()


# Forged vectors


@pytest.mark.parametrize("placement", ["appended", "interleaved"])
def test_forged_vectors_are_of_the_reasonings_own_text(placement: str) -> None:
    target = material()
    attacked = apply_attack(
        "forged_vectors", target, rate=2.0, placement=placement, block_size=BLOCK_SIZE
    )
    assert attacked.embedded[~attacked.injected].tolist() == target.ids.tolist()
    shown = attacked.embedded[attacked.injected].tolist()
    again = target.ids.tolist() * 4
    assert any(shown == again[at : at + len(shown)] for at in range(len(target.ids)))
    assert sorted(shown) != sorted(attacked.ids[attacked.injected].tolist())
