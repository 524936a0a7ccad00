"""Providers that salt leaves otherwise than the protocol says, and open what they committed to.

Roots and proofs fit the other salts: nothing but their length is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from coin_protocol import merkle
from coin_protocol.draw import DrawnBlock
from coin_protocol.encoding import fingerprint_leaf, token_fingerprint, token_leaf
from coin_protocol.limits import BLOCK_SALT_BYTES, TOKEN_SALT_BYTES
from coin_protocol.opening import Opener
from coin_protocol.testing.forgeries import put, recommitted
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import opening_pb2, statements_pb2

Entry = statements_pb2.BlockEntry
Token = opening_pb2.TokenOpening

EVERY: Final = range(2**32)
"""Every position of a block."""


@dataclass(frozen=True)
class SaltedOpener(Opener):
    """What a provider keeps that gave one block salts of another length.

    Attributes:
        salted: Index of the block.
        positions: Of its tokens whose salts are others.
        token_salt: Bytes of these.
        block_salt: Bytes of the block's salt.
    """

    salted: int = 0
    positions: Collection[int] = EVERY
    token_salt: int = TOKEN_SALT_BYTES
    block_salt: int = BLOCK_SALT_BYTES

    @property
    def fingerprint_root(self) -> bytes:
        """The root that the fingerprints statement signs."""
        return self._embeddings.root()

    def block(self, drawn: DrawnBlock) -> opening_pb2.BlockOpening:
        """Open a drawn block and the positions drawn in it."""
        shown = super().block(drawn)
        self._resalt_block(shown)
        if drawn.index == self.salted:
            shown.token_leaf_hashes = b"".join(self._tokens.leaf_hashes)
            self._resalt_tokens(shown.tokens)
        return shown

    def token_block(self, drawn: DrawnBlock) -> opening_pb2.TokenBlockOpening:
        """Open the positions drawn in a block, and nothing else of it."""
        shown = super().token_block(drawn)
        if drawn.index == self.salted:
            self._resalt_tokens(shown.tokens)
        return shown

    def edge(self) -> opening_pb2.EdgeOpening:
        """Open the right edge: the last block's leaf hashes and its last token."""
        shown = super().edge()
        if shown.block_index == self.salted:
            shown.token_leaf_hashes = b"".join(self._tokens.leaf_hashes)
            self._resalt_tokens([shown.last_token])
        return shown

    def whole(self, index: int, tokenizer: Tokenizer) -> opening_pb2.WholeBlock:
        """Open a block whole: its ids, text and salts."""
        shown = super().whole(index, tokenizer)
        self._resalt_block(shown)
        if index == self.salted:
            shown.token_salts = b"".join(token.salt for token in self._all_tokens())
        return shown

    def entries(self) -> list[Entry]:
        """Return the blocks that this provider commits to."""
        entries = [*self.tree.entries]
        count = entries[self.salted].token_count
        entries[self.salted] = Entry(token_count=count, token_root=self._tokens.root())
        return entries

    @cached_property
    def _tokens(self) -> merkle.IncrementalTree:
        """The tree of the block's tokens, with the salts that it shows."""
        session_id = self.session.session_id
        return merkle.IncrementalTree(
            merkle.leaf_hash(
                token_leaf(
                    session_id,
                    self.salted,
                    token.position,
                    token.salt,
                    token_fingerprint(token.token_id, token.row),
                )
            )
            for token in self._all_tokens()
        )

    @cached_property
    def _embeddings(self) -> merkle.IncrementalTree:
        """The tree of all blocks' embeddings, with the salts that they show."""
        leaves = []
        for index, windows in enumerate(self.windows):
            salt = super().block(DrawnBlock(index, ())).block_salt
            if index == self.salted:
                salt = resized(salt, self.block_salt)
            leaves.append(
                merkle.leaf_hash(fingerprint_leaf(self.session.session_id, index, salt, windows))
            )
        return merkle.IncrementalTree(leaves)

    def _all_tokens(self) -> list[Token]:
        every = tuple(range(self.tree.entries[self.salted].token_count))
        tokens = list(super().token_block(DrawnBlock(self.salted, every)).tokens)
        for token in tokens:
            self._resalt(token)
        return tokens

    def _resalt(self, token: Token) -> None:
        if token.position in self.positions:
            token.salt = resized(token.salt, self.token_salt)

    def _resalt_tokens(self, tokens: Iterable[Token]) -> None:
        for token in tokens:
            self._resalt(token)
            put("proof", self._tokens.inclusion_proof(token.position))(token)

    def _resalt_block(self, shown: opening_pb2.BlockOpening | opening_pb2.WholeBlock) -> None:
        index = shown.block_index
        if index == self.salted:
            shown.block_salt = resized(shown.block_salt, self.block_salt)
        put("fingerprint_proof", self._embeddings.inclusion_proof(index))(shown)


def resized(salt: bytes, size: int) -> bytes:
    """Return a salt cut short, or with zeros after it."""
    return (salt + bytes(size))[:size]


def salted_tokens(
    block: int, size: int, positions: Collection[int] = EVERY
) -> Callable[[Opener], Opener]:
    """Return what a provider does that gives tokens of a block salts of another length.

    Args:
        block: Its index.
        size: Bytes of the salts.
        positions: Of these tokens.
    """

    def forge(honest: Opener) -> Opener:
        kept = _salted(honest, salted=block, token_salt=size, positions=positions)
        return recommitted(kept, kept.entries())

    return forge


def salted_block(block: int, size: int) -> Callable[[Opener], Opener]:
    """Return what a provider does that gives a block a salt of another length."""
    return lambda honest: _salted(honest, salted=block, block_salt=size)


def _salted(honest: Opener, **salts: Any) -> SaltedOpener:  # noqa: ANN401 - fields of the opener
    return SaltedOpener(
        honest.session, honest.tree, honest.windows, honest.block_size, honest.table, **salts
    )
