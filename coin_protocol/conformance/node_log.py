"""A node's log over gRPC: heads, and proofs that are held against them."""

from __future__ import annotations

import asyncio
from typing import Final

from coin_protocol import merkle
from coin_protocol.checkpoint import Checkpoint, read_unverified, verify_checkpoint
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.conformance.wire import Wire
from coin_protocol.errors import CoinError, VerificationError
from coin_protocol.note import NoteVerifier
from coin_protocol.v1 import log_service_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["LogService"].full_name
_LOOK_SECONDS: Final = 0.1


class NodeLog:
    """The log that a node serves beside its audits."""

    def __init__(self, wire: Wire, key: NoteVerifier | None, seconds: float) -> None:
        """Ask over a wire.

        Args:
            wire: To the node.
            key: The log's; None where its heads are not to be verified.
            seconds: After which an entry is under a head.
        """
        self._wire = wire
        self._key = key
        self._seconds = seconds

    async def require(self) -> None:
        """Check that there is a log.

        Raises:
            NotApplicable: The node keeps none.
        """
        services = await self._wire.services()
        if services and SERVICE not in services:
            msg = "the node keeps no log"
            raise NotApplicable(msg)

    async def require_entry(self, entry: bytes) -> None:
        """Check that a leaf's data is in the tree of a head.

        Raises:
            NotMet: No proof comes, or none that holds.
        """
        leaf_hash = merkle.leaf_hash(entry)
        found = await self._wire.ask(
            f"{SERVICE}/GetInclusionProof",
            # An entry is given its place within seconds; until then the log says to come again.
            pb.GetInclusionProofRequest(leaf_hash=leaf_hash),
            pb.GetInclusionProofResponse(),
        )
        head = self._head(found.checkpoint)
        try:
            merkle.verify_inclusion(
                leaf_hash=leaf_hash,
                index=found.index,
                size=head.size,
                proof=list(found.proof),
                root=head.root,
            )
        except VerificationError as error:
            raise NotMet(wanted="a proof to the head beside it", came=str(error)) from error

    async def require_consistent(self, old: Checkpoint, new: Checkpoint) -> None:
        """Check that a head continues an earlier one, which is over entries.

        Raises:
            NotMet: No proof comes, or none that holds.
        """
        found = await self._wire.ask(
            f"{SERVICE}/GetConsistencyProof",
            pb.GetConsistencyProofRequest(old_size=old.size, new_size=new.size),
            pb.GetConsistencyProofResponse(),
        )
        try:
            merkle.verify_consistency(
                old_size=old.size,
                new_size=new.size,
                old_root=old.root,
                new_root=new.root,
                proof=list(found.proof),
            )
        except VerificationError as error:
            raise NotMet(
                wanted=f"a head of size {new.size} that continues that of size {old.size}",
                came=str(error),
            ) from error

    async def head_past(self, size: int) -> Checkpoint:
        """Return the first head that is seen of a tree of more entries.

        Raises:
            NotMet: None comes in time, or it is not the log's.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        head = await self._newest()
        while head.size <= size:
            if loop.time() > end:
                raise NotMet(
                    wanted="a head over the entries of the latest audit",
                    came=f"still one of size {head.size}",
                )
            await asyncio.sleep(_LOOK_SECONDS)
            head = await self._newest()
        return head

    async def _newest(self) -> Checkpoint:
        found = await self._wire.ask(
            f"{SERVICE}/GetCheckpoint", pb.GetCheckpointRequest(), pb.GetCheckpointResponse()
        )
        return self._head(found.checkpoint)

    def _head(self, note: bytes) -> Checkpoint:
        """Return a head; its signature is checked where the log's key was given."""
        try:
            if self._key is None:
                return read_unverified(note)
            return verify_checkpoint(note, self._key).checkpoint
        except CoinError as error:
            raise NotMet(
                wanted="a checkpoint that the log signed",
                came=str(error),
                advice="Compare with C2SP tlog-checkpoint; --log-key must be the log's.",
            ) from error
