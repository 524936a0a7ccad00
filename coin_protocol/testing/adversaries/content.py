"""Lies about what was committed to: rows, embeddings, and text that no reasoning made."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from coin_protocol.commitment import Prefix, TokenTree
from coin_protocol.embedding import quantised_windows
from coin_protocol.models import Models
from coin_protocol.quantise import SCALE_BYTES, row_bytes
from coin_protocol.table import TokenTable
from coin_protocol.testing.forgeries import rescaled
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import replay_service_pb2 as replay_pb
from provider_sdk.provider import Provider
from provider_sdk.replay import Replay, Trace
from provider_sdk.session import Session

_Ids = Sequence[int] | npt.NDArray[np.integer]


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
                self.provider.run_later(answers_windows, self.provider, answer, entry.token_count)
                for entry in tree.entries
            ]


def answers_windows(provider: Provider, answer: bytes, tokens: int) -> list[bytes]:
    """Return the answer's embedding as that of each window of a block of `tokens`."""
    spec = provider.profile.message.embedding
    windows = -(-tokens // spec.window_tokens)
    return quantised_windows(provider.embedder, spec, [answer.decode()]) * windows


class UnnormedEmbedding(Provider):
    """Commits to window embeddings twice as long as any model's."""

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        """Return the true windows under twice their scale."""
        return [
            rescaled(row, 2 * struct.unpack("<f", row[:SCALE_BYTES])[0])
            for row in super().embed_block(token_ids)
        ]


class SplitTokens(Provider):
    """Cuts the first character off every token that has several."""

    class session_class(Session):
        """Splits tokens."""

        def take(self, token_ids: _Ids) -> list[Prefix]:
            """Commit to more tokens of the same text."""
            tokenizer = self.provider.tokenizer
            return super().take(
                [part for token_id in token_ids for part in _parts(tokenizer, int(token_id))]
            )


def _parts(tokenizer: Tokenizer, token_id: int) -> Iterator[int]:
    """Yield ids of the same text, more of them where that can be."""
    text = tokenizer.token_bytes(token_id).decode(errors="ignore")
    parts = [*tokenizer.encode(text[:1]), *tokenizer.encode(text[1:])]
    same = b"".join(map(tokenizer.token_bytes, parts)) == tokenizer.token_bytes(token_id)
    yield from parts if same else [token_id]


class CopiedText(Provider):
    """Commits to everything twice, as it comes."""

    class session_class(Session):
        """Copies text."""

        def take(self, token_ids: _Ids) -> list[Prefix]:
            """Commit to the same ids again."""
            return super().take(np.tile(np.asarray(token_ids, np.uint32), 2))


class CheapText(Provider):
    """Commits to as many random ids as there are true ones."""

    class session_class(Session):
        """Makes text up."""

        def take(self, token_ids: _Ids) -> list[Prefix]:
            """Commit to the ids, and to random ones."""
            true = np.asarray(token_ids, np.uint32)
            vocabulary = self.provider.tokenizer.vocabulary_size
            random = np.random.default_rng(self.token_count)
            made_up = random.integers(0, vocabulary, len(true), np.uint32)
            return super().take(np.concatenate([true, made_up]))


class RetrievedText(Replay):
    """Reasons about every other question it knows as well."""

    async def reason(
        self, session: Session, trace: Trace
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield checkpoints of the trace's reasoning, then of that of all others."""
        others = {other.id: other for other in self._traces.values() if other.id != trace.id}
        for each in (trace, *others.values()):
            async for event in super().reason(session, each):
                yield event
