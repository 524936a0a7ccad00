"""Live sessions: every end leaves a record, nothing leaves before it is written down."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import pytest

from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, StoreUnavailableError
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


async def test_a_block_that_is_never_written_has_no_checkpoint(parties: Parties) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)
        session.append(list(range(16)))
        store.under_way[0].set_exception(StoreUnavailableError("gone"))
        store.under_way[1].set_result(None)
        due = await session.flush()
        assert [read_checkpoint(found.payload).block_count for found in due] == [2]


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


async def test_a_signer_that_fails_leaves_the_session_to_others(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore()
    with parties.provider(store=store) as provider:
        session = live(provider)

        def fail(payload: bytes, payload_type: str) -> envelope_pb2.Envelope:
            del payload, payload_type
            msg = "the HSM is away"
            raise RuntimeError(msg)

        monkeypatch.setattr(session._session, "_sign", fail)
        with pytest.raises(RuntimeError, match="HSM"):
            await session.finish(b"", usage(0))
        assert store.given_up == [session.session_id]


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
