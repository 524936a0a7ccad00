"""Peers that are gone, slow or silent, or that send anything at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from grpc import aio

from coin_protocol import envelope, transport
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keys import read_time
from coin_protocol.statements import read_challenge, read_refusal
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import envelope_pb2, opening_pb2, profile_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from provider_sdk.provider import Provider
from provider_sdk.service import make_server
from tests.support.audits import audit, failed, says, verdict_of
from tests.support.parties import (
    OTHER_VERIFIER,
    WAIT_SECONDS,
    Parties,
    Reply,
    easy,
    let_pass,
    run_session,
    small_policy,
)
from tests.support.servers import (
    Answer,
    Manifest,
    Opening,
    RawHandler,
    misbehaving,
    served,
    serving,
    serving_raw,
)
from verifier_sdk.client import ProviderClient

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE

Honest = Callable[[], Awaitable[Opening]]


def unanswered(verdict: receipt_pb2.Verdict) -> bool:
    """Whether the provider failed for not answering, and showed nothing."""
    return (
        verdict.outcome == FAIL
        and verdict.fault == receipt_pb2.FAULT_PROVIDER
        and failed(verdict) == ["OPENING_PRESENT"]
    )


# Providers that cannot answer


async def test_a_provider_that_disowns_what_it_signed_fails(
    parties: Parties, provider: Provider
) -> None:
    with parties.provider() as other:
        reply = run_session(other)
    async with serving(provider) as target:
        verdict = await audit(parties, reply.receipt, target)
        async with ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client:
            with pytest.raises(PeerUnavailableError) as raised:
                await client.manifest(reply.commitment_sha256)
    assert raised.value.status == "NOT_FOUND"
    assert unanswered(verdict)
    assert says(verdict, "not_found")


async def test_a_server_that_is_not_the_provider_is_held_against_nobody(
    parties: Parties, provider: Provider
) -> None:
    async def unknown(_: bytes, context: transport.Context) -> None:
        await transport.abort(context, grpc.StatusCode.NOT_FOUND, "never heard of it")

    reply = run_session(provider)
    async with serving_raw({"GetManifest": unknown}) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert failed(verdict) == ["OPENING_PRESENT"]


async def test_a_provider_that_is_not_there_is_undecided(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target:
        pass
    verdict = await audit(parties, reply.receipt, target, call_seconds=0.6)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.tier == receipt_pb2.TIER_ASSERTED
    async with ProviderClient(target, tls=None, timeout=0.6) as client:
        with pytest.raises(PeerUnavailableError, match="UNAVAILABLE"):
            await client.key_set()


async def test_a_receipt_that_contradicts_itself_fails_with_nobody_asked(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    reply.receipt.request = b"another request"
    verdict = await audit(parties, reply.receipt, "127.0.0.1:1")
    assert (verdict.outcome, failed(verdict)) == (FAIL, ["REQUEST_DIGEST"])


class LosingClient(ProviderClient):
    """Loses the provider after the manifest, before the first challenge."""

    server: aio.Server

    async def challenge(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> receipt_pb2.Round:
        await self.server.stop(None)
        return await super().challenge(commitment_sha256, challenge, whole=whole)


async def test_a_provider_that_goes_away_before_the_challenge_is_not_accused(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    server = await make_server(provider)
    async with served(server) as target, LosingClient(target, tls=None, timeout=1.1) as client:
        client.server = server
        verdict = verdict_of(await parties.auditor().audit(reply.receipt, client))
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert failed(verdict) == ["OPENING_PRESENT"]
    assert verdict.exposure == receipt_pb2.Exposure()


async def test_a_provider_that_was_never_reached_is_not_accused_on_a_busy_machine(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = asyncio.sleep

    async def oversleep(seconds: float) -> None:
        await sleep(seconds + 0.1)

    async with serving(provider) as target:
        pass
    monkeypatch.setattr("verifier_sdk.client.asyncio.sleep", oversleep)
    async with ProviderClient(target, tls=None, timeout=0.3) as client:
        entry = await client.challenge(bytes(32), envelope_pb2.Envelope(), whole=False)
    assert entry.no_answer == "UNAVAILABLE"


async def test_fingerprints_that_take_too_long_accuse_nobody_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleep = asyncio.sleep

    async def oversleep(seconds: float) -> None:
        await sleep(seconds + 0.24)

    async def not_ready(_: bytes, context: transport.Context) -> None:
        await transport.abort(context, grpc.StatusCode.UNAVAILABLE, "still being made")

    monkeypatch.setattr("verifier_sdk.client.asyncio.sleep", oversleep)
    async with (
        serving_raw({"GetManifest": not_ready}) as target,
        ProviderClient(target, tls=None, timeout=0.5) as client,
    ):
        with pytest.raises(PeerUnavailableError) as raised:
            await client.manifest(bytes(32))
    assert raised.value.status == "UNAVAILABLE"


# Providers that will not answer


async def test_a_peer_that_hangs_fails_within_the_timeout(
    parties: Parties, provider: Provider
) -> None:
    async def hang(honest: Honest, *_: object) -> Opening:
        await asyncio.Event().wait()
        return await honest()

    reply = run_session(provider)
    async with misbehaving(provider, answer=hang) as target, asyncio.timeout(WAIT_SECONDS):
        verdict = await audit(parties, reply.receipt, target, call_seconds=0.5)
    assert unanswered(verdict)
    assert says(verdict, "deadline_exceeded")


async def test_a_peer_that_hangs_over_its_manifest_fails_within_the_timeout(
    parties: Parties, provider: Provider
) -> None:
    async def hang(honest: Callable[[], Awaitable[Manifest]], _: transport.Context) -> Manifest:
        await asyncio.Event().wait()
        return await honest()

    reply = run_session(provider)
    async with misbehaving(provider, show=hang) as target, asyncio.timeout(WAIT_SECONDS):
        verdict = await audit(parties, reply.receipt, target, call_seconds=0.5)
    assert unanswered(verdict)
    assert says(verdict, "deadline_exceeded")


async def _unsigned(*_: object) -> Opening:
    garbage = envelope_pb2.Envelope(payload=b"garbage", payload_type=envelope.OPENING)
    return Opening(opening=garbage)


async def _empty(*_: object) -> Opening:
    return Opening()


async def _altered(honest: Honest, *_: object) -> Opening:
    reply = await honest()
    raw = bytearray(reply.opening.payload)
    raw[-1] ^= 1
    reply.opening.payload = bytes(raw)
    return reply


async def _of_another_type(honest: Honest, *_: object) -> Opening:
    reply = await honest()
    reply.opening.payload_type = envelope.REFUSAL
    return reply


async def _unsigned_refusal(
    _: Honest, request: pb.AnswerChallengeRequest, context: transport.Context
) -> Opening:
    refusal = envelope_pb2.Envelope(
        payload=request.challenge.payload, payload_type=envelope.REFUSAL
    )
    detail = pb.RefusalDetail(refusal=refusal)
    await transport.abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "no", detail)


@pytest.mark.parametrize(
    "answer", [_unsigned, _empty, _altered, _of_another_type, _unsigned_refusal]
)
async def test_an_answer_that_nobody_signed_is_no_answer(
    parties: Parties, provider: Provider, answer: Answer
) -> None:
    reply = run_session(provider)
    async with misbehaving(provider, answer=answer) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)
    assert says(verdict, "not_signed_by_provider")
    assert verdict.exposure == receipt_pb2.Exposure()


async def test_an_answer_that_comes_spoilt_and_late_is_not_asked_for_again(
    parties: Parties, provider: Provider
) -> None:
    # A second answer to the same challenge could not be told from a late one, and evidence with
    # it would be none.
    def soon(policy: profile_pb2.Policy) -> None:
        policy.challenge_deadline.FromMilliseconds(2_000)

    asked = 0

    async def late(*_: object) -> Opening:
        nonlocal asked
        asked += 1
        await asyncio.sleep(1.2)
        return await _unsigned()

    reply = run_session(provider)
    async with misbehaving(provider, answer=late) as target:
        verdict = await audit(parties, reply.receipt, target, policy=small_policy(soon))
    assert asked == 1
    assert unanswered(verdict)
    assert says(verdict, "not_signed_by_provider")


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
    ],
    ids=lambda code: code.name,
)
async def test_whatever_status_a_refusal_hides_behind_it_is_no_answer(
    parties: Parties, provider: Provider, code: grpc.StatusCode
) -> None:
    async def refuse(_: Honest, __: object, context: transport.Context) -> Opening:
        await transport.abort(context, code, "not today", transport.retry_info(1))

    reply = run_session(provider)
    async with misbehaving(provider, answer=refuse) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)
    assert says(verdict, code.name.lower())


async def test_a_verifier_that_the_provider_does_not_know_accuses_nobody(
    parties: Parties, provider: Provider
) -> None:
    strangers = Parties(root=parties.root, signer=parties.signer)
    reply = run_session(provider)
    async with serving(provider) as target:
        verdict = await audit(strangers, reply.receipt, target)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert says(verdict, "permission_denied")


@asynccontextmanager
async def answering_raw(reply: Reply, answer: RawHandler) -> AsyncIterator[str]:
    """Serve the honest manifest of a reply, and `answer` to challenges, as raw bytes."""

    async def manifest(*_: object) -> bytes:
        signed, fingerprints = reply.ready()
        return Manifest(manifest=signed, fingerprints=fingerprints).SerializeToString()

    async with serving_raw({"GetManifest": manifest, "AnswerChallenge": answer}) as target:
        yield target


async def _garbage(*_: object) -> bytes:
    return b"\xff\xff\xff"


async def test_bytes_that_do_not_parse_are_no_answer(parties: Parties, provider: Provider) -> None:
    reply = run_session(provider)
    async with answering_raw(reply, _garbage) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)


async def test_a_manifest_that_does_not_parse_is_no_answer() -> None:
    async with (
        serving_raw({"GetManifest": _garbage}) as target,
        ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
    ):
        with pytest.raises(PeerUnavailableError):
            await client.manifest(bytes(32))


def _aborting_with(details: bytes) -> RawHandler:
    async def abort(_: bytes, context: transport.Context) -> None:
        trailing = (("grpc-status-details-bin", details),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", trailing)

    return abort


async def test_status_details_that_do_not_parse_are_no_refusal(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    async with answering_raw(reply, _aborting_with(b"\xff\xff")) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)


async def test_status_details_that_contradict_the_status_are_no_refusal(
    parties: Parties, provider: Provider
) -> None:
    # A google.rpc.Status of code 5 under a status of code 8.
    reply = run_session(provider)
    async with answering_raw(reply, _aborting_with(b"\x08\x05")) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)
    assert says(verdict, "resource_exhausted")


async def test_an_answer_larger_than_any_message_is_no_answer(
    parties: Parties, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def large(honest: Honest, *_: object) -> Opening:
        reply = await honest()
        reply.opening.payload += bytes(1 << 20)
        return reply

    reply = run_session(provider)
    async with misbehaving(provider, answer=large) as target:
        limit = (("grpc.max_receive_message_length", 1 << 18),)
        monkeypatch.setattr(transport, "CHANNEL_OPTIONS", limit)
        verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)
    assert says(verdict, "resource_exhausted")


async def test_an_answer_past_the_deadline_counts_as_none() -> None:
    def soon(policy: profile_pb2.Policy) -> None:
        easy(policy)
        policy.challenge_deadline.FromSeconds(1)

    async def late(
        honest: Honest, request: pb.AnswerChallengeRequest, _: transport.Context
    ) -> Opening:
        reply = await honest()
        deadline = read_time(read_challenge(request.challenge.payload).deadline)
        while (left := (deadline - datetime.now(UTC)).total_seconds()) >= 0:  # noqa: ASYNC110 - until a deadline passes
            await asyncio.sleep(left + 0.01)
        return reply

    parties = Parties(policy=small_policy(soon))
    with parties.provider() as provider:
        reply = run_session(provider)
        async with misbehaving(provider, answer=late) as target:
            verdict = await audit(parties, reply.receipt, target)
    assert unanswered(verdict)
    assert says(verdict, "past the deadline")


# Providers that need a moment


class HeldProvider(Provider):
    """Embeds nothing until told to."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.go_on = threading.Event()

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        assert self.go_on.wait(WAIT_SECONDS)
        return super().embed_block(token_ids)


