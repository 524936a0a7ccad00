"""The challenge service over sockets and databases: what is purged, replayed and not held here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio

from coin_protocol import transport
from coin_protocol.encoding import digest
from coin_protocol.statements import read_opening
from coin_protocol.testing.small import small_profile
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import opening_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.provider import Provider
from provider_sdk.service import SERVICE, make_server
from provider_sdk.store import KeySealer, SqlStore
from provider_sdk.store.jobs import purge
from tests.support.databases import KINDS, database
from tests.support.parties import MODEL, REQUEST, Parties
from tests.support.raw import call_raw
from tests.support.servers import served

ANSWER = f"/{SERVICE}/AnswerChallenge"


async def committed(provider: Provider, store: SqlStore) -> bytes:
    """Commit to a reply and make its fingerprints; return the commitment's digest."""
    async with provider.session(REQUEST, client_nonce=bytes(16), model=MODEL) as session:
        session.append(list(range(60)))
        usage = usage_for(prompt_tokens=7, reasoning_tokens=60, answer_tokens=9, counting=INSIDE)
        done = await session.finish(b"answer", usage)
    FingerprintWorker(provider, store).run_once()
    return digest(done.choice.commitment.payload)


async def opened(target: str, request: pb.AnswerChallengeRequest) -> opening_pb2.Opening:
    """Send a challenge on a connection of its own; return what it opens, undated."""
    async with aio.insecure_channel(target) as channel:
        raw = await call_raw(channel, ANSWER, request)
    opening = read_opening(pb.AnswerChallengeResponse.FromString(raw).opening.payload)
    opening.ClearField("provider_time")
    return opening


async def refused(target: str, request: pb.AnswerChallengeRequest) -> tuple[grpc.StatusCode, str]:
    """Send a challenge that is not answered; return status and reason."""
    async with aio.insecure_channel(target) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await call_raw(channel, ANSWER, request)
    info = transport.details_of(caught.value, error_details_pb2.ErrorInfo())
    assert info is not None
    return caught.value.code(), info.reason


@pytest.mark.parametrize("kind", KINDS)
async def test_a_challenge_is_replayed_to_another_process_and_ends_with_the_retention(
    parties: Parties, tmp_path: Path, kind: str
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(database(kind, tmp_path))
        elsewhere = stack.enter_context(database(kind, tmp_path))
        sealer = KeySealer.generate()
        one, two, foreign = (
            SqlStore(found, profile=small_profile(), sealer=sealer)
            for found in (url, url, elsewhere)
        )
        for store in (one, two, foreign):
            stack.callback(store.close)
        first, second, other = (
            stack.enter_context(parties.provider(store=store)) for store in (one, two, foreign)
        )
        key = await committed(first, one)
        request = pb.AnswerChallengeRequest(
            commitment_sha256=key, challenge=parties.challenge(first.manifest(key)[1])
        )
        async with (
            served(await make_server(first)) as here,
            served(await make_server(second)) as there,
            served(await make_server(other)) as abroad,
        ):
            answers = [await opened(target, request) for target in (here, there, here)]
            assert answers == [answers[0]] * 3
            assert answers[0].flip_index == 1
            missing = (grpc.StatusCode.NOT_FOUND, "COMMITMENT_UNKNOWN")
            assert await refused(abroad, request) == missing
            assert purge(one, older_than_seconds=-1.0) == 1
            gone = (grpc.StatusCode.FAILED_PRECONDITION, "COMMITMENT_PURGED")
            for target in (here, there):
                assert await refused(target, request) == gone
