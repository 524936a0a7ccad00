"""Blocks of the reasoning again, as they are or lightly edited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from coin_protocol.tokenizer import text_of
from verifier_sdk.lab.attack import Ids, Material, filler
from verifier_sdk.lab.attacks.edits import edited
from verifier_sdk.lab.attacks.text import encode

BLOCK: Final = 256
"""Tokens in one repeated piece: a full block of the profile that ships."""

LEAST_EDITED: Final = 0.1
MOST_EDITED: Final = 0.2
"""Share of the words that change in one piece."""


@filler("blocks_repeated", family="repeated")
def blocks_repeated(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Blocks of the reasoning word for word, all of them in random order, again and again."""
    blocks = [material.ids[at : at + BLOCK] for at in range(0, len(material.ids), BLOCK)]
    while True:
        for at in rng.permutation(len(blocks)).tolist():
            yield blocks[at]


@filler("blocks_repeated_edited", family="repeated")
def blocks_repeated_edited(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Blocks of the reasoning with one word in five to ten changed, differently each time."""
    for block in blocks_repeated(material, rng):
        # A character cut at a block's edge is no text.
        text = text_of(material.tokenizer, block.tolist()).strip("\ufffd")
        share = rng.uniform(LEAST_EDITED, MOST_EDITED)
        yield encode(material.tokenizer, edited(text, share, rng))