async def test_a_client_waits_while_fingerprints_are_being_made(parties: Parties) -> None:
    asked = 0
    with parties.provider(HeldProvider) as provider:
        assert isinstance(provider, HeldProvider)
        reply = run_session(provider)

        async def show(honest: Callable[[], Awaitable[Manifest]], _: transport.Context) -> Manifest:
            nonlocal asked
            asked += 1
            if asked == 3:
                provider.go_on.set()
                await asyncio.to_thread(reply.ready)
            return await honest()

        async with misbehaving(provider, show=show) as target:
            verdict = await audit(parties, reply.receipt, target)
    assert verdict.outcome == PASS
    assert asked == 3


@pytest.mark.parametrize("reached", [False, True], ids=["never came", "answer lost"])
async def test_a_challenge_is_sent_again_when_a_call_breaks_off_and_costs_one_flip(
    parties: Parties, provider: Provider, *, reached: bool
) -> None:
    calls = 0

    async def flaky(honest: Honest, _: object, context: transport.Context) -> Opening:
        nonlocal calls
        calls += 1
        reply = await honest() if calls > 1 or reached else None
        if reply is None or calls == 1:
            await transport.abort(context, grpc.StatusCode.UNAVAILABLE, "starting")
        return reply

    reply = run_session(provider)
    async with misbehaving(provider, answer=flaky) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert verdict.outcome == PASS
    assert calls == 2
    # One for the challenge that was sent twice, one for the whole block.
    assert len(provider.store.get(reply.commitment_sha256).answered) == 2


