"""A form that bills come in: how it is told, and how a row becomes a line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from coin_protocol.vendors import UsageError
from coin_protocol.vendors.counts import count
from verifier_sdk.bill.fields import Fields, UnreadableError
from verifier_sdk.bill.line import Line

_WRITTEN: Final = (
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation_5m_input_tokens",
    "prompt_tokens_details.cache_write_tokens",
    "input_tokens_details.cache_write_tokens",
)
_WRITTEN_FOR_AN_HOUR: Final = (
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_creation_1h_input_tokens",
)
_ALL_WRITTEN: Final = "cache_creation_input_tokens"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One form of a vendor's exports.

    Attributes:
        format: The vendor, as `--format` names it.
        name: Of this form.
        needs: Columns, or names in the JSON object, all of which it has.
        read: Makes a line; None for a row that bills nothing. Raises `UnreadableError`.
        source: Where the form is documented or was seen.
        own_names: Whether counts stand under other names than in the vendor's API, so that only
            this vendor's convention can read them.
    """

    format: str
    name: str
    needs: frozenset[str]
    read: Callable[[Fields], Line | None] = field(repr=False)
    source: str
    own_names: bool = False

    def fits(self, names: Collection[str]) -> bool:
        """Whether a row with these names can be of this form."""
        return self.needs.issubset(names)


def stated(**counts: int | None) -> dict[str, object]:
    """Return the counts that are stated, by name."""
    return {name: count for name, count in counts.items() if count is not None}


def cache_write(usage: Mapping[str, object]) -> tuple[int, int]:
    """Return the prompt tokens written to a cache for minutes, and for an hour.

    Prices need them; `read_usage` has them among the prompt.

    Raises:
        UnreadableError: One is no count.
    """
    try:
        minutes = max(count(usage, name) or 0 for name in _WRITTEN)
        hour = max(count(usage, name) or 0 for name in _WRITTEN_FOR_AN_HOUR)
        every = count(usage, _ALL_WRITTEN) or 0
    except UsageError as error:
        raise UnreadableError(str(error)) from error
    return max(minutes, every - hour), hour
