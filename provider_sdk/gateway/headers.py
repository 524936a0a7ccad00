"""Which headers go through, and what the gateway itself reads of them."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from coin_protocol.delivery import NONCE_HEADER, read_nonce_header
from coin_protocol.encoding import tag
from coin_protocol.errors import InvalidInputError
from coin_protocol.limits import HASH_BYTES, NONCE_MAX_BYTES, NONCE_MIN_BYTES

RawHeaders = Iterable[tuple[bytes, bytes]]

NONCE: Final = NONCE_HEADER.encode()
DELIVERY: Final = b"coin-delivery"

# RFC 9110, section 7.6.1, and what browsers and proxies still send.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Written anew for the other side.
_REQUEST_OWN: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_CREDENTIALS: Final = (b"authorization", b"api-key", b"x-api-key")
_CALLER_TAG: Final = tag("coin.caller.v1")


@dataclass(frozen=True, slots=True)
class Nonce:
    """The nonce of a request, and who chose it."""

    value: bytes
    from_client: bool


def upstream_headers(headers: RawHeaders, *, drop: Iterable[bytes] = ()) -> list[tuple[str, str]]:
    """Return what of a client's headers goes to the upstream, in its order.

    Args:
        headers: As ASGI gives them, names in lower case.
        drop: Further names to leave out.
    """
    headers = list(headers)
    left_out = _REQUEST_OWN | _named_by_connection(headers) | frozenset(drop)
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name not in left_out
    ]


def client_headers(headers: RawHeaders, *, drop: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """Return what of an upstream's headers goes to the client, in its order."""
    lowered = [(name.lower(), value) for name, value in headers]
    left_out = _HOP_BY_HOP | _named_by_connection(lowered) | frozenset(drop)
    return [(name, value) for name, value in lowered if name not in left_out]


def caller_digest(headers: RawHeaders, key: bytes) -> bytes:
    """Return what stands for a caller's credentials, 32 bytes; empty where it sent none.

    Args:
        headers: As ASGI gives them.
        key: Makes it useless to guess credentials from the digest alone.
    """
    sent = [(name, value) for name, value in headers if name in _CREDENTIALS]
    if not sent:
        return b""
    digest = hmac.new(key, _CALLER_TAG, sha256)
    for name, value in sorted(sent):
        digest.update(len(name).to_bytes(4) + name + len(value).to_bytes(4) + value)
    return digest.digest()


def read_nonce(headers: Mapping[bytes, bytes]) -> Nonce:
    """Return the client's nonce, or one drawn here where it sent none.

    Raises:
        InvalidInputError: The header holds neither hex nor base64url of 16 to 64 bytes.
    """
    sent = headers.get(NONCE)
    if sent is None:
        return Nonce(secrets.token_bytes(HASH_BYTES), from_client=False)
    value = read_nonce_header(sent)
    if value is None:
        msg = (
            f"the header {NONCE.decode()} must hold {NONCE_MIN_BYTES} to {NONCE_MAX_BYTES} bytes "
            "as hex or base64url"
        )
        raise InvalidInputError(msg)
    return Nonce(value, from_client=True)


def _named_by_connection(headers: RawHeaders) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    )


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the gateway reads of a request's headers.

    Attributes:
        nonce: The client's, or drawn here.
        caller: Digest of its credentials.
        in_chunks: Whether the delivery comes as a field of a chunk instead of a comment.
        encoded: Whether the body is compressed, so that it cannot be read as it is.
    """

    nonce: Nonce
    caller: bytes = field(repr=False)
    in_chunks: bool
    encoded: bool


def read_facts(headers: list[tuple[bytes, bytes]], caller_key: bytes) -> RequestFacts:
    """Return what the gateway reads of a request's headers.

    Raises:
        InvalidInputError: The nonce is malformed.
    """
    found = dict(headers)
    return RequestFacts(
        nonce=read_nonce(found),
        caller=caller_digest(headers, caller_key),
        in_chunks=found.get(DELIVERY, b"").strip().lower() == b"chunk",
        encoded=found.get(b"content-encoding", b"identity").strip().lower() != b"identity",
    )
