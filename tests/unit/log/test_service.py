"""`LogService` over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from sqlalchemy.exc import OperationalError

from coin_protocol import transport
from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.merkle import leaf_hash, verify_consistency, verify_inclusion
from coin_protocol.v1 import log_service_pb2 as pb
from coin_protocol.v1 import log_service_pb2_grpc as pb_grpc
from tests.support.log_entries import House, leaves
from tests.support.servers import served
from verifier_sdk.log.service import SERVICE, LogServicer

Stub = Any
UNKNOWN = 0x7FFF_FFFF_FFFF_FFFF


@asynccontextmanager
async def asking(house: House) -> AsyncIterator[Stub]:
    """Serve a log, and give a client's stub."""
    server = await transport.make_server(SERVICE)
    workers = transport.Workers()
    pb_grpc.add_LogServiceServicer_to_server(LogServicer(house.log, workers), server)
    async with served(server) as target, transport.open_channel(target, None) as channel:
        yield pb_grpc.LogServiceStub(channel)
    workers.close()


async def test_what_a_client_is_given_verifies(house: House) -> None:
    house.append(300)
    house.append(7)
    data = leaves(0, 307)
    async with asking(house) as stub:
        note = (await stub.GetCheckpoint(pb.GetCheckpointRequest())).checkpoint
        head = verify_checkpoint(note, house.signer.verifier).checkpoint
        assert head.size == 307
        hashed = leaf_hash(data[5])
        newest = await stub.GetInclusionProof(pb.GetInclusionProofRequest(leaf_hash=hashed))
        assert newest.checkpoint == note
        old = await stub.GetInclusionProof(
            pb.GetInclusionProofRequest(leaf_hash=hashed, tree_size=300)
        )
        assert not old.checkpoint
        first = await stub.GetInclusionProof(pb.GetInclusionProofRequest(index=0))
        proof = await stub.GetConsistencyProof(
            pb.GetConsistencyProofRequest(old_size=300, new_size=307)
        )
        entries = await stub.GetEntries(pb.GetEntriesRequest(start=299, count=1000))
    for size, index, found in ((307, 5, newest), (300, 5, old), (307, 0, first)):
        assert found.index == index
        verify_inclusion(
            leaf_hash=leaf_hash(data[index]),
            index=index,
            size=size,
            proof=list(found.proof),
            root=house.tree.root(size),
        )
    verify_consistency(
        old_size=300,
        new_size=307,
        old_root=house.tree.root(300),
        new_root=head.root,
        proof=list(proof.proof),
    )
    assert list(entries.entries) == data[299:]


Call = Callable[[Stub], Awaitable[Any]]


def inclusion(**fields: Any) -> Call:
    return lambda stub: stub.GetInclusionProof(pb.GetInclusionProofRequest(**fields))


async def checkpoint(stub: Stub) -> Any:
    return await stub.GetCheckpoint(pb.GetCheckpointRequest())


def consistency(old: int, new: int) -> Call:
    request = pb.GetConsistencyProofRequest(old_size=old, new_size=new)
    return lambda stub: stub.GetConsistencyProof(request)


def entries(start: int, count: int) -> Call:
    return lambda stub: stub.GetEntries(pb.GetEntriesRequest(start=start, count=count))


async def failed(stub: Stub, call: Call) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await call(stub)
    return error.value


@pytest.mark.parametrize(
    ("call", "code", "reason", "field"),
    [
        (inclusion(), "INVALID_ARGUMENT", "ARGUMENT_INVALID", "entry"),
        (inclusion(leaf_hash=bytes(33)), "INVALID_ARGUMENT", "ARGUMENT_INVALID", "leaf_hash"),
        (inclusion(index=1 << 63), "INVALID_ARGUMENT", "ARGUMENT_INVALID", "index"),
        (inclusion(leaf_hash=bytes(32)), "NOT_FOUND", "ENTRY_UNKNOWN", None),
        (inclusion(index=UNKNOWN), "NOT_FOUND", "ENTRY_UNKNOWN", None),
        (inclusion(index=0, tree_size=1), "NOT_FOUND", "HEAD_UNKNOWN", None),
        (consistency(3, (1 << 64) - 1), "INVALID_ARGUMENT", "ARGUMENT_INVALID", "old_size"),
        (consistency(2, 3), "NOT_FOUND", "HEAD_UNKNOWN", None),
        (entries(0, 0), "INVALID_ARGUMENT", "ARGUMENT_INVALID", "count"),
    ],
)
async def test_what_cannot_be_answered_says_why(
    lite: House, call: Call, code: str, reason: str, field: str | None
) -> None:
    lite.append(3)
    async with asking(lite) as stub:
        error = await failed(stub, call)
    assert error.code() == grpc.StatusCode[code]
    info = transport.details_of(error, error_details_pb2.ErrorInfo())
    assert info is not None
    assert (info.reason, info.domain) == (reason, transport.ERROR_DOMAIN)
    bad = transport.details_of(error, error_details_pb2.BadRequest())
    assert (bad and bad.field_violations[0].field) == field


async def test_what_waits_can_be_asked_for_again(lite: House) -> None:
    (hashed,) = lite.say(leaves(0, 1))
    async with asking(lite) as stub:
        for call in (inclusion(leaf_hash=hashed), checkpoint):
            error = await failed(stub, call)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            info = transport.details_of(error, error_details_pb2.ErrorInfo())
            assert info is not None
            assert info.reason == "NOT_LOGGED_YET"
            retry = transport.details_of(error, error_details_pb2.RetryInfo())
            assert retry is not None
            assert retry.retry_delay.seconds == 1
        lite.sequencer().run_once()
        assert (await inclusion(leaf_hash=hashed)(stub)).index == 0


async def test_a_database_that_is_away_says_nothing_of_itself(
    lite: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement, cause = "SELECT secret", RuntimeError("at 10.0.0.1")

    def away(*_: Any) -> None:
        raise OperationalError(statement, {}, cause)

    async with asking(lite) as stub:
        monkeypatch.setattr("verifier_sdk.log.heads._one", away)
        error = await failed(stub, checkpoint)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the log's database does not answer; try again shortly"
        monkeypatch.setattr("verifier_sdk.log.heads._one", lambda *_: 1 / 0)
        error = await failed(stub, checkpoint)
        assert error.code() == grpc.StatusCode.INTERNAL
        assert error.details() == "internal error, see the log"
