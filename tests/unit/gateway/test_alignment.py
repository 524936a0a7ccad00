"""Bringing ids and text together: text goes where its ids went, and what does not match is told."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_sdk.gateway.alignment import MAX_LAG, Alignment
from provider_sdk.gateway.markers import MarkerIds, markers_from
from provider_sdk.gateway.splitter import Side, Splitter
from tests.support.marked import SPECIAL, TOKENIZER, cut, cuttings, ids, mark

THINK = MarkerIds.resolve(markers_from("think"), TOKENIZER)
# Neither end with what the other begins with, so that each character has one side.
TEXT = st.text(st.sampled_from("ab <é漢🎉"), max_size=12)


def served(token_ids: list[int], ends: list[int], *, specials: bool, lag: int) -> list[str]:
    """Text as a serving stack streams it: whole characters, some of them late."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts, held = [], ""
    for chunk in cut(token_ids, ends):
        for token_id in chunk:
            if token_id < mark(SPECIAL[0]):
                held += decoder.decode(TOKENIZER.token_bytes(token_id))
            elif specials:
                held += TOKENIZER.token_bytes(token_id).decode()
        out = max(0, len(held) - lag)
        texts.append(held[:out])
        held = held[out:]
    return [*texts[:-1], texts[-1] + held]


@given(st.data())
def test_text_goes_where_its_ids_went_however_late_it_comes(data: st.DataObject) -> None:
    why, so = data.draw(TEXT), data.draw(TEXT)
    reply = ids("<think>", why, "</think>", so, "<|im_end|>")
    ends = data.draw(cuttings(len(reply)))
    lag = data.draw(st.integers(0, 5))
    # A special token that is shown comes whole.
    specials = data.draw(st.booleans()) and not lag
    splitter, align = Splitter(THINK, opened=None), Alignment(THINK)
    parts: list[tuple[Side, str]] = []
    texts = served(reply, ends, specials=specials, lag=lag)
    for chunk, text in zip(cut(reply, ends), texts, strict=True):
        align.expect(splitter.feed(chunk))
        if text:
            parts += align.text(text, splitter.side)
    align.finish()
    assert not align.mismatch
    assert not align.lost
    shown = {side: "".join(part for each, part in parts if each is side) for side in Side}
    assert shown[Side.REASONING].strip() == why.strip()
    assert shown[Side.ANSWER].removesuffix("<|im_end|>").strip() == so.strip()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (ids("hello"), "hellx"),
        (ids("hello"), "hello and more"),
        (ids("<think>", "why", "</think>"), "<think>when</think>"),
        ([], "no ids"),
    ],
)
def test_ids_of_another_text_are_told(reply: list[int], text: str) -> None:
    align = Alignment(THINK)
    align.expect(Splitter(THINK, opened=None).feed(reply))
    align.text(text, Side.ANSWER)
    align.finish()
    assert align.mismatch


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (ids("hello, stop"), "hello"),
        (ids(" hello"), "hello"),
        (ids("\n\n", "hello "), "hello"),
        (ids("hello", "<|im_end|>"), "hello<|im_end|>"),
        (ids("hello", "<|im_end|>"), "hello"),
        (ids("hello"), " hello\n"),
        ([0xE6, 0xBC, 0xA2], "漢"),
    ],
    ids=["stop", "space", "newlines", "special", "hidden", "padded", "bytes"],
)
def test_what_serving_stacks_do_to_text_is_no_mismatch(reply: list[int], text: str) -> None:
    align = Alignment(THINK)
    align.expect(Splitter(THINK, opened=None).feed(reply))
    assert align.text(text, Side.ANSWER) == [(Side.ANSWER, text)]
    align.finish()
    assert not align.mismatch


def test_bytes_that_are_no_text_are_compared_as_decoders_write_them() -> None:
    splitter, align = Splitter(THINK, opened=None), Alignment(THINK)
    align.expect(splitter.feed([*ids("<think>"), 0xFF, ord("a"), *ids("</think>", "so")]))
    parts = align.text("\ufffdaso", splitter.side)
    assert parts == [(Side.REASONING, "\ufffda"), (Side.ANSWER, "so")]
    assert (align.lost, align.mismatch) == (False, False)


def test_where_a_decoder_writes_them_otherwise_nothing_is_proved() -> None:
    align = Alignment(THINK)
    align.expect(Splitter(THINK, opened=None).feed([0xFF, 0xFF, ord("a")]))
    assert align.text("\ufffda", Side.ANSWER) == [(Side.ANSWER, "\ufffda")]
    assert (align.lost, align.mismatch) == (True, False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("other</think>so", "so"), ("whoever knows", ""), ("\ufffd\ufffd</think>so", "so")],
)
def test_what_can_be_reasoning_is_not_shown_where_nothing_can_be_compared(
    text: str, shown: str
) -> None:
    splitter, align = Splitter(THINK, opened=None), Alignment(THINK)
    align.expect(splitter.feed(ids("<think>", "why", "</think>", "so")))
    parts = align.text(text, splitter.side)
    assert "".join(part for side, part in parts if side is Side.ANSWER) == shown
    more = align.text("why</think>so", Side.ANSWER, reasoned=True)
    assert more[-1] == (Side.ANSWER, "so")


def test_reasoning_that_comes_late_is_not_taken_for_hidden() -> None:
    why = "a long thought about nothing at all"
    splitter, align = Splitter(THINK, opened=None), Alignment(THINK)
    for token_id in ids("<think>", why, "</think>", "so"):
        align.expect(splitter.feed([token_id]))
    assert align.text(f"{why}so", splitter.side) == [(Side.REASONING, why), (Side.ANSWER, "so")]


@pytest.mark.parametrize("why", ["w", "\nwhy", "a long thought about nothing at all", "\n\n"])
@pytest.mark.parametrize("so", ["so it is", "\n\nso it is"])
@pytest.mark.parametrize("whole", [True, False])
def test_reasoning_that_the_upstream_never_shows_is_passed_over(
    *, why: str, so: str, whole: bool
) -> None:
    splitter, align = Splitter(THINK, opened=None), Alignment(THINK)
    reply = ids("<think>", why, "</think>", so, "<|im_end|>")
    shown: list[tuple[Side, str]] = []
    if whole:
        align.expect(splitter.feed(reply))
        shown = align.text(so, splitter.side, reasoned=True)
    else:
        answer = len(reply) - len(ids(so, "<|im_end|>"))
        for token_id in reply[:answer]:
            align.expect(splitter.feed([token_id]))
        for token_id in reply[answer:-1]:
            align.expect(splitter.feed([token_id]))
            shown += align.text(TOKENIZER.token_bytes(token_id).decode(), splitter.side)
    align.finish()
    assert "".join(text for side, text in shown if side is Side.ANSWER).strip() == so.strip()
    assert not align.mismatch


def test_a_whole_text_is_the_answers_though_reasoning_begins_alike() -> None:
    splitter, align = Splitter(THINK, opened=None), Alignment(THINK)
    align.expect(splitter.feed(ids("<think>", "so why", "</think>", "so it is")))
    assert align.text("so it is", splitter.side, reasoned=True) == [(Side.ANSWER, "so it is")]


def test_memory_is_bounded_where_text_or_ids_never_come() -> None:
    align = Alignment(THINK)
    align.expect(Splitter(THINK, opened=None).feed([ord("a")] * (MAX_LAG + 1)))
    assert align.lost
    align = Alignment(THINK)
    align.text("a" * (MAX_LAG + 1), Side.ANSWER)
    assert align.mismatch
