"""Reads whole blocks: dilated convolutions over token embeddings, one head for each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from verifier_sdk.semantic.exact import Numbers, group_totals
from verifier_sdk.semantic.reader.forward import BlockForward
from verifier_sdk.semantic.reader.tensors import (
    Tensors,
    dimension,
    exported,
    imported,
    parameters,
)
from verifier_sdk.semantic.reader.vocabulary import PADDING, Ids, Rows, Vocabulary, checked_ids

BLOCK_FAMILIES: Final = (
    "random",
    "bag",
    "scattered",
    "split",
    "ngram",
    "shuffled",
    "retrieved",
    "edited",
)
"""One head each, in this order; edited are own blocks again with words changed."""

PIECE: Final = 256
"""Tokens read at once: as long as the blocks that the reader was trained on."""

MOST: Final = 12.0
"""Logits are cut off here."""

DILATIONS: Final = (1, 2, 4, 8, 16, 32)
"""Tokens to either side that a layer looks; together they see 127 around each."""

REPEATS: Final = 4
"""Up to how many tokens that end at a place may be marked as standing in the block before."""

DROPPED: Final = 0.1
"""Share of the tokens that are hidden while training: no text is then known by heart."""

_WIDTH: Final = 64
_EMBEDDING: Final = 48
_PREFIX: Final = "blocks."
_FAR: Final = 1e4


class Layer(nn.Module):
    """What stands `dilation` tokens before, here and after, added to what is here."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation))

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return states (n, length, width), of which those where the mask is 0 do not matter."""
        seen = torch.relu(self.norm(states))
        if mask is not None:
            seen = seen * mask
        # As an image of one line, channels last: the layout that the fastest kernels want.
        added: torch.Tensor = self.mix(seen.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
        return states + added


class BlockNet(nn.Module):
    """Embeddings, layers that look ever further, and what is made of all places together."""

    def __init__(self, rows: int, *, embedding: int = _EMBEDDING, width: int = _WIDTH) -> None:
        """Initialise at random.

        Args:
            rows: Of the embedding table, row 0 for padding.
            embedding: Width of an embedding.
            width: Of the states.
        """
        super().__init__()
        heads = len(BLOCK_FAMILIES)
        self.embedding = nn.Embedding(rows, embedding, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.zeros_(self.embedding.weight[PADDING])
        self.project = nn.Linear(embedding + REPEATS, width)
        self.layers = nn.ModuleList(Layer(width, dilation) for dilation in DILATIONS)
        self.norm = nn.LayerNorm(width)
        self.places = nn.Linear(width, heads)
        self.summary = nn.Linear(2 * width, width)
        self.heads = nn.Linear(width, heads)
        self.pool = nn.Parameter(torch.zeros(2, heads))

    def forward(
        self, rows: torch.Tensor, repeats: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits of blocks and of their places.

        Args:
            rows: Of each place, int64 (n, length), padding behind the tokens.
            repeats: Of `repeated_before`, float32 (n, length, 4).

        Returns:
            Logits (n, families) and (n, length, families), float32.
        """
        full = rows != PADDING
        mask = None if bool(full.all()) else full[:, :, None].to(torch.float32)
        tokens = self.embedding(rows)
        if self.training:
            tokens = tokens * (torch.rand(*rows.shape, 1) >= DROPPED)
        states = self.project(torch.cat([tokens, repeats], -1))
        for layer in self.layers:
            states = layer(states, mask)
        states = self.norm(states)
        places = self.places(states)
        if mask is None:
            mean, top = states.mean(1), states.amax(1)
            level, peak = places.mean(1), torch.logsumexp(places, 1)
        else:
            count, away = mask.sum(1).clamp(min=1.0), _FAR * (1.0 - mask)
            mean, top = (states * mask).sum(1) / count, (states - away).amax(1)
            level, peak = (places * mask).sum(1) / count, torch.logsumexp(places - away, 1)
        summary = torch.relu(self.summary(torch.cat([mean, top], -1)))
        return self.heads(summary) + self.pool[0] * level + self.pool[1] * peak, places


