"""The challenge service over real sockets: limits, load, and what bad challenges meet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2

from coin_protocol import transport
from coin_protocol.errors import PeerUnavailableError, PurgedCommitmentError
from coin_protocol.keyset import SignedKeySet, stamp
from coin_protocol.limits import FLIP_CHAIN_LENGTH
from coin_protocol.statements import read_opening, read_refusal
from coin_protocol.testing.small import small_profile
from coin_protocol.transport import guard
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc
from provider_sdk.provider import Provider
from provider_sdk.record import MemoryStore, SessionRecord
from provider_sdk.service import (
    MAX_CHALLENGE_BYTES,
    MAX_REQUEST_BYTES,
    SERVICE,
    ServiceSettings,
    make_server,
)
from tests.support.audits import audit, failed, says
from tests.support.parties import (
    OTHER_VERIFIER,
    WAIT_SECONDS,
    Parties,
    Reply,
    let_pass,
    run_session,
)
from tests.support.raw import call_raw, status_of
from tests.support.servers import served
from verifier_sdk.client import ProviderClient

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
GET_KEY_SET, GET_MANIFEST = f"/{SERVICE}/GetKeySet", f"/{SERVICE}/GetManifest"
ANSWER = f"/{SERVICE}/AnswerChallenge"
HEALTH = "/grpc.health.v1.Health/Check"


class Seen(transport.Unobserved):
    """Keeps what it is told of calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []

    def observed(self, method: str, verifier: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method.rpartition("/")[2], verifier, code))

    def codes(self) -> set[str]:
        return {code for _, _, code in self.calls}

    async def until(self, count: int) -> list[tuple[str, str, str]]:
        """Wait for so many calls: a client has its reply before the server has noted the call."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.calls) < count:  # noqa: ASYNC110 - the service knows no test's events
                await asyncio.sleep(0.005)
        return self.calls


async def refusal_of(
    channel: aio.Channel, method: str, message: Message, *, seconds: float | None = WAIT_SECONDS
) -> aio.AioRpcError:
    """Call a method that will not answer; return the error."""
    call: Any = channel.unary_unary(method)
    with pytest.raises(aio.AioRpcError) as caught:
        await call(message.SerializeToString(), timeout=seconds)
    return caught.value


def reason_of(error: aio.AioRpcError) -> str:
    """Return the reason that an error's ErrorInfo gives."""
    info = transport.details_of(error, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.domain == transport.ERROR_DOMAIN
    reason: str = info.reason
    return reason


# Deadlines and sizes


@pytest.mark.parametrize(
    ("seconds", "reason"), [(None, "DEADLINE_MISSING"), (400.0, "DEADLINE_TOO_LONG")]
)
async def test_a_call_without_a_deadline_in_bounds_is_told_what_to_do(
    provider: Provider, seconds: float | None, reason: str
) -> None:
    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        error = await refusal_of(channel, GET_KEY_SET, pb.GetKeySetRequest(), seconds=seconds)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(error) == reason
        wanted = transport.details_of(error, error_details_pb2.BadRequest())
        assert wanted is not None
        assert "at most 300 s" in wanted.field_violations[0].description
        assert await call_raw(channel, GET_KEY_SET, pb.GetKeySetRequest())


async def test_health_needs_no_deadline(provider: Provider) -> None:
    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        check: Any = channel.unary_unary(HEALTH)
        raw = await check(health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString())
    reply = health_pb2.HealthCheckResponse.FromString(raw)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_patient_client_sets_no_deadline_that_would_be_refused(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    async with served(await make_server(provider)) as target:
        verdict = await audit(parties, reply.receipt, target, call_seconds=86_400.0)
        async with ProviderClient(target, tls=None, timeout=86_400.0) as client:
            assert await client.key_set() == provider.key_set
    assert verdict.outcome == PASS


async def test_a_call_that_hangs_is_told_to_come_again_and_one_that_waits_is_not_worked_on(
    parties: Parties,
) -> None:
    with parties.provider(HeldManifests) as provider:
        assert isinstance(provider, HeldManifests)
        settings = ServiceSettings(threads=1, queue=8)
        async with (
            served(await make_server(provider, settings)) as target,
            aio.insecure_channel(target) as channel,
        ):
            first = asyncio.create_task(status_of(channel, GET_MANIFEST, b""))
            assert await asyncio.to_thread(provider.began.wait, WAIT_SECONDS)
            request = pb.GetManifestRequest()
            error = await refusal_of(channel, GET_MANIFEST, request, seconds=2.0)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert reason_of(error) == "TRY_LATER"
            provider.go_on.set()
            assert (await first)[0] == grpc.StatusCode.NOT_FOUND
            # The one thread takes calls in order: were the late one worked on, it would be now.
            assert (await status_of(channel, GET_MANIFEST, b""))[0] == grpc.StatusCode.NOT_FOUND
    assert provider.asked == 2


async def test_requests_are_small(provider: Provider) -> None:
    def padded(size: int) -> bytes:
        return pb.GetManifestRequest(commitment_sha256=bytes(size)).SerializeToString()

    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        code, _ = await status_of(channel, GET_MANIFEST, padded(MAX_REQUEST_BYTES + 1))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        code, _ = await status_of(channel, GET_MANIFEST, padded(MAX_REQUEST_BYTES // 2))
        assert code == grpc.StatusCode.NOT_FOUND


async def test_the_largest_challenge_that_can_be_read_is_not_too_large(parties: Parties) -> None:
    challenge = parties.challenge(envelope_pb2.Envelope(), verifier="v" * 256)
    signature = challenge.signatures[0]
    signature.sig = bytes(72)
    challenge.signatures.extend([signature] * 15)
    request = pb.AnswerChallengeRequest(commitment_sha256=bytes(32), challenge=challenge)
    assert request.ByteSize() < MAX_CHALLENGE_BYTES / 2


# Rate limits


async def test_calls_whose_request_never_comes_do_not_hold_their_place(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.1)
    silence = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await silence.wait()
        yield b""

    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        for method, code in ((GET_KEY_SET, "UNAVAILABLE"), (HEALTH, "UNAVAILABLE")):
            call: Any = channel.stream_unary(method)
            with pytest.raises(aio.AioRpcError) as caught:
                await call(nothing(), timeout=WAIT_SECONDS)
            assert caught.value.code().name == code
            assert reason_of(caught.value) == "TRY_LATER"
        without_deadline: Any = channel.stream_unary(GET_KEY_SET)
        with pytest.raises(aio.AioRpcError) as caught:
            await without_deadline(nothing())
        assert reason_of(caught.value) == "DEADLINE_MISSING"


async def test_streams_that_ask_nobody_leave_room_for_the_rest(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MAX_OPEN_CALLS", 2)
    watched = health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString()
    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        held = [watch(watched) for _ in range(2)]
        for call in held:
            assert await call.read()
        one_more = watch(watched)
        with pytest.raises(aio.AioRpcError) as caught:
            await one_more.read()
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value) == "RATE_LIMITED"
        # Neither what only looks, nor what is guarded, has to do with it.
        assert await call_raw(channel, HEALTH, health_pb2.HealthCheckRequest())
        assert await call_raw(channel, GET_KEY_SET, pb.GetKeySetRequest())
        held[0].cancel()
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                with suppress(aio.AioRpcError):
                    if await watch(watched).read():
                        break


async def test_who_calls_too_often_is_told_when_to_come_again(provider: Provider) -> None:
    seen = Seen()
    settings = ServiceSettings(rate=transport.RateLimit(per_second=0.01, burst=2), observer=seen)
    async with (
        served(await make_server(provider, settings)) as target,
        aio.insecure_channel(target) as channel,
    ):
        for _ in range(2):
            await call_raw(channel, GET_KEY_SET, pb.GetKeySetRequest())
        error = await refusal_of(channel, GET_KEY_SET, pb.GetKeySetRequest())
        # Who is limited can still ask whether the server lives.
        await call_raw(channel, HEALTH, health_pb2.HealthCheckRequest(service=SERVICE))
        calls = await seen.until(3)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(error) == "RATE_LIMITED"
    assert transport.details_of(error, error_details_pb2.QuotaFailure()) is not None
    assert transport.details_of(error, pb.RefusalDetail()) is None
    delay = transport.quota_delay(error)
    assert delay is not None
    assert 90 < delay <= 100
    assert calls == [("GetKeySet", "", "OK")] * 2 + [("GetKeySet", "", "RESOURCE_EXHAUSTED")]


async def test_an_audit_that_meets_the_rate_limit_waits_and_passes(
    parties: Parties, provider: Provider
) -> None:
    seen = Seen()
    settings = ServiceSettings(rate=transport.RateLimit(per_second=4.0, burst=1), observer=seen)
    reply = run_session(provider)
    reply.ready()
    async with served(await make_server(provider, settings)) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert "RESOURCE_EXHAUSTED" in seen.codes()
    assert verdict.outcome == PASS
    # What was limited cost neither a flip nor exposure.
    assert len(provider.store.get(reply.commitment_sha256).answered) == 2


async def test_an_audit_that_is_never_let_through_accuses_nobody(
    parties: Parties, provider: Provider
) -> None:
    settings = ServiceSettings(rate=transport.RateLimit(per_second=0.001, burst=1))
    reply = run_session(provider)
    reply.ready()
    async with served(await make_server(provider, settings)) as target:
        verdict = await audit(parties, reply.receipt, target)
        async with ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client:
            with pytest.raises(PeerUnavailableError) as caught:
                await client.manifest(reply.commitment_sha256)
    assert caught.value.status == "UNAVAILABLE"
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert failed(verdict) == ["OPENING_PRESENT"]


# Load and leaving


class HeldManifests(Provider):
    """Lets go of its first manifest when told to."""

    asked = 0
    began = threading.Event()
    go_on = threading.Event()

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        self.asked += 1
        self.began.set()
        assert self.go_on.wait(WAIT_SECONDS)
        return super().manifest(commitment_sha256)


@pytest.fixture(autouse=True)
def _held() -> None:
    HeldManifests.began = threading.Event()
    HeldManifests.go_on = threading.Event()


async def test_more_than_can_be_worked_on_is_told_to_come_again_at_once(parties: Parties) -> None:
    seen = Seen()
    with parties.provider(HeldManifests) as provider:
        assert isinstance(provider, HeldManifests)
        settings = ServiceSettings(threads=1, queue=0, observer=seen)
        async with (
            served(await make_server(provider, settings)) as target,
            aio.insecure_channel(target) as channel,
        ):
            first = asyncio.create_task(status_of(channel, GET_MANIFEST, b""))
            assert await asyncio.to_thread(provider.began.wait, WAIT_SECONDS)
            error = await refusal_of(channel, GET_KEY_SET, pb.GetKeySetRequest())
            provider.go_on.set()
            await first
            calls = await seen.until(2)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert reason_of(error) == "OVERLOADED"
    assert transport.details_of(error, error_details_pb2.RetryInfo()) is not None
    assert calls == [("GetKeySet", "", "UNAVAILABLE"), ("GetManifest", "", "NOT_FOUND")]


async def test_a_server_that_leaves_says_so_first_and_ends_what_is_under_way(
    parties: Parties,
) -> None:
    statuses: asyncio.Queue[int] = asyncio.Queue()

    async def watch(channel: aio.Channel) -> None:
        request = health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString()
        call: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
        async for raw in call(request):
            statuses.put_nowait(health_pb2.HealthCheckResponse.FromString(raw).status)

    with parties.provider(HeldManifests) as provider:
        assert isinstance(provider, HeldManifests)
        server = await make_server(provider)
        server.notice_seconds = 0.05
        async with served(server) as target, aio.insecure_channel(target) as channel:
            watching = asyncio.create_task(watch(channel))
            assert await statuses.get() == health_pb2.HealthCheckResponse.SERVING
            call = asyncio.create_task(status_of(channel, GET_MANIFEST, b""))
            assert await asyncio.to_thread(provider.began.wait, WAIT_SECONDS)
            leaving = asyncio.create_task(server.stop(WAIT_SECONDS))
            async with asyncio.timeout(WAIT_SECONDS):
                assert await statuses.get() == health_pb2.HealthCheckResponse.NOT_SERVING
            assert not call.done()
            provider.go_on.set()
            assert (await call)[0] == grpc.StatusCode.NOT_FOUND
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await leaving


# Challenges that are none, and what each meets


class Purged(MemoryStore):
    """Has deleted every secret."""

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        msg = f"the secrets of {commitment_sha256.hex()} were deleted"
        raise PurgedCommitmentError(msg)


def _asked(parties: Parties, reply: Reply, **instead: Any) -> pb.AnswerChallengeRequest:
    _, fingerprints = reply.ready()
    return pb.AnswerChallengeRequest(
        commitment_sha256=reply.commitment_sha256,
        challenge=parties.challenge(fingerprints, **instead),
    )


def _unknown(parties: Parties, reply: Reply) -> pb.AnswerChallengeRequest:
    request = _asked(parties, reply)
    request.commitment_sha256 = bytes(32)
    return request


def _foreign(parties: Parties, _: Reply) -> pb.AnswerChallengeRequest:
    with parties.provider() as other:
        return _asked(parties, run_session(other))


def _anothers_fingerprints(parties: Parties, reply: Reply) -> pb.AnswerChallengeRequest:
    request = _asked(parties, run_session(reply.session.provider))
    request.commitment_sha256 = reply.commitment_sha256
    return request


def _late(parties: Parties, reply: Reply) -> pb.AnswerChallengeRequest:
    return _asked(parties, reply, deadline=stamp(datetime.now(UTC) - timedelta(hours=1)))


def _bloated(parties: Parties, reply: Reply) -> pb.AnswerChallengeRequest:
    # Good, and signed; the rest would fill the refusals to other verifiers.
    request = _asked(parties, reply)
    request.challenge.signatures.add(keyid="other", sig=bytes(MAX_CHALLENGE_BYTES))
    return request


def _strangers(_: Parties, reply: Reply) -> pb.AnswerChallengeRequest:
    return _asked(Parties(), reply)


BAD = {
    "unknown": (_unknown, grpc.StatusCode.NOT_FOUND, "COMMITMENT_UNKNOWN"),
    "foreign": (_foreign, grpc.StatusCode.NOT_FOUND, "COMMITMENT_UNKNOWN"),
    "another's fingerprints": (
        _anothers_fingerprints,
        grpc.StatusCode.INVALID_ARGUMENT,
        "CHALLENGE_INVALID",
    ),
    "bloated": (_bloated, grpc.StatusCode.INVALID_ARGUMENT, "CHALLENGE_INVALID"),
    "an hour late": (_late, grpc.StatusCode.INVALID_ARGUMENT, "CHALLENGE_INVALID"),
    "a stranger's": (_strangers, grpc.StatusCode.PERMISSION_DENIED, "VERIFIER_UNKNOWN"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_cannot_be_answered_has_its_status_reason_and_details(
    parties: Parties, provider: Provider, name: str
) -> None:
    make, code, reason = BAD[name]
    reply = run_session(provider)
    request = make(parties, reply)
    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        error = await refusal_of(channel, ANSWER, request)
    assert (error.code(), reason_of(error)) == (code, reason)
    if code == grpc.StatusCode.NOT_FOUND:
        resource = transport.details_of(error, error_details_pb2.ResourceInfo())
        assert resource is not None
        assert resource.resource_name == request.commitment_sha256.hex()
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        assert transport.details_of(error, error_details_pb2.BadRequest()) is not None
    assert not provider.store.get(reply.commitment_sha256).answered


async def test_a_purged_commitment_is_told_from_an_unknown_one(parties: Parties) -> None:
    with parties.provider() as provider:
        reply = run_session(provider)
        request = _asked(parties, reply)
    with parties.provider(store=Purged()) as purged:
        async with served(await make_server(purged)) as target:
            async with aio.insecure_channel(target) as channel:
                error = await refusal_of(channel, ANSWER, request)
            verdict = await audit(parties, reply.receipt, target)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) == "COMMITMENT_PURGED"
    found = transport.details_of(error, error_details_pb2.PreconditionFailure())
    assert found is not None
    assert found.violations[0].type == "RETENTION"
    assert found.violations[0].subject == reply.commitment_sha256.hex()
    # Until a policy knows the retention, deleting early would else be a way out.
    assert verdict.outcome == FAIL
    assert says(verdict, "failed_precondition")


async def test_a_replayed_challenge_opens_the_same_and_costs_nothing_more(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    request = _asked(parties, reply)
    openings = []
    async with (
        served(await make_server(provider)) as target,
        aio.insecure_channel(target) as channel,
    ):
        for _ in range(3):
            raw = await call_raw(channel, ANSWER, request)
            signed = pb.AnswerChallengeResponse.FromString(raw).opening
            opening = read_opening(signed.payload)
            opening.ClearField("provider_time")
            openings.append(opening)
    assert openings == [openings[0]] * 3
    assert len(provider.store.get(reply.commitment_sha256).answered) == 1


@pytest.mark.parametrize(
    ("hours", "outcome", "words"),
    [(1, FAIL, "invalid_argument"), (-1, PASS, "")],
    ids=["provider ahead", "provider behind"],
)
async def test_clocks_that_are_an_hour_apart_have_their_outcome(
    parties: Parties,
    provider: Provider,
    hours: int,
    outcome: receipt_pb2.Outcome.ValueType,
    words: str,
) -> None:
    reply = run_session(provider)
    reply.ready()
    let_pass(provider, hours * 3600.0)
    async with served(await make_server(provider)) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert verdict.outcome == outcome
    assert says(verdict, words)


async def test_the_longest_refusal_arrives_whole() -> None:
    wide = {"tokens_ppm": 1_000_000, "blocks_ppm": 1_000_000, "whole_blocks_ppm": 1_000_000}
    parties = Parties(profile=small_profile(**wide))
    name = OTHER_VERIFIER * 16
    with parties.provider() as provider:
        reply = run_session(provider)
        _, fingerprints = reply.ready()
        record = provider.store.get(reply.commitment_sha256)

        def used(number: int) -> opening_pb2.AnsweredChallenge:
            challenge = parties.challenge(fingerprints, signer=parties.other, verifier=name)
            room = MAX_CHALLENGE_BYTES - challenge.ByteSize() - 16
            challenge.signatures.add(keyid="x", sig=bytes(room))
            return opening_pb2.AnsweredChallenge(
                challenge=challenge, flip_index=number + 1, flip=bytes(32)
            )

        steps = [used(number) for number in range(FLIP_CHAIN_LENGTH)]
        record.answered.update({bytes([at]): step for at, step in enumerate(steps)})
        async with (
            served(await make_server(provider)) as target,
            ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
        ):
            challenge = parties.challenge(fingerprints)
            entry = await client.challenge(reply.commitment_sha256, challenge, whole=False)
    refusal = read_refusal(entry.refusal.payload)
    assert list(refusal.answered) == steps
    # Many times what grpc lets through by itself.
    assert entry.refusal.ByteSize() > 500_000


async def test_the_key_set_comes_with_the_certificates_of_its_root(
    parties: Parties,
) -> None:
    key_set = SignedKeySet(parties.key_set, (b"leaf", b"authority"))
    with parties.provider(key_set=key_set) as provider:
        async with (
            served(await make_server(provider)) as target,
            aio.insecure_channel(target) as channel,
        ):
            stub = pb_grpc.ProviderServiceStub(channel)
            reply = await stub.GetKeySet(pb.GetKeySetRequest(), timeout=WAIT_SECONDS)
    assert reply.key_set == parties.key_set
    assert list(reply.root_chain) == [b"leaf", b"authority"]
