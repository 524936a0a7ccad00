"""One server for replays and the challenges to what they committed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from coin_protocol import transport
from coin_protocol.errors import UnknownCommitmentError
from coin_protocol.v1 import replay_service_pb2 as pb
from coin_protocol.v1 import replay_service_pb2_grpc as pb_grpc
from provider_sdk.replay.replay import Replay, ReplayServicer
from provider_sdk.service import ServiceSettings, make_guarded_server

if TYPE_CHECKING:
    from provider_sdk.provider import Provider

REPLAY_SERVICE: Final = pb.DESCRIPTOR.services_by_name["ReplayService"].full_name


async def make_replay_server(
    replays: Mapping[str, Replay], settings: ServiceSettings | None = None
) -> transport.Server:
    """Return a server with `ReplayService` and `ProviderService`, not yet bound.

    Both stand behind one guard, and health and reflection name both.

    Args:
        replays: By the name of their model; their providers share one name and key set.
        settings: How callers are met.

    Raises:
        ConfigurationError: The file of tokens cannot be used.
    """
    providers = list({id(replay.provider): replay.provider for replay in replays.values()}.values())

    def holder(commitment_sha256: bytes) -> Provider:
        for provider in providers:
            try:
                provider.store.get(commitment_sha256)
            except UnknownCommitmentError:
                continue
            return provider
        return providers[0]

    server = await make_guarded_server(holder, settings, beside=(REPLAY_SERVICE,))
    pb_grpc.add_ReplayServiceServicer_to_server(ReplayServicer(replays), server)
    return server


async def serve_replays(
    replays: Mapping[str, Replay],
    address: str,
    tls: transport.TlsFiles | None,
    ready: Callable[[int], None],
) -> None:
    """Serve replays until SIGTERM.

    Args:
        replays: As `make_replay_server` takes them.
        address: HOST:PORT.
        tls: Files for mutual TLS; None for plaintext on loopback.
        ready: Told the port once calls are served.
    """
    await transport.serve(await make_replay_server(replays), address, tls, ready)
