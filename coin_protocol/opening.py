"""Open what a challenge drew, from what a provider keeps of a session (section 6). Pure.

Everything but the ids and the window embeddings is derived again from the session's secret. Most
of what a first round costs is hashing the blocks of which it shows a few tokens: whoever keeps
`Opener.kept_nodes` of each block hashes little more than those tokens' neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from coin_protocol import merkle
from coin_protocol.commitment import (
    SessionSecret,
    TokenTree,
    block_leaf_hashes,
    fingerprint_leaf_hashes,
)
from coin_protocol.draw import DrawnBlock
from coin_protocol.encoding import block_salts, token_leaf_hashes
from coin_protocol.limits import HASH_BYTES, TOKEN_SALT_BYTES
from coin_protocol.table import TokenTable
from coin_protocol.tokenizer import Tokenizer, text_of
from coin_protocol.v1 import opening_pb2 as pb

NODE_TOKENS: Final = 32
"""Tokens under each node of a block that may be kept: a power of two; one byte a token."""


@dataclass(frozen=True)
class Opener:
    """Makes the parts of openings for one finished session.

    Attributes:
        session: Id and secret.
        tree: The committed tokens.
        windows: The quantised window embeddings of each block.
        block_size: Tokens in a full block.
        table: The profile's token table.
        nodes: What `kept_nodes` gave of each block; empty, or of some blocks, where it was not
            kept. What does not lead to the block's root is not used.
    """

    session: SessionSecret
    tree: TokenTree
    windows: Sequence[Sequence[bytes]]
    block_size: int
    table: TokenTable
    nodes: Sequence[bytes] = ()

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
        block = self._derive_less(drawn.index)
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

    def kept_nodes(self, index: int) -> bytes:
        """Return the nodes over each `NODE_TOKENS` tokens of a block, 32 bytes each, in order."""
        leaves = self._derive(index).leaves
        parts = range(0, len(leaves), NODE_TOKENS)
        return b"".join(merkle.root(leaves[at : at + NODE_TOKENS]) for at in parts)

    def _derive(self, index: int) -> _WholeBlock:
        ids, block_salt, token_salts = self._kept(index)
        leaves = token_leaf_hashes(
            self.session.session_id, index, token_salts, self.table.fingerprints[ids]
        )
        return _WholeBlock(ids.tolist(), token_salts, block_salt, leaves)

    def _derive_less(self, index: int) -> _Block:
        """Return a block whose proofs are made from its nodes, where these were kept."""
        entry = self.tree.entries[index]
        kept = self.nodes[index] if index < len(self.nodes) else b""
        nodes = merkle.IncrementalTree(
            kept[at : at + HASH_BYTES] for at in range(0, len(kept), HASH_BYTES)
        )
        # The root of fewer nodes could be the same, of another level.
        whole = len(nodes) == -(-entry.token_count // NODE_TOKENS)
        if not whole or nodes.root() != entry.token_root:
            return self._derive(index)
        ids, _, token_salts = self._kept(index)

        def part(number: int) -> merkle.IncrementalTree:
            first, end = number * NODE_TOKENS, (number + 1) * NODE_TOKENS
            salts = token_salts[first * TOKEN_SALT_BYTES : end * TOKEN_SALT_BYTES]
            rows = self.table.fingerprints[ids[first:end]]
            return merkle.IncrementalTree(
                token_leaf_hashes(self.session.session_id, index, salts, rows, first=first)
            )

        return _BlockOfNodes(ids.tolist(), token_salts, nodes, lru_cache(part))

    def _kept(self, index: int) -> tuple[npt.NDArray[np.uint32], bytes, bytes]:
        """Return a block's ids, its salt and the salts of its tokens."""
        start = index * self.block_size
        ids = self.tree.token_ids.slice(start, start + self.block_size)
        return (ids, *block_salts(self.session.secret, index, len(ids)))

    def _token(self, block: _Block, position: int) -> pb.TokenOpening:
        token_id = block.token_ids[position]
        at = position * TOKEN_SALT_BYTES
        return pb.TokenOpening(
            position=position,
            salt=block.token_salts[at : at + TOKEN_SALT_BYTES],
            token_id=token_id,
            row=self.table.row(token_id),
            proof=block.proof(position),
            table_proof=self.table.proof(token_id),
        )


class _Block(Protocol):
    """What tokens of a block are opened from."""

    @property
    def token_ids(self) -> list[int]:
        """All of its ids."""

    @property
    def token_salts(self) -> bytes:
        """Theirs, one after the other."""

    def proof(self, position: int) -> list[bytes]:
        """Return the inclusion proof of a token under the block's root."""


@dataclass(frozen=True)
class _WholeBlock:
    token_ids: list[int]
    token_salts: bytes
    block_salt: bytes
    leaves: list[bytes]

    @cached_property
    def _tree(self) -> merkle.IncrementalTree:
        # Made once: each of the block's tokens has its proof from it.
        return merkle.IncrementalTree(self.leaves)

    def proof(self, position: int) -> list[bytes]:
        return self._tree.inclusion_proof(position)


@dataclass(frozen=True)
class _BlockOfNodes:
    token_ids: list[int]
    token_salts: bytes
    nodes: merkle.IncrementalTree
    part: Callable[[int], merkle.IncrementalTree]

    def proof(self, position: int) -> list[bytes]:
        number, place = divmod(position, NODE_TOKENS)
        # The lower part of the path, and the upper one: parts are whole subtrees.
        return self.part(number).inclusion_proof(place) + self.nodes.inclusion_proof(number)
