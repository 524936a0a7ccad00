"""The memory across sessions as a node's audits use it: read at once, written with the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from coin_protocol.checks import Case, Trust
from coin_protocol.memory import Match, OpenedBlocks
from coin_protocol.profile import Policy, Profile
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.memory import SqlMemory
from verifier_sdk.remembering import opened_blocks
from verifier_sdk.store.verdicts import Remember


class NodeMemory:
    """An `EvidenceMemory` over the node's database."""

    def __init__(self, memory: SqlMemory) -> None:
        """Read from `memory`."""
        self._memory = memory

    def recall(self, opened: OpenedBlocks) -> Sequence[Match | None]:
        """Return for each block the nearest one of another commitment, where there is one."""
        return self._memory.lookup(
            opened.vectors,
            provider=opened.provider,
            profile_sha256=opened.profile_sha256,
            excluding=opened.commitment_sha256,
        )

    def remember(self, opened: OpenedBlocks) -> None:
        """Do nothing: what was opened is written with the verdict, or not at all."""

    def with_verdict(
        self, bundle: receipt_pb2.Bundle, *, trust: Trust, profile: Profile, policy: Policy
    ) -> Remember:
        """Return what writes the blocks of a bundle, in the transaction that it is given.

        Blocks of an audit in which a check failed are not kept: they are what somebody forged.
        """
        verdict = receipt_pb2.Verdict.FromString(bundle.verdict.payload)
        failed = receipt_pb2.CHECK_STATUS_FAILED
        if any(check.status == failed for check in verdict.checks):
            return _nothing
        case = Case(
            receipt=bundle.receipt,
            trust=trust,
            profile=profile,
            policy=policy,
            manifest=bundle.manifest if bundle.HasField("manifest") else None,
            rounds=bundle.rounds,
        )
        opened = opened_blocks(case)

        def write(connection: Connection) -> None:
            self._memory.remember(
                connection,
                opened.vectors,
                provider=opened.provider,
                profile_sha256=opened.profile_sha256,
                commitment_sha256=opened.commitment_sha256,
                block_indices=opened.indices,
            )

        return write if opened.indices else _nothing


def _nothing(connection: Connection) -> None:
    """Write nothing."""
    del connection
