"""Simulated audits: they draw what real ones draw, and open no more than the caps allow."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coin_protocol.draw import draw, draw_whole
from coin_protocol.profile import Profile
from coin_protocol.v1 import profile_pb2
from tests.support.judges import rounds, session
from tests.support.laboratory import material, profile, tokenizer, traces
from verifier_sdk.lab import Attacked, apply_attack
from verifier_sdk.lab.audit import LabSession
from verifier_sdk.semantic.judge import OpenedEvidence, Visible

NOTHING = Visible(None, None)
IDS = np.array(tokenizer().encode(traces()[0].reasoning), np.uint32)
PROFILE = profile()


def play(made: LabSession) -> LabSession:
    while made.open_round():
        pass
    return made


@pytest.fixture(scope="module")
def played() -> LabSession:
    """An honest session, audited to the end under caps wide enough for three rounds."""

    def widen(message: profile_pb2.Profile) -> None:
        message.caps.blocks_ppm, message.caps.tokens_ppm = 900_000, 200_000

    found = play(session(np.tile(IDS, 4), of=profile(widen), whole=3))
    assert len(found.drawn) == 3
    return found


# Draws


def test_draws_are_those_of_the_protocol(played: LabSession) -> None:
    size = played.block_size
    counts = [min(size, len(played.reply.ids) - at) for at in range(0, len(played.reply.ids), size)]
    for number, found in enumerate(played.drawn, 1):
        blocks, token_blocks = len(found.blocks), len(found.token_blocks)
        most = max(len(block.positions) for block in (*found.blocks, *found.token_blocks))
        assert found == draw(
            sha256(b"seed").digest() + bytes([number]),
            counts,
            blocks=blocks,
            token_blocks=token_blocks,
            tokens_per_block=most,
            run_tokens=4,
        )
    assert played.drawn_whole == draw_whole(sha256(b"seed").digest() + b"w", len(counts), blocks=3)


def test_the_plan_says_how_much_is_asked_for(played: LabSession) -> None:
    plan = rounds()
    first, *later = played.drawn
    assert len(first.blocks) == plan.blocks_first_round
    # Fewer blocks are left than the plan asks for.
    assert len(first.token_blocks) == played.total_blocks - plan.blocks_first_round
    for found in later:
        assert 0 < len(found.blocks) <= plan.blocks_per_round
        assert not found.token_blocks


@pytest.mark.parametrize(("size", "tokens"), [(128, 4), (256, 8), (512, 16), (1024, 32)])
def test_of_every_block_as_large_a_share_is_opened(size: int, tokens: int) -> None:
    def widen(message: profile_pb2.Profile) -> None:
        message.block_size, message.caps.tokens_ppm = size, 200_000

    made = session(np.tile(IDS, 4), of=profile(widen))
    made.open_round()
    (found,) = made.drawn
    last = made.total_blocks - 1
    opened = {*found.blocks, *found.token_blocks}
    assert {len(block.positions) for block in opened if block.index != last} == {tokens}


def test_one_seed_gives_one_audit() -> None:
    one, same, other = (session(IDS, seed=seed) for seed in (b"a", b"a", b"b"))
    assert play(one).drawn == play(same).drawn
    assert play(other).drawn != one.drawn


# Caps


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(1, 6000),
    block_size=st.sampled_from([4, 7, 64, 256, 1024]),
    caps=st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_000_000)),
    least=st.tuples(st.integers(0, 64), st.integers(0, 4)),
    run=st.integers(0, 5),
    plan=st.tuples(*[st.integers(1, 8)] * 3, st.integers(0, 16), st.integers(0, 70)),
)
def test_the_caps_are_never_passed_however_long_the_reply(
    tokens: int,
    block_size: int,
    caps: tuple[int, int],
    least: tuple[int, int],
    run: int,
    plan: tuple[int, ...],
) -> None:
    message = profile_pb2.Profile()
    message.CopyFrom(PROFILE.message)
    message.block_size = block_size
    message.caps.tokens_ppm, message.caps.blocks_ppm = caps
    message.caps.min_tokens, message.caps.min_blocks = least
    message.caps.run_tokens = run
    # What a real profile may not say is not asked here: caps alone matter.
    made = session(
        np.full(tokens, 300, np.uint32),
        of=Profile(b"", message),
        plan=profile_pb2.RoundPlan(
            max_rounds=plan[0],
            blocks_first_round=plan[1],
            blocks_per_round=plan[2],
            tokens_per_block=plan[3],
            token_blocks_first_round=plan[4],
        ),
    )
    allowed = made.caps
    while True:
        played = len(made.drawn)
        more = made.more(after=played)
        assert made.open_round() == more
        if not more:
            break
        exposure = made.ledger.exposure()
        assert exposure.tokens <= allowed.tokens
        assert exposure.block_embeddings <= allowed.block_embeddings
        assert len(made.drawn) == played + 1 <= plan[0]
        drawn = made.drawn[-1]
        assert drawn.blocks or drawn.token_blocks
    assert [made.more(after=at) for at in range(len(made.drawn))] == [True] * len(made.drawn)


# What a judge sees


def opened_blocks(found: OpenedEvidence) -> dict[int, list[int]]:
    return {block.index: block.opened.ids.tolist() for block in found.blocks}


def test_evidence_after_some_rounds_is_the_beginning_of_what_comes(played: LabSession) -> None:
    stages = [played.evidence(NOTHING, rounds=seen) for seen in (1, 2, 3)]
    assert [stage.rounds for stage in stages] == [1, 2, 3]
    assert [stage.last for stage in stages] == [False, False, True]
    for before, after in pairwise(stages):
        known = {block.index for block in before.blocks}
        assert known <= {block.index for block in after.blocks}
        assert len(after.blocks) >= len(before.blocks)
        assert [one.index for one in before.token_blocks] == [
            one.index for one in after.token_blocks
        ]
    assert len(stages[2].blocks) == len({block.index for block in stages[2].blocks})
    everything = played.evidence(NOTHING)
    assert opened_blocks(everything) == opened_blocks(stages[2])


def test_what_later_rounds_open_does_not_change_what_was_seen() -> None:
    made = session(np.tile(IDS, 4))
    made.open_round()
    before = made.evidence(NOTHING)
    play(made)
    after = made.evidence(NOTHING, rounds=1)
    assert opened_blocks(after) == opened_blocks(before)
    assert after.rounds == before.rounds == 1
    assert after.last == before.last


def test_tokens_windows_and_rows_are_those_of_the_reply(played: LabSession) -> None:
    found, ids, size = played.evidence(NOTHING), played.reply.ids, played.block_size
    assert found.total_blocks == -(-len(ids) // size)
    for block in found.blocks:
        own = ids[block.index * size :][:size]
        assert block.opened.ids.tolist() == own[block.opened.positions].tolist()
        assert block.windows.shape == (-(-len(own) // 64), 12)
        assert block.tokens.shape == (len(block.opened.ids), 12)
        assert np.allclose(np.linalg.norm(block.windows, axis=1), 1.0)
        assert np.allclose(np.linalg.norm(block.tokens, axis=1), 1.0)
    for tokens in found.token_blocks:
        own = ids[tokens.index * size :][:size]
        assert tokens.ids.tolist() == own[tokens.positions].tolist()
    for whole in found.whole_blocks:
        assert whole.ids.tolist() == ids[whole.index * size :][:size].tolist()
        assert np.allclose(whole.windows, played.block_windows(whole.index))


def test_the_texts_to_embed_are_all_that_evidence_asks_for(played: LabSession) -> None:
    asked: list[str] = []
    windows = played.space.windows

    def noted(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        asked.extend(texts)
        return windows(texts)

    object.__setattr__(played.space, "windows", noted)
    try:
        played.evidence(NOTHING)
    finally:
        object.__setattr__(played.space, "windows", windows)
    assert set(asked) == set(played.texts())


def test_a_reply_of_one_token_is_audited() -> None:
    made = play(session(IDS[:1], whole=4))
    found = made.evidence(NOTHING)
    assert found.total_blocks == 1
    assert [block.index for block in found.blocks] == [0]
    assert found.last
    assert made.drawn_whole == (0,)


# Attacks


def test_the_injected_share_of_a_block_is_counted() -> None:
    injected = np.arange(len(IDS)) >= 300
    made = session(IDS)
    made.reply = Attacked(IDS, injected)
    assert made.injected_share(0) == 0.0
    assert made.injected_share(1) == (512 - 300) / 256
    assert made.injected_share(made.total_blocks - 1) == 1.0


def test_a_forgery_is_known_once_a_block_with_it_is_opened_whole() -> None:
    forged = apply_attack(
        "forged_vectors", material(), rate=1.0, placement="appended", block_size=256
    )
    without, found = session(IDS), session(IDS, whole=64)
    without.reply = found.reply = forged
    assert not play(without).forgery_opened()
    assert play(found).forgery_opened()
    honest = play(session(IDS, whole=64))
    assert not honest.forgery_opened()
    # The block's vectors are not of the text that it claims to be.
    index = next(at for at in found.drawn_whole if found.injected_share(at) == 1.0)
    block = found.block_windows(index)
    assert not np.allclose(
        block, found.space.windows(found.space.block_texts(found.block_ids(index)))
    )


def test_a_forgery_in_blocks_that_were_not_opened_whole_is_not_known() -> None:
    forged = apply_attack(
        "forged_vectors", material(), rate=1.0, placement="appended", block_size=256
    )
    made = session(IDS)
    made.reply = forged
    made.drawn_whole = (0,)
    assert made.injected_share(0) == 0.0
    assert not made.forgery_opened()
