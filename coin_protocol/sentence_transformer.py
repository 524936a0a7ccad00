"""`TextEmbedder` over a sentence-transformers model folder, in float64 and unpadded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from coin_protocol.embedding import Vectors
from coin_protocol.errors import ConfigurationError, MissingDependencyError, ModelMismatchError
from coin_protocol.v1 import profile_pb2

_PIECES_PER_BATCH: Final = 4096
"""Keeps activations of a small model within the processor's caches."""


class SentenceTransformerEmbedder:
    """A model folder whose files are those that a profile names.

    Inputs are grouped by length and never padded, so a vector does not depend on what it
    was batched with.
    """

    def __init__(self, folder: Path, spec: profile_pb2.EmbeddingSpec) -> None:
        """Check the digests of `folder`'s files against `spec`, then load it.

        Raises:
            ConfigurationError: A file is missing.
            ModelMismatchError: A digest or the dimension differs; the message has both.
            MissingDependencyError: sentence-transformers is not installed.
        """
        _require_file(folder / "model.safetensors", spec.weights_sha256, spec.name)
        _require_file(folder / "tokenizer.json", spec.tokenizer_sha256, spec.name)
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging
        except ImportError as error:
            msg = "text embedding needs sentence-transformers: install coin-audit[embedding]"
            raise MissingDependencyError(msg) from error
        self._torch = torch
        transformers_logging.disable_progress_bar()
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._model = model.to(torch.float64).eval()
        self._tokenizer = model.tokenizer
        probe = tuple(self._tokenizer("a", add_special_tokens=False)["input_ids"])
        framed = tuple(self._tokenizer("a")["input_ids"])
        at = next(i for i in range(len(framed)) if framed[i : i + len(probe)] == probe)
        self._prefix, self._suffix = framed[:at], framed[at + len(probe) :]
        self._max_pieces = spec.max_pieces - len(self._prefix) - len(self._suffix)
        self._dimension = spec.dimension
        found = self.encode([()]).shape[1]
        if found != spec.dimension:
            msg = f"{spec.name} gives {found} numbers a vector, the profile says {spec.dimension}"
            raise ModelMismatchError(msg)

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""
        return self._dimension

    @property
    def max_pieces(self) -> int:
        """Longest input in pieces, special pieces not counted."""
        return self._max_pieces

    def pieces(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return each text's pieces, uncut and without special pieces."""
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )
        return [tuple(ids) for ids in encoded["input_ids"]]

    def encode(
        self,
        inputs: Sequence[tuple[int, ...]],
        progress: Callable[[int], None] | None = None,
    ) -> Vectors:
        """Return float64 (len(inputs), dimension)."""
        torch = self._torch
        by_length: dict[int, list[int]] = defaultdict(list)
        for at, pieces in enumerate(inputs):
            by_length[len(pieces)].append(at)
        vectors: Vectors | None = None
        with torch.inference_mode():
            for length, places in sorted(by_length.items()):
                step = max(1, _PIECES_PER_BATCH // (length + 2))
                for start in range(0, len(places), step):
                    batch = places[start : start + step]
                    ids = torch.tensor(
                        [(*self._prefix, *inputs[at], *self._suffix) for at in batch]
                    )
                    features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                    found = self._model(features)["sentence_embedding"].numpy()
                    if vectors is None:
                        vectors = np.empty((len(inputs), found.shape[1]))
                    vectors[batch] = found
                    if progress is not None:
                        progress(len(batch))
        return np.empty((0, self._dimension)) if vectors is None else vectors


def _require_file(path: Path, wanted: bytes, name: str) -> None:
    if not path.is_file():
        msg = f"there is no {path.name} in {path.parent}; wanted that of {name}"
        raise ConfigurationError(msg)
    with path.open("rb") as file:
        hasher = sha256()
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    if hasher.digest() != wanted:
        msg = (
            f"{path.name} is not that of the profile's {name}: "
            f"found SHA-256 {hasher.hexdigest()}, wanted {wanted.hex()}"
        )
        raise ModelMismatchError(msg)
