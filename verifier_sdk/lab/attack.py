"""What an attack is: filler in the place of reasoning, at a rate, in a placement.

An attack is a small named function. Most only say what the filler is made of, as a stream of
pieces (a token, a sentence, a block), and leave to `inject` where it goes:

    @filler("digits", pieces="tokens")
    def digits(material, rng):
        "Random digits."
        while True:
            yield np.array(material.tokenizer.encode(str(rng.integers(10))), np.uint32)

One that does more than put filler in (another tokenization, forged vectors) is decorated with
`attack` and returns `Attacked` itself. The docstring's first sentence is what people read in
`coin attack --list`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from coin_protocol.tokenizer import Tokenizer
from verifier_sdk.lab.trace import Trace

if TYPE_CHECKING:
    from verifier_sdk.lab.library import Library

Ids = npt.NDArray[np.uint32]

RATES: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0)
"""Injected tokens for each original one."""

PLACEMENTS: Final = ("appended", "interleaved", "scattered")
"""Whole blocks after the reasoning, whole blocks between its blocks, inside its blocks."""

MAX_RATE: Final = 16.0
"""Well above any rate that a bill could hide, and a bound on the memory of an attack."""

_MOST_EMPTY_PIECES: Final = 1_000


@dataclass(frozen=True)
class Material:
    """What an attacker has at hand.

    Attributes:
        trace: The real reply.
        ids: Canonical ids of its reasoning, uint32 (n,).
        tokenizer: The profile's.
        library: Other traces, and the embedding model.
        seed: Of the attack; one seed gives one filler, at every rate.
    """

    trace: Trace
    ids: Ids
    tokenizer: Tokenizer
    library: Library
    seed: int


@dataclass(frozen=True)
class Attacked:
    """What a cheating provider commits to.

    Attributes:
        ids: Committed token ids, uint32 (m,).
        injected: Which of them the model never produced, bool (m,).
        embedded: Ids whose text the committed window embeddings are of, uint32 (m,): those
            committed, unless the vectors are forged.
    """

    ids: Ids
    injected: npt.NDArray[np.bool_]
    embedded: Ids = field(default_factory=lambda: np.empty(0, np.uint32))

    def __post_init__(self) -> None:
        """Fill in the honest embedding."""
        if not len(self.embedded):
            object.__setattr__(self, "embedded", self.ids)

    @property
    def share(self) -> float:
        """Injected tokens over all."""
        return float(self.injected.mean()) if len(self.injected) else 0.0


Filler = Callable[[Material, np.random.Generator], Iterator[Ids]]
Apply = Callable[[Material, float, str, int], Attacked]


@dataclass(frozen=True)
class Attack:
    """A named attack.

    Attributes:
        name: As reports name it.
        family: What it tries: attacks of one family share a detector and a row of targets.
        summary: One sentence for people.
        apply: `(material, rate, placement, block_size) -> Attacked`; raises
            `NotApplicableError` where a trace gives it nothing to work with.
        placements: Those that make sense for it.
    """

    name: str
    family: str
    summary: str
    apply: Apply
    placements: tuple[str, ...] = PLACEMENTS

    @property
    def costly(self) -> bool:
        """Whether one session takes seconds: evaluations play a few only."""
        return self.family == "adaptive"


class NotApplicableError(InvalidInputError):
    """This attack has nothing to work with in this trace: no answer, no second model."""


class _Registry(dict[str, Attack]):
    """Attacks by name."""


ATTACKS: Final = _Registry()
"""Every attack that was defined, by name. Importing `verifier_sdk.lab` defines ours."""


def attack(
    name: str, *, family: str, placements: tuple[str, ...] = PLACEMENTS
) -> Callable[[Apply], Apply]:
    """Register a function that applies a whole attack.

    Raises:
        InvalidInputError: The name is taken.
    """

    def register(apply: Apply) -> Apply:
        if name in ATTACKS:
            msg = f"an attack named {name!r} exists"
            raise InvalidInputError(msg)
        summary = (apply.__doc__ or name).strip().partition("\n")[0]
        ATTACKS[name] = Attack(name, family, summary, apply, placements)
        return apply

    return register


def filler(
    name: str, *, family: str, placements: tuple[str, ...] = PLACEMENTS
) -> Callable[[Filler], Filler]:
    """Register an attack by what its filler is made of; `inject` places it.

    The function takes the material and a generator of random numbers, and yields pieces of
    ids without end. Scattered, a piece stays whole.
    """

    def register(pieces: Filler) -> Filler:
        def apply(material: Material, rate: float, placement: str, block_size: int) -> Attacked:
            stream = pieces(material, random_numbers(material, name))
            return fill(material, stream, rate, placement, block_size)

        apply.__doc__ = pieces.__doc__
        attack(name, family=family, placements=placements)(apply)
        return pieces

    return register


def fill(
    material: Material, stream: Iterator[Ids], rate: float, placement: str, block_size: int
) -> Attacked:
    """Inject as much of a stream of pieces as the rate asks for.

    Raises:
        NotApplicableError: The stream ends before.
    """
    pieces = _take(stream, injected_tokens(material.ids, rate))
    return inject(material.ids, pieces, placement, block_size, random_numbers(material, "places"))


def random_numbers(material: Material, purpose: str) -> np.random.Generator:
    """Return random numbers that are this trace's, this seed's and this purpose's own."""
    digest = sha256(b"coin.attack.v1" + f"{material.trace.id}\0{purpose}".encode()).digest()
    return np.random.default_rng([material.seed, *np.frombuffer(digest, np.uint32).tolist()])


