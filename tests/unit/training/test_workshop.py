"""Sessions made of traces: deterministic, opened as in an audit, embedded many at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coin_protocol.embedding import embed_texts, project, unit
from coin_protocol.quantise import dequantise
from coin_protocol.testing.small import DIMENSION, SmallEmbedder
from tests.support.laboratory import (
    SENTENCE,
    profile,
    spelled,
    table,
    tokenizer,
    trace,
    written,
)
from tests.support.workshops import quiet, workshop
from verifier_sdk.lab import ATTACKS, NotApplicableError
from verifier_sdk.semantic.judge import VisibleText
from verifier_sdk.training.workshop import MAX_TOKENS, Plan, Workshop

TRACES = written(4)
FIRST = TRACES[0]


@pytest.fixture(scope="module")
def shop() -> Workshop:
    """A workshop of four traces."""
    return workshop(TRACES)


def test_an_honest_session_is_the_trace(shop: Workshop) -> None:
    session = shop.session(Plan(FIRST))
    assert session.reply.ids.tolist() == tokenizer().encode(FIRST.reasoning)
    assert not session.reply.injected.any()
    assert session.block_size == 256


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_block_sizes_other_than_the_profiles_are_played(shop: Workshop, size: int) -> None:
    session = shop.session(Plan(FIRST, block_size=size))
    assert session.total_blocks == -(-len(session.reply.ids) // size)
    assert shop.models.profile.block_size == 256


def test_an_attacked_session_is_what_the_laboratory_makes(shop: Workshop) -> None:
    session = shop.session(Plan(FIRST, "bag_of_own_tokens", 1.0, "interleaved"))
    assert session.reply.share == pytest.approx(0.5)


def test_a_plan_is_always_the_same_session_and_draws_differ(shop: Workshop) -> None:
    plan = Plan(FIRST, "ngram_text", 0.5, "scattered")
    other = workshop(TRACES)
    one, same = shop.session(plan), other.session(plan)
    assert np.array_equal(one.reply.ids, same.reply.ids)
    assert one.seed == same.seed
    assert shop.session(replace(plan, draw=1)).seed != one.seed
    assert workshop(TRACES, seed=2).session(plan).seed != one.seed
    # The attack is the trace's own, whatever the draw.
    assert np.array_equal(shop.session(replace(plan, draw=1)).reply.ids, one.reply.ids)


def test_long_reasoning_is_cut() -> None:
    long = trace("so the sky is blue. " * 4000)
    session = workshop([long]).session(Plan(long))
    assert len(session.reply.ids) == MAX_TOKENS


LINES = trace(
    "\n".join(f"step {at} is {SENTENCE} and more of it." for at in range(250)), id="lines"
)


def test_a_condensed_session_is_an_honest_one_of_half_the_lines() -> None:
    shop = workshop([LINES])
    whole, terse = shop.session(Plan(LINES)), shop.session(Plan(LINES, condensed=True))
    assert 0.35 < len(terse.reply.ids) / len(whole.reply.ids) < 0.65
    assert not terse.reply.injected.any()
    assert set(spelled(terse.reply.ids).splitlines()) < set(spelled(whole.reply.ids).splitlines())
    # Its draws are its own, and its text the same whatever is drawn.
    assert terse.seed != whole.seed
    again = shop.session(Plan(LINES, draw=1, condensed=True))
    assert np.array_equal(again.reply.ids, terse.reply.ids)
    assert again.seed != terse.seed


def test_a_trace_that_has_little_left_when_condensed_is_left_out() -> None:
    short = trace("\n".join([SENTENCE] * 30))
    shop = workshop([short])
    with pytest.raises(NotApplicableError, match="too little is left"):
        shop.session(Plan(short, condensed=True))
    plans = [Plan(short), Plan(short, condensed=True)]
    made = shop.sessions(plans, rounds=1, what="a", progress=quiet)
    assert [plan.condensed for plan, _ in made] == [False]


def test_attacks_that_do_not_apply_are_left_out(shop: Workshop) -> None:
    attack = "other_model_same_question"
    with pytest.raises(NotApplicableError):
        shop.session(Plan(FIRST, attack, 0.5, "appended"))
    plans = [Plan(FIRST), Plan(FIRST, attack, 0.5, "appended"), Plan(FIRST, draw=1)]
    made = shop.sessions(plans, rounds=2, what="a", progress=quiet)
    assert [plan.draw for plan, _ in made] == [0, 1]


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_every_attack_makes_a_session_or_says_that_it_does_not_apply(
    shop: Workshop, attack: str
) -> None:
    for placement in ATTACKS[attack].placements:
        made = shop.sessions(
            [Plan(FIRST, attack, 0.25, placement)], rounds=1, what="a", progress=quiet
        )
        for _, session in made:
            assert session.reply.injected.any()
            assert len(session.drawn) == 1


def test_stages_show_what_was_known_after_each_round() -> None:
    long = trace(" ".join(one.reasoning for one in TRACES) * 2, qid="long")
    shop = workshop([*TRACES, long])
    plans = [Plan(long), Plan(FIRST)]
    made = shop.sessions(plans, rounds=3, whole=(2,), what="audits", progress=quiet)
    assert [plan for plan, _ in made] == plans
    stages = [shop.stages(plan, session) for plan, session in made]
    for (_, session), found in zip(made, stages, strict=True):
        assert [stage.rounds for stage in found] == list(range(1, len(session.drawn) + 1))
        assert [stage.last for stage in found] == [False] * (len(found) - 1) + [True]
        assert all(len(stage.whole_blocks) == 2 for stage in found)
    assert len(stages[0]) > 1


def test_preparing_embeds_all_that_evidence_needs() -> None:
    shop = workshop(TRACES)
    made = shop.sessions([Plan(FIRST), Plan(TRACES[1])], rounds=2, what="a", progress=quiet)
    shop.prepare(made, "b", quiet)
    known = shop.cache._used
    for plan, session in made:
        session.evidence(shop.visible(plan.trace))
    # Rows of token ids come from the table.
    assert shop.cache._used - known <= 1


def test_blocks_are_cut_into_the_windows_of_the_profile(shop: Workshop) -> None:
    ids = shop.library.ids(FIRST)
    (first, short) = shop.windows_of([ids[:256], ids[256:300]])
    assert [len(first), len(short)] == [4, 1]
    assert "".join(first).encode() == spelled(ids[:256])
    rows = shop.vectors(first)
    assert rows.dtype == np.float64
    assert rows.shape == (4, 12)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0)
    exact = project(profile().message.embedding, embed_texts(SmallEmbedder(), first))
    assert np.allclose(rows, exact, atol=3e-3)


def test_vectors_are_those_of_the_profiles_models(shop: Workshop) -> None:
    session = shop.session(Plan(FIRST), whole=1)
    session.open_round()
    seen = session.evidence(shop.visible(FIRST))
    spec = profile().message.embedding
    texts = session.space.block_texts(session.block_ids(seen.blocks[0].index))
    exact = project(spec, embed_texts(SmallEmbedder(), texts))
    assert np.allclose(seen.blocks[0].windows, exact, atol=3e-3)
    ids = seen.blocks[0].opened.ids.tolist()
    rows = dequantise([table().row(token) for token in ids], DIMENSION)
    assert np.allclose(seen.blocks[0].tokens, unit(project(spec, rows)), atol=1e-9)
    answer = VisibleText.of(FIRST.answer, spec, tokenizer(), SmallEmbedder())
    assert answer is not None
    assert seen.visible.answer is not None
    assert np.allclose(seen.visible.answer.windows, answer.windows, atol=3e-3)
    assert seen.visible.answer.ids.tolist() == answer.ids.tolist()


def test_a_session_without_opened_tokens_has_rows_of_the_right_shape(shop: Workshop) -> None:
    assert shop._rows(np.empty(0, np.uint32)).shape == (0, 12)


def test_a_trace_without_question_or_answer_shows_nothing(shop: Workshop) -> None:
    bare = trace("so the sky is blue.", question=" ", answer="")
    seen = shop.visible(bare)
    assert seen.prompt is None
    assert seen.answer is None


def test_traces_of_two_files_may_share_an_id(shop: Workshop) -> None:
    one = trace("so the sky is blue.", id="1", answer="Blue.")
    two = trace("so the sky is red.", id="1", answer="Red in the evening.")
    first, second = shop.visible(one).answer, shop.visible(two).answer
    assert first is not None
    assert second is not None
    assert first.ids.tolist() != second.ids.tolist()


def test_progress_is_told_how_much_there_is() -> None:
    shop = workshop(TRACES)
    told: list[tuple[str, int, int]] = []
    made = shop.sessions(
        [Plan(FIRST)], rounds=1, what="audits", progress=lambda *step: told.append(step)
    )
    shop.prepare(made, "embedding for audits", lambda *step: told.append(step))
    assert ("audits", 1, 1) in told
    _, done, total = [step for step in told if step[0] == "embedding for audits"][-1]
    assert done == total > 0
