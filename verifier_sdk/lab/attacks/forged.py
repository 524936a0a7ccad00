"""Vectors that are not of the tokens they stand beside."""

from __future__ import annotations

import numpy as np

from verifier_sdk.lab.attack import Attacked, Material, attack, fill, random_numbers
from verifier_sdk.lab.attacks.own import own_tokens
from verifier_sdk.lab.attacks.vocabulary import drawn


@attack("forged_vectors", family="forged", placements=("appended", "interleaved"))
def forged_vectors(material: Material, rate: float, placement: str, block_size: int) -> Attacked:
    """Own tokens in random order, beside window embeddings of the reasoning's real text.

    What the vectors are of begins at a random place in the reasoning and goes round.
    """
    rng = random_numbers(material, "forged_vectors")
    start = int(rng.integers(len(material.ids)))
    bag = fill(material, drawn(own_tokens(material), rng), rate, placement, block_size)
    embedded = bag.ids.copy()
    places = np.flatnonzero(bag.injected)
    embedded[places] = material.ids[(start + np.arange(len(places))) % len(material.ids)]
    return Attacked(bag.ids, bag.injected, embedded)
