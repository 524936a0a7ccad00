"""The attacker who has the verifier's own judge, and keeps the filler that it likes best."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Final

import numpy as np

from verifier_sdk.lab.attack import Filler, Ids, Material, NotApplicableError, filler
from verifier_sdk.lab.attacks.ngram import ngram_text
from verifier_sdk.lab.attacks.own import sentences_shuffled
from verifier_sdk.lab.attacks.repeated import blocks_repeated_edited
from verifier_sdk.lab.attacks.retrieved import retrieved_near_trace

CANDIDATES: Final = 64
"""Blocks of filler that are made for each one that is used."""

BLOCK: Final = 256

CHEAP: Final[tuple[Filler, ...]] = (
    ngram_text,
    sentences_shuffled,
    retrieved_near_trace,
    blocks_repeated_edited,
)
"""What candidates are made of, in turn: everything that costs no model."""


@filler("adaptive_best_of_64", family="adaptive", placements=("appended", "interleaved"))
def adaptive_best_of_64(material: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """Of 64 cheap blocks, the one that the verifier's own judge finds least suspicious."""
    suspicion = material.library.suspicion
    if suspicion is None:
        msg = "this attacker needs the judge of a verifier, which `coin eval` gives it"
        raise NotApplicableError(msg)
    streams = cycle([_blocks(make(material, rng)) for make in CHEAP])
    while True:
        candidates = [next(next(streams)) for _ in range(CANDIDATES)]
        yield candidates[int(np.argmin(suspicion(material, candidates)))]


def _blocks(pieces: Iterator[Ids]) -> Iterator[Ids]:
    """Yield the pieces of a stream as blocks."""
    have = np.empty(0, np.uint32)
    for piece in pieces:
        have = np.concatenate([have, piece])
        while len(have) >= BLOCK:
            yield have[:BLOCK]
            have = have[BLOCK:]
