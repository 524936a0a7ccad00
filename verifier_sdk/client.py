"""Talk to a provider over gRPC: deadlines on every call, no grpc error leaks out."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import grpc
from grpc import aio

from coin_protocol import transport
from coin_protocol.clock import wall_time
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keyset import SignedKeySet
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc

_RETRY_SECONDS: Final = 0.25


class ProviderClient:
    """One provider at HOST:PORT. Use as an async context manager."""

    def __init__(
        self, target: str, *, tls: transport.ClientTls | None, timeout: float = 30.0
    ) -> None:
        """Name the provider; nothing is sent yet.

        Args:
            target: HOST:PORT.
            tls: Files for mutual TLS, or for TLS with a bearer token; None for plaintext, on
                this machine only.
            timeout: Seconds for one question, all tries of it included.
        """
        self.target = target
        self._timeout = timeout
        self._channel = transport.open_channel(target, tls)
        self._stub = pb_grpc.ProviderServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def key_set(self) -> envelope_pb2.Envelope:
        """Return the provider's key set alone, to be checked against a pinned root.

        Raises:
            PeerUnavailableError: The provider did not answer.
        """
        return (await self.served_key_set()).signed

    async def served_key_set(self) -> SignedKeySet:
        """Return the provider's key set with the certificates of its root; errors as above."""
        try:
            reply = transport.parsed(
                await self._stub.GetKeySet(
                    pb.GetKeySetRequest(), timeout=_call_seconds(self._timeout)
                )
            )
        except aio.AioRpcError as error:
            raise _unanswered(self.target, error) from error
        return SignedKeySet(reply.key_set, tuple(reply.root_chain))

    async def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Return manifest and fingerprints, waiting while they are being made.

        Raises:
            PeerUnavailableError: Nothing came within the timeout, or a refusal; `status` has
                the name of the gRPC status.
        """
        request = pb.GetManifestRequest(commitment_sha256=commitment_sha256)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while True:
            await self._reach(end)
            try:
                reply = transport.parsed(
                    await self._stub.GetManifest(request, timeout=_call_seconds(end - loop.time()))
                )
            except aio.AioRpcError as error:
                if not await _may_retry(error, end):
                    raise _unanswered(self.target, error) from error
            else:
                return reply.manifest, reply.fingerprints

    async def challenge(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> receipt_pb2.Round:
        """Send a challenge and return what came of it; never raises for the provider's part.

        A call that did not reach the provider, or met its rate limit, is sent again until the
        timeout.
        """
        entry = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while True:
            try:
                await self._reach(end)
                left = _call_seconds(end - loop.time())
                ask = self._ask_whole if whole else self._ask
                opening = await ask(commitment_sha256, challenge, left)
            except aio.AioRpcError as error:
                if await _may_retry(error, end):
                    continue
                refusal = transport.details_of(error, pb.RefusalDetail())
                if refusal is not None:
                    entry.refusal.CopyFrom(refusal.refusal)
                else:
                    entry.no_answer = _status(error)
            except PeerUnavailableError as error:
                entry.no_answer = error.status
            else:
                entry.opening.CopyFrom(opening)
            entry.received_at.CopyFrom(wall_time())
            return entry

    async def _reach(self, end: float) -> None:
        """Wait for a connection: without one a deadline would look like a peer that hangs."""
        left = end - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(self._channel.channel_ready(), max(left, 0.0))
        except TimeoutError as error:
            msg = f"the provider at {self.target} could not be reached; try again later"
            raise PeerUnavailableError(msg, status="UNAVAILABLE") from error

    async def _ask(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, seconds: float
    ) -> envelope_pb2.Envelope:
        request = pb.AnswerChallengeRequest(
            commitment_sha256=commitment_sha256, challenge=challenge
        )
        reply = await self._stub.AnswerChallenge(request, timeout=seconds)
        return transport.parsed(reply).opening

    async def _ask_whole(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, seconds: float
    ) -> envelope_pb2.Envelope:
        request = pb.AnswerWholeBlockChallengeRequest(
            commitment_sha256=commitment_sha256, challenge=challenge
        )
        reply = await self._stub.AnswerWholeBlockChallenge(request, timeout=seconds)
        return transport.parsed(reply).opening


async def _may_retry(error: aio.AioRpcError, end: float) -> bool:
    """Wait after a call that did not reach its peer, or met its rate limit; say whether to go on.

    A try cut short by the deadline `end` would look like a peer that hangs, so the last one
    keeps its status.
    """
    loop = asyncio.get_running_loop()
    delay = transport.quota_delay(error)
    if delay is not None:
        if loop.time() + delay + _RETRY_SECONDS > end:
            return False
        await asyncio.sleep(delay)
    elif error.code() == grpc.StatusCode.UNAVAILABLE:
        await asyncio.sleep(min(_RETRY_SECONDS, max(0.0, end - loop.time())))
    else:
        return False
    return end - loop.time() >= _RETRY_SECONDS


def _call_seconds(left: float) -> float:
    """Return the deadline of one call: providers take none that is longer."""
    return min(left, transport.MAX_CALL_SECONDS)


def _status(error: aio.AioRpcError) -> str:
    """Return the name of a status; a rate limit is no refusal, it says to come again."""
    limited = transport.quota_delay(error) is not None
    return "UNAVAILABLE" if limited else error.code().name


def _unanswered(target: str, error: aio.AioRpcError) -> PeerUnavailableError:
    status = _status(error)
    msg = f"the provider at {target} did not answer ({status}); try again later"
    return PeerUnavailableError(msg, status=status)