def repeated_before(rows: Rows) -> npt.NDArray[np.float32]:
    """Return whether the last 1 to 4 tokens at each place stand in the block before.

    Args:
        rows: int64 (n, length), padding behind the tokens.

    Returns:
        1 where they do, else 0, float32 (n, length, 4).
    """
    count, length = rows.shape
    flat = rows.ravel()
    found = np.zeros((count * length, REPEATS), np.float32)
    key = np.repeat(np.arange(count), length)
    place = np.tile(np.arange(length), count)
    size = int(rows.max(initial=0)) + 1
    for back in range(min(REPEATS, length)):
        # Before a block's first token stands padding, which no run that counts holds.
        key = key * size + np.where(place >= back, np.roll(flat, back), PADDING)
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        again = np.concatenate([[False], ordered[1:] == ordered[:-1]])
        # Numbered anew, so that keys stay small.
        key[order] = np.cumsum(~again)
        found[order, back] = again
        found[(place < back) | (flat == PADDING), back] = 0.0
    return found.reshape(count, length, REPEATS)


class BlockReader:
    """Logits of whole blocks: filler of a family, in part at least, over real reasoning."""

    families: Final = BLOCK_FAMILIES

    def __init__(self, vocabulary: Vocabulary, net: BlockNet) -> None:
        """Take the network, which is not trained any more.

        Raises:
            ValueError: Its table has not as many rows as the vocabulary.
        """
        if net.embedding.num_embeddings != vocabulary.rows:
            msg = (
                f"the block reader's table has {net.embedding.num_embeddings} rows, "
                f"the vocabulary {vocabulary.rows}"
            )
            raise ValueError(msg)
        self._vocabulary = vocabulary
        self._net = net.eval()
        self._forward = BlockForward.of(parameters(net), DILATIONS)

    def read(self, blocks: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float32]:
        """Return the logit of each block and family, float32 (n, families), within +-12.

        Longer blocks are read in pieces of 256 tokens, and the logits averaged by length. A
        block without tokens gives zeros.

        Args:
            blocks: Token ids of each, integers (m,), in any lengths.

        Raises:
            ValueError: A block is no flat list of integers from 0 to 2^20 - 1.
        """
        pieces: list[Ids] = []
        owner: list[int] = []
        for number, block in enumerate(blocks):
            ids = checked_ids(block)
            if ids.ndim != 1:
                msg = f"a block must be a flat list of ids; found shape {ids.shape}"
                raise ValueError(msg)
            for start in range(0, len(ids), PIECE):
                pieces.append(ids[start : start + PIECE].astype(np.uint32))
                owner.append(number)
        if not pieces:
            return np.zeros((len(blocks), len(BLOCK_FAMILIES)), np.float32)
        lengths = np.array([len(piece) for piece in pieces])
        logits = np.stack([self._logits(piece) for piece in pieces])
        weighed = np.clip(logits, -MOST, MOST) * lengths[:, None]
        sums = group_totals(weighed, np.array(owner, np.int64), len(blocks))
        total = np.bincount(owner, lengths, minlength=len(blocks))
        averaged: Numbers = sums / np.maximum(total, 1)[:, None]
        return averaged.astype(np.float32)

    def _logits(self, piece: Ids) -> Numbers:
        rows = self._vocabulary.rows_of(piece)
        return self._forward(rows, repeated_before(rows[None])[0])

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what `from_tensors` reads, float16, without the vocabulary."""
        return exported(_PREFIX, self._net)

    @classmethod
    def from_tensors(cls, vocabulary: Vocabulary, tensors: Tensors) -> BlockReader:
        """Read a reader back.

        Raises:
            ValueError: Tensors are missing, not finite, or of other shapes.
        """
        net = BlockNet(
            vocabulary.rows,
            embedding=dimension(tensors, _PREFIX + "embedding.weight", 1),
            width=dimension(tensors, _PREFIX + "norm.weight", 0),
        )
        imported(_PREFIX, net, tensors)
        return cls(vocabulary, net)
