"""Sessions in a database: written as they go, read back the same, sealed."""

from __future__ import annotations

import asyncio

import pytest

from coin_protocol.encoding import digest
from coin_protocol.errors import UnknownCommitmentError
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import statements_pb2
from provider_sdk.live import CommittedReply
from provider_sdk.provider import Provider
from provider_sdk.record import Delivered, ReplyRef
from provider_sdk.store import SqlStore
from tests.support.parties import ANSWER, MODEL, REASONING, REQUEST, Parties

NONCE = bytes(range(32))
REF = ReplyRef("resp-1", 0, b"c" * 32)


async def reply(provider: Provider, ref: ReplyRef | None = REF, step: int = 5) -> CommittedReply:
    ids = provider.tokenizer.encode(REASONING)
    seen = []
    async with provider.session(REQUEST, client_nonce=NONCE, model=MODEL, reply=ref) as session:
        for at in range(0, len(ids), step):
            seen += session.append(ids[at : at + step])
            await asyncio.sleep(0)
        usage = usage_for(
            prompt_tokens=7, reasoning_tokens=len(ids), answer_tokens=9, counting=INSIDE
        )
        done = await session.finish(
            ANSWER.encode(), usage, delivered=Delivered(("a note",), reported=usage)
        )
    assert len(seen) + len(done.checkpoints) == len(ids) // provider.profile.block_size
    return done


async def test_a_session_is_read_back_as_it_was_committed(store: SqlStore) -> None:
    with Parties().provider(store=store) as provider:
        done = await reply(provider)
        key = digest(done.choice.commitment.payload)
        record = store.get(key)
        ids = provider.tokenizer.encode(REASONING)
        assert record.token_ids.slice(0, len(ids)).tolist() == ids
        assert record.token_ids.slice(5, 21).tolist() == ids[5:21]
        assert len(record.token_ids) == len(ids)
        assert record.commitment_sha256 == key
        kept = provider.replies("resp-1", b"c" * 32)
        assert [one.choice for one in kept] == [done.choice]
        assert kept[0].reported is not None
        assert kept[0].reported.prompt_tokens == 7
        assert not provider.replies("resp-1", b"d" * 32)


async def test_an_unknown_commitment_is_named(store: SqlStore) -> None:
    with pytest.raises(UnknownCommitmentError, match="no session"):
        store.get(bytes(32))


async def test_an_aborted_session_commits_to_what_was_generated(store: SqlStore) -> None:
    with Parties().provider(store=store) as provider:
        async with provider.session(REQUEST, client_nonce=NONCE, model=MODEL, reply=REF) as session:
            session.append(list(range(20)))
            done = await session.abort(statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED)
        statement = statements_pb2.Commitment.FromString(done.choice.commitment.payload)
        assert statement.reasoning_tokens == statement.usage.reasoning_tokens == 20
        assert statement.abort_reason == statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED
