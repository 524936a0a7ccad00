"""Live sessions: every end leaves a record, nothing leaves before it is written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import pytest

from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, StoreUnavailableError, TryLaterError
from coin_protocol.keys import VerificationKey
from coin_protocol.signer import KeySigner
from coin_protocol.statements import read_checkpoint, read_commitment
from coin_protocol.usage import BESIDE, INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, statements_pb2
from provider_sdk.live import LiveSession
from provider_sdk.provider import Provider
from provider_sdk.record import Delivered, MemoryStore, ReplyRef, SessionRecord
from tests.support.parties import MODEL, REQUEST, Parties

NONCE = bytes(range(32))
REF = ReplyRef("resp-1")


class SlowStore(MemoryStore):
    """A store whose writes are done when the test says so."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        super().__init__()
        self.deadline = 0.05
        self.under_way: list[Future[None]] = []
        self.given_up: list[bytes] = []

    def add_block(self, session_id: bytes, index: int, ids: npt.NDArray[np.uint32]) -> Future[None]:
        """Begin a write."""
        super().add_block(session_id, index, ids)
        return self._begin()

    def finish(
        self, record: SessionRecord, rest: npt.NDArray[np.uint32], delivered: Delivered
    ) -> Future[None]:
        """Begin a write."""
        super().finish(record, rest, delivered)
        return self._begin()

    def give_up(self, session_id: bytes) -> None:
        """Note it."""
        self.given_up.append(session_id)

    def _begin(self) -> Future[None]:
        self.under_way.append(Future())
        return self.under_way[-1]


def usage(reasoning: int, answer: int = 3) -> statements_pb2.Usage:
    return usage_for(
        prompt_tokens=5, reasoning_tokens=reasoning, answer_tokens=answer, counting=INSIDE
    )


def live(provider: Provider, ref: ReplyRef | None = REF) -> LiveSession:
    return provider.session(REQUEST, client_nonce=NONCE, model=MODEL, reply=ref)


def kept(provider: Provider) -> statements_pb2.Commitment:
    (reply,) = provider.replies("resp-1", b"")
    assert reply.choice is not None
    return read_commitment(reply.choice.commitment.payload)


async def test_a_finished_reply_is_kept_with_what_was_said_of_it(provider: Provider) -> None:
    async with live(provider) as session:
        session.append(list(range(10)))
        reply = await session.finish(
            b"answer", usage(10), delivered=Delivered(("noted",), reported=usage(11))
        )
    assert list(reply.choice.notes) == ["noted"]
    statement = read_commitment(reply.choice.commitment.payload)
    assert (statement.reasoning_tokens, statement.answer_tokens) == (10, 3)
    assert statement.abort_reason == statements_pb2.ABORT_REASON_UNSPECIFIED
    (found,) = provider.replies("resp-1", b"")
    assert (found.choice, found.reported, found.client_nonce) == (reply.choice, usage(11), NONCE)
    provider.wait_ready(digest(reply.choice.commitment.payload), 10.0)


async def test_answer_tokens_follow_the_convention_of_the_bill(provider: Provider) -> None:
    async with live(provider) as session:
        session.append([1, 2])
        beside = usage_for(prompt_tokens=1, reasoning_tokens=2, answer_tokens=7, counting=BESIDE)
        reply = await session.finish(b"", beside)
    assert read_commitment(reply.choice.commitment.payload).answer_tokens == 7


async def test_a_reply_under_way_is_known_and_has_no_commitment(provider: Provider) -> None:
    async with live(provider) as session:
        (found,) = provider.replies("resp-1", b"")
        assert found.choice is None
        await session.finish(b"", usage(0))
    assert kept(provider).reasoning_tokens == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("upstream"), statements_pb2.ABORT_REASON_UPSTREAM_ERROR),
        (asyncio.CancelledError(), statements_pb2.ABORT_REASON_CANCELLED),
        (GeneratorExit(), statements_pb2.ABORT_REASON_CANCELLED),
    ],
)
async def test_whatever_ends_the_block_leaves_an_aborted_commitment(
    provider: Provider,
    error: BaseException,
    reason: statements_pb2.AbortReason.ValueType,
) -> None:
    session = live(provider)
    await session.__aenter__()
    session.append(list(range(11)))
    await session.__aexit__(type(error), error, None)
    statement = kept(provider)
    assert statement.abort_reason == reason
    assert statement.reasoning_tokens == statement.usage.reasoning_tokens == 11
    assert statement.usage.completion_tokens == 11


async def test_a_block_left_without_an_end_is_cancelled(provider: Provider) -> None:
    async with live(provider):
        pass
    assert kept(provider).abort_reason == statements_pb2.ABORT_REASON_CANCELLED


async def test_an_abort_needs_its_reason(provider: Provider) -> None:
    async with live(provider) as session:
        with pytest.raises(InvalidInputError, match="reason"):
            await session.abort(statements_pb2.ABORT_REASON_UNSPECIFIED)
        assert not session.finished


async def test_nothing_can_be_added_to_what_has_ended(provider: Provider) -> None:
    async with live(provider) as session:
        await session.finish(b"", usage(0))
        with pytest.raises(InvalidInputError, match="finished"):
            session.append([1])
        with pytest.raises(InvalidInputError, match="finished"):
            await session.finish(b"", usage(0))


async def test_a_checkpoint_leaves_when_its_block_is_written_and_in_order(
    parties: Parties,
) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)
        assert session.append(list(range(20))) == []
        first, second = store.under_way
        second.set_result(None)
        assert session.due() == []  # the first is not written yet
        first.set_result(None)
        due = session.append([1])
        assert [read_checkpoint(found.payload).block_count for found in due] == [1, 2]
        assert session.due() == []


async def test_after_a_block_that_is_never_written_no_checkpoint_leaves(parties: Parties) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)
        session.append(list(range(16)))
        store.under_way[0].set_exception(StoreUnavailableError("gone"))
        store.under_way[1].set_result(None)
        assert await session.flush() == []  # the second speaks of the first as well
        assert session.append([1]) == []


