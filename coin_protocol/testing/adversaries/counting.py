"""Lies about how much there is: on the bill, in the sizes, by repeating."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Final

from coin_protocol import merkle
from coin_protocol.commitment import CommitmentBuilder, TokenTree, block_leaf_hashes
from coin_protocol.encoding import block_salts, token_leaf_hashes
from coin_protocol.testing.forgeries import block_leaves, with_leaves
from coin_protocol.usage import BESIDE, INSIDE, usage_for
from coin_protocol.v1 import opening_pb2, statements_pb2
from coin_protocol.v1 import replay_service_pb2 as replay_pb
from provider_sdk.answering import Answerer
from provider_sdk.provider import Provider
from provider_sdk.record import SessionRecord
from provider_sdk.replay import Replay, Trace
from provider_sdk.session import Session

_REPEATS: Final = 2
_BLOCKS_TOO_MANY: Final = 3

_Forge = Callable[[list[bytes]], list[bytes]]
"""Takes the true leaf hashes of a block and returns those that it is committed to by."""


def _bill(statement: statements_pb2.Commitment, reasoning_tokens: int) -> None:
    """Put another number of reasoning tokens on a commitment's bill, all sums right."""
    usage = usage_for(
        prompt_tokens=statement.usage.prompt_tokens,
        reasoning_tokens=reasoning_tokens,
        answer_tokens=statement.answer_tokens,
        counting=INSIDE,
    )
    statement.usage.CopyFrom(usage)


class OverReportedBill(Provider):
    """Commits to the true count and bills half as much again."""

    class session_class(Session):
        """Lies on the bill."""

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the true statement with a false bill."""
            statement = super().commitment_statement(tree, **of)
            _bill(statement, statement.reasoning_tokens * 3 // 2)
            return statement


class ReasoningBilledTwice(Provider):
    """Bills reasoning beside the completion, and in it."""

    class session_class(Session):
        """Counts reasoning twice."""

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the true statement with a bill that counts reasoning twice."""
            statement = super().commitment_statement(tree, **of)
            statement.usage.reasoning_counting = BESIDE
            statement.usage.completion_tokens = statement.reasoning_tokens + statement.answer_tokens
            return statement


class ToldOtherwise(Replay):
    """Signs the true bill and tells the client of another one."""

    def finish(self, session: Session, trace: Trace, request: bytes) -> replay_pb.GenerateResponse:
        """Return what ends the stream, with a usage block that nobody signed."""
        response = super().finish(session, trace, request)
        response.final.usage.completion_tokens += session.token_count
        return response


class SizeBeyondTree(Provider):
    """Signs a size three blocks larger than its tree, and bills it."""

    class session_class(Session):
        """Lies about the size."""

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the statement with false sizes."""
            statement = super().commitment_statement(tree, **of)
            statement.block_count += _BLOCKS_TOO_MANY
            statement.reasoning_tokens += _BLOCKS_TOO_MANY * self.provider.profile.block_size
            _bill(statement, statement.reasoning_tokens)
            return statement


class _BillsAll(Session):
    """Bills whatever its tree counts."""

    def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
        """Return the statement with a bill for all leaves."""
        statement = super().commitment_statement(tree, **of)
        _bill(statement, statement.reasoning_tokens)
        return statement


class _RepeatingBuilder(CommitmentBuilder):
    def finish(self) -> TokenTree:
        full = len(self._entries) * self._block_size
        first = self._ids[: self._block_size]
        self._ids = self._ids[:full] + first * _REPEATS + self._ids[full:]
        for _ in range(_REPEATS):
            self._add(self._entries[0])
        return super().finish()


class LeavesRepeated(Provider):
    """Puts the leaves of the first block into the tree twice more, and bills them."""

    class session_class(_BillsAll):
        """Repeats leaves."""

        builder_class = _RepeatingBuilder


class _ForgedLastBlock(CommitmentBuilder):
    """Makes the last block one token short of full, of leaves that are forged."""

    forge: _Forge

    def finish(self) -> TokenTree:
        full, count = self.block_count * self._block_size, self._block_size - 1
        rest = (self._ids[full:] + array("I", [0]) * count)[:count]
        self._ids = self._ids[:full] + rest
        tree = super().finish()
        index, ids = tree.block_count - 1, self.block(tree.block_count - 1)
        _, salts = block_salts(self._session.secret, index, count)
        session_id, rows = self._session.session_id, self._fingerprints.take(ids, axis=0)
        root = merkle.root(self.forge(token_leaf_hashes(session_id, index, salts, rows)))
        entries = (
            *tree.entries[:-1],
            statements_pb2.BlockEntry(token_count=count, token_root=root),
        )
        return TokenTree(
            merkle.root(block_leaf_hashes(session_id, entries)), tree.token_ids, entries
        )


class _ShowsForgedLeaves(Answerer):
    """Shows the forged leaves of the last block, with proofs that fit them."""

    forge: _Forge

    def open(
        self,
        record: SessionRecord,
        message: opening_pb2.Challenge,
        step: opening_pb2.AnsweredChallenge,
    ) -> opening_pb2.Opening:
        """Return the opening with forged leaves."""
        opening, opener = super().open(record, message, step), self.opener(record)
        last = opener.tree.block_count - 1
        with_leaves(last, self.forge(block_leaves(opener, last)))(opening)
        return opening


def _halved(leaves: list[bytes]) -> list[bytes]:
    """Return half of the leaves, rounded up, the last among them.

    Where a block is a power of two long, the last one's proof then fits both counts.
    """
    return [*leaves[: len(leaves) // 2], leaves[-1]]


class SizeInsideBlock(Provider):
    """Counts nearly twice as many tokens in the last block as it has leaves."""

    class session_class(_BillsAll):
        """Bills the count."""

        class builder_class(_ForgedLastBlock):
            """Leaves out leaves."""

            forge = staticmethod(_halved)

    class answerer_class(_ShowsForgedLeaves):
        """Shows those that there are."""

        forge = staticmethod(_halved)


def _alike(leaves: list[bytes]) -> list[bytes]:
    """Return the first leaf again and again, then the last."""
    return [leaves[0]] * (len(leaves) - 1) + [leaves[-1]]


class LeafRepeatedInBlock(Provider):
    """Fills the last block with one leaf again and again."""

    class session_class(_BillsAll):
        """Bills all of them."""

        class builder_class(_ForgedLastBlock):
            """Repeats a leaf."""

            forge = staticmethod(_alike)

    class answerer_class(_ShowsForgedLeaves):
        """Shows them."""

        forge = staticmethod(_alike)
