"""The token table: one quantised embedding for every id of a vocabulary (section 4).

Built once for a (tokenizer, embedding model) pair, kept as a `.npy` file in the user's cache
folder, memory-mapped, and checked against the profile's root whenever it is loaded.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from coin_protocol.embedding import TextEmbedder, embed_pieces
from coin_protocol.encoding import FP_TAG
from coin_protocol.errors import ModelMismatchError, VerificationError
from coin_protocol.files import cache_folder, make_folder, replace_file
from coin_protocol.merkle import IncrementalTree, leaf_hash
from coin_protocol.quantise import quantise, row_bytes
from coin_protocol.tokenizer import Tokenizer, token_text
from coin_protocol.v1 import profile_pb2

_ROWS_PER_CHUNK: Final = 4096
"""Bounds the memory that fingerprinting takes."""

Progress = Callable[[int, int], None]
"""Told (inputs embedded so far, inputs in all) while a table is built."""


class TableWarning(UserWarning):
    """A cached token table was unusable and is built again."""


class TokenTable:
    """Quantised rows of a whole vocabulary, with the tree over their fingerprints."""

    def __init__(self, rows: npt.NDArray[np.uint8]) -> None:
        """Fingerprint `rows`, uint8 of shape (vocabulary, 4 + dimension)."""
        # A view without numpy.memmap's own work at each access, where the rows are mapped.
        self.rows = np.asarray(rows)
        fingerprints = b"".join(_fingerprints(rows))
        self.fingerprints: npt.NDArray[np.uint8] = np.frombuffer(fingerprints, np.uint8).reshape(
            len(rows), -1
        )
        self._tree = IncrementalTree(
            leaf_hash(fingerprints[at : at + 32]) for at in range(0, len(fingerprints), 32)
        )

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return len(self.rows)

    @property
    def root(self) -> bytes:
        """The RFC 9162 root over the fingerprints, 32 bytes."""
        return self._tree.root()

    def row(self, token_id: int) -> bytes:
        """Return the quantised row of one id."""
        row: bytes = self.rows[token_id].tobytes()
        return row

    def proof(self, token_id: int) -> list[bytes]:
        """Return the inclusion proof of one id's fingerprint under `root`."""
        return self._tree.inclusion_proof(token_id)


def build_rows(
    tokenizer: Tokenizer, embedder: TextEmbedder, progress: Progress | None = None
) -> npt.NDArray[np.uint8]:
    """Embed and quantise every id of the vocabulary: uint8 (vocabulary, 4 + dimension).

    Ids whose text gives the embedding model the same input are embedded once.

    Raises:
        QuantisationError: The model gives a zero or non-finite vector for some token.
    """
    texts = [token_text(tokenizer.token_bytes(i)) for i in range(tokenizer.vocabulary_size)]
    numbers: dict[tuple[int, ...], int] = {}
    owners = [numbers.setdefault(found, len(numbers)) for found in embedder.pieces(texts)]
    done = 0

    def report(count: int) -> None:
        nonlocal done
        # A text longer than the model takes counts once for each of its parts.
        done = min(done + count, len(numbers))
        if progress is not None:
            progress(done, len(numbers))

    distinct = quantise(embed_pieces(embedder, list(numbers), report))
    rows: npt.NDArray[np.uint8] = distinct[owners]
    return rows


def table_path(profile: profile_pb2.Profile, folder: Path | None = None) -> Path:
    """Return where the table of a profile is cached, by default in the user's cache folder."""
    folder = folder or cache_folder()
    spec, model = profile.tokenizer, profile.embedding
    key = sha256(spec.sha256 + model.weights_sha256 + model.tokenizer_sha256).hexdigest()
    # Names come from a profile, so from outside: only harmless characters, only so many.
    names = (re.sub(r"[^A-Za-z0-9-]+", "-", name)[:64] for name in (spec.name, model.name))
    return folder / "tables" / f"{'--'.join(names)}--{key[:16]}.npy"


def load_table(
    profile: profile_pb2.Profile,
    models: Callable[[], tuple[Tokenizer, TextEmbedder]],
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TokenTable:
    """Return the profile's token table, from the cache or built now.

    Concurrent callers build once: a lock file beside the table makes the others wait.

    Args:
        profile: Names tokenizer, embedding model and the root that the table must have.
        models: Called only when the table has to be built.
        folder: Cache folder, by default the user's.
        progress: Told how far a build is.

    Raises:
        ModelMismatchError: The table that the models give is not the profile's.
    """
    path = table_path(profile, folder)
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            try:
                return _read(path, profile)
            except VerificationError as error:
                warnings.warn(
                    f"cached token table {path.name} is unusable ({error}); building it again",
                    TableWarning,
                    stacklevel=2,
                )
        table = TokenTable(build_rows(*models(), progress))
        wanted = profile.tokenizer.token_table_root
        if table.root != wanted:
            msg = (
                f"the token table of {profile.tokenizer.name} and {profile.embedding.name} has "
                f"root {table.root.hex()}, the profile names {wanted.hex()}"
            )
            raise ModelMismatchError(msg)
        write_rows(path, table.rows)
        return _read(path, profile)


def make_table(
    profile: profile_pb2.Profile,
    tokenizer: Tokenizer,
    embedder: TextEmbedder,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TokenTable:
    """Build the table of a profile whose root is not known yet, and keep it in the cache.

    Args:
        profile: Names tokenizer and embedding model.
        tokenizer: The one that it names.
        embedder: The one that it names.
        folder: Cache folder, by default the user's.
        progress: Told how far the build is.
    """
    path = table_path(profile, folder)
    make_folder(path.parent)
    table = TokenTable(build_rows(tokenizer, embedder, progress))
    with FileLock(path.with_suffix(".lock")):
        write_rows(path, table.rows)
    return table


def write_rows(path: Path, rows: npt.NDArray[np.uint8]) -> None:
    """Write rows to `path` as a `.npy` file, as a whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    replace_file(path, buffer.getbuffer())


def _read(path: Path, profile: profile_pb2.Profile) -> TokenTable:
    wanted = (profile.tokenizer.vocabulary_size, row_bytes(profile.embedding.dimension))
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call] # numpy's
    except Exception as error:
        # numpy raises whatever the bytes lead it to.
        msg = f"not a numpy file: {error}"
        raise VerificationError(msg) from error
    if rows.shape != wanted or rows.dtype != np.uint8:
        msg = f"found {rows.dtype} of shape {rows.shape}, wanted uint8 of shape {wanted}"
        raise VerificationError(msg)
    table = TokenTable(rows)
    root = profile.tokenizer.token_table_root
    if table.root != root:
        msg = f"found root {table.root.hex()}, wanted {root.hex()}"
        raise VerificationError(msg)
    return table


def _fingerprints(rows: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield `fp[v]` of every row: byte for byte `encoding.token_fingerprint`."""
    tag = np.frombuffer(FP_TAG, np.uint8)
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        chunk = rows[start : start + _ROWS_PER_CHUNK]
        data = np.empty((len(chunk), len(tag) + 4 + chunk.shape[1]), np.uint8)
        data[:, : len(tag)] = tag
        ids = np.arange(start, start + len(chunk), dtype=">u4")
        data[:, len(tag) : len(tag) + 4] = ids.view(np.uint8).reshape(len(chunk), 4)
        data[:, len(tag) + 4 :] = chunk
        for entry in data:
            yield sha256(entry).digest()
