"""Many embeddings, fast: reduced precision, in batches, kept on disk.

Judges are trained and evaluated on these and never commit to them. bfloat16 where the
processor computes in it is three times as fast as float32, with a cosine to float64 of 0.9999
and more: less than the projection and int8 leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from coin_protocol.embedding import TextEmbedder, Vectors, embed_texts
from coin_protocol.sentence_transformer import SentenceTransformerEmbedder

Progress = Callable[[int], None]
Rows = npt.NDArray[np.float32]

_KEY_BYTES: Final = 16
_CHUNK: Final = 4096
"""Texts embedded between two writes: what an interruption costs."""

_PIECES_PER_BATCH: Final = 4096


class FastEmbedder(SentenceTransformerEmbedder):
    """A loaded embedder in bfloat16 or float32, padded into batches of like length."""

    def __init__(self, exact: TextEmbedder) -> None:
        """Copy an embedder that was loaded in float64."""
        if not isinstance(exact, SentenceTransformerEmbedder):
            msg = f"wanted a SentenceTransformerEmbedder, found {type(exact).__name__}"
            raise TypeError(msg)
        vars(self).update(vars(exact))
        torch = self._torch
        fast = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
        self.precision = "bfloat16" if fast else "float32"
        self._model = deepcopy(self._model).to(getattr(torch, self.precision))

    def encode(
        self, inputs: Sequence[tuple[int, ...]], progress: Progress | None = None
    ) -> Vectors:
        """Return float64 (len(inputs), dimension) with the precision of `precision`."""
        torch = self._torch
        # Longest first: the first of a batch says how many fit.
        order = sorted(range(len(inputs)), key=lambda at: -len(inputs[at]))
        vectors = np.zeros((len(inputs), self._dimension))
        start = 0
        with torch.inference_mode():
            while start < len(order):
                longest = len(inputs[order[start]]) + 2
                count = max(1, _PIECES_PER_BATCH // max(longest, 1))
                batch = order[start : start + count]
                framed = [(*self._prefix, *inputs[at], *self._suffix) for at in batch]
                longest = max(map(len, framed))
                ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in framed])
                mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in framed])
                features = {"input_ids": ids, "attention_mask": mask}
                found = self._model(features)["sentence_embedding"].to(torch.float64)
                vectors[batch] = found.numpy()
                start += count
                if progress is not None:
                    progress(len(batch))
        return vectors


class EmbeddingCache:
    """Unit vectors of texts, on disk as float16, added as they are asked for.

    An interrupted run loses one chunk at most; the next one goes on from there.
    """

    def __init__(self, embedder: TextEmbedder, folder: Path | None = None) -> None:
        """Embed with `embedder`, keep in `folder`; in memory alone without one."""
        self._embedder = embedder
        self._places: dict[bytes, int] = {}
        self._rows = np.empty((0, embedder.dimension), np.float16)
        self._used = 0
        self._files = None if folder is None else _Files(folder, embedder.dimension)
        if self._files is not None:
            self._load(self._files)

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> Rows:
        """Return unit vectors, float32 (len(texts), dimension)."""
        keys = [_key(text) for text in texts]
        self.prepare(texts, progress, keys)
        rows: Rows = self._rows[[self._places[key] for key in keys]].astype(np.float32)
        return rows

    def prepare(
        self,
        texts: Sequence[str],
        progress: Progress | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> None:
        """Embed what is not there yet. `progress` is told how many texts each step did."""
        named = zip(keys or map(_key, texts), texts, strict=True)
        missing = {key: text for key, text in named if key not in self._places}
        todo = sorted(missing.items(), key=lambda item: len(item[1]))
        if progress is not None:
            progress(len(texts) - len(todo))
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            found = embed_texts(self._embedder, [text for _, text in chunk]).astype(np.float16)
            self._append([key for key, _ in chunk], found)
            if progress is not None:
                progress(len(chunk))

    def missing(self, texts: Sequence[str]) -> int:
        """Return how many different texts are not there yet."""
        return len({key for key in map(_key, texts) if key not in self._places})

    def _append(self, keys: list[bytes], found: npt.NDArray[np.float16]) -> None:
        end = self._used + len(keys)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows)), found.shape[1]), np.float16)
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        self._rows[self._used : end] = found
        for at, key in enumerate(keys, self._used):
            self._places[key] = at
        self._used = end
        if self._files is not None:
            with self._files.lock:
                self._files.settle()
                with self._files.rows.open("ab") as file:
                    file.write(found.tobytes())
                with self._files.keys.open("ab") as file:
                    file.write(b"".join(keys))

    def _load(self, files: _Files) -> None:
        with files.lock:
            count = files.settle()
            raw = files.keys.read_bytes()
            rows = np.fromfile(files.rows, np.float16)
        self._places = {
            raw[at : at + _KEY_BYTES]: at // _KEY_BYTES for at in range(0, len(raw), _KEY_BYTES)
        }
        self._rows = rows.reshape(count, self._embedder.dimension)
        self._used = count


class _Files:
    """Keys and rows in the same order, added to by one process at a time."""

    def __init__(self, folder: Path, dimension: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.keys, self.rows = folder / "keys.bin", folder / "rows.f16"
        self.lock = FileLock(folder / "lock")
        self._row_bytes = 2 * dimension

    def settle(self) -> int:
        """Cut off what an interruption left of one file alone; return how many rows there are."""
        sizes = ((self.keys, _KEY_BYTES), (self.rows, self._row_bytes))
        for path, _ in sizes:
            path.touch()
        count = min(path.stat().st_size // size for path, size in sizes)
        for path, size in sizes:
            if path.stat().st_size != count * size:
                with path.open("r+b") as file:
                    file.truncate(count * size)
        return count


def _key(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=_KEY_BYTES).digest()