async def test_waiting_for_checkpoints_can_be_given_up_without_losing_any(
    parties: Parties,
) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)
        session.append(list(range(8)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await session.flush()
        assert not store.under_way[0].cancelled()
        store.under_way[0].set_result(None)
        assert len(await session.flush()) == 1


async def test_a_disk_that_is_late_says_so_and_goes_on_writing(parties: Parties) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)
        with pytest.raises(StoreUnavailableError, match="still being written"):
            await session.finish(b"", usage(0))
        assert not store.under_way[-1].cancelled()
        assert session.finished


def signing_fails(payload: bytes, payload_type: str) -> envelope_pb2.Envelope:
    del payload, payload_type
    msg = "the HSM is away"
    raise RuntimeError(msg)


async def test_a_signer_that_fails_leaves_the_session_to_others(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)
        monkeypatch.setattr(session._session, "_sign", signing_fails)
        with pytest.raises(RuntimeError, match="HSM"):
            await session.finish(b"", usage(0))
        assert store.given_up == [session.session_id]


async def test_blocks_whose_checkpoint_could_not_be_signed_are_written_all_the_same(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore()
    written: list[int] = []
    add_block = store.add_block

    def note(session_id: bytes, index: int, ids: npt.NDArray[np.uint32]) -> Future[None]:
        written.append(index)
        return add_block(session_id, index, ids)

    monkeypatch.setattr(store, "add_block", note)
    with parties.provider(store=store) as provider:
        session = live(provider)
        with monkeypatch.context() as away:
            away.setattr(session._session, "_sign", signing_fails)
            with pytest.raises(RuntimeError, match="HSM"):
                session.append(list(range(20)))
        session.append(list(range(8)))
        assert written == [0, 1, 2]
        with monkeypatch.context() as away:
            away.setattr(session._session, "_sign", signing_fails)
            with pytest.raises(RuntimeError, match="HSM"):
                session.append(list(range(8)))
        session._end(statements_pb2.ABORT_REASON_CANCELLED, b"", usage(36, 0), None)
        assert written == [0, 1, 2, 3]


async def test_a_number_out_of_its_limits_ends_nothing(provider: Provider) -> None:
    async with live(provider) as session:
        with pytest.raises(InvalidInputError, match="answer_tokens"):
            await session.finish(b"", usage(0), answer_tokens=-1)
        assert not session.finished
        await session.finish(b"", usage(0))


async def test_a_reply_nobody_asks_for_again_needs_no_name(provider: Provider) -> None:
    async with live(provider, None) as session:
        reply = await session.finish(b"", usage(0))
    assert reply.choice.HasField("commitment")


# A key that is elsewhere


class FarSigner:
    """A key that is reached over a network, and takes its time."""

    seconds = 0.15

    def __init__(self, key: KeySigner) -> None:
        """Sign with a key in memory, late."""
        self._key = key
        self.fails = False

    @property
    def public(self) -> VerificationKey:
        """The public half."""
        return self._key.public

    def current(self) -> FarSigner:
        """Return this signer."""
        return self

    def sign(self, data: bytes) -> bytes:
        """Return a signature, after a while; or fail."""
        time.sleep(self.seconds)
        if self.fails:
            msg = "the HSM is away"
            raise TryLaterError(msg)
        return self._key.sign(data)


@pytest.fixture
def far(parties: Parties) -> Iterator[tuple[Provider, FarSigner]]:
    """A provider whose key is elsewhere."""
    signer = FarSigner(parties.signer)
    with parties.provider(signer=signer) as provider:
        yield provider, signer


async def longest_gap(job: Awaitable[object]) -> float:
    """Return the longest time for which nothing else ran while a job did."""
    longest, over = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        last = time.monotonic()
        while not over.is_set():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        await job
    finally:
        over.set()
        await ticking
    return longest


async def test_a_slow_signature_holds_up_nothing_else(far: tuple[Provider, FarSigner]) -> None:
    provider, signer = far
    found: list[envelope_pb2.Envelope] = []

    async def whole() -> None:
        async with live(provider) as session:
            for _ in range(4):
                found.extend(session.append(list(range(5))))
                await asyncio.sleep(0)
            found.extend(await session.flush())
            session.append(list(range(12)))
            reply = await session.finish(b"answer", usage(32))
            found.extend(reply.checkpoints)

    assert await longest_gap(whole()) < signer.seconds
    assert [read_checkpoint(each.payload).block_count for each in found] == [1, 2, 3, 4]
    assert kept(provider).reasoning_tokens == 32


@pytest.mark.parametrize("error", [RuntimeError("upstream"), asyncio.CancelledError()])
async def test_a_slow_signature_holds_up_nobody_who_leaves(
    far: tuple[Provider, FarSigner], error: BaseException
) -> None:
    provider, signer = far
    session = live(provider)
    session.append(list(range(11)))
    begin = time.monotonic()
    await session.__aexit__(type(error), error, None)
    assert time.monotonic() - begin < signer.seconds
    with pytest.raises(InvalidInputError, match="finished"):
        session.append([1])
    provider.close()
    assert kept(provider).reasoning_tokens == 11


async def test_who_stops_waiting_for_a_slow_signature_ends_the_session_all_the_same(
    far: tuple[Provider, FarSigner],
) -> None:
    provider, _ = far

    async def whole() -> None:
        async with live(provider) as session:
            session.append([1, 2, 3])
            await session.finish(b"", usage(3))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(whole(), 0.05)
    provider.close()
    assert kept(provider).abort_reason == statements_pb2.ABORT_REASON_UNSPECIFIED
    assert kept(provider).reasoning_tokens == 3


async def test_a_checkpoint_that_a_far_signer_fails_is_left_out(
    far: tuple[Provider, FarSigner],
) -> None:
    provider, signer = far
    async with live(provider) as session:
        signer.fails = True
        session.append(list(range(8)))
        assert await session.flush() == []
        with pytest.raises(InvalidInputError, match="answer_tokens"):
            await session.finish(b"", usage(8), answer_tokens=-1)
        signer.fails = False
        found = session.append(list(range(8))) + await session.flush()
        assert [read_checkpoint(each.payload).block_count for each in found] == [2]
        await session.finish(b"", usage(16))
        with pytest.raises(InvalidInputError, match="finished"):
            await session.finish(b"", usage(16))
    assert kept(provider).reasoning_tokens == 16
