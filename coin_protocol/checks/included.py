"""Whether what was opened is of the trees that were signed: leaves, salts, proofs, table rows.

All `verify_…` raise a `VerificationError` where it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from coin_protocol import merkle
from coin_protocol.checks.case import Case
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.encoding import fingerprint_leaf, token_fingerprint, token_leaf
from coin_protocol.errors import VerificationError
from coin_protocol.limits import BLOCK_SALT_BYTES, HASH_BYTES, TOKEN_SALT_BYTES
from coin_protocol.v1 import opening_pb2


def split_hashes(hashes: bytes) -> list[bytes]:
    """Return the hashes, 32 bytes each, that stand in one string."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def leaf_tree(case: Case, leaves: bytes) -> merkle.IncrementalTree:
    """Return the tree over leaf hashes in one string, built once."""
    return case.memo.once((leaf_tree, leaves), lambda: merkle.IncrementalTree(split_hashes(leaves)))


def row_fingerprint(case: Case, token: opening_pb2.TokenOpening) -> bytes:
    """Return the fingerprint (32 bytes) of an opened token's id and row, computed once."""
    token_id, row = token.token_id, token.row
    return case.memo.once(
        (token_fingerprint, token_id, row), lambda: token_fingerprint(token_id, row)
    )


def token_hash(case: Case, index: int, token: opening_pb2.TokenOpening) -> bytes:
    """Return the leaf hash (32 bytes) of a token that was opened in a block of this index."""
    fingerprint = row_fingerprint(case, token)
    leaf = token_leaf(case.commitment.session_id, index, token.position, token.salt, fingerprint)
    return merkle.leaf_hash(leaf)


def _badly_salted(what: str, salt: bytes, wanted: int) -> NoReturn:
    # Of a shorter salt all can be tried: who sees the leaf's hash then knows what it is of.
    msg = f"{what} has a salt of {len(salt)} bytes, wanted {wanted}"
    raise CheckFailure(msg)


def verify_block(case: Case, index: int, proof: Sequence[bytes]) -> None:
    """Check that the manifest's block of this index is of the signed token root."""
    merkle.verify_inclusion(
        leaf_hash=case.block_tree.leaf_hashes[index],
        index=index,
        size=case.commitment.block_count,
        proof=list(proof),
        root=case.commitment.token_root,
    )


def verify_fingerprint(
    case: Case, block: opening_pb2.BlockOpening | opening_pb2.WholeBlock
) -> None:
    """Check that a block's salt and window embeddings are of the signed fingerprint root."""
    salt = block.block_salt
    if len(salt) != BLOCK_SALT_BYTES:
        _badly_salted(f"block {block.block_index}", salt, BLOCK_SALT_BYTES)
    leaf = fingerprint_leaf(case.commitment.session_id, block.block_index, salt, block.windows)
    merkle.verify_inclusion(
        leaf_hash=merkle.leaf_hash(leaf),
        index=block.block_index,
        size=case.fingerprints.size,
        proof=list(block.fingerprint_proof),
        root=case.fingerprints.fingerprint_root,
    )


def verify_tokens(
    case: Case, index: int, tokens: Iterable[opening_pb2.TokenOpening], leaves: bytes = b""
) -> None:
    """Check that tokens are leaves of a block, some of which shows all its leaf hashes."""
    entry = case.blocks[index]
    tree = None
    if len(leaves) == entry.token_count * HASH_BYTES:
        tree = leaf_tree(case, leaves)
        if tree.root() != entry.token_root:
            tree = None
    for token in tokens:
        if len(token.salt) != TOKEN_SALT_BYTES:
            _badly_salted(f"token {token.position} of block {index}", token.salt, TOKEN_SALT_BYTES)
        leaf_hash, position, proof = token_hash(case, index, token), token.position, [*token.proof]
        if (
            tree is not None
            and position < len(tree)
            and leaf_hash == tree.leaf_hashes[position]
            and proof == tree.inclusion_proof(position)
        ):
            # The very proof that this tree gives: hashing up to its root again says no more.
            continue
        merkle.verify_inclusion(
            leaf_hash=leaf_hash,
            index=position,
            size=entry.token_count,
            proof=proof,
            root=entry.token_root,
        )


def verify_vocabulary(
    case: Case, token_id: int, fingerprint: bytes, proof: Sequence[bytes]
) -> None:
    """Check that `fingerprint` is that of `token_id` in the profile's token table."""
    size = case.profile.vocabulary_size
    if token_id >= size:
        msg = f"token id {token_id} is outside the vocabulary of {size} ids"
        raise CheckFailure(msg)
    path, root = tuple(proof), case.profile.message.tokenizer.token_table_root
    try:
        # Half of a text's tokens are few, and are drawn again.
        case.memo.once(
            (verify_vocabulary, size, root, token_id, fingerprint, path),
            lambda: merkle.verify_inclusion(
                leaf_hash=merkle.leaf_hash(fingerprint),
                index=token_id,
                size=size,
                proof=path,
                root=root,
            ),
        )
    except VerificationError as error:
        msg = f"the embedding shown for token {token_id} is not its row of the token table"
        raise CheckFailure(msg) from error
