"""The checks of blocks opened whole."""

from __future__ import annotations

import numpy as np

from coin_protocol import merkle
from coin_protocol.checks.case import AnsweredWhole, Case
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.checks.included import verify_vocabulary
from coin_protocol.embedding import quantised_windows, window_dimension, window_texts
from coin_protocol.encoding import token_leaf
from coin_protocol.limits import TOKEN_SALT_BYTES
from coin_protocol.quantise import dequantise
from coin_protocol.tokenizer import text_of


def has_whole(case: Case) -> bool:
    """Whether a block was opened whole."""
    return bool(case.whole_openings)


def can_embed(case: Case) -> bool:
    """Whether a block was opened whole and the profile's models are at hand."""
    return bool(case.whole_openings) and case.installed is not None


def whole_leaves(case: Case) -> None:
    """The ids of a block opened whole give its token root."""
    case.check_once(_leaves, case.whole_openings)


def _leaves(case: Case, whole: AnsweredWhole) -> None:
    for block in whole.opening.blocks:
        entry = case.blocks[block.block_index]
        ids, salts = list(block.token_ids), block.token_salts
        if len(ids) != entry.token_count or len(salts) != len(ids) * TOKEN_SALT_BYTES:
            msg = (
                f"block {block.block_index} counts {entry.token_count} tokens; "
                f"{len(ids)} ids and {len(salts)} bytes of salts are shown"
            )
            raise CheckFailure(msg)
        fingerprints = {}
        for known in block.vocabulary:
            verify_vocabulary(case, known.token_id, known.fingerprint, known.proof)
            fingerprints[known.token_id] = known.fingerprint
        missing = set(ids) - fingerprints.keys()
        if missing:
            msg = f"block {block.block_index} shows no table entry of ids {sorted(missing)[:10]}"
            raise CheckFailure(msg)
        leaves = [
            merkle.leaf_hash(
                token_leaf(
                    case.commitment.session_id,
                    block.block_index,
                    position,
                    salts[position * TOKEN_SALT_BYTES : (position + 1) * TOKEN_SALT_BYTES],
                    fingerprints[token_id],
                )
            )
            for position, token_id in enumerate(ids)
        ]
        if merkle.root(leaves) != entry.token_root:
            msg = f"the ids shown of block {block.block_index} do not give its token root"
            raise CheckFailure(msg)


def whole_text(case: Case) -> None:
    """The text of a block opened whole is what its ids spell."""
    case.check_once(_text, case.whole_openings, *case.models)


def _text(case: Case, whole: AnsweredWhole) -> None:
    tokenizer, _ = case.models
    for block in whole.opening.blocks:
        if block.text != text_of(tokenizer, block.token_ids):
            msg = f"the text shown of block {block.block_index} is not what its ids spell"
            raise CheckFailure(msg)


def whole_embedding(case: Case) -> None:
    """The committed window embeddings of a block opened whole are those of its text."""
    case.check_once(_embedding, case.whole_openings, *case.models, case.policy.raw)


def _embedding(case: Case, whole: AnsweredWhole) -> None:
    tokenizer, embedder = case.models
    spec = case.profile.message.embedding
    dimension = window_dimension(spec)
    least = case.policy.message.min_recomputed_cosine
    for block in whole.opening.blocks:
        texts = window_texts(tokenizer, spec, block.token_ids)
        wanted = dequantise(quantised_windows(embedder, spec, texts), dimension)
        found = dequantise(block.windows, dimension)
        cosines = np.sum(wanted * found, axis=1)
        cosines /= np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
        worst = int(np.argmin(cosines))
        if cosines[worst] < least:
            msg = (
                f"window {worst} of block {block.block_index}: the committed embedding has "
                f"cosine {cosines[worst]:.4f} to that of its text, wanted {least}"
            )
            raise CheckFailure(msg)
