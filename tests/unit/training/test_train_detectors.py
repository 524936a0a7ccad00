"""What heads and detectors are trained on: labels, weights, pairs, and clear errors."""

from __future__ import annotations

import numpy as np
import pytest

from coin_protocol.errors import InvalidInputError
from tests.support.judges import WIDTHS, Floats, heads, numbers, readers
from tests.support.laboratory import tokenizer, trace, written
from tests.support.workshops import quiet, workshop
from verifier_sdk.semantic.aggregate import KINDS
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import PAIR_HEADS
from verifier_sdk.semantic.measure import Measured, measure
from verifier_sdk.training.detectors import (
    FOLDS,
    LOOPS,
    Example,
    _folds,
    example,
    rows_of,
    train_detectors,
)
from verifier_sdk.training.heads import _pairs, opened_blocks, train_heads
from verifier_sdk.training.workshop import Plan, Workshop

BAG = FAMILIES.index("bag")
QUICK = 1e-9
"""Share of the steps that is one step."""


def rows_for(indices: list[int], kind: str) -> Floats:
    return numbers(len(indices), WIDTHS[kind], seed=len(indices))


def measured(block: list[int], tokens: list[int], whole: list[int]) -> Measured:
    return Measured(
        rows_for(block, "block"), rows_for(tokens, "tokens"), rows_for(whole, "whole"),
        np.array(block, np.int64), np.array(tokens, np.int64), np.array(whole, np.int64),
        256, code=False,
    )  # fmt: skip


def made(
    family: str, shares: list[float], *, qid: str = "q", blocks: Measured | None = None
) -> Example:
    plan = Plan(trace("so the sky is blue.", qid=qid), "none" if not family else "x")
    return Example(plan, family, blocks or measured([0, 1], [2, 3], [0]), np.array(shares))


# Rows


def test_every_block_of_an_honest_session_is_no_filler_of_any_family() -> None:
    rows, labels, weights, owners = rows_of([made("", [0.0] * 4)], "block")
    assert rows.shape == (2, WIDTHS["block"])
    assert not labels.any()
    assert (weights == 1.0).all()
    assert owners.tolist() == [0, 0]


