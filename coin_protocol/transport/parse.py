"""Parse requests where a failure can be answered."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from coin_protocol.transport.status import Context, abort


class ParseRequests(aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT to bytes that do not parse; grpc would name a Python class."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handlers are untyped
        """Put the parsing of requests inside the handler, where it can be answered."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse, unary, stream = (
            handler.request_deserializer,
            handler.unary_unary,
            handler.unary_stream,
        )

        async def read(raw: bytes, context: Context) -> Message:
            try:
                message: Message = parse(raw)
            except DecodeError:
                await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "not the message wanted")
            return message

        async def answer(raw: bytes, context: Context) -> Message:
            reply: Message = await unary(await read(raw, context), context)
            return reply

        async def answer_stream(raw: bytes, context: Context) -> AsyncIterator[Message]:
            async for reply in stream_of(stream, await read(raw, context), context):
                yield reply

        if unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                answer, response_serializer=handler.response_serializer
            )
        if stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                answer_stream, response_serializer=handler.response_serializer
            )
        return handler


async def stream_of(
    stream: Callable[[Any, Context], Any],
    request: Any,  # noqa: ANN401 - grpc's own handlers are untyped
    context: Context,
) -> AsyncIterator[Any]:
    """Give a streaming handler's replies, whichever of grpc's two ways it sends them by."""
    replies = stream(request, context)
    if inspect.isawaitable(replies):
        # It writes to the context itself, as that of health does.
        await replies
        return
    async for reply in replies:
        yield reply
