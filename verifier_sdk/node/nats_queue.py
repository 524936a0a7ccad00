"""Audits handed out by NATS JetStream, to any number of workers on any number of machines.

The stream carries audit ids, no more. What an audit is, whether it is due and who holds it stands
in the database: a message that comes twice, or late, or not at all changes how soon an audit is
made and nothing else. So one worker's claim in the database is still what makes it its own.

Each audit has a subject of its own, and a subject takes one message: what waits in the stream is
not put there again. What is due later is not in the stream at all, where it would be in the way.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, BadRequestError, NotFoundError
from sqlalchemy import Engine

from coin_protocol.errors import ConfigurationError, TryLaterError
from verifier_sdk.node.sampling import ASKED_PRIORITY
from verifier_sdk.store.claims import Claim, Lease, announce_again, announce_due, claim_this

MOST_ANNOUNCED: Final = 2_000
"""Messages in the stream at a time; what waits beyond them waits in the database."""

ANNOUNCED_SECONDS: Final = 120.0
"""An audit that nobody took for so long is put into the stream again, if it is not there."""

EMPTY_SECONDS: Final = 5.0
"""The same where the stream is empty, so that it can only have been lost."""

_ANNOUNCED_AT_ONCE: Final = 200
_ASKED: Final = "asked"
_DRAWN: Final = "drawn"
_WAIT_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 10.0
_NOTHING: Final = frozenset({"404", "408"})
_FULL: Final = 10077
"""JetStream's number for a message that a full stream, or subject, does not take."""
_ERRORS: Final = (NatsError, OSError, asyncio.TimeoutError)
# Errors of JetStream are errors of NATS.


@dataclass(frozen=True, kw_only=True)
class NatsSettings:
    """Where JetStream is reached.

    Attributes:
        servers: URLs, `nats://HOST:PORT` or `tls://HOST:PORT`; they may hold a password.
        stream: Name of the stream, and first part of its subjects.
        credentials: File of NATS credentials (JWT and seed), if any.
        authorities: PEM certificates that the server's chain must end in, for TLS.
    """

    servers: list[str]
    stream: str = "COIN_AUDITS"
    credentials: Path | None = None
    authorities: Path | None = None

    def __repr__(self) -> str:
        """Leave out the servers, which may hold a password."""
        return f"NatsSettings(stream={self.stream!r})"


class NatsJob:
    """A message of the stream, and the claim that goes with it."""

    def __init__(self, message: Msg, claim: Claim) -> None:
        """Hold both."""
        self.claim = claim
        self._message = message

    async def alive(self) -> None:
        """Keep the message from being given to another worker."""
        await _quietly(self._message.in_progress)

    async def done(self) -> None:
        """Have the message deleted. Is the audit due later, it is announced anew."""
        await _quietly(self._message.ack)

    async def later(self, seconds: float) -> None:
        """Have the message come again."""
        await _quietly(lambda: self._message.nak(delay=seconds))