def injected_tokens(ids: Ids, rate: float) -> int:
    """Return how many tokens a rate injects: one at least."""
    return max(1, round(len(ids) * rate))


def inject(
    ids: Ids, pieces: list[Ids], placement: str, block_size: int, rng: np.random.Generator
) -> Attacked:
    """Put pieces of filler into a trace; both keep their order.

    `appended` puts them after it, so that filler fills its last block up. `interleaved` makes
    blocks filler that are drawn among the full ones; the block with the end of the reasoning,
    and filler behind it, comes after the other blocks of reasoning, and a last block that
    filler does not fill stays last. `scattered` puts each piece, whole, at a random place.

    Raises:
        InvalidInputError: No such placement.
    """
    flat = np.concatenate(pieces).astype(np.uint32)
    if placement == "appended":
        injected = np.arange(len(ids) + len(flat)) >= len(ids)
    elif placement == "interleaved":
        injected = _interleaved(len(ids), len(flat), block_size, rng)
    elif placement == "scattered":
        cuts = np.sort(rng.integers(0, len(ids) + 1, len(pieces)))
        injected = np.zeros(len(ids) + len(flat), np.bool_)
        injected[np.repeat(cuts, [len(piece) for piece in pieces]) + np.arange(len(flat))] = True
    else:
        msg = f"no placement {placement!r}; there are {', '.join(PLACEMENTS)}"
        raise InvalidInputError(msg)
    mixed = np.empty(len(injected), np.uint32)
    mixed[injected], mixed[~injected] = flat, ids
    return Attacked(mixed, injected)


def _interleaved(
    own: int, filler: int, block_size: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return where filler stands between blocks of reasoning, bool (own + filler,)."""
    appended = np.arange(own + filler) >= own
    own_blocks = -(-own // block_size)
    full = max(own_blocks, len(appended) // block_size)
    places = np.sort(rng.choice(full, full - own_blocks, replace=False))
    order = np.empty(full, np.int64)
    order[np.setdiff1d(np.arange(full), places)] = np.arange(own_blocks)
    order[places] = np.arange(own_blocks, full)
    at = (order[:, None] * block_size + np.arange(block_size)).ravel()
    at = np.concatenate([at[at < len(appended)], np.arange(full * block_size, len(appended))])
    return appended[at]


def _take(pieces: Iterator[Ids], wanted: int) -> list[Ids]:
    taken: list[Ids] = []
    have = empty = 0
    for piece in pieces:
        if not len(piece):
            empty += 1
            if empty == _MOST_EMPTY_PIECES:
                break
            continue
        taken.append(piece[: wanted - have])
        have += len(taken[-1])
        if have == wanted:
            return taken
    msg = f"the filler ends after {have} of {wanted} tokens: take a longer trace or a lower rate"
    raise NotApplicableError(msg)


def apply_attack(
    name: str, material: Material, *, rate: float, placement: str, block_size: int
) -> Attacked:
    """Apply a named attack to a trace.

    Args:
        name: Of `ATTACKS`.
        material: What the attacker has.
        rate: Injected tokens for each original one, above 0 and at most 16.
        placement: Of the attack's placements.
        block_size: Tokens in a full block of the profile, 1 at least.

    Raises:
        InvalidInputError: No such attack or placement, or a number out of range.
        NotApplicableError: The trace gives this attack nothing to work with.
    """
    found = named_attack(name)
    if placement not in found.placements:
        msg = f"{name} is placed {', '.join(found.placements)}; found {placement!r}"
        raise InvalidInputError(msg)
    if not 0 < rate <= MAX_RATE:
        msg = f"the rate must lie in (0, {MAX_RATE:g}]; found {rate}"
        raise InvalidInputError(msg)
    if block_size < 1:
        msg = f"a block must hold at least 1 token; found {block_size}"
        raise InvalidInputError(msg)
    return found.apply(material, rate, placement, block_size)


def family_of(attack: Attack, placement: str) -> str:
    """Return the family that an attack belongs to when it is placed so.

    Tokens of the session's own, one by one inside its blocks, are not seen in the way that
    whole blocks of them are: a scattered bag is a family of its own.
    """
    return "scattered" if (attack.family, placement) == ("bag", "scattered") else attack.family


def named_attack(name: str, attacks: Mapping[str, Attack] = ATTACKS) -> Attack:
    """Return an attack by name.

    Raises:
        InvalidInputError: There is none; the error names those there are.
    """
    if name not in attacks:
        msg = f"no attack {name!r}; there are {', '.join(sorted(attacks))}"
        raise InvalidInputError(msg)
    return attacks[name]
