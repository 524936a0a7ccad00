"""A session turns ids into checkpoints and one commitment."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from coin_protocol import envelope, merkle
from coin_protocol.checks import run_checks
from coin_protocol.commitment import block_leaf_hashes
from coin_protocol.draw import flip_for, verify_flip
from coin_protocol.errors import CoinError, InvalidInputError, LimitError, StatementError
from coin_protocol.keys import read_time
from coin_protocol.limits import MAX_REASONING_TOKENS, MAX_TEXT_BYTES
from coin_protocol.statements import read_checkpoint, read_commitment, read_key_set, read_manifest
from coin_protocol.usage import BESIDE, INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, statements_pb2
from provider_sdk.provider import Provider
from provider_sdk.session import Session
from tests.support.parties import (
    ANSWER,
    MODEL,
    PROVIDER,
    REQUEST,
    Parties,
    let_pass,
    reasoning_ids,
    run_session,
)

NONCE = bytes(range(32))
USAGE = usage_for(prompt_tokens=1, reasoning_tokens=0, answer_tokens=1, counting=INSIDE)


def opened(provider: Provider, nonce: bytes = NONCE) -> Session:
    return provider.open_session(model=MODEL, request=REQUEST, client_nonce=nonce)


def finish(session: Session, answer_tokens: int = 1) -> envelope_pb2.Envelope:
    usage = usage_for(
        prompt_tokens=1,
        reasoning_tokens=session.token_count,
        answer_tokens=answer_tokens,
        counting=INSIDE,
    )
    return session.finish(answer=b"yes", answer_tokens=answer_tokens, usage=usage)


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 9, 16, 40])
def test_a_checkpoint_is_due_at_each_full_block_however_ids_arrive(
    provider: Provider, chunk: int
) -> None:
    session, ids = opened(provider), reasoning_ids(37)
    due: list[statements_pb2.Checkpoint] = []
    for start in range(0, len(ids), chunk):
        signed = session.append(ids[start : start + chunk])
        expected = session.token_count // 8 - len(due)
        assert len(signed) == expected
        due += [read_checkpoint(one.payload) for one in signed]
    assert [one.block_count for one in due] == [1, 2, 3, 4]
    assert [one.token_count for one in due] == [8, 16, 24, 32]


def test_checkpoints_are_signed_and_bound_to_session_nonce_and_profile(
    provider: Provider,
) -> None:
    session = opened(provider)
    ring = read_key_set(provider.key_set.payload)
    for signed in session.append(reasoning_ids(24)):
        envelope.verify(signed, envelope.CHECKPOINT, ring)
        statement = read_checkpoint(signed.payload)
        assert statement.session_id == session.session_id
        assert statement.client_nonce == NONCE
        assert statement.profile_sha256 == provider.profile.digest


def test_each_checkpoint_signs_the_root_of_a_prefix_of_the_final_tree(provider: Provider) -> None:
    reply = run_session(provider, reasoning_ids(30))
    manifest, _ = reply.ready()
    blocks = read_manifest(manifest.payload).blocks
    leaves = block_leaf_hashes(reply.session.session_id, blocks)
    for seen in reply.receipt.checkpoints:
        statement = read_checkpoint(seen.checkpoint.payload)
        assert statement.token_root == merkle.root(leaves[: statement.block_count])
    assert reply.commitment.token_root == merkle.root(leaves)
    assert len(leaves) == 4


def test_a_tree_of_full_blocks_ends_in_the_root_of_its_last_checkpoint(provider: Provider) -> None:
    reply = run_session(provider, reasoning_ids(24))
    last = read_checkpoint(reply.receipt.checkpoints[-1].checkpoint.payload)
    assert last.token_root == reply.commitment.token_root
    assert last.token_count == reply.commitment.reasoning_tokens == 24


def test_the_commitment_says_what_was_generated(provider: Provider) -> None:
    reply = run_session(provider, reasoning_ids(21))
    statement = reply.commitment
    assert statement.provider == PROVIDER
    assert statement.model == MODEL
    assert statement.profile_sha256 == provider.profile.digest
    assert statement.session_id == reply.session.session_id
    assert statement.client_nonce == reply.receipt.client_nonce
    assert statement.request_sha256 == sha256(REQUEST).digest()
    assert statement.answer_sha256 == sha256(ANSWER.encode()).digest()
    assert not statement.HasField("summary_sha256")
    assert (statement.block_count, statement.reasoning_tokens) == (3, 21)
    assert statement.answer_tokens == 9
    assert statement.id_source == statements_pb2.ID_SOURCE_SAMPLED
    assert read_time(statement.started_at) < read_time(statement.ended_at)


def test_the_commitment_anchors_a_flip_chain_of_its_own(provider: Provider) -> None:
    first, second = run_session(provider), run_session(provider)
    assert first.commitment.flip_anchor != second.commitment.flip_anchor
    secret = provider.store.get(first.commitment_sha256).flip_secret
    verify_flip(flip=flip_for(secret, 1), index=1, anchor=first.commitment.flip_anchor)


def test_equal_replies_share_no_root_and_no_session(provider: Provider) -> None:
    first, second = (run_session(provider, reasoning_ids(16)) for _ in range(2))
    assert first.commitment.token_root != second.commitment.token_root
    assert first.commitment.session_id != second.commitment.session_id


def test_a_finished_session_takes_nothing_more(provider: Provider) -> None:
    session = opened(provider)
    session.append([1, 2, 3])
    finish(session)
    with pytest.raises(InvalidInputError, match="open another"):
        session.append([4])
    with pytest.raises(InvalidInputError, match="open another"):
        finish(session)
    assert session.token_count == 3


def test_empty_reasoning_commits_to_no_blocks(provider: Provider) -> None:
    session = opened(provider)
    assert session.append([]) == []
    commitment = read_commitment(finish(session).payload)
    assert (commitment.block_count, commitment.reasoning_tokens) == (0, 0)
    assert commitment.token_root == merkle.root([])


def test_one_token_is_one_block_and_no_checkpoint(provider: Provider, parties: Parties) -> None:
    reply = run_session(provider, [65])
    assert not reply.receipt.checkpoints
    assert (reply.commitment.block_count, reply.commitment.reasoning_tokens) == (1, 1)
    assert run_checks(reply.case(parties)).failed is None


@pytest.mark.parametrize("wrong", [-1, 300, 2**31, 2**40])
def test_an_id_outside_the_vocabulary_is_refused_and_nothing_of_its_chunk_is_taken(
    provider: Provider, parties: Parties, wrong: int
) -> None:
    ids = reasoning_ids(20)

    def spoil(session: Session) -> None:
        with pytest.raises(InvalidInputError):
            session.append([1, wrong, 2])

    session = opened(provider)
    session.append(ids[:5])
    spoil(session)
    assert session.token_count == 5
    assert [len(session.append(ids[5:8])), session.token_count] == [1, 8]
    spoil(session)
    session.append(ids[8:])
    record = provider.store.get(sha256(finish(session).payload).digest())
    assert record.token_ids.slice(0, 99).tolist() == ids
    assert parties.profile.block_size == 8


@pytest.mark.parametrize(
    "ids",
    [[1.5], ["a"], [[1, 2]], [None], np.array([1.0]), np.array([True])],
    ids=["float", "text", "nested", "none", "float array", "bool array"],
)
def test_what_is_no_flat_run_of_integers_is_refused(provider: Provider, ids: list[int]) -> None:
    session = opened(provider)
    with pytest.raises(InvalidInputError, match="flat sequence of token ids"):
        session.append(ids)
    assert session.token_count == 0


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_arrays_of_any_integer_type_are_taken(provider: Provider, kind: type[np.integer]) -> None:
    session = opened(provider)
    ids = np.array(reasoning_ids(10), kind)
    assert len(session.append(ids)) == 1
    record = provider.store.get(sha256(finish(session).payload).digest())
    assert record.token_ids.slice(0, 10).tolist() == reasoning_ids(10)


def test_a_session_has_a_greatest_length(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coin_protocol.commitment.MAX_REASONING_TOKENS", 12)
    session = opened(provider)
    session.append(reasoning_ids(12))
    with pytest.raises(LimitError, match="at most 12"):
        session.append([1])
    assert session.token_count == 12


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_nonce_of_the_wrong_length_is_refused(provider: Provider, length: int) -> None:
    with pytest.raises(InvalidInputError, match=f"16 to 64 bytes; found {length}"):
        opened(provider, bytes(length))


@pytest.mark.parametrize("length", [16, 64])
def test_nonces_of_the_allowed_lengths_are_taken(provider: Provider, length: int) -> None:
    assert finish(opened(provider, bytes(length)))


@pytest.mark.parametrize("model", ["", "m" * 257, "é" * 129, "half a \ud800 pair"])
def test_a_model_name_out_of_its_limits_is_refused(provider: Provider, model: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 256 bytes"):
        provider.open_session(model=model, request=REQUEST, client_nonce=NONCE)


def test_a_request_past_its_limit_is_refused(provider: Provider) -> None:
    with pytest.raises(InvalidInputError, match=f"at most {MAX_TEXT_BYTES}"):
        provider.open_session(model=MODEL, request=bytes(MAX_TEXT_BYTES + 1), client_nonce=NONCE)


def test_retokenized_ids_are_marked(provider: Provider) -> None:
    reply = run_session(provider, id_source=statements_pb2.ID_SOURCE_RETOKENIZED)
    assert reply.commitment.id_source == statements_pb2.ID_SOURCE_RETOKENIZED


def test_a_visible_summary_is_bound_by_its_digest(provider: Provider) -> None:
    reply = run_session(provider, summary=b"it thought about light")
    assert reply.commitment.summary_sha256 == sha256(b"it thought about light").digest()


def test_an_empty_summary_is_not_the_lack_of_one(provider: Provider) -> None:
    assert run_session(provider, summary=b"").commitment.summary_sha256 == sha256(b"").digest()


@pytest.mark.parametrize("counting", [INSIDE, BESIDE])
def test_both_ways_to_count_reasoning_pass_the_checks(
    provider: Provider, parties: Parties, counting: statements_pb2.ReasoningCounting.ValueType
) -> None:
    usage = usage_for(prompt_tokens=11, reasoning_tokens=20, answer_tokens=9, counting=counting)
    reply = run_session(provider, reasoning_ids(20), usage=usage)
    reply.receipt.billed.CopyFrom(usage)
    assert run_checks(reply.case(parties)).failed is None


def test_an_id_source_that_no_reader_would_take_is_not_signed(provider: Provider) -> None:
    session = opened(provider)
    with pytest.raises(StatementError):
        session.finish(
            answer=b"yes",
            answer_tokens=1,
            usage=USAGE,
            id_source=statements_pb2.ID_SOURCE_UNSPECIFIED,
        )


@pytest.mark.parametrize("count", [-1, MAX_REASONING_TOKENS + 1, 2**64])
def test_a_count_out_of_its_limits_is_refused_and_the_session_still_usable(
    provider: Provider, count: int
) -> None:
    session = opened(provider)
    with pytest.raises(InvalidInputError, match="answer_tokens"):
        session.finish(answer=b"yes", answer_tokens=count, usage=USAGE)
    assert session.append([1, 2]) == []
    assert read_commitment(finish(session).payload).reasoning_tokens == 2


def test_a_session_of_a_closed_provider_takes_nothing_more(parties: Parties) -> None:
    with parties.provider() as provider:
        session = opened(provider)
    with pytest.raises(CoinError):
        session.append(reasoning_ids(40))
    assert session.token_count == 0


def test_sessions_of_one_provider_do_not_mix(provider: Provider) -> None:
    one, two = opened(provider), opened(provider, NONCE[::-1])
    ids = reasoning_ids(40)
    for at in range(0, 40, 5):
        let_pass(provider, 0.01)
        one.append(ids[at : at + 5])
        two.append(ids[::-1][at : at + 5])
    for session, wanted in ((two, ids[::-1]), (one, ids)):
        record = provider.store.get(sha256(finish(session).payload).digest())
        assert record.token_ids.slice(0, 99).tolist() == wanted
        provider.wait_ready(record.commitment_sha256, 20)
