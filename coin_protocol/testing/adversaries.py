"""Providers that lie, each by one overridden method. Usable as real gRPC servers.

`ADVERSARIES` names those that the demo plays, `TOKEN_BLOCK_ADVERSARIES` those that cheat where
tokens alone are opened, each with the check that must catch it. Needs `provider_sdk`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from coin_protocol.commitment import CommitmentBuilder, TokenTree
from coin_protocol.draw import DrawnBlock
from coin_protocol.embedding import quantised_windows
from coin_protocol.errors import CoinError
from coin_protocol.models import Models
from coin_protocol.quantise import SCALE_BYTES, row_bytes
from coin_protocol.table import TokenTable
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import opening_pb2, statements_pb2
from coin_protocol.v1 import replay_service_pb2 as replay_pb
from provider_sdk.answering import Answerer
from provider_sdk.provider import Provider
from provider_sdk.record import SessionRecord
from provider_sdk.replay import Replay
from provider_sdk.session import Session

_REPEATS: Final = 2
_BLOCKS_TOO_MANY: Final = 3


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

    class session_class(Session):
        """Repeats leaves."""

        builder_class = _RepeatingBuilder

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the statement with a bill for all leaves."""
            statement = super().commitment_statement(tree, **of)
            _bill(statement, statement.reasoning_tokens)
            return statement


class MadeUpRows(Provider):
    """Commits to token embeddings that no model produced."""

    def load_table(self, models: Models) -> TokenTable:
        """Return a table of random rows."""
        spec = models.profile.message
        rows = np.empty(
            (spec.tokenizer.vocabulary_size, row_bytes(spec.embedding.dimension)), np.uint8
        )
        rows[:, :SCALE_BYTES] = np.frombuffer(np.float32(0.002).tobytes(), np.uint8)
        steps = np.random.default_rng(1).integers(-127, 128, rows[:, SCALE_BYTES:].shape, np.int8)
        steps[:, 0] = 127
        rows[:, SCALE_BYTES:] = steps.view(np.uint8)
        return TokenTable(rows)


class CopiedEmbedding(Provider):
    """Commits to the answer's embedding as that of every window, to score well."""

    class session_class(Session):
        """Lies about what its blocks embed as."""

        def block_windows(self, tree: TokenTree, answer: bytes) -> list[Future[list[bytes]]]:
            """Return copies of the answer's embedding."""
            return [
                self.provider.run_later(self._copies, answer.decode(), entry.token_count)
                for entry in tree.entries
            ]

        def _copies(self, answer: str, tokens: int) -> list[bytes]:
            spec = self.provider.profile.message.embedding
            windows = -(-tokens // spec.window_tokens)
            return quantised_windows(self.provider.embedder, spec, [answer]) * windows


class RefusedOpening(Provider):
    """Answers no challenge, though no cap is reached."""

    class answerer_class(Answerer):
        """Refuses."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Refuse."""
            del record, message, step
            msg = "openings are not available at this time"
            raise CoinError(msg)


class TokenBlocksLeftOut(Provider):
    """Opens the blocks drawn with their embedding, and none of the token blocks."""

    class answerer_class(Answerer):
        """Leaves out token blocks."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening without them."""
            opening = super().open(record, message, step)
            opening.ClearField("token_blocks")
            return opening


class KinderTokens(Provider):
    """Opens the first tokens of each token block, whatever was drawn."""

    class answerer_class(Answerer):
        """Picks positions."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other positions."""
            opening, opener = super().open(record, message, step), self.opener(record)
            for block in opening.token_blocks:
                first = DrawnBlock(block.block_index, tuple(range(len(block.tokens))))
                block.CopyFrom(opener.token_block(first))
            return opening


class PlausibleTokens(Provider):
    """Shows another token than the committed one in each token block, with its true row."""

    class answerer_class(Answerer):
        """Swaps tokens."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening with other tokens."""
            opening = super().open(record, message, step)
            for block in opening.token_blocks:
                token = block.tokens[0]
                token.token_id = (token.token_id + 1) % self.profile.vocabulary_size
                token.row = self.table.row(token.token_id)
                token.table_proof[:] = self.table.proof(token.token_id)
            return opening


class ReplayedCommitment(Replay):
    """Gives every client the commitment of a session that was sold before."""

    async def stream(
        self, model: str, request: bytes, client_nonce: bytes
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield the events of a session under another client's nonce."""
        other_nonce = bytes(byte ^ 0xFF for byte in client_nonce)
        async for event in super().stream(model, request, other_nonce):
            yield event


class TokensAfterAnswer(Replay):
    """Sends the answer first, then commits to reasoning as fast as it can hash."""

    async def stream(
        self, model: str, request: bytes, client_nonce: bytes
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield the answer, then checkpoints that no decoding paced."""
        trace = self.find(request)
        session = self.provider.open_session(
            model=model, request=request, client_nonce=client_nonce
        )
        async for event in self.answer(trace):
            yield event
        for checkpoint in session.append(self.tokenizer.encode(trace.reasoning)):
            yield replay_pb.GenerateResponse(checkpoint=checkpoint)
        yield self.finish(session, trace, request)


@dataclass(frozen=True, slots=True)
class Adversary:
    """A lie, and the check that must catch it."""

    name: str
    title: str
    caught_by: str
    provider: type[Provider] = Provider
    replay: type[Replay] = Replay


ADVERSARIES: Final = (
    Adversary("over-reported-bill", "count over-reported in the bill", "BILL", OverReportedBill),
    Adversary("size-beyond-tree", "signed size larger than the tree", "SIZES", SizeBeyondTree),
    Adversary("leaves-repeated", "leaves repeated", "LEAF_REPEATED", LeavesRepeated),
    Adversary("made-up-rows", "token rows that no model produced", "TOKEN_ROW", MadeUpRows),
    Adversary(
        "copied-embedding",
        "block embedding copied from the answer's",
        "WHOLE_EMBEDDING",
        CopiedEmbedding,
    ),
    Adversary(
        "replayed-commitment",
        "another session's commitment replayed",
        "CLIENT_NONCE",
        replay=ReplayedCommitment,
    ),
    Adversary("refused-opening", "opening refused", "OPENING_PRESENT", RefusedOpening),
    Adversary(
        "tokens-after-answer",
        "tokens committed after the answer",
        "ARRIVAL_TIME",
        replay=TokensAfterAnswer,
    ),
)

TOKEN_BLOCK_ADVERSARIES: Final = (
    Adversary(
        "token-blocks-left-out", "token blocks left out", "OPENING_PRESENT", TokenBlocksLeftOut
    ),
    Adversary("kinder-tokens", "kinder tokens opened than those drawn", "DRAW", KinderTokens),
    Adversary(
        "plausible-tokens", "other tokens shown than committed", "INCLUSION_PROOF", PlausibleTokens
    ),
)
