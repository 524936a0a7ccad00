"""Pass a request and its reply through, byte for byte, streamed both ways."""

from __future__ import annotations

from collections.abc import AsyncIterable

from provider_sdk.gateway.asgi import Client, Scope
from provider_sdk.gateway.headers import DELIVERY, NONCE, client_headers, upstream_headers
from provider_sdk.gateway.upstream import Reply, Upstream, UpstreamError
from provider_sdk.ops.metrics import Metrics

OWN_HEADERS = (NONCE, DELIVERY)


def target_of(scope: Scope) -> str:
    """Return the raw path and query of a request, as the client wrote them."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")


async def pass_through(client: Client, scope: Scope, upstream: Upstream, metrics: Metrics) -> None:
    """Pass a request on as it is, and its reply.

    Raises:
        UpstreamError: It could not be reached; the client has seen nothing yet.
        ClientGoneError: The client hung up before the end of its request.
    """
    given = dict(scope["headers"])
    headers = upstream_headers(scope["headers"], drop=OWN_HEADERS)
    body: AsyncIterable[bytes] | None = None
    if length := given.get(b"content-length"):
        headers.append(("content-length", length.decode("latin-1")))
    if given.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in given:
        body = client.pieces()
    else:
        client.watch()
    reply = await upstream.request(scope["method"], target_of(scope), headers, body)
    client.watch()
    await pass_reply(client, reply, metrics)


async def pass_reply(client: Client, reply: Reply, metrics: Metrics) -> None:
    """Pass a reply on as it is: status, headers and bytes; broken off where it breaks off."""
    try:
        await client.start(reply.status, client_headers(reply.headers))
        try:
            while chunk := await reply.read():
                await client.write(chunk)
        except UpstreamError as error:
            metrics.gateway.upstream_failures.labels(kind=error.kind).inc()
            await client.cut()
        else:
            await client.end()
    finally:
        reply.close()
