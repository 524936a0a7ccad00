"""Clients that stream replies through the gateways, and hold whatever they are given."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import aiohttp
from google.protobuf import json_format

from benchmarks._faults.children import Child, Life
from coin_protocol.v1 import delivery_pb2, envelope_pb2
from verifier_sdk.recorder import Recorder

RECEIPTS: Final = "/coin/v1/receipts/"
_STALL_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.1
_ASKS: Final = 3
_HANG_UP_SHARE: Final = 0.08
_TWO_CHOICES_SHARE: Final = 0.2
_CHECKPOINT: Final = b": coin.checkpoint "
_RECEIPT: Final = b": coin.receipt "
_DATA: Final = b"data: "


class Fate(StrEnum):
    """What became of a reply."""

    WHOLE = "whole"
    BROKEN = "broken"
    """The connection ended before the reply did."""
    HUNG_UP = "hung up"
    """The client ended it."""
    UNANSWERED = "unanswered"
    """The connection ended before the reply began."""
    REFUSED = "refused"
    """Another status than 200."""


@dataclass
class Reply:
    """One reply as a client saw it.

    Attributes:
        question: Its number.
        choices: How many were asked for.
        key: The client's credentials.
        request: Exact bytes.
        nonce: Chosen by the client.
        life: The gateway that carried it.
        fate: What became of it.
        why: In words.
        response_id: Empty until known.
        recorders: Of each choice that showed.
        checkpoints: Held, by choice.
        texts: Pieces of the answer, by choice.
        delivery: What came at the end.
    """

    question: int
    choices: int
    key: str
    request: bytes
    nonce: bytes
    life: Life
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    fate: Fate = Fate.BROKEN
    why: str = ""
    response_id: str = ""
    recorders: dict[int, Recorder] = field(default_factory=dict)
    checkpoints: dict[int, list[envelope_pb2.Envelope]] = field(default_factory=dict)
    texts: dict[int, list[str]] = field(default_factory=dict)
    delivery: delivery_pb2.Delivery | None = None

    @property
    def by_kill(self) -> bool:
        """Whether the gateway that carried it was killed meanwhile."""
        killed = self.life.killed_at
        return killed is not None and self.began <= killed <= self.ended

    def recorder(self, choice: int) -> Recorder:
        """Return the recorder of a choice, started when the request was sent."""
        if choice not in self.recorders:
            msg = f"the reply has a choice {choice}, asked for were {self.choices}"
            raise ValueError(msg)
        return self.recorders[choice]

    def line(self, line: bytes) -> bool:
        """Take a line of the stream; return whether it is the last."""
        if line.startswith(_CHECKPOINT):
            found = delivery_pb2.DeliveredCheckpoint()
            json_format.Parse(line.removeprefix(_CHECKPOINT), found)
            self.recorder(found.choice).checkpoint(found.checkpoint)
            self.checkpoints.setdefault(found.choice, []).append(found.checkpoint)
        elif line.startswith(_RECEIPT):
            self.delivery = json_format.Parse(line.removeprefix(_RECEIPT), delivery_pb2.Delivery())
        elif line.startswith(_DATA):
            data = line.removeprefix(_DATA).strip()
            if data == b"[DONE]":
                return True
            self._event(json.loads(data))
        return False

    def _event(self, event: dict[str, Any]) -> None:
        self.response_id = event["id"]
        for choice in event.get("choices", ()):
            text = choice["delta"].get("content") or ""
            self.recorder(choice["index"]).answer_delta(text)
            self.texts.setdefault(choice["index"], []).append(text)


class Load:
    """Clients in parallel, over whichever gateways are up."""

    def __init__(self, gateways: Sequence[Child], seed: int) -> None:
        """Prepare; nothing is sent before `client`.

        Args:
            gateways: To be asked.
            seed: Of everything that is left to chance here.
        """
        self.replies: list[Reply] = []
        self.whole: asyncio.Queue[Reply] = asyncio.Queue()
        self._gateways = gateways
        self._chance = random.Random(f"load {seed}")  # noqa: S311 - no secret
        self._questions: Iterator[int] = itertools.count(1)

    async def client(self, name: str, stop: asyncio.Event) -> None:
        """Ask one question after the other until `stop`, each again until it is answered."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_STALL_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not stop.is_set():
                question = next(self._questions)
                while not stop.is_set():
                    reply = await self._ask(session, question, name)
                    if reply.fate in (Fate.WHOLE, Fate.HUNG_UP):
                        break
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession, question: int, key: str) -> Reply:
        chance = self._chance
        choices = 2 if chance.random() < _TWO_CHOICES_SHARE else 1
        hangs_up = chance.randint(1, 20) if chance.random() < _HANG_UP_SHARE else 0
        body = {
            "model": "acme-1",
            "messages": [{"role": "user", "content": f"question {question}"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "n": choices,
        }
        life = await chance.choice(self._gateways).ready()
        reply = Reply(
            question, choices, key, json.dumps(body).encode(), secrets.token_bytes(32), life
        )
        for choice in range(choices):
            reply.recorders[choice] = Recorder(request=reply.request, client_nonce=reply.nonce)
        self.replies.append(reply)
        try:
            reply.fate = await _stream(session, reply, hangs_up)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reply.why = f"{type(error).__name__}: {error}"
            answered = reply.response_id or reply.fate is Fate.BROKEN
            reply.fate = Fate.BROKEN if answered else Fate.UNANSWERED
        reply.ended = time.monotonic()
        if reply.fate is Fate.WHOLE:
            self.whole.put_nowait(reply)
        return reply


async def _stream(session: aiohttp.ClientSession, reply: Reply, hangs_up: int) -> Fate:
    """Read a reply to its end, or to the event at which the client hangs up."""
    reply.fate = Fate.UNANSWERED
    async with session.post(
        f"http://{reply.life.target}/v1/chat/completions",
        data=reply.request,
        headers={
            "authorization": f"Bearer {reply.key}",
            "content-type": "application/json",
            "coin-nonce": reply.nonce.hex(),
        },
    ) as response:
        reply.fate = Fate.BROKEN
        if response.status != 200:
            reply.why = f"status {response.status}: {(await response.text())[:200]}"
            return Fate.REFUSED
        rest, done, pieces = b"", False, 0
        async for piece in response.content.iter_any():
            pieces += 1
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                done = reply.line(line) or done
            if pieces == hangs_up and not done:
                response.close()
                return Fate.HUNG_UP
        if not done:
            reply.why = "the stream ended without [DONE]"
            return Fate.BROKEN
        return Fate.WHOLE


async def ask_again(
    session: aiohttp.ClientSession, gateway: Child, reply: Reply
) -> delivery_pb2.Delivery | None:
    """Return the delivery of a reply that was asked for by its id; None where there is none."""
    life = await gateway.ready()
    for _ in range(_ASKS):
        async with session.get(
            f"http://{life.target}{RECEIPTS}{reply.response_id}",
            headers={"authorization": f"Bearer {reply.key}"},
        ) as response:
            if response.status in (202, 503):
                await asyncio.sleep(1)
                continue
            if response.status != 200:
                return None
            found = delivery_pb2.Delivery()
            return json_format.Parse(await response.text(), found)
    return None
