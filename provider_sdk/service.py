"""`ProviderService` over `grpc.aio`: authenticated, limited, off the event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from coin_protocol import envelope, transport
from coin_protocol.errors import (
    CoinError,
    NotReadyError,
    PurgedCommitmentError,
    SignatureError,
    TryLaterError,
    UnknownCommitmentError,
)
from coin_protocol.keys import KeyRing
from coin_protocol.v1 import envelope_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import provider_service_pb2_grpc as pb_grpc
from provider_sdk.answering import ChallengeError, UnknownVerifierError
from provider_sdk.provider import Provider, RefusedChallengeError

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ProviderService"].full_name
COMMITMENT_TYPE: Final = "coin_protocol.v1.Commitment"

MAX_REQUEST_BYTES: Final = 128 * 1024
"""The largest request that is read: many times a challenge, so that one too large is told so."""

MAX_CHALLENGE_BYTES: Final = 8 * 1024
"""A challenge with the longest names and 16 signatures has under 4 KiB. A refusal repeats up to
64 of them in one status, which must stay below what clients take (`MAX_DETAILS_BYTES`): larger
ones of one verifier would keep the refusals to all others from arriving."""

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How a provider's challenge service meets its verifiers.

    Attributes:
        tokens: File of `NAME=SHA256` lines: each call must then show a bearer token. None where
            client certificates, or loopback, say who calls.
        rate: Calls of each verifier that one process answers.
        max_call_seconds: The longest deadline that a call may set.
        threads: Calls worked on at a time.
        queue: Calls that may wait for a thread; more are told to try later.
        observer: Told of every call, and of every reload of certificates and tokens.
    """

    tokens: Path | None = None
    rate: transport.RateLimit = field(
        default_factory=lambda: transport.RateLimit(per_second=100.0, burst=200)
    )
    max_call_seconds: float = transport.MAX_CALL_SECONDS
    threads: int = 4
    queue: int = 256
    observer: transport.Observer = field(default_factory=transport.Unobserved)


class PeerIsNotSignerError(UnknownVerifierError):
    """A verifier known here sends a challenge that it has not signed itself."""


class ProviderServicer(pb_grpc.ProviderServiceServicer):
    """Answers for a provider, or for whichever of several holds a commitment."""

    def __init__(
        self, holder: Callable[[bytes], Provider], workers: transport.Workers | None = None
    ) -> None:
        """Serve what `holder` returns for a commitment's digest (empty for none).

        Args:
            holder: Called on a worker's thread.
            workers: Do the work; by default of this servicer's own.
        """
        self._holder = holder
        self._workers = workers or transport.Workers()

    async def GetKeySet(
        self, request: pb.GetKeySetRequest, context: transport.Context
    ) -> pb.GetKeySetResponse:
        """Return the key set, with the certificates of its root."""
        del request

        def read() -> pb.GetKeySetResponse:
            served = self._holder(b"").served
            return pb.GetKeySetResponse(key_set=served.signed, root_chain=served.root_chain)

        return await self._run(context, b"", read)

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: transport.Context
    ) -> pb.GetManifestResponse:
        """Return a commitment's manifest and fingerprints."""
        key = request.commitment_sha256
        manifest, fingerprints = await self._run(
            context, key, lambda: self._holder(key).manifest(key)
        )
        return pb.GetManifestResponse(manifest=manifest, fingerprints=fingerprints)

    async def AnswerChallenge(
        self, request: pb.AnswerChallengeRequest, context: transport.Context
    ) -> pb.AnswerChallengeResponse:
        """Open what a challenge draws."""
        key, challenge, caller = request.commitment_sha256, request.challenge, transport.caller()

        def answer() -> envelope_pb2.Envelope:
            provider = self._holder(key)
            require_sendable(provider.verifiers, caller, challenge, envelope.CHALLENGE)
            return provider.answer(key, challenge)

        return pb.AnswerChallengeResponse(opening=await self._run(context, key, answer))

    async def AnswerWholeBlockChallenge(
        self, request: pb.AnswerWholeBlockChallengeRequest, context: transport.Context
    ) -> pb.AnswerWholeBlockChallengeResponse:
        """Open whole the blocks that a challenge draws."""
        key, challenge, caller = request.commitment_sha256, request.challenge, transport.caller()

        def answer() -> envelope_pb2.Envelope:
            provider = self._holder(key)
            require_sendable(provider.verifiers, caller, challenge, envelope.WHOLE_CHALLENGE)
            return provider.answer_whole(key, challenge)

        return pb.AnswerWholeBlockChallengeResponse(opening=await self._run(context, key, answer))

    async def _run(self, context: transport.Context, key: bytes, call: Callable[[], T]) -> T:
        """Run a provider's method on a thread; errors become status codes with details."""
        try:
            return await self._workers.run(call, seconds=context.time_remaining())
        except CoinError as error:
            code, details = _status_of(error, key)
            message = str(error)
        except Exception:  # noqa: BLE001 - answered as INTERNAL, logged here
            _LOG.exception("a request failed")
            code, message = grpc.StatusCode.INTERNAL, "internal error, see the log"
            details = (transport.error_info("INTERNAL"),)
        return await transport.abort(context, code, message, *details)


