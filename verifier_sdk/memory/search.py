"""Find the nearest block of another commitment: candidates from everywhere, then the database.

Segments and tail know vectors, not who showed them; so a vector that a million blocks share is
one candidate. The database says whether it is still remembered, and which other commitment had
it first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

import numpy as np

from coin_protocol.embedding import Vectors
from coin_protocol.memory import Match
from verifier_sdk.memory.index import Positions
from verifier_sdk.memory.queries import Known
from verifier_sdk.memory.vectors import Directions, Rows, cosines

_FETCHED: Final = 8
"""Candidates of each source that are compared exactly, at first."""

_WIDENINGS: Final = 3
"""Each fetches eight times as many: in the end 4,096 from each source."""

_ASKED: Final = 1
"""Candidates whose owners are asked for at first; eight times as many each time after."""

Resolve = Callable[[Collection[bytes]], dict[bytes, Known]]
"""Returns who has vectors, by digest; nothing for those that nobody has who counts."""


@dataclass(frozen=True, slots=True)
class Recalled(Match):
    """An earlier block of the same provider.

    Attributes:
        exact: It has the very same vector; `cosine` is that to the vector as it is kept.
    """

    exact: bool


class Source(Protocol):
    """Vectors of one provider."""

    @property
    def rows(self) -> Rows:
        """Encoded vectors, uint8 (m, 4 + dimension)."""

    def nearest(self, queries: Directions, count: int, effort: int) -> tuple[Positions, bool]:
        """Return positions in `rows`, -1 where fewer were found, and whether there are no more."""


def recall(
    sources: Sequence[Source], unit: Vectors, rows: Rows, resolve: Resolve
) -> list[Recalled | None]:
    """Return for each vector the best match that has an owner, if there is one.

    Args:
        sources: Where to look.
        unit: The vectors, float64 (n, dimension), of norm 1.
        rows: The same, encoded.
        resolve: Says who has which vectors.

    Returns:
        The same vector first, else that of the greatest cosine. None where there is none with
        an owner, or none among the 4,096 nearest of each source.
    """
    walks = [_Walk(row.tobytes()) for row in rows]
    owners: dict[bytes, Known | None] = {}
    going = list(range(len(walks)))
    for effort in range(_WIDENINGS + 1):
        found = _gather(sources, unit[going], effort)
        if effort == _WIDENINGS:
            found.bars[:] = -np.inf
        for number, at in enumerate(going):
            walks[at].begin(found, number)
        _settle([walks[at] for at in going], owners, resolve)
        going = [at for at in going if walks[at].wants_more]
        if not going:
            break
    return [walk.match(vector, owners) for walk, vector in zip(walks, unit, strict=True)]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The candidates of all sources for each vector.

    Attributes:
        cosines: Float64 (n, k); -inf where there is none.
        rows: Uint8 (n, k, 4 + dimension).
        order: Int64 (n, k): where the best lies, the next, and so on.
        bars: Float64 (n,): below this cosine a source may hold better ones that are not here.
    """

    cosines: Vectors
    rows: Rows
    order: Positions
    bars: Vectors


def _gather(sources: Sequence[Source], unit: Vectors, effort: int) -> _Candidates:
    queries = unit.astype(np.float32)
    values, encoded = [], []
    bars = np.full(len(unit), -np.inf)
    for source in sources:
        positions, everything = source.nearest(queries, _FETCHED * 8**effort, effort)
        rows = source.rows[np.maximum(positions, 0)]
        value = np.where(positions < 0, -np.inf, cosines(unit, rows))
        if not everything:
            # Where nothing came, nothing is known of what is left.
            bars = np.maximum(bars, np.where(positions < 0, np.inf, value).min(axis=1))
        values.append(value)
        encoded.append(rows)
    if not sources:
        none = np.empty((len(unit), 0))
        return _Candidates(none, np.empty((*none.shape, 0), np.uint8), none.astype(int), bars)
    joined = np.concatenate(values, axis=1)
    order = np.argsort(-joined, axis=1, kind="stable")
    return _Candidates(joined, np.concatenate(encoded, axis=1), order, bars)


class _Walk:
    """Goes down the candidates of one vector until one has an owner."""

    def __init__(self, row: bytes) -> None:
        self.own = sha256(row).digest()
        self._row = row
        self._order: list[int] = []
        self._cosines: Vectors = np.empty(0)
        self._rows: Rows = np.empty((0, 0), np.uint8)
        self._bar = -np.inf
        self._at = 0
        self._digests: list[bytes] = []
        self._owner: Known | None = None

    def begin(self, candidates: _Candidates, number: int) -> None:
        """Begin anew with more candidates."""
        self._order = candidates.order[number].tolist()
        self._cosines = candidates.cosines[number]
        self._rows = candidates.rows[number]
        self._bar = candidates.bars[number]
        self._at, self._digests, self._owner = 0, [], None

    @property
    def wants_more(self) -> bool:
        """Whether what was not fetched may be better than what was found."""
        if self._at < 0:
            return False
        reached = self._cosine(self._at) if self._owner is not None else -np.inf
        return bool(reached < self._bar)

    def step(self, owners: dict[bytes, Known | None], ahead: int) -> list[bytes]:
        """Go on as far as owners are known; return digests that must be asked for to go further."""
        if owners.get(self.own) is not None:
            self._at = -1
            return []
        asked = [] if self.own in owners else [self.own]
        for at in range(self._at, len(self._order)):
            if len(asked) > ahead or self._cosine(at) == -np.inf:
                break
            digest = self._digest(at)
            if digest not in owners:
                asked.append(digest)
            elif not asked:
                self._at, self._owner = at, owners[digest]
                if self._owner is not None:
                    break
        return asked

    def match(self, unit: Vectors, owners: dict[bytes, Known | None]) -> Recalled | None:
        """Return what was found."""
        same = owners.get(self.own)
        if same is not None:
            row = np.frombuffer(self._row, np.uint8)[None, None]
            cosine = float(cosines(unit[None], row)[0, 0])
            return Recalled(same.commitment_sha256, same.block_index, cosine, exact=True)
        if self._owner is None:
            return None
        cosine = self._cosine(self._at)
        return Recalled(self._owner.commitment_sha256, self._owner.block_index, cosine, exact=False)

    def _cosine(self, at: int) -> float:
        return float(self._cosines[self._order[at]])

    def _digest(self, at: int) -> bytes:
        while len(self._digests) <= at:
            row = self._rows[self._order[len(self._digests)]]
            self._digests.append(sha256(row.tobytes()).digest())
        return self._digests[at]


def _settle(walks: Sequence[_Walk], owners: dict[bytes, Known | None], resolve: Resolve) -> None:
    ahead = _ASKED
    while asked := {digest for walk in walks for digest in walk.step(owners, ahead)}:
        owners |= dict.fromkeys(asked) | resolve(asked)
        ahead *= 8