class NatsQueue:
    """A work queue on JetStream. Make one with `connect`."""

    def __init__(
        self, client: Client, settings: NatsSettings, engine: Engine, *, lease_seconds: float
    ) -> None:
        """Use a connection; see `connect`."""
        self._client = client
        self._context: JetStreamContext = client.jetstream(timeout=_ANSWER_SECONDS)
        self._stream = settings.stream
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(
        cls, settings: NatsSettings, engine: Engine, *, lease_seconds: float
    ) -> NatsQueue:
        """Connect, and make the stream and its consumers where they are not there.

        Args:
            settings: Where.
            engine: Of the node's database.
            lease_seconds: A message that is not spoken of for so long goes to another worker.

        Raises:
            ConfigurationError: The credentials, or the stream that is there, cannot be used.
            TryLaterError: JetStream does not answer.
        """
        client = await _connected(settings)
        queue = cls(client, settings, engine, lease_seconds=lease_seconds)
        try:
            await queue._prepare()
        except BaseException:
            await queue.close()
            raise
        return queue

    async def take(self, lease: Lease, stop: asyncio.Event) -> NatsJob | None:
        """Return an audit; see `Queue`. Those that somebody asked for come first."""
        while not stop.is_set():
            # One at a time looks: others would only ask for the same.
            async with self._turn:
                message = await self._next(_ASKED, 0.0) or await self._next(_DRAWN, _WAIT_SECONDS)
            job = None if message is None else await self._claimed(message, lease)
            if job is not None:
                return job
        return None

    async def announce(self) -> int:
        """Put what is due and not in the stream yet there; return how many that were.

        Raises:
            StoreUnavailableError: The database does not answer.
            ConfigurationError: The stream is another one by now.
            TryLaterError: JetStream does not answer; what was not sent comes up again.
        """
        held = await self._held()
        most = min(_ANNOUNCED_AT_ONCE, MOST_ANNOUNCED - held)
        if most <= 0:
            return 0
        seconds = ANNOUNCED_SECONDS if held else EMPTY_SECONDS
        due = await asyncio.to_thread(announce_due, self._engine, seconds=seconds, most=most)
        looked, sent = 0, 0
        try:
            for audit_id, priority in due:
                sent += await self._publish(audit_id, asked=priority >= ASKED_PRIORITY)
                looked += 1
        except _ERRORS as error:
            left = [audit_id for audit_id, _ in due[looked:]]
            await asyncio.to_thread(announce_again, self._engine, left)
            msg = f"JetStream did not take {len(left)} audits ({type(error).__name__})"
            raise TryLaterError(msg) from None
        return sent

    async def close(self) -> None:
        """Hang up."""
        await _quietly(self._client.close)

    async def _publish(self, audit_id: bytes, *, asked: bool) -> bool:
        """Put an audit into the stream; False where it is there, or the stream is full."""
        subject = f"{self._stream}.{_ASKED if asked else _DRAWN}.{audit_id.hex()}"
        try:
            await self._context.publish(subject, audit_id)
        except APIError as error:
            if error.err_code != _FULL:
                raise
            return False
        return True

    async def _held(self) -> int:
        """Return how many messages are in the stream, which is made anew where it is gone."""
        try:
            return (await self._context.stream_info(self._stream)).state.messages
        except NotFoundError:
            await self._prepare()
            return 0
        except _ERRORS as error:
            msg = f"JetStream does not answer ({type(error).__name__})"
            raise TryLaterError(msg) from None

    async def _prepare(self) -> None:
        wanted = _wanted(self._stream)
        try:
            try:
                found = (await self._context.stream_info(self._stream)).config
            except NotFoundError:
                found = (await self._context.add_stream(wanted)).config
            _require_same(found, wanted)
            for kind in (_ASKED, _DRAWN):
                await self._context.add_consumer(
                    self._stream,
                    ConsumerConfig(
                        durable_name=_consumer(kind),
                        filter_subject=f"{self._stream}.{kind}.*",
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=self._lease_seconds,
                        max_deliver=-1,
                        max_ack_pending=MOST_ANNOUNCED,
                    ),
                )
        except BadRequestError as error:
            msg = f"JetStream refuses the stream {self._stream}: {error.description}"
            raise ConfigurationError(msg) from None
        except _ERRORS as error:
            msg = f"JetStream does not give the stream {self._stream} ({type(error).__name__})"
            raise TryLaterError(msg) from None

    async def _next(self, kind: str, seconds: float) -> Msg | None:
        """Return a message; None where there is none within so many seconds."""
        wanted = {"expires": int(seconds * 1e9)} if seconds else {"no_wait": True}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{_consumer(kind)}"
        try:
            message = await self._client.request(
                subject,
                json.dumps({"batch": 1} | wanted).encode(),
                timeout=seconds + _ANSWER_SECONDS,
                # What comes has the subject of an audit: the client's other way looks for that
                # of the question.
                old_style=True,
            )
        except _ERRORS as error:
            msg = f"JetStream does not answer ({type(error).__name__})"
            raise TryLaterError(msg) from None
        status = (message.headers or {}).get("Status")
        if status is None:
            return message
        if status not in _NOTHING:
            msg = f"JetStream gives no messages (status {status[:20]})"
            raise TryLaterError(msg)
        return None

    async def _claimed(self, message: Msg, lease: Lease) -> NatsJob | None:
        """Return the job of a message, or answer the message where it is none now."""
        claim = await asyncio.to_thread(claim_this, self._engine, message.data, lease)
        if isinstance(claim, Claim):
            return NatsJob(message, claim)
        if claim is None or claim > ANNOUNCED_SECONDS:
            # Another worker has it for so long that it is announced by then, if that one dies.
            await _quietly(message.ack)
        else:
            await _quietly(lambda: message.nak(delay=claim))
        return None


