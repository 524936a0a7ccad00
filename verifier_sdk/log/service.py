"""`LogService` over `grpc.aio`: everyone may read a log, within limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from coin_protocol import transport
from coin_protocol.errors import InvalidInputError
from coin_protocol.v1 import log_service_pb2 as pb
from coin_protocol.v1 import log_service_pb2_grpc as pb_grpc
from verifier_sdk.log.log import Inclusion, Log
from verifier_sdk.log.statuses import RETRY_SECONDS, status_of

SERVICE: Final = pb.DESCRIPTOR.services_by_name["LogService"].full_name

T = TypeVar("T")


class LogServicer(pb_grpc.LogServiceServicer):
    """Answers from a log, SQL on threads."""

    def __init__(self, log: Log, workers: transport.Workers | None = None) -> None:
        """Serve `log`.

        Args:
            log: Whose proofs.
            workers: Do the work; by default of this servicer's own.
        """
        self._log = log
        self._workers = workers or transport.Workers()

    async def GetCheckpoint(  # noqa: N802 - as in the .proto
        self, request: pb.GetCheckpointRequest, context: transport.Context
    ) -> pb.GetCheckpointResponse:
        """Return the newest head."""
        del request
        head = await self._run(context, "", self._log.head)
        return pb.GetCheckpointResponse(checkpoint=head.note)

    async def GetInclusionProof(  # noqa: N802 - as in the .proto
        self, request: pb.GetInclusionProofRequest, context: transport.Context
    ) -> pb.GetInclusionProofResponse:
        """Prove that an entry is in the tree of a head."""
        which = request.WhichOneof("entry")
        entry = request.leaf_hash if which == "leaf_hash" else request.index

        def prove() -> Inclusion:
            if which is None:
                msg = "say which entry: by leaf_hash or by index"
                raise InvalidInputError(msg)
            return self._log.inclusion(entry, request.tree_size or None)

        found = await self._run(context, which or "entry", prove)
        checkpoint = b"" if found.head is None else found.head.note
        return pb.GetInclusionProofResponse(
            index=found.index, proof=found.proof, checkpoint=checkpoint
        )

    async def GetConsistencyProof(  # noqa: N802 - as in the .proto
        self, request: pb.GetConsistencyProofRequest, context: transport.Context
    ) -> pb.GetConsistencyProofResponse:
        """Prove that the tree of one head is a prefix of that of another."""
        sizes = request.old_size, request.new_size
        proof = await self._run(context, "old_size", lambda: self._log.consistency(*sizes))
        return pb.GetConsistencyProofResponse(proof=proof)

    async def GetEntries(  # noqa: N802 - as in the .proto
        self, request: pb.GetEntriesRequest, context: transport.Context
    ) -> pb.GetEntriesResponse:
        """Return the data of entries, from which their leaf hashes follow."""
        wanted = request.start, request.count
        entries = await self._run(context, "count", lambda: self._log.entries(*wanted))
        return pb.GetEntriesResponse(entries=entries)

    async def _run(self, context: transport.Context, field: str, call: Callable[[], T]) -> T:
        """Read on a thread; errors become status codes with details.

        Args:
            context: Of the call.
            field: Of the request, that is at fault where an argument is.
            call: Reads.
        """
        try:
            return await self._workers.run(call, seconds=context.time_remaining())
        except Exception as error:  # noqa: BLE001 - answered, or logged as a bug of ours
            status = status_of(error)
        details: list[Message] = [transport.error_info(status.reason)]
        if status.code == grpc.StatusCode.INVALID_ARGUMENT:
            details.append(transport.bad_request(field, status.detail))
        if status.later:
            details.append(transport.retry_info(RETRY_SECONDS))
        return await transport.abort(context, status.code, status.detail, *details)
