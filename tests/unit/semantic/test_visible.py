"""What a judge takes for the prompt: the words of a request, whatever its form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coin_protocol.testing.small import SmallEmbedder
from coin_protocol.v1 import receipt_pb2
from tests.support.laboratory import profile, tokenizer
from verifier_sdk.semantic.judge import MAX_VISIBLE_WINDOWS, VisibleText, window_texts
from verifier_sdk.semantic.visible import prompt_text, visible_of

SPEC = profile().message.embedding


def embedded(text: str) -> VisibleText | None:
    return VisibleText.of(text, SPEC, tokenizer(), SmallEmbedder())


CHAT = {"model": "m", "messages": [{"role": "system", "content": "Be brief."},
                                   {"role": "user", "content": "Why?"}]}  # fmt: skip
PARTS = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is on"},
                {"type": "image_url", "image_url": {"url": "data:…"}},
                {"type": "text", "text": "this picture?"},
            ],
        }
    ]
}
RESPONSES = {
    "instructions": "Be kind.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Who are you?"}]},
        {"role": "user", "content": "And why?"},
    ],
}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (CHAT, "Be brief.\n\nWhy?"),
        (PARTS, "What is on\n\nthis picture?"),
        (RESPONSES, "Be kind.\n\nWho are you?\n\nAnd why?"),
        ({"instructions": "Be kind.", "input": "Hello"}, "Be kind.\n\nHello"),
        ({"model": "m", "prompt": "Once upon"}, "Once upon"),
        ({"prompt": ["Once", "upon"]}, "Once\n\nupon"),
        ({"messages": [{"role": "user", "content": None}], "prompt": "Hi"}, "Hi"),
        ({"messages": [{"role": "user", "content": "自然数とは何ですか"}]}, "自然数とは何ですか"),
    ],
)
def test_the_words_of_a_request_are_its_prompt(request_: object, words: str) -> None:
    assert prompt_text(json.dumps(request_).encode()) == words
    assert prompt_text(json.dumps(request_, ensure_ascii=False).encode()) == words


@pytest.mark.parametrize(
    "raw",
    [
        b"Why is the sky blue?",
        b"[1, 2]",
        b'"quoted"',
        b"3.14",
        b"null",
        b"{",
        b"{}",
        b'{"model": "m"}',
        b'{"messages": []}',
        b'{"messages": "", "input": {"content": 3}}',
        b'{"prompt": [1, 2, 3]}',
        b"",
        b"{" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_read_as_it_stands(raw: bytes) -> None:
    assert prompt_text(raw) == raw.decode()


def test_what_is_no_utf8_is_read_all_the_same() -> None:
    assert prompt_text(b"caf\xe9") == "caf\ufffd"
    assert prompt_text(b'{"prompt": "caf\xe9"}') == "caf\ufffd"


def test_half_a_surrogate_pair_does_not_stop_an_audit() -> None:
    text = prompt_text(rb'{"prompt": "half \ud83d of it"}')
    assert text == "half ? of it"
    assert embedded(text) is not None


def test_nesting_is_followed_so_far_and_no_further() -> None:
    deep: object = "found"
    for _ in range(7):
        deep = [deep]
    assert prompt_text(json.dumps({"input": deep}).encode()) == "found"
    deeper = json.dumps({"input": [deep]}).encode()
    assert prompt_text(deeper) == deeper.decode()


# Texts as a judge sees them


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000"])
def test_where_nothing_is_to_be_seen_there_is_no_text(text: str) -> None:
    assert embedded(text) is None


def test_a_text_is_embedded_in_windows() -> None:
    text = "so the sky is blue. " * 40
    found = embedded(text)
    assert found is not None
    ids = tokenizer().encode(text)
    assert found.ids.tolist() == ids
    assert found.windows.shape == (-(-len(ids) // SPEC.window_tokens), 12)
    assert np.allclose(np.linalg.norm(found.windows, axis=1), 1.0)
    assert np.linalg.norm(found.embedding) == pytest.approx(1.0)


def test_of_a_long_text_the_first_windows_are_embedded_and_all_ids_known() -> None:
    ids = list(range(300, 310)) * 1000
    assert len(window_texts(ids, 64, tokenizer())) == MAX_VISIBLE_WINDOWS
    found = embedded("a b c " * 20_000)
    assert found is not None
    assert len(found.windows) == MAX_VISIBLE_WINDOWS
    assert len(found.ids) > MAX_VISIBLE_WINDOWS * SPEC.window_tokens


def test_a_receipt_shows_prompt_answer_and_summary() -> None:
    receipt = receipt_pb2.Receipt(request=json.dumps(CHAT).encode(), answer=b"As it is.")
    found = visible_of(receipt, SPEC, tokenizer(), SmallEmbedder())
    assert found.summary is None
    assert found.prompt is not None
    assert found.answer is not None
    assert found.prompt.ids.tolist() == tokenizer().encode("Be brief.\n\nWhy?")
    assert found.answer.ids.tolist() == tokenizer().encode("As it is.")
    receipt.answer, receipt.summary = b"", b"It thought \xff."
    found = visible_of(receipt, SPEC, tokenizer(), SmallEmbedder())
    assert found.answer is None
    assert found.summary is not None