async def test_caps_that_another_verifier_used_up_leave_an_audit_undecided() -> None:
    parties = Parties(profile=small_profile(blocks_ppm=1_000_000, tokens_ppm=60_000))
    with parties.provider() as provider:
        reply = run_session(provider)
        _, fingerprints = reply.ready()
        for _ in range(4):
            provider.answer(
                reply.commitment_sha256,
                parties.challenge(fingerprints, signer=parties.other, verifier=OTHER_VERIFIER),
            )
        async with (
            serving(provider) as target,
            ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
        ):
            bundle = await parties.auditor().audit(reply.receipt, client)
    verdict = verdict_of(bundle)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert not failed(verdict)
    assert says(verdict, "caps")
    assert verdict.exposure.tokens == verdict.exposure.block_embeddings == 0
    refusal = read_refusal(bundle.rounds[0].refusal.payload)
    assert refusal.reason == opening_pb2.REFUSAL_REASON_EXPOSURE_CAP
    assert refusal.answered


async def test_clocks_that_differ_within_the_allowed_skew_accuse_nobody(
    parties: Parties, provider: Provider
) -> None:
    # The policy gives 60 s to answer and lets clocks be 300 s apart.
    assert parties.policy.deadline_seconds < 120.0 < parties.policy.clock_skew_seconds
    let_pass(provider, 120.0)
    reply = run_session(provider)
    async with serving(provider) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert verdict.outcome != FAIL
