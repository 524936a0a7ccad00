"""What is measured of opened evidence: nothing but what was opened, and never a crash."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from coin_protocol.tokenizer import noncanonical_tokens
from coin_protocol.v1 import receipt_pb2
from tests.support.judges import (
    SPACE,
    evidence,
    heads,
    judge,
    readers,
    space,
    units,
    visible,
)
from tests.support.laboratory import (
    CODE,
    GERMAN,
    JAPANESE,
    SENTENCE,
    tokenizer,
    trace,
    traces,
    written,
)
from tests.support.workshops import workshop
from verifier_sdk.lab import Trace
from verifier_sdk.semantic.features import ABSENT, BLOCK_FEATURES, block_features, measured_blocks
from verifier_sdk.semantic.heads import PAIR_HEADS, Heads, pair_inputs
from verifier_sdk.semantic.judge import (
    OpenedBlock,
    OpenedEvidence,
    OpenedTokens,
    Visible,
    VisibleText,
    WholeBlock,
)
from verifier_sdk.semantic.measure import (
    _MOST_VISIBLE,
    BLOCK_COLUMNS,
    TOKEN_COLUMNS,
    WHOLE_COLUMNS,
    Measured,
    measure,
)
from verifier_sdk.training.workshop import Plan

FIRST = traces()[0]
NOTHING = Visible(None, None)


@pytest.fixture(scope="module")
def shown() -> OpenedEvidence:
    """What is opened of a trace: embeddings, tokens alone, whole blocks."""
    found = evidence(FIRST, whole=3)
    assert len(found.blocks) > 2
    assert len(found.token_blocks) > 1
    return found


def measured(found: OpenedEvidence) -> Measured:
    rows = measure(found, heads(), readers(), tokenizer())
    assert rows.block.shape == (len(rows.block_indices), len(BLOCK_COLUMNS))
    assert rows.tokens.shape == (len(rows.token_indices), len(TOKEN_COLUMNS))
    assert rows.whole.shape == (len(rows.whole_indices), len(WHOLE_COLUMNS))
    for part in (rows.block, rows.tokens, rows.whole):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()
    return rows


def column(rows: np.ndarray[Any, Any], name: str, names: tuple[str, ...] = BLOCK_COLUMNS) -> Any:
    return rows[:, names.index(name)]


# Heads


def test_a_pair_is_its_cosine_its_distance_and_its_product() -> None:
    left, right = np.eye(3, dtype=np.float32)[:2], np.eye(3, dtype=np.float32)[[0, 0]]
    assert pair_inputs(left, right).tolist() == [[1, 0, 0, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("name", PAIR_HEADS)
def test_heads_are_symmetric_and_read_each_pair_alone(name: str) -> None:
    left, right = units(5, SPACE).astype(np.float32), units(5, SPACE, seed=1).astype(np.float32)
    found = heads().pair(name, left, right)
    assert found.shape == (5,)
    assert np.allclose(heads().pair(name, right, left), found, atol=1e-6)
    assert np.allclose(heads().pair(name, left[3:4], right[3:4]), found[3], atol=1e-6)


def test_tensors_make_the_same_heads_again() -> None:
    again = Heads.read(heads().tensors(), SPACE)
    rows = units(4, SPACE).astype(np.float32)
    assert again.dimension == SPACE
    assert again.subject_of(rows[0]) == heads().subject_of(rows[0])
    for name in PAIR_HEADS:
        assert np.array_equal(
            again.pair(name, rows, rows[::-1]), heads().pair(name, rows, rows[::-1])
        )


# Code

FENCED = "so:\n```python\nx = 1\n```\n"


def with_code(**visible: str) -> bool:
    """Return whether what the client saw is taken for code."""

    def text(shown: str) -> VisibleText | None:
        ids = np.array(tokenizer().encode(shown), np.uint32)
        return VisibleText(ids, units(1, SPACE)) if shown else None

    seen = Visible(
        **{name: text(visible.get(name, "")) for name in ("prompt", "answer", "summary")}
    )
    return measured(known([X], [Y], visible=seen)).code


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ({"prompt": FENCED}, True),
        ({"answer": FENCED}, True),
        ({"prompt": SENTENCE, "answer": FENCED}, True),
        ({"prompt": FENCED, "answer": SENTENCE}, True),
        # Code that is not set apart, and words like `these`, are no code.
        ({"prompt": SENTENCE, "answer": CODE}, False),
        ({"answer": "the `name` of it, ``quoted``"}, False),
        # A summary is the provider's word, not what was asked or answered.
        ({"summary": FENCED}, False),
        ({}, False),
    ],
)
def test_fenced_blocks_that_the_client_saw_are_code(seen: dict[str, str], *, found: bool) -> None:
    assert with_code(**seen) == found


def test_a_fence_in_several_tokens_is_one() -> None:
    assert len(tokenizer().encode("```")) > 1
    assert with_code(answer="```")
    # Of two texts no fence is put together.
    assert not with_code(prompt="a ``", answer="` b")


@given(shown=st.text(alphabet="`a\n", max_size=24))
def test_a_text_is_code_exactly_where_it_holds_a_fence(shown: str) -> None:
    assert with_code(answer=shown) == ("```" in shown)


def test_a_long_text_is_searched_up_to_a_limit() -> None:
    # One id a byte.
    assert with_code(answer="\x01" * (_MOST_VISIBLE - 3) + "```")
    assert not with_code(answer="\x01" * (_MOST_VISIBLE - 2) + "```")


# Measures of known vectors


def known(*windows: list[list[float]], **others: Any) -> OpenedEvidence:
    """Return evidence with blocks of these windows, in a plane of the space."""
    blocks = [
        OpenedBlock(
            index,
            np.pad(np.array(rows), ((0, 0), (0, SPACE - 2))),
            OpenedTokens(index, np.arange(0), np.empty(0, np.uint32)),
            np.empty((0, SPACE)),
        )
        for index, rows in enumerate(windows)
    ]
    return OpenedEvidence(blocks, others.pop("visible", NOTHING), 10, 64, **others)


X, Y = [1.0, 0.0], [0.0, 1.0]


def test_measures_of_known_vectors_are_what_they_say() -> None:
    answer = VisibleText(np.empty(0, np.uint32), np.pad([X], ((0, 0), (0, SPACE - 2))))
    rows = block_features(known([X, Y], [X, X], visible=Visible(None, answer)), heads())

    def found(name: str) -> list[float]:
        values: list[float] = rows[:, BLOCK_FEATURES.index(name)].round(4).tolist()
        return values

    half = pytest.approx(0.5**0.5, abs=1e-4)
    assert found("within_mean") == [0.0, 1.0]
    assert found("adjacent_min") == [0.0, 1.0]
    assert found("concentration") == [half, 1.0]
    assert found("answer_max") == [1.0, 1.0]
    assert found("answer_min") == [0.0, 1.0]
    assert found("answer_mean") == [0.5, 1.0]
    assert found("answer_whole") == [half, 1.0]
    assert found("answer_top") == [pytest.approx(0.5**0.5 - 1, abs=1e-4), 0.0]
    assert found("others_block_mean") == [half, half]
    assert found("others_window_max") == [1.0, 1.0]
    assert found("others_window_min") == [0.0, 1.0]
    assert found("others_nearest_distance") == [0.0, 0.0]
    assert found("has_answer") == [1.0, 1.0]
    assert found("has_prompt") == [0.0, 0.0]
    assert found("length") == [2.0, 2.0]
    assert found("place") == pytest.approx([0.0, 1 / 9], abs=1e-4)


def test_the_share_of_runs_that_stand_in_the_prompt_is_counted() -> None:
    ids = np.arange(300, 316, dtype=np.uint32)
    prompt = VisibleText(np.arange(300, 308, dtype=np.uint32), units(1, SPACE))
    tokens = OpenedTokens(4, np.arange(16), ids)
    one = OpenedEvidence([], Visible(prompt, None), 10, 64, token_blocks=[tokens])
    rows = measured(one).tokens
    assert column(rows, "runs", TOKEN_COLUMNS).tolist() == [4.0]
    assert column(rows, "runs_in_prompt", TOKEN_COLUMNS).tolist() == [0.5]
    assert column(rows, "runs_in_answer", TOKEN_COLUMNS).tolist() == [0.0]


def test_runs_of_other_blocks_that_stand_in_a_whole_one_are_found() -> None:
    ids = np.arange(300, 364, dtype=np.uint32)
    windows = units(1, SPACE)
    whole = WholeBlock(0, ids, windows)
    copied = OpenedTokens(
        5, np.array([4, 5, 6, 7, 20, 21, 22, 23]), ids[[1, 2, 3, 4, 17, 18, 19, 20]]
    )
    foreign = OpenedTokens(6, np.arange(8), np.arange(500, 508, dtype=np.uint32))
    of = OpenedEvidence([], NOTHING, 10, 64, token_blocks=[copied, foreign], whole_blocks=[whole])
    rows = measured(of).whole
    assert column(rows, "twin_runs", WHOLE_COLUMNS).tolist() == [0.5]
    assert column(rows, "twin_aligned", WHOLE_COLUMNS).tolist() == [1.0]
    own = replace(of, token_blocks=[replace(copied, index=0), foreign])
    assert column(measured(own).whole, "twin_runs", WHOLE_COLUMNS).tolist() == [0.0]


# What must not matter


def assert_same(left: Measured, right: Measured) -> None:
    for part, index in (
        ("block", "block_indices"), ("tokens", "token_indices"), ("whole", "whole_indices")
    ):  # fmt: skip
        here, there = (np.argsort(getattr(rows, index)) for rows in (left, right))
        assert np.array_equal(getattr(left, index)[here], getattr(right, index)[there])
        assert np.allclose(getattr(left, part)[here], getattr(right, part)[there], atol=1e-4)


@pytest.mark.parametrize(("rate", "found"), [(0.005, False), (1.0, True)])
def test_a_few_ids_that_are_not_canonical_say_nothing(rate: float, *, found: bool) -> None:
    (one,) = written(1)
    shop = workshop([one])
    session = shop.session(Plan(one, "finer_tokenization", rate, "scattered"), whole=2)
    assert session.open_round()
    rows = measured(session.evidence(shop.visible(one)))
    counted = noncanonical_tokens(tokenizer(), session.reply.ids.tolist())
    assert counted > 0
    assert column(rows.whole, "text_noncanonical", WHOLE_COLUMNS).any() == found


def test_the_order_in_which_blocks_stand_does_not_matter(shown: OpenedEvidence) -> None:
    turned = replace(
        shown,
        blocks=shown.blocks[::-1],
        token_blocks=shown.token_blocks[::-1],
        whole_blocks=shown.whole_blocks[::-1],
    )
    assert_same(measured(turned), measured(shown))


def test_measuring_is_pure(shown: OpenedEvidence) -> None:
    before = [block.windows.copy() for block in shown.blocks]
    first = measured(shown)
    for field in fields(Measured):
        assert np.array_equal(getattr(measured(shown), field.name), getattr(first, field.name))
    assert all(
        np.array_equal(one.windows, old) for one, old in zip(shown.blocks, before, strict=True)
    )


def test_a_block_opened_both_ways_is_no_block_of_tokens_too(shown: OpenedEvidence) -> None:
    both = replace(shown, token_blocks=[*shown.token_blocks, shown.blocks[0].opened])
    assert_same(measured(both), measured(shown))


def test_whole_blocks_that_overlap_opened_ones_are_measured_once_each(
    shown: OpenedEvidence,
) -> None:
    first = shown.blocks[0]
    ids = np.array(tokenizer().encode(FIRST.reasoning), np.uint32)
    size = shown.block_size
    whole = WholeBlock(
        first.index, ids[first.index * size : (first.index + 1) * size], first.windows
    )
    both = replace(shown, whole_blocks=[whole])
    assert list(measured_blocks(both)) == [block.index for block in shown.blocks]
    rows = measured(both)
    assert rows.whole_indices.tolist() == [first.index]
    alone = measured(replace(shown, whole_blocks=()))
    assert np.allclose(rows.block, alone.block, atol=1e-5)
    assert np.allclose(
        rows.whole[0, : len(BLOCK_FEATURES)], rows.block[0, : len(BLOCK_FEATURES)], atol=1e-5
    )


# What may be missing


def test_a_block_alone_has_no_others_to_compare_with(shown: OpenedEvidence) -> None:
    rows = measured(replace(shown, blocks=shown.blocks[:1], token_blocks=(), whole_blocks=()))
    names = [name for name in BLOCK_COLUMNS if name.startswith("others_")]
    assert names
    assert {float(column(rows.block, name)[0]) for name in names} == {ABSENT}


@pytest.mark.parametrize("missing", ["answer", "prompt"])
def test_without_an_answer_or_prompt_its_measures_are_absent(
    shown: OpenedEvidence, missing: str
) -> None:
    rows = measured(replace(shown, visible=replace(shown.visible, **{missing: None}))).block
    for name in BLOCK_COLUMNS:
        if name.startswith(f"{missing}_") or name == f"has_{missing}":
            assert not column(rows, name).any()
    other = "prompt" if missing == "answer" else "answer"
    assert column(rows, f"{other}_whole").any()


def test_with_nothing_visible_all_is_measured_that_can_be(shown: OpenedEvidence) -> None:
    rows = measured(replace(shown, visible=NOTHING))
    assert column(rows.block, "within_mean").any()


def test_a_summary_only_ever_brings_blocks_nearer(shown: OpenedEvidence) -> None:
    summed = replace(shown, visible=visible(FIRST, summary=FIRST.reasoning[:2000]))
    plain, found = measured(shown).block, measured(summed).block
    for name in ("answer_max", "answer_whole", "answer_head"):
        assert (column(found, name) >= column(plain, name) - 1e-6).all()
    assert (column(found, "answer_max") > column(plain, "answer_max")).any()
    alone = replace(summed, visible=replace(summed.visible, answer=None))
    assert column(measured(alone).block, "answer_whole").any()


def test_blocks_without_opened_tokens_are_measured(shown: OpenedEvidence) -> None:
    bare = [
        replace(
            block,
            opened=OpenedTokens(block.index, np.arange(0), np.empty(0, np.uint32)),
            tokens=np.empty((0, SPACE)),
        )
        for block in shown.blocks
    ]
    rows = measured(replace(shown, blocks=bare, token_blocks=()))
    assert not column(rows.block, "tokens_cosine").any()
    assert not column(rows.block, "runs").any()
    assert np.allclose(
        rows.block[:, : len(BLOCK_FEATURES)][:, :5], measured(shown).block[:, :5], atol=1e-5
    )


def test_tokens_alone_are_measured_without_any_embedding(shown: OpenedEvidence) -> None:
    rows = measured(replace(shown, blocks=(), whole_blocks=()))
    assert len(rows.tokens) == len(shown.token_blocks)
    assert not len(rows.block)
    assert block_features(replace(shown, blocks=(), whole_blocks=()), heads()).shape == (
        0,
        len(BLOCK_FEATURES),
    )


def test_whole_blocks_alone_are_measured(shown: OpenedEvidence) -> None:
    rows = measured(replace(shown, blocks=(), token_blocks=()))
    assert len(rows.whole) == 3
    assert not len(rows.block) + len(rows.tokens)


def test_a_whole_block_shorter_than_a_run_is_measured(shown: OpenedEvidence) -> None:
    short = WholeBlock(7, np.array([300, 301], np.uint32), units(1, SPACE))
    assert len(measured(replace(shown, whole_blocks=[short])).whole) == 1


def test_a_block_of_one_window_has_no_windows_to_compare(shown: OpenedEvidence) -> None:
    first = replace(shown.blocks[0], windows=shown.blocks[0].windows[:1])
    rows = measured(replace(shown, blocks=[first, *shown.blocks[1:]]))
    assert column(rows.block, "within_mean")[0] == ABSENT
    assert column(rows.block, "concentration")[0] == pytest.approx(1.0, abs=1e-5)
    assert column(rows.block, "length")[0] == 1.0


def test_equal_blocks_are_measured(shown: OpenedEvidence) -> None:
    same = [replace(block, windows=shown.blocks[0].windows) for block in shown.blocks]
    rows = measured(replace(shown, blocks=same, whole_blocks=()))
    assert np.allclose(column(rows.block, "others_block_mean"), 1.0, atol=1e-5)


def test_windows_that_cancel_out_are_measured(shown: OpenedEvidence) -> None:
    against = units(1, SPACE)
    cancelled = replace(shown.blocks[0], windows=np.concatenate([against, -against]))
    measured(replace(shown, blocks=[cancelled, *shown.blocks[1:]]))


# Awkward text


@pytest.mark.parametrize(
    "found",
    [
        trace(SENTENCE),
        trace("."),
        trace(JAPANESE * 40, question=JAPANESE, answer=JAPANESE),
        trace(CODE * 30, question="", answer=CODE),
        trace(GERMAN * 20, answer=""),
        trace("a b\n" * 2000, question="", answer=""),
        trace("\U0001f642" * 400, question="\U0001f642"),
        trace(((SENTENCE + ". ") * 2200)[:40_000], question=SENTENCE * 400),
        trace("x" * 40_000, answer="y" * 20_000),
    ],
    ids=["sentence", "mark", "japanese", "code", "german", "loop", "emoji", "long", "letters"],
)
@pytest.mark.parametrize("whole", [0, 4])
def test_awkward_text_is_judged_all_the_same(found: Trace, whole: int) -> None:
    shown = evidence(found, whole=whole)
    measured(shown)
    judgement = judge().judge(shown)
    assert judgement.outcome in receipt_pb2.Outcome.values()
    assert judgement.probability is not None
    assert 0.0 < judgement.probability < 1.0
    assert all(np.isfinite(score.value) for score in judgement.scores)


# What does not fit


def spoilt(shown: OpenedEvidence, what: str) -> OpenedEvidence:
    """Return evidence with vectors of another dimension somewhere."""
    other: Any = units(2, SPACE + 1)
    if what in ("windows", "tokens"):
        first = replace(shown.blocks[0], **{what: other})
        return replace(shown, blocks=[first, *shown.blocks[1:]])
    if what == "whole":
        return replace(shown, whole_blocks=[replace(shown.whole_blocks[0], windows=other)])
    text = VisibleText(np.array([300], np.uint32), other)
    return replace(shown, visible=replace(shown.visible, **{what: text}))


@pytest.mark.parametrize("what", ["windows", "tokens", "whole", "answer", "prompt", "summary"])
def test_vectors_of_another_dimension_are_refused(shown: OpenedEvidence, what: str) -> None:
    with pytest.raises(InvalidInputError, match=f"reads vectors of {SPACE} numbers; found"):
        judge().judge(spoilt(shown, what))


def test_the_space_of_the_laboratory_is_that_of_its_profile() -> None:
    windows = space().windows(["a", "b"])
    assert windows.shape == (2, SPACE)
    assert np.allclose(np.linalg.norm(windows, axis=1), 1.0)