async def make_server(
    provider: Provider, settings: ServiceSettings | None = None
) -> transport.Server:
    """Return a server with `ProviderService`, health and reflection, not yet bound.

    Raises:
        ConfigurationError: The file of tokens cannot be used.
    """
    return await make_guarded_server(lambda _: provider, settings)


async def make_guarded_server(
    holder: Callable[[bytes], Provider],
    settings: ServiceSettings | None = None,
    *,
    beside: Iterable[str] = (),
) -> transport.Server:
    """Return a server as `make_server` does, for several providers (see `ProviderServicer`).

    Args:
        holder: As `ProviderServicer` takes it.
        settings: How callers are met.
        beside: Full names of services that the caller adds.
    """
    chosen = settings or ServiceSettings()
    observer = chosen.observer
    guard = transport.Guard(
        tokens=None if chosen.tokens is None else transport.TokenFile(chosen.tokens, observer),
        rate=chosen.rate,
        max_call_seconds=chosen.max_call_seconds,
        observer=observer,
    )
    workers = transport.Workers(threads=chosen.threads, queue=chosen.queue)
    server = await transport.make_server(
        SERVICE, *beside, guard=guard, max_request_bytes=MAX_REQUEST_BYTES
    )
    pb_grpc.add_ProviderServiceServicer_to_server(ProviderServicer(holder, workers), server)
    server.at_stop(workers.close)
    return server


async def serve_provider(
    provider: Provider,
    address: str,
    tls: transport.ServerTls | None,
    ready: Callable[[int], None],
    settings: ServiceSettings | None = None,
    *,
    grace: float = transport.GRACE_SECONDS,
    notice: float = 0.0,
) -> None:
    """Serve `ProviderService` until SIGTERM; arguments as `transport.serve`.

    Before the grace begins, health says for `notice` seconds that this server is leaving.
    """
    server = await make_server(provider, settings)
    server.notice_seconds = notice
    await transport.serve(server, address, tls, ready, grace=grace)


def require_sendable(
    verifiers: KeyRing, caller: str, challenge: envelope_pb2.Envelope, payload_type: str
) -> None:
    """Check a challenge's size, and that a verifier known by name sends no one else's.

    Who may ask is decided by the signature alone. A caller by another name than a verifier's,
    or by none, is a messenger and may carry any challenge.

    Raises:
        ChallengeError: The challenge is larger than any needs to be.
        PeerIsNotSignerError: The caller has the name of a verifier that did not sign this.
    """
    size = challenge.ByteSize()
    if size > MAX_CHALLENGE_BYTES:
        msg = f"the challenge has {size} bytes; at most {MAX_CHALLENGE_BYTES} are taken"
        raise ChallengeError(msg)
    own = [listed for listed in verifiers.keys if caller and listed.key.name == caller]
    if not own:
        return
    try:
        envelope.verify(challenge, payload_type, KeyRing(caller, own))
    except SignatureError as error:
        msg = f"{caller!r} called, and did not sign this challenge: send your own"
        raise PeerIsNotSignerError(msg) from error


def _status_of(error: CoinError, key: bytes) -> tuple[grpc.StatusCode, tuple[Message, ...]]:
    """Return the status and the details of an error about the commitment `key`."""
    code, reason = _code_of(error)
    details: list[Message] = [transport.error_info(reason)]
    name = key.hex()[:64]
    if isinstance(error, RefusedChallengeError):
        details.append(pb.RefusalDetail(refusal=error.signed))
    elif isinstance(error, PurgedCommitmentError):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type="RETENTION", subject=name, description=str(error)
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    elif isinstance(error, UnknownCommitmentError):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=COMMITMENT_TYPE, resource_name=name, description=str(error)
            )
        )
    elif isinstance(error, TryLaterError):
        details.append(transport.retry_info(_RETRY_SECONDS))
    elif code == grpc.StatusCode.INVALID_ARGUMENT:
        details.append(transport.bad_request("challenge", str(error)))
    return code, tuple(details)


_CODES: Final[tuple[tuple[type[CoinError], grpc.StatusCode, str], ...]] = (
    # The first kind that an error is of decides.
    (RefusedChallengeError, grpc.StatusCode.RESOURCE_EXHAUSTED, "CHALLENGE_REFUSED"),
    (PurgedCommitmentError, grpc.StatusCode.FAILED_PRECONDITION, "COMMITMENT_PURGED"),
    (UnknownCommitmentError, grpc.StatusCode.NOT_FOUND, "COMMITMENT_UNKNOWN"),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE, "FINGERPRINTS_NOT_READY"),
    (transport.OverloadedError, grpc.StatusCode.UNAVAILABLE, "OVERLOADED"),
    (TryLaterError, grpc.StatusCode.UNAVAILABLE, "TRY_LATER"),
    (transport.PastDeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
    (PeerIsNotSignerError, grpc.StatusCode.PERMISSION_DENIED, "PEER_IS_NOT_SIGNER"),
    (UnknownVerifierError, grpc.StatusCode.PERMISSION_DENIED, "VERIFIER_UNKNOWN"),
    (ChallengeError, grpc.StatusCode.INVALID_ARGUMENT, "CHALLENGE_INVALID"),
)


def _code_of(error: CoinError) -> tuple[grpc.StatusCode, str]:
    for kind, code, reason in _CODES:
        if isinstance(error, kind):
            return code, reason
    return grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_NOT_ABLE"
