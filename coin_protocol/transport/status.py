"""Statuses with details in the form of `google.rpc.Status`, written and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

from coin_protocol.errors import PeerUnavailableError

if TYPE_CHECKING:
    Context = aio.ServicerContext[Any, Any]
else:
    Context = aio.ServicerContext

M = TypeVar("M", bound=Message)

ERROR_DOMAIN: Final = "coin-audit"
"""`ErrorInfo.domain` of every reason that this project gives."""


async def abort(
    context: Context, code: grpc.StatusCode, message: str, *details: Message
) -> NoReturn:
    """End a call with a status, and details in the form of `google.rpc.Status`."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # abort_with_status has raised


def error_info(reason: str, **metadata: str) -> Message:
    """Return the detail that names the reason, in capitals, for programs to read."""
    detail: Message = error_details_pb2.ErrorInfo(
        reason=reason, domain=ERROR_DOMAIN, metadata=metadata
    )
    return detail


def retry_info(seconds: float) -> Message:
    """Return the detail that tells a client when to call again."""
    delay = Duration()
    delay.FromNanoseconds(round(seconds * 1e9))
    detail: Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return detail


def bad_request(field: str, description: str) -> Message:
    """Return the detail that names the part of a request that must be another."""
    detail: Message = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        ]
    )
    return detail


def quota_failure(subject: str, description: str) -> Message:
    """Return the detail that tells a rate limit from every other RESOURCE_EXHAUSTED."""
    detail: Message = error_details_pb2.QuotaFailure(
        violations=[
            error_details_pb2.QuotaFailure.Violation(subject=subject, description=description)
        ]
    )
    return detail


def details_of(error: aio.AioRpcError, detail: M) -> M | None:
    """Return the first status detail of `detail`'s type, parsed into it, or None."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type] # its stubs know no aio
        for found in status.details if status is not None else ():
            if found.Is(detail.DESCRIPTOR) and found.Unpack(detail):
                return detail
    except (ValueError, DecodeError):
        # The peer's bytes: not a status, or one that contradicts the call's own.
        return None
    return None


def quota_delay(error: aio.AioRpcError) -> float | None:
    """Return the seconds to wait where a call met a rate limit, None for any other error.

    A rate limit is told by its QuotaFailure and RetryInfo: RESOURCE_EXHAUSTED alone may be a
    message that was too large, and with a refusal it is an answer.
    """
    if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    retry = details_of(error, error_details_pb2.RetryInfo())
    if retry is None or details_of(error, error_details_pb2.QuotaFailure()) is None:
        return None
    delay: float = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return max(0.0, delay)


def parsed(reply: M | None) -> M:
    """Return a reply; grpc gives None for one whose bytes do not parse.

    Raises:
        PeerUnavailableError: They do not.
    """
    if reply is None:
        msg = "the peer's reply does not parse"
        raise PeerUnavailableError(msg, status="DOES_NOT_PARSE")
    return reply
