"""One limit in one module: something of a size, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from coin_protocol import limits
from coin_protocol.errors import CoinError


class Kind(Enum):
    """What a limit bounds."""

    MOST = "at most"
    LEAST = "at least"
    EXACT = "exactly"


class RefusedError(CoinError):
    """What was read was refused in a sentence that is told and not raised."""


class Whatever(int):
    """A number that every number equals: a size that is asked for no more."""

    def __eq__(self, other: object) -> bool:
        """Equal it."""
        return True

    def __ne__(self, other: object) -> bool:
        """Differ from nothing."""
        return False

    def __rmul__(self, other: Any) -> Whatever:
        """Stay what it is, however many there are."""
        return self

    __hash__ = int.__hash__


@dataclass(frozen=True, slots=True)
class LimitCase:
    """A module that keeps a limit, and what it keeps out.

    Attributes:
        limit: Name of the constant in `coin_protocol.limits`.
        module: Where it is imported and held against what comes.
        what: What is of that size.
        read: Makes one of a size, and reads it. Raises if it is refused.
        says: What the refusal says, as a regular expression.
        kind: What sizes are refused.
        lowered: The limit to test with, where the true one takes too much memory or time.
        behind: What the next to refuse it says if this limit is gone, as a regular expression;
            empty where it is taken.
    """

    limit: str
    module: str
    what: str
    read: Callable[[int], object]
    says: str
    kind: Kind = Kind.MOST
    lowered: int | None = None
    behind: str = ""

    @property
    def name(self) -> str:
        """Limit, module and what is read, as the id of a test."""
        return f"{self.limit}-{self.module.rpartition('coin_protocol.')[2]}-{self.what}"

    @property
    def size(self) -> int:
        """The limit to test with."""
        found: int = getattr(limits, self.limit) if self.lowered is None else self.lowered
        return found

    @property
    def refused(self) -> tuple[int, ...]:
        """The sizes that are just past the limit."""
        past = {
            Kind.MOST: (self.size + 1,),
            Kind.LEAST: (self.size - 1,),
            Kind.EXACT: (self.size - 1, self.size + 1),
        }
        return past[self.kind]

    @property
    def lifted(self) -> int:
        """What the module must hold to let in what is just past the limit."""
        wide = {Kind.MOST: 4 * self.size, Kind.LEAST: 1, Kind.EXACT: Whatever(self.size)}
        return wide[self.kind]


@dataclass(frozen=True, slots=True)
class MadeCase:
    """A size of what is made and never read: no input is held against it.

    Attributes:
        limit: Name of the constant in `coin_protocol.limits`.
        module: Where it is imported.
        what: What has that size.
        make: Makes it.
        wanted: Makes it by the protocol's page, without the constant.
    """

    limit: str
    module: str
    what: str
    make: Callable[[], object]
    wanted: Callable[[], object]

    @property
    def name(self) -> str:
        """Limit, module and what is made, as the id of a test."""
        return f"{self.limit}-{self.module.rpartition('coin_protocol.')[2]}-{self.what}"
