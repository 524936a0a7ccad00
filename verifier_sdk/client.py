"""Talk to a provider over gRPC: deadlines on every call, no grpc error leaks out."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Final, Self

import grpc
from grpc import aio

from coin_protocol import transport
from coin_protocol.clock import wall_time
from coin_protocol.errors import CoinError, PeerUnavailableError
from coin_protocol.keys import read_time
from coin_protocol.keyset import SignedKeySet
from coin_protocol.statements import read_challenge, read_whole_challenge
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc
from verifier_sdk.pulse import Pulse

STALL_SECONDS: Final = 1.0
"""Where this process stood still for longer while a question was out, or for half of the time that
the question had, no answer is called late: the delay may be this side's."""

_UNREACHED: Final = "UNAVAILABLE"
_LATE: Final = "DEADLINE_EXCEEDED"
_RETRY_SECONDS: Final = 0.25
_PROBE_SECONDS: Final = 5.0


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
        self._bearable = min(STALL_SECONDS, timeout / 2)
        self._pulse = Pulse()
        self._key_set: tuple[float, SignedKeySet] | None = None
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

    async def served_key_set(self, *, within: float = 0.0) -> SignedKeySet:
        """Return the provider's key set with the certificates of its root; errors as above.

        Args:
            within: Seconds. One that came no longer ago will do: audits of one provider follow
                one another.
        """
        now = asyncio.get_running_loop().time()
        if self._key_set is not None and now - self._key_set[0] < within:
            return self._key_set[1]
        try:
            reply = transport.parsed(
                await self._stub.GetKeySet(
                    pb.GetKeySetRequest(), timeout=_call_seconds(self._timeout)
                )
            )
        except aio.AioRpcError as error:
            raise _unanswered(self.target, _status(error)) from error
        served = SignedKeySet(reply.key_set, tuple(reply.root_chain))
        self._key_set = now, served
        return served

    async def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Return manifest and fingerprints, waiting while they are being made.

        Raises:
            PeerUnavailableError: Nothing came within the timeout, or a refusal; `status` has
                the name of the gRPC status, UNAVAILABLE where this process stood still meanwhile.
        """
        async with self._pulse.watching() as stood_still:
            try:
                return await self._manifest(commitment_sha256)
            except PeerUnavailableError as error:
                if error.status == _LATE and stood_still() > self._bearable:
                    msg = f"this process stood still while {self.target} was asked; try again later"
                    raise PeerUnavailableError(msg, status=_UNREACHED) from error
                raise

    async def _manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        request = pb.GetManifestRequest(commitment_sha256=commitment_sha256)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while True:
            await self._reach(end)
            left = end - loop.time()
            try:
                reply = transport.parsed(
                    await self._stub.GetManifest(request, timeout=_call_seconds(left))
                )
            except aio.AioRpcError as error:
                if not await _may_retry(error, end):
                    status = self._blamed(_status(error), left)
                    raise _unanswered(self.target, status) from error
            else:
                return reply.manifest, reply.fingerprints

    async def challenge(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> receipt_pb2.Round:
        """Send a challenge and return what came of it; never raises for the provider's part.

        A call that did not reach the provider, or met its rate limit, is sent again until the
        timeout, and while half of what the challenge gives is left. The provider counts as not
        reached where it had less than half of the timeout to answer; where nothing came, and it
        does not answer to anything else either; and where this process stood still meanwhile, and
        what came looks late for it.
        """
        async with self._pulse.watching() as stood_still:
            entry = await self._challenge(commitment_sha256, challenge, whole=whole)
            excused = stood_still() > self._bearable and _looks_late(entry, whole=whole)
        if excused or (entry.no_answer == _LATE and not await self._is_there()):
            return receipt_pb2.Round(
                challenge=challenge,
                no_answer=_UNREACHED,
                sent_at=entry.sent_at,
                received_at=entry.received_at,
            )
        return entry

    async def _is_there(self) -> bool:
        """Say whether the provider answers to something that it needs not think about.

        A connection that the network between has forgotten swallows every question alike.
        """
        seconds = min(self._timeout, _PROBE_SECONDS)
        try:
            await self._stub.GetKeySet(pb.GetKeySetRequest(), timeout=seconds)
        except aio.AioRpcError as error:
            return error.code().name not in {_LATE, _UNREACHED}
        return True

    async def _challenge(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> receipt_pb2.Round:
        entry = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        latest = loop.time() + seconds_given(entry, whole=whole) / 2
        left = self._timeout
        while True:
            try:
                await self._reach(end, latest)
                left = end - loop.time()
                ask = self._ask_whole if whole else self._ask
                opening = await ask(commitment_sha256, challenge, _call_seconds(left))
            except aio.AioRpcError as error:
                if await _may_retry(error, end):
                    continue
                refusal = transport.details_of(error, pb.RefusalDetail())
                if refusal is not None:
                    entry.refusal.CopyFrom(refusal.refusal)
                else:
                    entry.no_answer = self._blamed(_status(error), left)
            except PeerUnavailableError as error:
                entry.no_answer = error.status
            else:
                entry.opening.CopyFrom(opening)
            entry.received_at.CopyFrom(wall_time())
            return entry

    def _blamed(self, status: str, left: float) -> str:
        """Return the status of a last try that had so many seconds left.

        One that was short, because others before it reached nobody, says little of the provider.
        """
        short = left < self._timeout / 2
        return _UNREACHED if status == _LATE and short else status

    async def _reach(self, end: float, latest: float = math.inf) -> None:
        """Wait for a connection: without one a deadline would look like a peer that hangs.

        Args:
            end: Of the question, by the loop's clock.
            latest: After that it is too late to ask.
        """
        loop = asyncio.get_running_loop()
        msg = f"the provider at {self.target} could not be reached in time; try again later"
        try:
            async with asyncio.timeout(max(end - loop.time(), 0.0)):
                await self._channel.channel_ready()
        except TimeoutError as error:
            raise PeerUnavailableError(msg, status=_UNREACHED) from error
        if loop.time() > latest:
            raise PeerUnavailableError(msg, status=_UNREACHED)

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


def _looks_late(entry: receipt_pb2.Round, *, whole: bool) -> bool:
    """Say whether nothing came in time, or what came is past the challenge's deadline."""
    waited = read_time(entry.received_at) - read_time(entry.sent_at)
    return entry.no_answer == _LATE or waited.total_seconds() > seconds_given(entry, whole=whole)


def seconds_given(entry: receipt_pb2.Round, *, whole: bool) -> float:
    """Return the seconds that a challenge gives from when it is sent."""
    read = read_whole_challenge if whole else read_challenge
    try:
        deadline = read_time(read(entry.challenge.payload).deadline)
    except CoinError:
        return math.inf  # no challenge, and no provider answers it
    return (deadline - read_time(entry.sent_at)).total_seconds()


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
    return _UNREACHED if limited else error.code().name


def _unanswered(target: str, status: str) -> PeerUnavailableError:
    msg = f"the provider at {target} did not answer ({status}); try again later"
    return PeerUnavailableError(msg, status=status)
