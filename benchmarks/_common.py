"""What the benchmarks share: JSON lines, fair timing, the hash floor, a provider to load.

Machines are shared and noisy, so whatever is compared runs in turns in one process, and the
least time of each counts: noise only ever adds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from coin_protocol.embedding import TextEmbedder, window_dimension
from coin_protocol.encoding import BLOCK_TAG, SALT_TAG, TOKEN_TAG
from coin_protocol.keys import KeyRing, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, sign_key_set
from coin_protocol.limits import (
    BLOCK_SALT_BYTES,
    HASH_BYTES,
    SESSION_ID_BYTES,
    TOKEN_SALT_BYTES,
)
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.quantise import row_bytes
from coin_protocol.sentence_transformer import SentenceTransformerEmbedder
from coin_protocol.signer import KeySigner
from coin_protocol.table import TokenTable, table_path
from coin_protocol.testing.small import SmallEmbedder, SmallTokenizer
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.usage import INSIDE, usage_for
from provider_sdk import Provider
from provider_sdk.record import SessionStore
from provider_sdk.session import Session
from provider_sdk.store import KeySealer, SqlStore

K = TypeVar("K", bound=Provider)

TOKENS: Final = 100_000
CHUNK: Final = 16
"""Ids that an inference server hands over at a time."""

_NONCE: Final = bytes(range(32))


def report(
    name: str, value: float | None, *, unit: str, better: str, limit: float | None = None
) -> None:
    """Print a result.

    Args:
        name: What was measured.
        value: In `unit`.
        unit: `ratio`, `us`, `bytes` and so on.
        better: `lower` or `higher`.
        limit: What is claimed; None where nothing is.
    """
    value = None if value is None else float(f"{value:.4g}")
    line = {"name": name, "value": value, "limit": limit, "better": better, "unit": unit}
    print(json.dumps(line), flush=True)


def skip(name: str, why: str) -> None:
    """Print that `name` was not measured, and what to do about it."""
    print(json.dumps({"name": name, "value": None, "skipped": why}), flush=True)


def least_seconds(
    *calls: Callable[[], object],
    rounds: int = 15,
    clock: Callable[[], float] = time.thread_time,
) -> list[float]:
    """Run the calls in turns, `rounds` times; return the least seconds that each took.

    One uncounted round warms caches and allocators. The clock counts the processor time of
    this thread by default; what uses several threads needs `time.perf_counter`.
    """
    least = [float("inf")] * len(calls)
    for number in range(rounds + 1):
        for at, call in enumerate(calls):
            start = clock()
            call()
            taken = clock() - start
            if number:
                least[at] = min(least[at], taken)
    return least


class HashFloor:
    """The hashing that committing to `tokens` cannot do without, from prepared bytes.

    A SHA-256 for each token leaf, for each node of each block's tree, for each block leaf and
    for each node of the tree over those; a SHAKE-256 stream of salts for each block. Inputs
    have the lengths of the real ones and are used again for each block, so they stay in cache.
    """

    def __init__(self, tokens: int, block_size: int) -> None:
        """Prepare the bytes."""
        blocks = -(-tokens // block_size)
        self._blocks = [block_size] * (tokens // block_size)
        if tokens % block_size:
            self._blocks.append(tokens % block_size)
        head = 1 + SESSION_ID_BYTES
        leaf = head + len(TOKEN_TAG) + 4 + 4 + TOKEN_SALT_BYTES + HASH_BYTES
        self._leaves = [os.urandom(leaf) for _ in range(block_size)]
        self._nodes = [os.urandom(1 + 2 * HASH_BYTES) for _ in range(block_size)]
        self._block_leaf = os.urandom(head + len(BLOCK_TAG) + 4 + 8 + 4 + HASH_BYTES)
        self._salt_input = os.urandom(len(SALT_TAG) + HASH_BYTES + 4)
        self._upper_nodes = blocks - 1

    def run(self) -> None:
        """Hash once."""
        node = self._nodes[0]
        for tokens in self._blocks:
            shake_256(self._salt_input).digest(BLOCK_SALT_BYTES + TOKEN_SALT_BYTES * tokens)
            for data in self._leaves[:tokens]:
                sha256(data).digest()
            for data in self._nodes[: tokens - 1]:
                sha256(data).digest()
            sha256(self._block_leaf).digest()
        for _ in range(self._upper_nodes):
            sha256(node).digest()


def real_table(profile: Profile) -> TokenTable | None:
    """Return the profile's token table if it is cached; None rather than minutes of building."""
    return Models(profile).table if table_path(profile.message).exists() else None