async def is_there(settings: NatsSettings) -> bool:
    """Return whether the stream is there, and make nothing.

    Raises:
        ConfigurationError: The credentials, or the stream that is there, cannot be used.
        TryLaterError: JetStream does not answer.
    """
    client = await _connected(settings)
    context = client.jetstream(timeout=_ANSWER_SECONDS)
    try:
        found = (await context.stream_info(settings.stream)).config
    except NotFoundError:
        return False
    except _ERRORS as error:
        msg = f"JetStream does not answer ({type(error).__name__})"
        raise TryLaterError(msg) from None
    finally:
        await _quietly(client.close)
    _require_same(found, _wanted(settings.stream))
    return True


async def _connected(settings: NatsSettings) -> Client:
    """Return a connection that comes back by itself whenever it is lost.

    Raises:
        ConfigurationError: The files of the settings cannot be used, or the server refuses them.
        TryLaterError: No server answers.
    """
    tls = None
    try:
        if settings.authorities is not None:
            tls = ssl.create_default_context(cafile=str(settings.authorities))
        if settings.credentials is not None:
            settings.credentials.open("rb").close()
    except OSError as error:
        which = "credentials" if settings.authorities is None or tls is not None else "authorities"
        msg = f"cannot read the {which} of NATS: {error.strerror}"
        raise ConfigurationError(msg) from error
    last: list[Exception] = []

    async def noted(error: Exception) -> None:
        last[:] = [error]

    try:
        # Without a limit of its own the first connection is tried for ever, too.
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await nats.connect(
                servers=settings.servers,
                user_credentials=settings.credentials and str(settings.credentials),
                tls=tls,
                name="coin verifier",
                max_reconnect_attempts=-1,
                connect_timeout=5,
                error_cb=noted,
            )
    except (*_ERRORS, ValueError) as error:
        why = last[0] if last else error
        if isinstance(why, (AuthorizationError, ValueError)):
            msg = "NATS refuses these servers or credentials: look at [nats] in the settings"
            raise ConfigurationError(msg) from None
        msg = f"NATS cannot be reached ({type(why).__name__}); try again later"
        raise TryLaterError(msg) from None


def _wanted(stream: str) -> StreamConfig:
    return StreamConfig(
        name=stream,
        subjects=[f"{stream}.*.*"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        max_msgs=MOST_ANNOUNCED,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msg_size=64,
    )


def _require_same(found: StreamConfig, wanted: StreamConfig) -> None:
    """Check a stream that was there before.

    Raises:
        ConfigurationError: It is not like those that this makes.
    """
    for name in (
        "subjects",
        "retention",
        "max_msgs",
        "max_msgs_per_subject",
        "discard",
        "discard_new_per_subject",
    ):
        if getattr(found, name) != getattr(wanted, name):
            msg = (
                f"the stream {wanted.name} is there with another {name}: delete it, which loses "
                "nothing, or name another one"
            )
            raise ConfigurationError(msg)


def _consumer(kind: str) -> str:
    return f"workers-{kind}"


async def _quietly(call: Callable[[], Awaitable[None]]) -> None:
    """Make a call that may fail: what it would have said, the database knows."""
    try:
        await call()
    except _ERRORS:
        return
