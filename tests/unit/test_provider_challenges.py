"""What a provider refuses: challenges that are none, and those that pass a cap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from coin_protocol import draw, envelope
from coin_protocol.checks import Case, run_checks
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.encoding import digest
from coin_protocol.exposure import Caps
from coin_protocol.keyset import stamp
from coin_protocol.limits import FLIP_CHAIN_LENGTH
from coin_protocol.signer import KeySigner
from coin_protocol.statements import (
    read_opening,
    read_refusal,
    read_whole_opening,
)
from coin_protocol.testing.forgeries import both, put, without
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from provider_sdk.answering import ChallengeError
from provider_sdk.provider import Provider, RefusedChallengeError
from provider_sdk.record import SessionRecord
from tests.support.parties import (
    OTHER_VERIFIER,
    VERIFIER,
    WAIT_SECONDS,
    Parties,
    Reply,
    reasoning_ids,
    run_session,
)

WIDE = {"tokens_ppm": 1_000_000, "blocks_ppm": 1_000_000, "whole_blocks_ppm": 1_000_000}


def record_of(reply: Reply) -> SessionRecord:
    return reply.session.provider.store.get(reply.commitment_sha256)


def caps_of(reply: Reply) -> Caps:
    tree = record_of(reply).tree
    caps = reply.session.provider.profile.message.caps
    return Caps.of(caps, tokens=tree.reasoning_tokens, blocks=tree.block_count)


def refused(
    reply: Reply, challenge: envelope_pb2.Envelope, *, whole: bool = False
) -> envelope_pb2.Envelope:
    provider = reply.session.provider
    with pytest.raises(RefusedChallengeError) as caught:
        (provider.answer_whole if whole else provider.answer)(reply.commitment_sha256, challenge)
    return caught.value.signed


# Challenges that are none


def _edited(
    edit: Callable[[opening_pb2.Challenge], object],
) -> Callable[..., envelope_pb2.Envelope]:
    def make(parties: Parties, fingerprints: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        message = opening_pb2.Challenge.FromString(parties.challenge(fingerprints).payload)
        edit(message)
        return parties.sign_as_verifier(message, envelope.CHALLENGE)

    return make


def _raw(payload: bytes) -> Callable[..., envelope_pb2.Envelope]:
    return lambda parties, _: envelope.sign(payload, envelope.CHALLENGE, parties.verifier)


def _unknown_verifier(
    parties: Parties, fingerprints: envelope_pb2.Envelope
) -> envelope_pb2.Envelope:
    return parties.challenge(fingerprints, signer=KeySigner.generate(VERIFIER))


def _signed_by_the_provider(
    parties: Parties, fingerprints: envelope_pb2.Envelope
) -> envelope_pb2.Envelope:
    return parties.challenge(fingerprints, signer=parties.signer)


def _changed_after_signing(
    parties: Parties, fingerprints: envelope_pb2.Envelope
) -> envelope_pb2.Envelope:
    signed = parties.challenge(fingerprints)
    signed.payload = parties.challenge(fingerprints).payload
    return signed


def _late(parties: Parties, fingerprints: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
    return parties.challenge(fingerprints, deadline=stamp(datetime.now(UTC) - timedelta(hours=1)))


NO_CHALLENGES: dict[str, tuple[Callable[..., envelope_pb2.Envelope], str]] = {
    "nothing": (lambda *_: envelope_pb2.Envelope(), "not from a verifier known here"),
    "unknown verifier": (_unknown_verifier, "not from a verifier known here"),
    "signed by the provider": (_signed_by_the_provider, "not from a verifier known here"),
    "changed after signing": (_changed_after_signing, "not from a verifier known here"),
    "of the other kind": (
        lambda parties, fingerprints: parties.whole_challenge(fingerprints),
        "not from a verifier known here",
    ),
    "late": (_late, "deadline .* has passed"),
    "other fingerprints": (
        lambda parties, _: parties.challenge(envelope_pb2.Envelope(payload=b"other")),
        "other fingerprints",
    ),
    "empty": (_raw(b""), "malformed"),
    "no protobuf": (_raw(b"\xff\xff"), "malformed"),
    "unknown field": (_raw(b"\xf8\x01\x01"), "malformed"),
    "no blocks": (_edited(lambda c: c.ClearField("blocks")), "malformed: blocks .* nothing"),
    "no tokens of token blocks": (
        _edited(both(put("token_blocks", 1), without("tokens_per_block"))),
        "malformed: tokens",
    ),
    "too many token blocks": (
        _edited(lambda c: setattr(c, "token_blocks", 2**32 - 1)),
        "malformed: token_blocks",
    ),
    "too many tokens": (
        _edited(lambda c: setattr(c, "tokens_per_block", 2**32 - 1)),
        "malformed: tokens",
    ),
    "no round": (_edited(lambda c: c.ClearField("round")), "malformed: round"),
    "round 65": (_edited(lambda c: setattr(c, "round", 65)), "malformed: round"),
    "short nonce": (_edited(lambda c: setattr(c, "nonce", bytes(31))), "malformed: nonce"),
    "no name": (_edited(lambda c: c.ClearField("verifier")), "malformed: verifier"),
    "no deadline": (_edited(lambda c: c.ClearField("deadline")), "deadline"),
    "time out of range": (
        _edited(lambda c: setattr(c.deadline, "seconds", 2**60)),
        "malformed: deadline",
    ),
}


@pytest.mark.parametrize("name", NO_CHALLENGES)
def test_what_is_no_challenge_is_refused_and_costs_nothing(
    provider: Provider, parties: Parties, name: str
) -> None:
    make, message = NO_CHALLENGES[name]
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    with pytest.raises(ChallengeError, match=message):
        provider.answer(reply.commitment_sha256, make(parties, fingerprints))
    assert not record_of(reply).answered
    assert not record_of(reply).ledger.tokens
    assert provider.answer(reply.commitment_sha256, parties.challenge(fingerprints))


def test_whole_block_challenges_are_held_to_the_same_rules(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    late = stamp(datetime.now(UTC) - timedelta(hours=1))
    for wrong, message in (
        (parties.challenge(fingerprints), "not from a verifier"),
        (parties.whole_challenge(fingerprints, deadline=late), "has passed"),
        (parties.whole_challenge(fingerprints, blocks=0), "malformed: blocks"),
        (parties.whole_challenge(envelope_pb2.Envelope()), "other fingerprints"),
    ):
        with pytest.raises(ChallengeError, match=message):
            provider.answer_whole(reply.commitment_sha256, wrong)
    assert not record_of(reply).answered


def test_a_challenge_with_too_many_signatures_is_a_challenge_error(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    challenge = parties.challenge(fingerprints)
    challenge.signatures.extend([challenge.signatures[0]] * 16)
    with pytest.raises(ChallengeError):
        provider.answer(reply.commitment_sha256, challenge)


def test_a_challenge_for_another_session_is_refused(provider: Provider, parties: Parties) -> None:
    one, two = run_session(provider), run_session(provider)
    _, others = two.ready()
    one.ready()
    with pytest.raises(ChallengeError, match="other fingerprints"):
        provider.answer(one.commitment_sha256, parties.challenge(others))


def test_an_empty_commitment_has_nothing_to_open(provider: Provider, parties: Parties) -> None:
    reply = run_session(provider, [])
    _, fingerprints = reply.ready()
    with pytest.raises(ChallengeError, match="nothing to open"):
        provider.answer(reply.commitment_sha256, parties.challenge(fingerprints))
    with pytest.raises(ChallengeError, match="nothing to open"):
        provider.answer_whole(reply.commitment_sha256, parties.whole_challenge(fingerprints))


def test_a_commitment_to_one_token_opens_it(provider: Provider, parties: Parties) -> None:
    reply = run_session(provider, [65])
    case = reply.case(parties)
    case, opening = reply.ask(case, parties.challenge(case.receipt.fingerprints))
    (block,) = read_opening(opening.payload).blocks
    assert [token.token_id for token in block.tokens] == [65]
    assert run_checks(case).failed is None


# Caps


@pytest.mark.parametrize("run_tokens", [1, 3])
@pytest.mark.parametrize("tokens", [8, 24, 80, 200])
def test_no_cap_is_passed_by_many_challenges_of_two_verifiers(tokens: int, run_tokens: int) -> None:
    parties = Parties(
        profile=small_profile(
            tokens_ppm=100_000,
            blocks_ppm=300_000,
            whole_blocks_ppm=200_000,
            run_tokens=run_tokens,
        )
    )
    random = np.random.default_rng(tokens)
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(tokens))
        _, fingerprints = reply.ready()
        caps, answered = caps_of(reply), 0
        shown: set[tuple[int, int]] = set()
        for number in range(60):
            signer, name = (
                (parties.verifier, VERIFIER) if number % 2 else (parties.other, OTHER_VERIFIER)
            )
            challenge = parties.challenge(
                fingerprints,
                signer=signer,
                verifier=name,
                blocks=int(random.integers(1, 4)),
                token_blocks=int(random.integers(0, 4)),
                tokens_per_block=int(random.integers(1, 4)),
            )
            try:
                opening = provider.answer(reply.commitment_sha256, challenge)
            except RefusedChallengeError:
                pass
            else:
                answered += 1
                message = read_opening(opening.payload)
                shown |= {
                    (block.block_index, token.position)
                    for block in shown_blocks(message)
                    for token in block.tokens
                }
                shown.add((message.edge.block_index, message.edge.last_token.position))
            ledger = record_of(reply).ledger
            assert len(shown) <= caps.tokens
            assert ledger.tokens == shown
            assert len(ledger.block_embeddings) <= caps.block_embeddings
        assert answered


def test_token_blocks_use_up_the_cap_on_tokens_and_embeddings_stay_to_be_had() -> None:
    parties = Parties(profile=small_profile(tokens_ppm=100_000, blocks_ppm=300_000, run_tokens=2))
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(160))
        case = reply.case(parties)
        fingerprints = case.receipt.fingerprints
        assert (caps_of(reply).tokens, caps_of(reply).block_embeddings) == (16, 6)
        case, opening = reply.ask(
            case, parties.challenge(fingerprints, blocks=0, token_blocks=7, tokens_per_block=3)
        )
        message = read_opening(opening.payload)
        assert (len(message.blocks), len(message.token_blocks)) == (0, 7)
        assert not record_of(reply).ledger.block_embeddings
        another = parties.challenge(
            fingerprints, round=2, blocks=0, token_blocks=1, tokens_per_block=4
        )
        case = with_refusal(case, another, refused(reply, another))
        case, opening = reply.ask(
            case, parties.challenge(fingerprints, round=3, blocks=6, tokens_per_block=0)
        )
        assert len(read_opening(opening.payload).blocks) == 6
        assert record_of(reply).ledger.tokens == case.ledger.tokens
        report = run_checks(case)
        assert report.failed is None, report.detail


def test_whole_blocks_are_counted_apart_and_capped() -> None:
    parties = Parties(profile=small_profile(whole_blocks_ppm=250_000))
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(64))
        _, fingerprints = reply.ready()
        assert caps_of(reply).whole_blocks == 2
        provider.answer_whole(reply.commitment_sha256, parties.whole_challenge(fingerprints))
        refused(reply, parties.whole_challenge(fingerprints, blocks=2), whole=True)
        provider.answer(reply.commitment_sha256, parties.challenge(fingerprints))
        assert len(record_of(reply).ledger.whole_blocks) == 1


def test_a_profile_that_does_not_agree_to_it_opens_no_block_whole() -> None:
    parties = Parties(profile=small_profile(whole_blocks_ppm=0))
    with parties.provider() as provider:
        reply = run_session(provider)
        case = reply.case(parties)
        challenge = parties.whole_challenge(case.receipt.fingerprints)
        signed = refused(reply, challenge, whole=True)
        assert run_checks(with_refusal(case, challenge, signed, whole=True)).failed is None


def with_refusal(
    case: Case,
    challenge: envelope_pb2.Envelope,
    refusal: envelope_pb2.Envelope,
    *,
    whole: bool = False,
) -> Case:
    now = stamp(datetime.now(UTC))
    entry = receipt_pb2.Round(challenge=challenge, refusal=refusal, sent_at=now, received_at=now)
    if whole:
        return replace(case, whole_rounds=(*case.whole_rounds, entry))
    return replace(case, rounds=(*case.rounds, entry))


def test_a_refusal_carries_proof_that_the_checks_accept() -> None:
    parties = Parties(profile=small_profile(tokens_ppm=100_000, blocks_ppm=300_000))
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(80))
        case = reply.case(parties)
        fingerprints = case.receipt.fingerprints
        provider.answer(
            reply.commitment_sha256,
            parties.challenge(fingerprints, signer=parties.other, blocks=3, tokens_per_block=2),
        )
        provider.answer_whole(reply.commitment_sha256, parties.whole_challenge(fingerprints))
        challenge = parties.challenge(fingerprints)
        signed = refused(reply, challenge)
        envelope.verify(signed, envelope.REFUSAL, case.keys)
        statement = read_refusal(signed.payload)
        assert statement.reason == opening_pb2.REFUSAL_REASON_EXPOSURE_CAP
        assert statement.challenge_sha256 == digest(challenge.payload)
        assert len(statement.answered) == 2
        report = run_checks(with_refusal(case, challenge, signed))
        assert report.failed is None, report.detail
        assert report.passed("OPENING_PRESENT")


def test_a_refusal_for_one_challenge_does_not_excuse_a_smaller_one() -> None:
    parties = Parties(profile=small_profile(blocks_ppm=300_000))
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(80))
        case = reply.case(parties)
        large = parties.challenge(case.receipt.fingerprints, blocks=10)
        statement = read_refusal(refused(reply, large).payload)
        small = parties.challenge(case.receipt.fingerprints)
        statement.challenge_sha256 = digest(small.payload)
        lie = envelope.sign(statement.SerializeToString(), envelope.REFUSAL, parties.signer)
        report = run_checks(with_refusal(case, small, lie))
        assert report.failed is not None
        assert report.failed.code == "OPENING_PRESENT"
        assert report.fault == receipt_pb2.FAULT_PROVIDER


def test_all_64_flips_can_be_used_and_no_more() -> None:
    parties = Parties(profile=small_profile(**WIDE))
    with parties.provider() as provider:
        reply = run_session(provider)
        case = reply.case(parties)
        fingerprints, key = case.receipt.fingerprints, reply.commitment_sha256
        flips = set()
        for _ in range(FLIP_CHAIN_LENGTH):
            opening = read_opening(provider.answer(key, parties.challenge(fingerprints)).payload)
            draw.verify_flip(
                flip=opening.flip, index=opening.flip_index, anchor=reply.commitment.flip_anchor
            )
            flips.add(opening.flip_index)
        assert flips == set(range(1, FLIP_CHAIN_LENGTH + 1))
        challenge = parties.challenge(fingerprints)
        signed = refused(reply, challenge)
        assert read_refusal(signed.payload).reason == opening_pb2.REFUSAL_REASON_FLIPS_USED_UP
        assert run_checks(with_refusal(case, challenge, signed)).failed is None


# Threads


def _in_threads(
    calls: Sequence[Callable[[], envelope_pb2.Envelope]],
) -> list[envelope_pb2.Envelope]:
    """Run calls at once; return the answers, refused ones left out."""
    gate = threading.Barrier(8)

    def work(part: Sequence[Callable[[], envelope_pb2.Envelope]]) -> list[envelope_pb2.Envelope]:
        gate.wait(WAIT_SECONDS)
        answers = []
        for call in part:
            try:
                answers.append(call())
            except RefusedChallengeError:
                continue
        return answers

    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(work, [calls[at::8] for at in range(8)])
        return [answer for part in parts for answer in part]


def test_threads_that_challenge_at_once_never_pass_a_cap_or_share_a_flip() -> None:
    parties = Parties(
        profile=small_profile(tokens_ppm=200_000, blocks_ppm=500_000, whole_blocks_ppm=300_000)
    )
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(160))
        _, fingerprints = reply.ready()
        key, caps = reply.commitment_sha256, caps_of(reply)

        def ask(challenge: envelope_pb2.Envelope) -> Callable[[], envelope_pb2.Envelope]:
            return lambda: provider.answer(key, challenge)

        def ask_whole(challenge: envelope_pb2.Envelope) -> Callable[[], envelope_pb2.Envelope]:
            return lambda: provider.answer_whole(key, challenge)

        calls = [ask(parties.challenge(fingerprints, token_blocks=1)) for _ in range(56)]
        calls += [ask_whole(parties.whole_challenge(fingerprints)) for _ in range(24)]
        answers = _in_threads(calls)
        parsed = [
            read_opening(answer.payload)
            if answer.payload_type == envelope.OPENING
            else read_whole_opening(answer.payload)
            for answer in answers
        ]
        indices = [opening.flip_index for opening in parsed]
        assert sorted(indices) == list(range(1, len(indices) + 1))
        shown = {
            (block.block_index, token.position)
            for opening in parsed
            if isinstance(opening, opening_pb2.Opening)
            for block in shown_blocks(opening)
            for token in block.tokens
        }
        whole = {
            block.block_index
            for opening in parsed
            if isinstance(opening, opening_pb2.WholeBlockOpening)
            for block in opening.blocks
        }
        blocks = {
            block.block_index
            for opening in parsed
            if isinstance(opening, opening_pb2.Opening)
            for block in opening.blocks
        }
        assert 0 < len(shown) <= caps.tokens
        assert 0 < len(blocks) <= caps.block_embeddings
        assert 0 < len(whole) <= caps.whole_blocks


def test_threads_that_send_one_challenge_get_one_flip(provider: Provider, parties: Parties) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    challenge = parties.challenge(fingerprints)
    answers = _in_threads([lambda: provider.answer(reply.commitment_sha256, challenge)] * 32)
    openings = [read_opening(answer.payload) for answer in answers]
    assert len(openings) == 32
    assert {opening.flip_index for opening in openings} == {1}
    assert len({repr(opening.blocks) for opening in openings}) == 1
    assert len(record_of(reply).answered) == 1
