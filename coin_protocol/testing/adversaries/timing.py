"""Lies about when it was committed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from coin_protocol.v1 import replay_service_pb2 as replay_pb
from provider_sdk.replay import Replay, Trace
from provider_sdk.session import Session


class TokensAfterAnswer(Replay):
    """Sends the answer first, then commits to reasoning as fast as it can hash."""

    async def stream(
        self, model: str, request: bytes, client_nonce: bytes
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield the answer, then checkpoints that no decoding paced."""
        trace = self.find(request)
        session = self.provider.open_session(
            model=model, request=request, client_nonce=client_nonce
        )
        async for event in self.answer(trace):
            yield event
        for checkpoint in session.append(self.tokenizer.encode(trace.reasoning)):
            yield replay_pb.GenerateResponse(checkpoint=checkpoint)
        yield self.finish(session, trace, request)


class CommitsQuietly(TokensAfterAnswer):
    """Commits after the answer, and shows no checkpoint of it."""

    async def stream(
        self, model: str, request: bytes, client_nonce: bytes
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield the answer and the commitment."""
        async for event in super().stream(model, request, client_nonce):
            if not event.HasField("checkpoint"):
                yield event


class BunchedCheckpoints(Replay):
    """Keeps all checkpoints back until the answer begins."""

    async def reason(
        self, session: Session, trace: Trace
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield all checkpoints at the end."""
        kept = [event async for event in super().reason(session, trace)]
        for event in kept:
            yield event
