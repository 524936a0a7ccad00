"""`ProviderService` over `grpc.aio`, with health and reflection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from coin_protocol import transport
from coin_protocol.errors import CoinError, TryLaterError, UnknownCommitmentError
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc
from provider_sdk.answering import ChallengeError, UnknownVerifierError
from provider_sdk.provider import Provider, RefusedChallengeError

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ProviderService"].full_name
_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1
T = TypeVar("T")


class ProviderServicer(pb_grpc.ProviderServiceServicer):
    """Answers for a provider, or for whichever of several holds a commitment."""

    def __init__(self, holder: Callable[[bytes], Provider]) -> None:
        """Serve what `holder` returns for a commitment's digest (empty for none)."""
        self._holder = holder

    async def GetKeySet(
        self, request: pb.GetKeySetRequest, context: transport.Context
    ) -> pb.GetKeySetResponse:
        """Return the key set."""
        del request, context
        return pb.GetKeySetResponse(key_set=self._holder(b"").key_set)

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: transport.Context
    ) -> pb.GetManifestResponse:
        """Return a commitment's manifest and fingerprints."""
        manifest, fingerprints = await _run(
            context,
            lambda: self._holder(request.commitment_sha256).manifest(request.commitment_sha256),
        )
        return pb.GetManifestResponse(manifest=manifest, fingerprints=fingerprints)

    async def AnswerChallenge(
        self, request: pb.AnswerChallengeRequest, context: transport.Context
    ) -> pb.AnswerChallengeResponse:
        """Open what a challenge draws."""
        key = request.commitment_sha256
        opening = await _run(context, lambda: self._holder(key).answer(key, request.challenge))
        return pb.AnswerChallengeResponse(opening=opening)

    async def AnswerWholeBlockChallenge(
        self, request: pb.AnswerWholeBlockChallengeRequest, context: transport.Context
    ) -> pb.AnswerWholeBlockChallengeResponse:
        """Open whole the blocks that a challenge draws."""
        key = request.commitment_sha256
        opening = await _run(
            context, lambda: self._holder(key).answer_whole(key, request.challenge)
        )
        return pb.AnswerWholeBlockChallengeResponse(opening=opening)


async def make_server(provider: Provider) -> aio.Server:
    """Return a server with `ProviderService`, health and reflection, not yet bound."""
    server = await transport.make_server(SERVICE)
    pb_grpc.add_ProviderServiceServicer_to_server(ProviderServicer(lambda _: provider), server)
    return server


async def _run(context: transport.Context, call: Callable[[], T]) -> T:
    """Run a provider's method on a thread; errors become status codes with details."""
    try:
        return await asyncio.to_thread(call)
    except RefusedChallengeError as error:
        code, message = grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
        details: tuple[Message, ...] = (pb.RefusalDetail(refusal=error.signed),)
    except CoinError as error:
        code, message = _code_of(error), str(error)
        retry = code == grpc.StatusCode.UNAVAILABLE
        details = (transport.retry_info(_RETRY_SECONDS),) if retry else ()
    except Exception:  # noqa: BLE001 - answered as INTERNAL, logged here
        _LOG.exception("a request failed")
        code, message, details = grpc.StatusCode.INTERNAL, "internal error, see the log", ()
    return await transport.abort(context, code, message, *details)


def _code_of(error: CoinError) -> grpc.StatusCode:
    if isinstance(error, UnknownCommitmentError):
        return grpc.StatusCode.NOT_FOUND
    if isinstance(error, TryLaterError):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, UnknownVerifierError):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, ChallengeError):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.FAILED_PRECONDITION
