"""Random ids of the vocabulary: the cheapest filler there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from verifier_sdk.lab.attack import Ids, Material, filler
from verifier_sdk.lab.attacks.text import ordinary_ids

_DRAWN_AT_ONCE: Final = 4_096


@filler("random_vocabulary", family="random")
def random_vocabulary(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Ids drawn uniformly from the whole vocabulary, control ids left out."""
    return drawn(ordinary_ids(material.tokenizer), rng)


def drawn(source: Ids, rng: np.random.Generator) -> Iterator[Ids]:
    """Yield single ids drawn from a source, uint32 (1,), without end."""
    while True:
        yield from rng.choice(source, (_DRAWN_AT_ONCE, 1))
