"""Tokenizing again while text comes: the ids of the whole text at once."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.tokenizer import HuggingFaceTokenizer, TekkenTokenizer, Tokenizer
from provider_sdk.gateway.retokenize import STEP, Retokenizer, cuts_words
from tests.support.marked import cut, cuttings

WORDS = st.sampled_from(
    [
        "the",
        "sum",
        "isn't",
        "12345",
        "é",
        "漢字",
        "🎉",
        ".\n\n",
        "  ",
        " ",
        "\n",
        "HTTP",
        "x_1",
        "-",
    ]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=40).map(lambda words: " ".join(words * 8))


@cache
def tekken() -> Tokenizer:
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    return TekkenTokenizer(Path(spec.origin).parent / "data" / "tekken_240911.json")


def byte_level(path: Path) -> Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the sum of the words is the words of the sum"] * 4, trainer)
    tokenizer.save(str(path))
    return HuggingFaceTokenizer(path)


class AcrossWords(SmallTokenizer):
    """Has one id for a letter, a space and a letter."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.replace("e t", "ab"))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_ids_made_while_text_comes_are_those_of_the_whole_text(data: st.DataObject) -> None:
    text = data.draw(TEXTS)
    maker = Retokenizer(tekken(), local=True)
    made = [
        token_id
        for piece in cut(text, data.draw(cuttings(len(text))))
        for token_id in maker.feed(piece)
    ]
    assert made + maker.finish() == tekken().encode(text)


def test_prose_waits_for_no_end() -> None:
    text = "the sum of these numbers is what the user asks for and so we add them up " * 40
    maker = Retokenizer(tekken(), local=True)
    waiting = []
    for char in text:
        maker.feed(char)
        waiting.append(maker.pending)
    assert max(waiting) <= 2 * STEP


def test_text_without_words_waits_for_the_end() -> None:
    maker = Retokenizer(tekken(), local=True)
    text = "漢字" * 2000
    assert all(maker.feed(char) == [] for char in text)
    assert maker.finish() == tekken().encode(text)


def test_whether_a_tokenizer_cuts_words_is_tried_out(tmp_path: Path) -> None:
    assert cuts_words(tekken())
    assert cuts_words(byte_level(tmp_path / "tokenizer.json"))
    assert not cuts_words(AcrossWords())


@pytest.mark.parametrize("length", [0, 1, 5000])
def test_where_it_does_not_all_ids_come_at_the_end(length: int) -> None:
    tokenizer = AcrossWords()
    maker = Retokenizer(tokenizer, local=False)
    text = ("the time " * length)[:length]
    assert maker.feed(text) == []
    assert maker.finish() == tokenizer.encode(text)
    assert maker.finish() == []
