"""The same text in more tokens: nothing is injected but the count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab.attack import (
    Attacked,
    Ids,
    Material,
    NotApplicableError,
    attack,
    injected_tokens,
    random_numbers,
)
from verifier_sdk.lab.attacks.text import ordinary_ids, per_tokenizer

Cut = tuple[int, int]
"""Two ids whose bytes together are one id's."""


@attack("finer_tokenization", family="split")
def finer_tokenization(
    material: Material, rate: float, placement: str, block_size: int
) -> Attacked:
    """The same text in more tokens: ids split at random into shorter ids of the same bytes.

    Appended, a stretch at the end is split; interleaved, stretches of whole blocks;
    scattered, ids anywhere. Of the ids that stand for one original id, all but the first are
    injected.

    Raises:
        NotApplicableError: Less than 90 % of the wanted tokens can be had by splitting.
    """
    wanted = injected_tokens(material.ids, rate)
    rng = random_numbers(material, "finer_tokenization")
    order = _order(len(material.ids), placement, block_size, rng)
    # From ids split in two to ids spelled out: some attackers change little in many places.
    depth = int(rng.choice([1, 2, 64]))
    parts = _split(splits(material.tokenizer), material.ids, order, wanted, depth, rng)
    extra = sum(len(run) - 1 for run in parts.values())
    if extra < 0.9 * wanted:
        msg = f"splitting gives {extra} of {wanted} tokens: take a lower rate"
        raise NotApplicableError(msg)
    return _attacked(material.ids, parts)


class Splits:
    """Every way to split an id in two, found when first asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids = {tokenizer.token_bytes(at): at for at in ordinary_ids(tokenizer).tolist()}
        self._found: dict[int, list[Cut]] = {}

    def __getitem__(self, token_id: int) -> list[Cut]:
        """Return the pairs of ids that spell an id; none for what cannot be split."""
        found = self._found.get(token_id)
        if found is None:
            raw = self._tokenizer.token_bytes(token_id)
            pairs = (
                (self._ids.get(raw[:at]), self._ids.get(raw[at:])) for at in range(1, len(raw))
            )
            found = [
                (first, second)
                for first, second in pairs
                if first is not None and second is not None
            ]
            self._found[token_id] = found
        return found


@per_tokenizer
def splits(tokenizer: Tokenizer) -> Splits:
    """Return the splits of a tokenizer's ids, one table for all that ask."""
    return Splits(tokenizer)


def _order(
    tokens: int, placement: str, block_size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the order in which ids are visited, int64 (tokens,)."""
    if placement == "appended":
        return np.arange(tokens)[::-1]
    if placement == "scattered":
        return rng.permutation(tokens)
    starts = rng.permutation(np.arange(0, tokens, block_size))
    return np.concatenate(
        [np.arange(start, min(start + block_size, tokens)) for start in starts.tolist()]
    )


def _split(
    table: Splits,
    ids: Ids,
    order: npt.NDArray[np.int64],
    wanted: int,
    depth: int,
    rng: np.random.Generator,
) -> dict[int, list[int]]:
    """Return the ids that replace some of the original ones, by place.

    Each visit splits an id `depth` times where it can; visits go round until enough is split
    or nothing more can be.
    """
    parts: dict[int, list[int]] = {}
    numbers = _numbers(rng)
    places: Sequence[int] = order.tolist()
    while places and wanted:
        again = []
        for place in places:
            run = parts.get(place) or [int(ids[place])]
            for _ in range(min(depth, wanted)):
                able = [at for at, part in enumerate(run) if table[part]]
                if not able:
                    break
                at = able[int(next(numbers) * len(able))]
                cuts = table[run[at]]
                run[at : at + 1] = cuts[int(next(numbers) * len(cuts))]
                wanted -= 1
            else:
                again.append(place)
            if len(run) > 1:
                parts[place] = run
            if not wanted:
                break
        places = again
    return parts


def _numbers(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(1_024).tolist()


def _attacked(ids: Ids, parts: dict[int, list[int]]) -> Attacked:
    lengths = np.ones(len(ids), np.int64)
    lengths[list(parts)] = [len(run) for run in parts.values()]
    starts = np.cumsum(lengths) - lengths
    mixed = np.repeat(ids, lengths)
    injected = np.ones(len(mixed), np.bool_)
    injected[starts] = False
    for place, run in parts.items():
        mixed[starts[place] : starts[place] + len(run)] = run
    return Attacked(mixed, injected)
