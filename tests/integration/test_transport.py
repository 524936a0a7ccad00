"""What carries the protocol: mutual TLS, loopback, health, reflection, any bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coin_protocol import transport
from coin_protocol.errors import (
    ConfigurationError,
    PeerUnavailableError,
)
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import (
    receipt_pb2,
)
from provider_sdk.provider import Provider
from provider_sdk.service import SERVICE, make_server
from tests.support.audits import audit
from tests.support.certificates import Certificates
from tests.support.parties import (
    WAIT_SECONDS,
    Parties,
    Reply,
    run_session,
)
from tests.support.raw import DOCUMENTED, call_raw, damaged, parses, status_of
from tests.support.servers import served, serving
from verifier_sdk.client import ProviderClient

INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE


HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


async def test_under_mutual_tls_nobody_gets_in_without_a_certificate(
    provider: Provider, certificates: Certificates
) -> None:
    authorities = certificates.client.authorities.read_bytes()
    bare = grpc.ssl_channel_credentials(root_certificates=authorities)
    async with serving(provider, certificates.server) as target:
        async with aio.secure_channel(target, bare) as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await call_raw(channel, f"/{SERVICE}/GetKeySet", pb.GetKeySetRequest())
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        for tls in (certificates.stranger, None):
            async with ProviderClient(target, tls=tls, timeout=WAIT_SECONDS) as client:
                with pytest.raises(PeerUnavailableError):
                    await client.key_set()
        async with ProviderClient(target, tls=certificates.client) as client:
            assert await client.key_set() == provider.key_set


async def test_a_server_of_another_authority_is_not_believed(
    provider: Provider, certificates: Certificates
) -> None:
    impostor = replace(certificates.stranger, authorities=certificates.server.authorities)
    async with (
        serving(provider, impostor) as target,
        ProviderClient(target, tls=certificates.client, timeout=WAIT_SECONDS) as client,
    ):
        with pytest.raises(PeerUnavailableError):
            await client.key_set()


REMOTE = (
    "192.0.2.1:443",
    "example.org:443",
    "0.0.0.0:0",
    "[::]:0",
    "128.0.0.1:1",
    "127.0.0.1.example.org:1",
    "localhost.example.org:1",
    "unix:socket:1",
)
NO_TARGETS = ("", "localhost", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1")


@pytest.mark.parametrize("target", [*REMOTE, *NO_TARGETS])
async def test_plaintext_is_refused_but_on_loopback(target: str) -> None:
    with pytest.raises(ConfigurationError):
        transport.open_channel(target, None)
    server = aio.server()
    with pytest.raises(ConfigurationError):
        transport.bind(server, target, None)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1"])
async def test_plaintext_is_allowed_on_loopback(target: str) -> None:
    async with transport.open_channel(target, None) as channel:
        assert channel.get_state() == grpc.ChannelConnectivity.IDLE


async def test_a_port_that_is_taken_is_a_configuration_error(provider: Provider) -> None:
    async with serving(provider) as target:
        for second in (
            aio.server(options=(("grpc.so_reuseport", 0),)),
            await make_server(provider),
        ):
            with pytest.raises(ConfigurationError, match="cannot listen"):
                transport.bind(second, target, None)


async def test_a_missing_tls_file_is_a_configuration_error(
    certificates: Certificates, tmp_path: Path
) -> None:
    files = replace(certificates.client, key=tmp_path / "missing.pem")
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        transport.open_channel("127.0.0.1:1", files)
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        transport.bind(aio.server(), "127.0.0.1:0", files)


async def test_tls_files_that_are_none_are_a_configuration_error(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"garbage")
    with pytest.raises(ConfigurationError):
        transport.bind(aio.server(), "127.0.0.1:0", transport.TlsFiles(garbage, garbage, garbage))


async def test_plaintext_goes_to_no_proxy(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Loopback is the one place for plaintext; a proxy is another machine.
    seen: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(100))
        writer.close()

    listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()[:2]
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://{host}:{port}")
    async with (
        listener,
        serving(provider) as target,
        ProviderClient(target, tls=None, timeout=2.0) as client,
    ):
        with contextlib.suppress(PeerUnavailableError):
            await client.key_set()
        assert not seen


@pytest.mark.parametrize("name", [SERVICE, ""])
async def test_health_says_that_the_service_serves(provider: Provider, name: str) -> None:
    async with serving(provider) as target, aio.insecure_channel(target) as channel:
        raw = await call_raw(channel, HEALTH, health_pb2.HealthCheckRequest(service=name))
    status = health_pb2.HealthCheckResponse.FromString(raw).status
    assert status == health_pb2.HealthCheckResponse.SERVING


async def test_health_of_a_service_that_is_not_there_is_not_found(provider: Provider) -> None:
    async with serving(provider) as target, aio.insecure_channel(target) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await call_raw(channel, HEALTH, health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_service(provider: Provider) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    async with serving(provider) as target, aio.insecure_channel(target) as channel:
        call: Any = channel.stream_stream(REFLECTION)
        listed = [
            service.name
            async for raw in call(iter([asked]), timeout=WAIT_SECONDS)
            for service in reflection_pb2.ServerReflectionResponse.FromString(
                raw
            ).list_services_response.service
        ]
    assert SERVICE in listed
    assert "grpc.health.v1.Health" in listed


# Bytes from anywhere


def _requests(parties: Parties, reply: Reply) -> Mapping[str, bytes]:
    """Return a sound request for each method of the provider."""
    _, fingerprints = reply.ready()
    key = reply.commitment_sha256
    return {
        "GetKeySet": b"",
        "GetManifest": pb.GetManifestRequest(commitment_sha256=key).SerializeToString(),
        "AnswerChallenge": pb.AnswerChallengeRequest(
            commitment_sha256=key, challenge=parties.challenge(fingerprints)
        ).SerializeToString(),
        "AnswerWholeBlockChallenge": pb.AnswerWholeBlockChallengeRequest(
            commitment_sha256=key, challenge=parties.whole_challenge(fingerprints)
        ).SerializeToString(),
    }


KINDS = {
    "GetKeySet": pb.GetKeySetRequest,
    "GetManifest": pb.GetManifestRequest,
    "AnswerChallenge": pb.AnswerChallengeRequest,
    "AnswerWholeBlockChallenge": pb.AnswerWholeBlockChallengeRequest,
}


@pytest.mark.parametrize("method", KINDS)
async def test_whatever_bytes_come_the_status_is_a_documented_one(
    parties: Parties, provider: Provider, method: str
) -> None:
    reply = run_session(provider)
    requests = _requests(parties, reply)
    seen = set()
    async with serving(provider) as target, aio.insecure_channel(target) as channel:
        for raw in damaged(requests[method], requests.values()):
            code, details = await status_of(channel, f"/{SERVICE}/{method}", raw)
            assert code != grpc.StatusCode.INTERNAL
            assert "Traceback" not in details
            if parses(KINDS[method], raw):
                assert code in DOCUMENTED, (raw, details)
                seen.add(code)
        code, _ = await status_of(channel, f"/{SERVICE}/{method}", requests[method])
        assert code == grpc.StatusCode.OK
    assert seen


async def test_bytes_that_do_not_parse_are_an_invalid_argument(provider: Provider) -> None:
    async with serving(provider) as target, aio.insecure_channel(target) as channel:
        code, details = await status_of(channel, f"/{SERVICE}/GetManifest", b"\xff\xff")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "class" not in details


async def test_an_error_in_the_provider_is_internal_and_tells_nothing(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(commitment_sha256: bytes) -> None:
        del commitment_sha256
        msg = "the secret is 42"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(provider, "manifest", broken)
    async with serving(provider) as target, aio.insecure_channel(target) as channel:
        code, details = await status_of(channel, f"/{SERVICE}/GetManifest", b"")
    assert code == grpc.StatusCode.INTERNAL
    assert "42" not in details
    assert "42" in caplog.text


async def test_before_the_fingerprints_are_made_a_client_is_told_when_to_come_again(
    parties: Parties,
) -> None:
    class Never(Provider):
        def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
            raise MemoryError(len(token_ids))

    with parties.provider(Never) as provider:
        reply = run_session(provider)
        async with serving(provider) as target, aio.insecure_channel(target) as channel:
            request = pb.GetManifestRequest(commitment_sha256=reply.commitment_sha256)
            with pytest.raises(aio.AioRpcError) as caught:
                await call_raw(channel, f"/{SERVICE}/GetManifest", request)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            retry = transport.details_of(caught.value, error_details_pb2.RetryInfo())
            assert retry is not None
            assert retry.retry_delay.seconds == 1
            verdict = await audit(parties, reply.receipt, target, call_seconds=0.6)
    assert verdict.outcome == INCONCLUSIVE


async def test_a_request_larger_than_any_message_is_refused_unread(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        limit = (("grpc.max_receive_message_length", 1 << 18),)
        patch.setattr(transport, "CHANNEL_OPTIONS", limit)
        server = await make_server(provider)
    method = f"/{SERVICE}/GetManifest"
    large = pb.GetManifestRequest(commitment_sha256=bytes(1 << 20)).SerializeToString()
    async with served(server) as target, aio.insecure_channel(target) as channel:
        code, _ = await status_of(channel, method, large)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        code, _ = await status_of(channel, method, b"")
        assert code == grpc.StatusCode.NOT_FOUND
