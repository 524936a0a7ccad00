"""One server for replays and the challenges to what they committed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from coin_protocol import transport
from coin_protocol.errors import UnknownCommitmentError
from coin_protocol.v1 import provider_service_pb2_grpc, replay_service_pb2_grpc
from provider_sdk.replay.replay import Replay, ReplayServicer
from provider_sdk.service import SERVICE, ProviderServicer

if TYPE_CHECKING:
    from provider_sdk.provider import Provider


async def serve_replays(
    replays: Mapping[str, Replay],
    address: str,
    tls: transport.TlsFiles | None,
    ready: Callable[[int], None],
) -> None:
    """Serve `ReplayService` and `ProviderService` until SIGTERM.

    Args:
        replays: By the name of their model; their providers share one name and key set.
        address: HOST:PORT.
        tls: Files for mutual TLS; None for plaintext on loopback.
        ready: Told the port once calls are served.
    """
    server = await transport.make_server(SERVICE)
    providers = list({id(replay.provider): replay.provider for replay in replays.values()}.values())

    def holder(commitment_sha256: bytes) -> Provider:
        for provider in providers:
            try:
                provider.store.get(commitment_sha256)
            except UnknownCommitmentError:
                continue
            return provider
        return providers[0]

    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(
        ProviderServicer(holder), server
    )
    replay_service_pb2_grpc.add_ReplayServiceServicer_to_server(ReplayServicer(replays), server)
    await transport.serve(server, address, tls, ready)