def test_a_block_is_filler_of_its_own_family_alone() -> None:
    _, labels, weights, _ = rows_of([made("bag", [1.0, 0.5, 0.5, 0.5])], "block")
    assert labels[:, BAG].tolist() == [1.0, 1.0]
    assert labels.sum() == 2.0
    others = np.arange(len(FAMILIES)) != BAG
    assert not weights[:, others].any()
    assert (weights[:, BAG] == 1.0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_follow_the_blocks_that_rows_are_of(kind: str) -> None:
    blocks = measured([0, 5], [3, 1], [5, 0])
    shares = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    wanted = {"block": [1.0, 0.0], "tokens": [1.0, 0.0], "whole": [0.0, 1.0]}[kind]
    rows, labels, _, _ = rows_of([made("bag", shares, blocks=blocks)], kind)
    assert labels[:, BAG].tolist() == wanted
    assert np.array_equal(rows, getattr(blocks, kind))


def test_blocks_with_a_little_filler_are_nobodys_example() -> None:
    one = made("bag", [0.05, 0.08, 0.0, 0.0])
    rows, labels, _, _ = rows_of([one], "block")
    assert len(rows) == 1
    assert labels[0, BAG] == 1.0
    # A block without any filler is an honest one, though its neighbours are not.
    _, labels, weights, _ = rows_of([one], "tokens")
    assert labels[:, BAG].tolist() == [0.0, 0.0]
    assert weights[:, BAG].tolist() == [1.0, 1.0]


def test_blocks_that_were_copied_are_not_called_honest() -> None:
    rows, labels, _, _ = rows_of([made("repeated", [0.0, 1.0, 0.0, 0.0])], "block")
    assert len(rows) == 1
    assert labels[0, FAMILIES.index("repeated")] == 1.0


def test_unseen_families_are_left_out() -> None:
    rows, _, _, _ = rows_of([made("forged", [1.0] * 4), made("other_model", [1.0] * 4)], "block")
    assert not len(rows)


def test_questions_with_many_sessions_weigh_less_for_each() -> None:
    many = [made("", [0.0] * 4) for _ in range(4)]
    one = made("", [0.0] * 4, qid="other")
    inflated = made("bag", [1.0] * 4)
    _, _, weights, owners = rows_of([*many, one, inflated], "block")
    assert (weights[owners < 4] == 0.5).all()
    assert (weights[owners == 4] == 1.0).all()
    assert (weights[owners == 5][:, BAG] == 1.0).all()


def test_honest_reasoning_that_loops_weighs_more() -> None:
    looping = trace("so the sky is blue and the sea is green and deep. " * 9, qid="q")
    blocks = measured([0, 1], [2, 3], [0])
    honest, filler = (
        Example(Plan(looping, attack), family, blocks, np.full(4, share))
        for attack, family, share in (("none", "", 0.0), ("x", "bag", 1.0))
    )
    _, _, weights, owners = rows_of([honest, made("", [0.0] * 4, qid="other"), filler], "block")
    assert (weights[owners == 0] == LOOPS).all()
    assert (weights[owners == 1] == 1.0).all()
    # Filler in such a session is as good an example as any.
    assert (weights[owners == 2][:, BAG] == 1.0).all()


def test_without_blocks_of_a_kind_there_is_nothing_to_train_on() -> None:
    bare = [made("", [0.0] * 4, qid=f"{at}", blocks=measured([0], [], [1])) for at in range(4)]
    with pytest.raises(InvalidInputError, match="no blocks of kind 'tokens'"):
        train_detectors(bare, seed=1, steps=QUICK)


@pytest.mark.parametrize("questions", [2, 3, 7])
def test_every_part_of_the_questions_leaves_others_to_train_on(questions: int) -> None:
    examples = [made("", [0.0] * 4, qid=f"{at}") for at in range(questions)]
    folds = _folds(examples)
    assert len(folds) == questions
    assert len(set(folds.values())) == min(questions, FOLDS)
    assert folds == _folds(examples[::-1])


def test_detectors_learn_what_they_are_shown() -> None:
    examples = []
    for at in range(24):
        blocks = measured([0, 1], [2, 3], [0])
        family = "bag" if at % 2 else ""
        for rows in (blocks.block, blocks.tokens, blocks.whole):
            rows[:] = numbers(*rows.shape, seed=at)
            rows[:, :20] += 3.0 if family else 0.0
        examples.append(made(family, [1.0 if family else 0.0] * 4, qid=f"{at}", blocks=blocks))
    steps: list[int] = []
    found = train_detectors(examples, seed=1, steps=0.03, progress=steps.append)
    assert sum(steps) == 90 * len(KINDS) * (FOLDS + 1)
    evidence = []
    for one in examples:
        ratios = found.ratios(one.measured)
        evidence.append(found.session_evidence(ratios)[BAG])
    assert min(evidence[1::2]) > max(evidence[::2])
    again = train_detectors(examples, seed=1, steps=0.03)
    for name, tensor in found.tensors().items():
        assert np.array_equal(again.tensors()[name], tensor)


# Sessions of the laboratory


TRACES = written(4)


@pytest.fixture(scope="module")
def shop() -> Workshop:
    """A workshop of four traces, one of them without an answer."""
    return workshop(TRACES)


def test_an_example_knows_the_filler_of_every_block(shop: Workshop) -> None:
    plan = Plan(TRACES[0], "bag_of_own_tokens", 1.0, "scattered")
    ((_, session),) = shop.sessions([plan], rounds=1, whole=(1,), what="a", progress=quiet)
    seen = session.evidence(shop.visible(plan.trace))
    found = example(plan, session, measure(seen, heads(), readers(), tokenizer()))
    assert found.family == "scattered"
    assert len(found.shares) == session.total_blocks
    assert found.shares.mean() == pytest.approx(0.5, abs=0.1)
    honest = example(Plan(TRACES[0]), session, found.measured)
    assert honest.family == ""


@pytest.mark.parametrize("name", PAIR_HEADS)
def test_pairs_that_belong_together_are_as_many_as_those_that_do_not(
    shop: Workshop, name: str
) -> None:
    made = shop.sessions([Plan(one) for one in TRACES], rounds=1, what="a", progress=quiet)
    inputs, labels, weights = _pairs(shop, made, name, 1)
    assert inputs.shape == (len(labels), 1 + 2 * 12)
    assert labels.shape == weights.shape == (len(labels), 1)
    assert np.isfinite(inputs).all()
    assert 0.4 <= labels.mean() <= 0.6
    again = _pairs(shop, made, name, 1)
    assert np.array_equal(again[0], inputs)
    assert not np.array_equal(_pairs(shop, made, name, 2)[0], inputs)


def test_a_block_belongs_to_its_own_answer(shop: Workshop) -> None:
    made = shop.sessions([Plan(one) for one in TRACES], rounds=1, what="a", progress=quiet)
    inputs, labels, _ = _pairs(shop, made, "block_to_answer", 1)
    wanted = []
    for plan, session in made:
        answer = shop.visible(plan.trace).answer
        assert answer is not None
        for index in opened_blocks(session):
            mean = session.block_windows(index).mean(axis=0)
            wanted += [float(mean @ answer.embedding / np.linalg.norm(mean))] * 2
    assert np.allclose(np.sort(inputs[labels[:, 0] == 1, 0]), np.sort(wanted), atol=1e-3)


@pytest.mark.parametrize("name", PAIR_HEADS)
def test_pairs_need_two_questions(shop: Workshop, name: str) -> None:
    made = shop.sessions([Plan(TRACES[0])], rounds=1, what="a", progress=quiet)
    with pytest.raises(InvalidInputError, match=f"head {name} needs honest sessions of two"):
        _pairs(shop, made, name, 1)


def test_pairs_of_blocks_need_two_of_one_session() -> None:
    short = [trace("so the sky is blue.", qid=f"{at}", id=f"{at}") for at in range(3)]
    shop = workshop(short)
    made = shop.sessions([Plan(one) for one in short], rounds=1, what="a", progress=quiet)
    with pytest.raises(InvalidInputError, match="head block_to_block needs sessions of two blocks"):
        _pairs(shop, made, "block_to_block", 1)


def test_answers_are_needed_of_two_questions() -> None:
    mute = [trace(one.reasoning, qid=one.qid, id=one.id, answer="") for one in TRACES]
    shop = workshop(mute)
    made = shop.sessions([Plan(one) for one in mute], rounds=1, what="a", progress=quiet)
    with pytest.raises(InvalidInputError, match="head block_to_answer needs"):
        train_heads(shop, made, mute, seed=1, steps=QUICK, progress=quiet)


def test_heads_are_the_same_for_the_same_seed(shop: Workshop) -> None:
    made = shop.sessions([Plan(one) for one in TRACES], rounds=1, what="a", progress=quiet)
    one = train_heads(shop, made, TRACES, seed=1, steps=0.01, progress=quiet)
    same = train_heads(shop, made, TRACES, seed=1, steps=0.01, progress=quiet)
    other = train_heads(shop, made, TRACES, seed=2, steps=0.01, progress=quiet)
    assert one.dimension == 12
    for name, tensor in one.tensors().items():
        assert np.array_equal(same.tensors()[name], tensor)
    assert any(
        not np.array_equal(other.tensors()[name], tensor) for name, tensor in one.tensors().items()
    )
