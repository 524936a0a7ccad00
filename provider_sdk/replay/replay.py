"""Stream a trace as a model would generate it, with checkpoints and the commitment."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, TypeVar

import grpc

from coin_protocol import transport
from coin_protocol.errors import CoinError, InvalidInputError
from coin_protocol.statements import read_commitment
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import replay_service_pb2 as pb
from coin_protocol.v1 import replay_service_pb2_grpc as pb_grpc
from provider_sdk.provider import Provider
from provider_sdk.replay.traces import Trace
from provider_sdk.session import Session

T = TypeVar("T")

_CHUNK: Final = 16
"""Tokens, or words of the answer, decoded between two looks at the clock."""


class Replay:
    """A model that reasons in recorded traces."""

    def __init__(
        self,
        provider: Provider,
        traces: Sequence[Trace],
        *,
        tokens_per_second: float = 2_500.0,
    ) -> None:
        """Answer the questions of `traces` at a steady decode rate."""
        self.provider = provider
        self.tokenizer = provider.tokenizer
        self._traces = {name: trace for trace in traces for name in (trace.id, trace.question)}
        self._rate = tokens_per_second

    async def stream(
        self, model: str, request: bytes, client_nonce: bytes
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Yield checkpoints, then the answer, then what ends the stream.

        Raises:
            InvalidInputError: The request is not one of a trace's question.
        """
        trace = self.find(request)
        session = self.provider.open_session(
            model=model, request=request, client_nonce=client_nonce
        )
        async for event in self.reason(session, trace):
            yield event
        async for event in self.answer(trace):
            yield event
        yield self.finish(session, trace, request)

    async def reason(self, session: Session, trace: Trace) -> AsyncIterator[pb.GenerateResponse]:
        """Yield checkpoints while the reasoning is decoded."""
        ids = self.tokenizer.encode(trace.reasoning)
        async for chunk in self._paced(ids):
            for checkpoint in session.append(chunk):
                yield pb.GenerateResponse(checkpoint=checkpoint)

    async def answer(self, trace: Trace) -> AsyncIterator[pb.GenerateResponse]:
        """Yield the answer's text while it is decoded."""
        words = re.findall(r"\s*\S+|\s+", trace.answer)
        async for chunk in self._paced(words):
            yield pb.GenerateResponse(answer_delta="".join(chunk))

    def finish(self, session: Session, trace: Trace, request: bytes) -> pb.GenerateResponse:
        """Commit, and return what ends the stream."""
        # One more for the stop token.
        answer_tokens = len(self.tokenizer.encode(trace.answer)) + 1
        usage = usage_for(
            prompt_tokens=len(self.tokenizer.encode(request.decode())),
            reasoning_tokens=session.token_count,
            answer_tokens=answer_tokens,
            counting=INSIDE,
        )
        commitment = session.finish(
            answer=trace.answer.encode(), answer_tokens=answer_tokens, usage=usage
        )
        return pb.GenerateResponse(
            final=pb.Final(
                commitment=commitment,
                key_set=self.provider.key_set,
                usage=read_commitment(commitment.payload).usage,
            )
        )

    def find(self, request: bytes) -> Trace:
        """Return the trace that a chat request asks for, by its question or its id.

        Raises:
            InvalidInputError: It is no chat request, or asks something else.
        """
        try:
            question = json.loads(request)["messages"][-1]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            msg = 'the request must be JSON like {"messages": [{"content": "…"}]}'
            raise InvalidInputError(msg) from error
        try:
            return self._traces[question]
        except (KeyError, TypeError):
            known = ", ".join(sorted({trace.id for trace in self._traces.values()}))
            msg = f"no trace answers this; ask by id: {known}"
            raise InvalidInputError(msg) from None

    async def _paced(self, items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
        """Yield chunks of `items` at the decode rate, by the clock and not by naps."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for at in range(0, len(items), _CHUNK):
            chunk = items[at : at + _CHUNK]
            due = start + (at + len(chunk)) / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield chunk


class ReplayServicer(pb_grpc.ReplayServiceServicer):
    """`ReplayService` over `grpc.aio`: replays by the name of their model."""

    def __init__(self, replays: Mapping[str, Replay]) -> None:
        """Serve `replays`."""
        self._replays = replays

    async def Generate(
        self, request: pb.GenerateRequest, context: transport.Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Stream one reply."""
        try:
            replay = self._replays.get(request.model)
            if replay is None:
                msg = f"no model {request.model!r}; there are {', '.join(self._replays)}"
                raise InvalidInputError(msg)
            async for event in replay.stream(request.model, request.request, request.client_nonce):
                yield event
        except CoinError as error:
            await transport.abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
