"""Pass a plain reply on, with its delivery in the field `coin`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coin_protocol.decoding import Decoder
from coin_protocol.errors import LimitError
from coin_protocol.v1 import statements_pb2
from provider_sdk.gateway.asgi import Client
from provider_sdk.gateway.commits import Commits
from provider_sdk.gateway.delivery import as_document
from provider_sdk.gateway.dialects import Reader
from provider_sdk.gateway.problems import JSON_HEADERS, Problem
from provider_sdk.gateway.stream import finished, no_receipt
from provider_sdk.gateway.upstream import Reply
from provider_sdk.gateway.usage import rewritten


@dataclass(frozen=True)
class PlainManner:
    """How a plain reply is handed over.

    Attributes:
        require_receipt: A missing receipt is an error.
        rewrite_usage: The usage block carries the committed counts.
        max_reply_bytes: A larger reply is an error.
    """

    require_receipt: bool
    rewrite_usage: bool
    max_reply_bytes: int


async def relay_plain(
    client: Client,
    reply: Reply,
    reader: Reader,
    commits: Commits,
    manner: PlainManner,
    decoder: Decoder,
    headers: list[tuple[bytes, bytes]],
) -> None:
    """Read a whole reply, commit to it, and pass it on.

    Raises:
        UpstreamError: It broke off; the client has seen nothing yet.
        LimitError: It is larger than the limit.
    """
    raw = await _read_all(reply, decoder, manner.max_reply_bytes)
    step = reader.body(raw)
    # From here on there is something to commit to, whatever the client does meanwhile.
    client.unwatch()
    commits.begin()
    commits.take(step.pieces)
    ended = await finished(commits.end(statements_pb2.ABORT_REASON_UPSTREAM_ERROR))
    if manner.require_receipt and ended.delivery is not None and ended.missing:
        await answer(client, no_receipt(ended), coin=as_document(ended.delivery))
        return
    body = raw if step.same or step.data is None else step.data
    if ended.delivery is not None and reader.choices:
        body = step.with_field("coin", as_document(ended.delivery))
    if manner.rewrite_usage and (billed := commits.billed()) is not None:
        body = rewritten(body, *billed)
    length = (b"content-length", b"%d" % len(body))
    await client.start(reply.status, [*headers, length])
    await client.write(body)
    await client.end()


async def answer(
    client: Client,
    problem: Problem,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    **more: object,
) -> None:
    """Answer with an error of our own, with further headers and fields."""
    body = problem.json(**more)
    length = (b"content-length", b"%d" % len(body))
    await client.start(problem.status, [*JSON_HEADERS, length, *headers])
    await client.write(body)
    await client.end()


async def _read_all(reply: Reply, decoder: Decoder, limit: int) -> bytes:
    parts, length = [], 0
    while chunk := await reply.read():
        parts.append(decoder.feed(chunk) if decoder.changes else chunk)
        length += len(parts[-1])
        if length > limit:
            msg = f"the upstream's reply has more than {limit} bytes"
            raise LimitError(msg)
    reply.close()
    return b"".join(parts)
