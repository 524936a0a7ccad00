"""A tokenizer and an embedding model small enough to build a whole world in milliseconds.

They keep every rule of the real ones (float64, windows, digests, a token table under a root)
and none of their meaning: vectors are hashes of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256, shake_256
from typing import Final

import numpy as np

from coin_protocol.embedding import TextEmbedder, Vectors
from coin_protocol.errors import InvalidInputError
from coin_protocol.keys import ECDSA_P256, ED25519
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.table import TokenTable, build_rows
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2 as pb

VOCABULARY: Final = 300
DIMENSION: Final = 16
_WORDS_FROM: Final = 256


class SmallTokenizer:
    """Ids 0 to 255 are bytes, the rest are the letter pairs `aa`, `ab` and on."""

    @property
    def sha256(self) -> bytes:
        """Digest of its name: it has no file."""
        return sha256(b"small tokenizer").digest()

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return VOCABULARY

    def encode(self, text: str) -> list[int]:
        """Return ids, pairs first."""
        raw, ids, at = text.encode(), [], 0
        pairs = {self.token_bytes(i): i for i in range(_WORDS_FROM, VOCABULARY)}
        while at < len(raw):
            pair = pairs.get(raw[at : at + 2])
            ids.append(raw[at] if pair is None else pair)
            at += 1 if pair is None else 2
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for."""
        if not 0 <= token_id < VOCABULARY:
            msg = f"token id {token_id} is outside the vocabulary of {VOCABULARY} ids"
            raise InvalidInputError(msg)
        if token_id < _WORDS_FROM:
            return bytes((token_id,))
        first, second = divmod(token_id - _WORDS_FROM, 26)
        return bytes((ord("a") + first, ord("a") + second))


class SmallEmbedder:
    """The mean of one hashed vector for each byte: texts that share bytes are near."""

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""
        return DIMENSION

    @property
    def max_pieces(self) -> int:
        """Longest input in bytes."""
        return 6

    def pieces(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the bytes of each text."""
        return [tuple(text.encode()) for text in texts]

    def encode(
        self,
        inputs: Sequence[tuple[int, ...]],
        progress: Callable[[int], None] | None = None,
    ) -> Vectors:
        """Return float64 (len(inputs), dimension)."""
        vectors = np.stack(
            [np.mean([_hashed(piece) for piece in pieces or (256,)], axis=0) for pieces in inputs]
        )
        if progress is not None:
            progress(len(inputs))
        return vectors


def _hashed(piece: int) -> Vectors:
    raw = shake_256(b"piece %d" % piece).digest(2 * DIMENSION)
    vector: Vectors = np.frombuffer(raw, ">u2").astype(np.float64) - 32_767.5
    return vector


_TABLE: Final[dict[str, TokenTable]] = {}


def small_table() -> TokenTable:
    """Return the token table of the small models, built once for a process."""
    if "table" not in _TABLE:
        _TABLE["table"] = TokenTable(build_rows(SmallTokenizer(), SmallEmbedder()))
    return _TABLE["table"]


def small_profile(
    *,
    block_size: int = 8,
    window_tokens: int = 4,
    tokens_ppm: int = 500_000,
    blocks_ppm: int = 600_000,
    whole_blocks_ppm: int = 400_000,
    run_tokens: int = 0,
    projection: int = 0,
) -> Profile:
    """Return a profile of the small models; caps are wide unless told otherwise."""
    message = pb.Profile(
        name="small",
        hash=pb.HASH_ALGORITHM_SHA256,
        key_algorithms=[ED25519, ECDSA_P256],
        block_size=block_size,
        tokenizer=pb.TokenizerSpec(
            name="small",
            sha256=SmallTokenizer().sha256,
            vocabulary_size=VOCABULARY,
            token_table_root=small_table().root,
        ),
        embedding=pb.EmbeddingSpec(
            name="small",
            dimension=DIMENSION,
            weights_sha256=sha256(b"small weights").digest(),
            tokenizer_sha256=sha256(b"small pieces").digest(),
            precision=pb.PRECISION_FLOAT64,
            quantisation=pb.QUANTISATION_INT8_SYMMETRIC,
            max_pieces=8,
            window_tokens=window_tokens,
        ),
        caps=pb.ExposureCaps(
            tokens_ppm=tokens_ppm,
            blocks_ppm=blocks_ppm,
            min_tokens=4,
            min_blocks=1,
            whole_blocks_ppm=whole_blocks_ppm,
            run_tokens=run_tokens,
        ),
    )
    if projection:
        message.embedding.projection.dimension = projection
        message.embedding.projection.seed = sha256(b"small projection").digest()
    return Profile.from_bytes(message.SerializeToString(deterministic=True))


class SmallModels(Models):
    """The small models where real ones are expected."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The small tokenizer."""
        return SmallTokenizer()

    @cached_property
    def embedder(self) -> TextEmbedder:
        """The small embedding model."""
        return SmallEmbedder()

    @cached_property
    def table(self) -> TokenTable:
        """The small token table."""
        return small_table()
