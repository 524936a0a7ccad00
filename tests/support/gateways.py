"""What a gateway sends for a request, as bytes; a real provider signs its receipts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from coin_protocol.answer import ToolCall, answer_bytes
from coin_protocol.delivery import CHECKPOINT, DELIVERY_FORMAT, RECEIPT
from coin_protocol.sse import comment, data_event
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import delivery_pb2 as pb
from coin_protocol.v1 import envelope_pb2, statements_pb2
from provider_sdk.provider import Provider
from tests.support.parties import ANSWER, MODEL, Clock, let_pass, reasoning_ids

ID = "chatcmpl-1"
CALLS = (ToolCall("weather", '{"city": "Paris"}'), ToolCall("time", "{}"))


def json_of(message: Message) -> dict[str, Any]:
    """Return protobuf's own JSON mapping, as a gateway writes it."""
    document: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return document


@dataclass
class Signed:
    """One choice, signed for: what is handed over of it."""

    choice: int
    checkpoints: list[envelope_pb2.Envelope]
    commitment: envelope_pb2.Envelope
    usage: statements_pb2.Usage

    def delivered(self) -> pb.DeliveredChoice:
        """Return what the delivery says of it."""
        return pb.DeliveredChoice(choice=self.choice, commitment=self.commitment)


@dataclass
class SmallGateway:
    """Answers requests of one client, whose clock it lets pass as a model decodes.

    Attributes:
        calls: Of tools, in place of text.
        edit: Changes the delivery.
        nonces: Of the requests so far.
        signed: The choices of the last one's reply.
    """

    provider: Provider
    clock: Clock
    answer: str = ANSWER
    calls: Sequence[ToolCall] = ()
    choices: int = 1
    usage: bool = True
    edit: Callable[[pb.Delivery], object] = lambda _: None
    nonces: list[bytes] = field(default_factory=list)
    signed: list[Signed] = field(default_factory=list)

    def stream(self, request: bytes, nonce: bytes) -> Iterator[bytes]:
        """Yield a streamed chat event by event, time passing between them."""
        self.nonces.append(nonce)
        signed = self.signed = []
        for choice in range(self.choices):
            yield self._chunk({"index": choice, "delta": {"role": "assistant", "content": ""}})
            one = self._signed(request, nonce, choice)
            for checkpoint in one.checkpoints:
                self._pass(0.01)
                found = pb.DeliveredCheckpoint(choice=choice, checkpoint=checkpoint)
                yield comment(CHECKPOINT, json.dumps(json_of(found)).encode())
            signed.append(one)
        for choice in range(self.choices):
            for word in self.answer.split(" ") if not self.calls else ():
                self._pass(0.01)
                yield self._chunk({"index": choice, "delta": {"content": word + " "}})
            for place, call in enumerate(self.calls):
                self._pass(0.01)
                name = {"name": call.name, "arguments": call.arguments[:3]}
                rest = {"arguments": call.arguments[3:]}
                yield self._chunk({"index": choice, "delta": {"tool_calls": [
                    {"index": place, "id": "call", "function": name}]}})  # fmt: skip
                yield self._chunk({"index": choice, "delta": {"tool_calls": [
                    {"index": place, "function": rest}]}})  # fmt: skip
            yield self._chunk({"index": choice, "delta": {}, "finish_reason": "stop"})
        if self.usage:
            last = {**self._head(), "choices": [], "usage": self._usage(signed)}
            yield data_event(json.dumps(last).encode())
        yield comment(RECEIPT, json.dumps(json_of(self.delivery(signed, nonce))).encode())
        yield b"data: [DONE]\n\n"

    def plain(self, request: bytes, nonce: bytes) -> bytes:
        """Return a plain chat."""
        self.nonces.append(nonce)
        signed = [self._signed(request, nonce, choice) for choice in range(self.choices)]
        self.signed = signed
        said = None if self.calls else self.said
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if self.calls:
            message["tool_calls"] = [
                {"id": "call", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.calls
            ]
        document = {
            **self._head(),
            "choices": [
                {"index": one.choice, "message": message, "finish_reason": "stop"} for one in signed
            ],
            "usage": self._usage(signed),
            "coin": json_of(self.delivery(signed, nonce)),
        }
        self._pass(0.5)
        return json.dumps(document).encode()

    @property
    def said(self) -> str:
        """The text that is said, in either form."""
        return "".join(word + " " for word in self.answer.split(" "))

    def delivery(self, signed: Sequence[Signed], nonce: bytes) -> pb.Delivery:
        """Return what is handed over at the end."""
        found = pb.Delivery(
            format=DELIVERY_FORMAT,
            response_id=ID,
            client_nonce=nonce,
            nonce_from_client=True,
            key_set=self.provider.key_set,
            choices=[one.delivered() for one in signed],
        )
        self.edit(found)
        return found

    def _signed(self, request: bytes, nonce: bytes, choice: int) -> Signed:
        session = self.provider.open_session(model=MODEL, request=request, client_nonce=nonce)
        checkpoints = []
        for at in range(0, 40, 8):
            let_pass(self.provider, 0.01)
            checkpoints += session.append(reasoning_ids(40)[at : at + 8])
        answer = answer_bytes("" if self.calls else self.said, self.calls)
        usage = usage_for(
            prompt_tokens=11 if choice == 0 else 0,
            reasoning_tokens=40,
            answer_tokens=9,
            counting=INSIDE,
        )
        commitment = session.finish(answer=answer, answer_tokens=9, usage=usage)
        return Signed(choice, checkpoints, commitment, usage)

    def _usage(self, signed: Sequence[Signed]) -> dict[str, Any]:
        completion = sum(one.usage.completion_tokens for one in signed)
        reasoning = sum(one.usage.reasoning_tokens for one in signed)
        return {
            "prompt_tokens": 11,
            "completion_tokens": completion,
            "total_tokens": 11 + completion,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def _head(self) -> dict[str, Any]:
        return {"id": ID, "object": "chat.completion", "created": 1, "model": MODEL}

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return data_event(json.dumps({**self._head(), "choices": [choice]}).encode())

    def _pass(self, seconds: float) -> None:
        self.clock.advance(seconds)


Answer = Callable[[Any], tuple[dict[str, str], Iterable[bytes | Exception]]]
"""Gives headers and pieces of a body for a request."""


def mocked(library: Any, answer: Answer) -> Any:
    """Return a transport of a library, sync and async, that gives headers and pieces of a body.

    A piece that is an exception is raised in its place.
    """

    class Body(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, pieces: Iterable[bytes | Exception]) -> None:
            self.pieces = pieces
            self.closed = False

        def __iter__(self) -> Iterator[bytes]:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self:
                yield piece

        def close(self) -> None:
            self.closed = True

        async def aclose(self) -> None:
            self.closed = True

    def handle(request: Any) -> Any:
        headers, pieces = answer(request)
        status = int(headers.pop("status", "200"))
        return library.Response(status, headers=headers, stream=Body(pieces))

    return library.MockTransport(handle)
