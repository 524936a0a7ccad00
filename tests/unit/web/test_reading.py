"""From bundles to what pages show: nothing is lost, nothing breaks on what others wrote."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from coin_protocol import envelope
from coin_protocol.errors import InvalidInputError
from coin_protocol.keyset import stamp
from coin_protocol.testing.world import START, World
from coin_protocol.v1 import opening_pb2
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.web_site import bundle_of
from verifier_sdk.web.reading import timeline as times
from verifier_sdk.web.reading.blocks import (
    CLOSED,
    EMBEDDING,
    MOST_CELLS,
    TOKENS,
    WHOLE,
    BlockMap,
)
from verifier_sdk.web.reading.rounds import read_rounds
from verifier_sdk.web.reading.story import read_story
from verifier_sdk.web.reading.timeline import timeline
from verifier_sdk.web.reading.verdict import graded


def test_a_strip_shows_each_block_or_the_most_opened_of_several() -> None:
    few = BlockMap(4, {1: TOKENS, 3: WHOLE}, {1: 8})
    assert [(cell.kind, cell.first, cell.last) for cell in few.cells()] == [
        (CLOSED, 0, 0),
        (TOKENS, 1, 1),
        (CLOSED, 2, 2),
        (WHOLE, 3, 3),
    ]
    many = BlockMap(10_000, {0: TOKENS, 1: EMBEDDING, 9_999: WHOLE}, {})
    cells = many.cells()
    assert len(cells) <= MOST_CELLS
    assert (cells[0].kind, cells[-1].kind) == (EMBEDDING, WHOLE)
    assert (cells[0].first, cells[-1].last) == (0, 9_999)
    assert all(a.last + 1 == b.first for a, b in pairwise(cells))
    assert many.counted() == {WHOLE: 1, EMBEDDING: 1, TOKENS: 1, CLOSED: 9_997}
    assert BlockMap(0, {}, {}).cells() == []


def test_rounds_tell_what_was_asked_and_what_came() -> None:
    bundle = bundle_of()
    lines, blocks = read_rounds(bundle, 19)
    assert [(line.whole, line.number) for line in lines] == [(False, 1), (False, 2), (True, 1)]
    assert lines[0].asked == (
        "The embeddings of 3 blocks, up to 4 tokens of each and of 4 blocks more"
    )
    assert lines[0].answer == "Opened: embeddings of 3 blocks, 28 tokens in 7 blocks"
    assert lines[2].asked == "2 blocks whole"
    assert all(line.answered and line.seconds == 1.0 and line.bytes for line in lines)
    assert blocks.counted()[WHOLE] == 2
    assert blocks.kinds[18] in {WHOLE, EMBEDDING, TOKENS}, "the last block's edge is always open"


def test_rounds_that_were_not_answered_say_why() -> None:
    world = World()
    audit = world.audit(world.reply(tokens=40)).ask(blocks=1).ask(blocks=1)
    silent, refused = audit.rounds
    silent.ClearField("opening")
    silent.no_answer = "DEADLINE_EXCEEDED"
    refusal = opening_pb2.Refusal(
        challenge_sha256=bytes(32),
        reason=opening_pb2.REFUSAL_REASON_EXPOSURE_CAP,
        provider_time=stamp(START),
    )
    refused.ClearField("opening")
    refused.refusal.CopyFrom(world.sign(refusal, envelope.REFUSAL))
    lines, blocks = read_rounds(pb.Bundle(rounds=[silent, refused]), 5)
    assert [line.answered for line in lines] == [False, False]
    assert lines[0].answer == "No answer: DEADLINE_EXCEEDED"
    assert lines[1].answer.startswith("Refused: answering could pass an exposure cap.")
    assert blocks.counted()[CLOSED] == 5


def test_statements_that_do_not_parse_become_sentences() -> None:
    bundle = bundle_of()
    for entry in (*bundle.rounds, *bundle.whole_rounds):
        entry.challenge.payload = b"\xff"
        entry.opening.payload = b"\xff"
    bundle.rounds[0].ClearField("opening")
    bundle.rounds[0].refusal.payload = b"\xff"
    lines, blocks = read_rounds(bundle, 19)
    assert all("cannot be read" in line.asked and line.deadline_at is None for line in lines)
    assert all("cannot be read" in line.answer for line in lines)
    assert blocks.kinds == {}


def test_blocks_past_the_end_are_not_drawn() -> None:
    _, blocks = read_rounds(bundle_of(), 2)
    assert set(blocks.kinds) <= {0, 1}
    assert sum(blocks.counted().values()) == 2


def test_a_story_without_a_commitment_is_told_all_the_same() -> None:
    bundle = bundle_of()
    bundle.receipt.commitment.payload = b"\xff"
    for seen in bundle.receipt.checkpoints[3:5]:
        seen.checkpoint.payload = b"\xff"
    story = read_story(bundle.SerializeToString(), {})
    assert story.commitment is None
    assert "do not parse" in story.unread
    assert story.timeline.unread == 2
    assert len(story.timeline.points) == 16
    assert story.blocks.total == 0
    assert story.graded.limits is None


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{}", b'{"format": "coin.bundle.v1"}'])
def test_what_is_no_bundle_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_story(raw, {})


def test_rates_are_those_of_the_clock_that_saw_them() -> None:
    world = World()
    receipt = world.reply(tokens=40).receipt
    for number, seen in enumerate(receipt.checkpoints):
        seen.seen_at.CopyFrom(stamp(START + timedelta(seconds=2 + 0.5 * number)))
    found = timeline(receipt, None)
    assert [point.tokens for point in found.points] == [8, 16, 24, 32, 40]
    assert found.rate == pytest.approx(32 / 2.0)
    assert found.points[1].rate == pytest.approx(8 / 0.5)
    assert found.dated_rate == pytest.approx(32 / 0.4)
    assert found.answer_rate is None
    for seen in receipt.checkpoints:
        seen.seen_at.CopyFrom(stamp(START))
    bunched = timeline(receipt, None)
    assert bunched.rate is None
    assert all(point.rate is None for point in bunched.points)


def test_of_many_checkpoints_some_are_drawn_the_last_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receipt = World().reply(tokens=160).receipt
    monkeypatch.setattr(times, "MOST_POINTS", 7)
    found = timeline(receipt, None)
    assert found.checkpoints == 20
    assert [point.tokens for point in found.points] == [8, 32, 56, 80, 104, 128, 152, 160]


def test_scores_that_are_no_numbers_are_left_out_of_means() -> None:
    verdict = pb.Verdict()
    for value in (1.0, 3.0, float("nan"), float("inf")):
        verdict.scores.add(name="reference_surprise", block_index=1, value=value)
    verdict.scores.add(name="p_value_random", value=float("nan"))
    found = graded(verdict, {})
    assert [(mean.name, mean.blocks, mean.mean) for mean in found.means] == [
        ("reference_surprise", 2, 2.0)
    ]
    assert found.families == []
    assert found.p_value is None
