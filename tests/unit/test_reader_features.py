"""Counted evidence of one block: what each feature answers, on text written for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.reader import FEATURES, Vocabulary, text_features

Ids = npt.NDArray[np.uint32]


class Bytes:
    """A tokenizer of 256 bytes and some words, longest match first."""

    WORDS = (" the", " sum", ". ", "\n\n", "return", "def ", "    ", "数学", "です", "。")

    sha256 = bytes(32)
    vocabulary_size = 256 + len(WORDS)

    def encode(self, text: str) -> list[int]:
        raw, ids = text.encode(), []
        while raw:
            word = next((word for word in self.WORDS if raw.startswith(word.encode())), None)
            ids.append(256 + self.WORDS.index(word) if word else raw[0])
            raw = raw[len(word.encode()) if word else 1 :]
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocabulary_size:
            msg = f"no id {token_id}"
            raise InvalidInputError(msg)
        return bytes([token_id]) if token_id < 256 else self.WORDS[token_id - 256].encode()


TOKENIZER = Bytes()
PROSE = "We add the terms. Then the sum of the first two is seven. So the answer is seven."
CODE = "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\n"
JAPANESE = "数学の問題です。答えは七です。次に確かめます。"


def ids_of(text: str) -> Ids:
    return np.array(TOKENIZER.encode(text), np.uint32)


VOCABULARY = Vocabulary.counted(
    [ids_of(text) for text in [PROSE] * 60 + [CODE] * 3 + [JAPANESE]], size=100, bits=4
)


def features(
    ids: npt.ArrayLike, prompt: str = "", answer: str = "", others: Sequence[str] = ()
) -> dict[str, float]:
    return text_features(
        ids,
        tokenizer=TOKENIZER,
        vocabulary=VOCABULARY,
        prompt_ids=ids_of(prompt),
        answer_ids=ids_of(answer),
        others=[ids_of(other) for other in others],
    )


@pytest.mark.parametrize("text", ["", "a", PROSE, CODE, JAPANESE, PROSE * 9])
def test_every_feature_is_there_in_order_and_finite(text: str) -> None:
    found = features(ids_of(text), PROSE, CODE, [JAPANESE])
    assert list(found) == list(FEATURES)
    assert all(np.isfinite(value) for value in found.values())
    shares = [name for name in FEATURES if FEATURES[name].startswith("share")]
    assert all(0.0 <= found[name] <= 1.0 for name in shares)
    assert found["tokens"] == len(ids_of(text))


def test_an_empty_block_gives_zeros() -> None:
    assert set(features([]).values()) == {0.0}


def test_the_same_block_gives_the_same_features() -> None:
    assert features(ids_of(PROSE), PROSE) == features(ids_of(PROSE), PROSE)


def test_a_finer_spelling_is_not_canonical() -> None:
    assert features(ids_of(PROSE))["noncanonical"] == 0.0
    spelled = np.frombuffer(PROSE.encode(), np.uint8).astype(np.uint32)
    assert features(spelled)["noncanonical"] > 0.1


def test_text_that_stands_twice_in_the_block_is_repeated() -> None:
    assert features(ids_of(PROSE))["repeated_8"] < 0.1
    twice = features(ids_of(PROSE + PROSE))
    assert twice["repeated_8"] > 0.4
    assert twice["compressed"] < features(ids_of(PROSE))["compressed"]


@pytest.mark.parametrize("place", ["prompt", "answer", "others"])
def test_text_copied_from_elsewhere_is_found_there_and_nowhere_else(place: str) -> None:
    texts = {"prompt": "", "answer": ""} | ({} if place == "others" else {place: PROSE})
    found = features(ids_of(PROSE), **texts, others=[PROSE, CODE] if place == "others" else [])
    for other in ("prompt", "answer", "others"):
        assert found[f"{other}_8"] == (1.0 if other == place else 0.0)
        assert found[f"{other}_5"] == (1.0 if other == place else 0.0)


def test_a_changed_word_breaks_long_runs_before_short_ones() -> None:
    found = features(ids_of(PROSE), others=[PROSE.replace("first", "next")])
    assert 0.5 < found["others_8"] < found["others_5"] < found["others_3"] < 1.0


def test_rare_ids_are_looked_for_in_the_rest_of_the_session() -> None:
    rare = features(ids_of(JAPANESE), answer=JAPANESE)
    assert rare["shared_answer"] == rare["shared"] == 1.0
    assert rare["shared_prompt"] == rare["shared_others"] == 0.0
    assert rare["rarity"] > features(ids_of(PROSE))["rarity"]


def test_ids_outside_the_frequent_ones_are_unseen() -> None:
    assert features(ids_of(PROSE))["unseen"] == 0.0
    assert features(ids_of("\x01\x02\x03a"))["unseen"] == 0.75


def test_sentences_and_lines_are_counted() -> None:
    assert features(ids_of("one two"))["sentence_tokens"] == 7.0
    assert features(ids_of("。".join(["数学"] * 4)))["sentence_tokens"] < 7.0
    assert features(ids_of(CODE))["sentence_tokens"] < len(ids_of(CODE)) / 3


@pytest.mark.parametrize("ids", [[[1, 2]], [1.5], [-1], [1 << 20]])
def test_what_is_no_list_of_ids_is_refused(ids: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="token ids"):
        features(ids)


def test_an_id_outside_the_tokenizer_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        features([5000])


def test_a_reference_model_is_surprised_by_its_own_measure(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from coin_protocol.errors import ConfigurationError
    from verifier_sdk.semantic.reader import ReferenceModel

    _save_words(tmp_path, PreTrainedTokenizerFast)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_positions=128, n_embd=8, n_layer=1, n_head=2)
    ).save_pretrained(tmp_path)
    model = ReferenceModel(str(tmp_path))
    plain, single = model.surprise(["a b c a b c", "a"])
    assert abs(plain - np.log(64)) < 0.5
    assert np.isnan(single)
    assert model.surprise(["a b c a b c"]) == [plain]
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        ReferenceModel(str(tmp_path / "none")).surprise(["a"])
    with pytest.raises(InvalidInputError):
        ReferenceModel("")


def _save_words(folder: Path, fast: type) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)  # noqa: S106