def any_table(profile: Profile) -> TokenTable:
    """Return the real token table, or random rows of its shape."""
    table = real_table(profile)
    if table is not None:
        return table
    width = row_bytes(profile.message.embedding.dimension)
    rng = np.random.default_rng(1)
    return TokenTable(rng.integers(0, 256, (profile.vocabulary_size, width), np.uint8))


class Float32Embedder(SentenceTransformerEmbedder):
    """The same model in single precision: twice as fast, and never what is committed."""

    def __init__(self, exact: TextEmbedder) -> None:
        """Copy an embedder that was loaded in float64."""
        vars(self).update(vars(exact))
        self._model = deepcopy(self._model).float()


def random_ids(profile: Profile, count: int) -> npt.NDArray[np.uint32]:
    """Return ids of the whole vocabulary, the same each time."""
    return np.random.default_rng(2).integers(0, profile.vocabulary_size, count, np.uint32)


class TableModels(Models):
    """The real token table beside models that no one calls."""

    @cached_property
    def table(self) -> TokenTable:
        """The real token table, or random rows of its shape."""
        return any_table(self.profile)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Never called."""
        return SmallTokenizer()

    @cached_property
    def embedder(self) -> TextEmbedder:
        """Never called."""
        return SmallEmbedder()


class UnembeddedProvider(Provider):
    """A provider whose block embeddings are random bytes of the right size."""

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        """Return the rows of the block's windows."""
        spec = self.profile.message.embedding
        windows = -(-len(token_ids) // spec.window_tokens)
        return [os.urandom(row_bytes(window_dimension(spec))) for _ in range(windows)]

    def new_session(self) -> Session:
        """Return a session with fixed arguments."""
        return self.open_session(model="model", request=b"request", client_nonce=_NONCE)


def finish(session: Session) -> bytes:
    """Finish a session with a plain bill; return the commitment's payload."""
    usage = usage_for(
        prompt_tokens=1, reasoning_tokens=session.token_count, answer_tokens=1, counting=INSIDE
    )
    return session.finish(answer=b"answer", answer_tokens=1, usage=usage).payload


def open_provider(
    kind: type[K],
    *,
    models: Models | None = None,
    store: SessionStore | None = None,
    verifiers: KeyRing | None = None,
) -> K:
    """Return a provider under the default profile, with keys made now."""
    root = KeySigner.generate(ROOT_KEY_NAME)
    signer = KeySigner.generate("provider")
    now = datetime.now(UTC)
    listed = ListedKey(signer.public, now - timedelta(days=1), now + timedelta(days=1))
    return kind(
        name="provider",
        signer=signer,
        key_set=sign_key_set("provider", [listed], root=root, issued_at=now, sequence=1),
        models=TableModels(Profile.shipped("default")) if models is None else models,
        verifiers=pinned("verifiers", []) if verifiers is None else verifiers,
        store=store,
    )


def sqlite_store(folder: Path) -> SqlStore:
    """Return a store over a new SQLite file, every commit synced, secrets sealed."""
    return SqlStore(
        f"sqlite:///{folder / 'coin.db'}",
        profile=Profile.shipped("default"),
        sealer=KeySealer.generate(),
    )
