"""Open what a challenge drew, from what a provider keeps of a session (section 6). Pure.

Everything but the ids and the window embeddings is derived again from the session's secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from coin_protocol import merkle
from coin_protocol.commitment import (
    SessionSecret,
    TokenTree,
    block_leaf_hashes,
    fingerprint_leaf_hashes,
)
from coin_protocol.draw import DrawnBlock
from coin_protocol.encoding import block_salts, token_leaf_hashes
from coin_protocol.limits import TOKEN_SALT_BYTES
from coin_protocol.table import TokenTable
from coin_protocol.tokenizer import Tokenizer, text_of
from coin_protocol.v1 import opening_pb2 as pb


@dataclass(frozen=True)
class Opener:
    """Makes the parts of openings for one finished session.

    Attributes:
        session: Id and secret.
        tree: The committed tokens.
        windows: The quantised window embeddings of each block.
        block_size: Tokens in a full block.
        table: The profile's token table.
    """

    session: SessionSecret
    tree: TokenTree
    windows: Sequence[Sequence[bytes]]
    block_size: int
    table: TokenTable

    @cached_property
    def _block_tree(self) -> merkle.IncrementalTree:
        return merkle.IncrementalTree(block_leaf_hashes(self.session.session_id, self.tree.entries))

    @cached_property
    def _fingerprint_tree(self) -> merkle.IncrementalTree:
        return merkle.IncrementalTree(fingerprint_leaf_hashes(self.session, self.windows))

    @property
    def fingerprint_root(self) -> bytes:
        """The root that the fingerprints statement signs."""
        return self._fingerprint_tree.root()

    @property
    def token_counts(self) -> list[int]:
        """Tokens of each block."""
        return [entry.token_count for entry in self.tree.entries]

    def block(self, drawn: DrawnBlock) -> pb.BlockOpening:
        """Open a drawn block and the positions drawn in it."""
        block = self._derive(drawn.index)
        return pb.BlockOpening(
            block_index=drawn.index,
            token_leaf_hashes=b"".join(block.leaves),
            block_proof=self._block_tree.inclusion_proof(drawn.index),
            tokens=[self._token(block, position) for position in drawn.positions],
            block_salt=block.block_salt,
            windows=self.windows[drawn.index],
            fingerprint_proof=self._fingerprint_tree.inclusion_proof(drawn.index),
        )

    def token_block(self, drawn: DrawnBlock) -> pb.TokenBlockOpening:
        """Open the positions drawn in a block, and nothing else of it."""
        block = self._derive(drawn.index)
        return pb.TokenBlockOpening(
            block_index=drawn.index,
            tokens=[self._token(block, position) for position in drawn.positions],
        )

    def edge(self) -> pb.EdgeOpening:
        """Open the right edge: the last block's leaf hashes and its last token."""
        last = self.tree.block_count - 1
        block = self._derive(last)
        return pb.EdgeOpening(
            block_index=last,
            token_leaf_hashes=b"".join(block.leaves),
            block_proof=self._block_tree.inclusion_proof(last),
            last_token=self._token(block, len(block.token_ids) - 1),
        )

    def whole(self, index: int, tokenizer: Tokenizer) -> pb.WholeBlock:
        """Open a block whole: its ids, text and salts."""
        block = self._derive(index)
        return pb.WholeBlock(
            block_index=index,
            token_ids=block.token_ids,
            text=text_of(tokenizer, block.token_ids),
            token_salts=block.token_salts,
            block_proof=self._block_tree.inclusion_proof(index),
            block_salt=block.block_salt,
            windows=self.windows[index],
            fingerprint_proof=self._fingerprint_tree.inclusion_proof(index),
            vocabulary=[
                pb.TableEntry(
                    token_id=token_id,
                    fingerprint=self.table.fingerprints[token_id].tobytes(),
                    proof=self.table.proof(token_id),
                )
                for token_id in sorted(set(block.token_ids))
            ],
        )

    def _derive(self, index: int) -> _DerivedBlock:
        start = index * self.block_size
        ids = self.tree.token_ids.slice(start, start + self.block_size)
        block_salt, token_salts = block_salts(self.session.secret, index, len(ids))
        leaves = token_leaf_hashes(
            self.session.session_id, index, token_salts, self.table.fingerprints[ids]
        )
        return _DerivedBlock(ids.tolist(), block_salt, token_salts, leaves)

    def _token(self, block: _DerivedBlock, position: int) -> pb.TokenOpening:
        token_id = block.token_ids[position]
        at = position * TOKEN_SALT_BYTES
        return pb.TokenOpening(
            position=position,
            salt=block.token_salts[at : at + TOKEN_SALT_BYTES],
            token_id=token_id,
            row=self.table.row(token_id),
            proof=block.tree.inclusion_proof(position),
            table_proof=self.table.proof(token_id),
        )


@dataclass(frozen=True)
class _DerivedBlock:
    token_ids: list[int]
    block_salt: bytes
    token_salts: bytes
    leaves: list[bytes]

    @cached_property
    def tree(self) -> merkle.IncrementalTree:
        """Made once: each of the block's tokens has its proof from it."""
        return merkle.IncrementalTree(self.leaves)
