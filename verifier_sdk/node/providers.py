"""The providers that a node audits: where each is reached, and whose keys it is believed by."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from coin_protocol.checks import Trust, rooted_keys
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError
from coin_protocol.keys import KeyRing
from coin_protocol.keyset import SignedKeySet
from verifier_sdk.store.claims import Budget

_KEPT_KEY_SETS: Final = 64


class UnknownProviderError(InvalidInputError):
    """A receipt is of a provider that this node does not audit."""


@dataclass
class RegisteredProvider:
    """One provider, by the name in its key set.

    Each has a trust of its own: a root that speaks for one must not speak for another.

    Attributes:
        name: As commitments spell it.
        target: HOST:PORT. No receipt says where a provider is called.
        trust: Whose signatures are believed about this provider.
        share: Of its commitments that are audited, 0 to 1.
        audits_per_day: At most, or None.
    """

    name: str
    target: str
    trust: Trust
    share: float
    audits_per_day: int | None
    _key_sets: OrderedDict[bytes, KeyRing] = field(default_factory=OrderedDict, repr=False)

    def keys_of(self, served: SignedKeySet) -> KeyRing:
        """Return the keys of a key set that this provider's root signed; the latest are kept.

        Raises:
            SignatureError: No root of this provider's signed it.
            StatementError: It is malformed, or another provider's.
        """
        whole = served.signed.SerializeToString() + b"".join(served.root_chain)
        name = digest(whole)
        ring = self._key_sets.get(name)
        if ring is None:
            ring = rooted_keys(served, self.trust)
            self._key_sets[name] = ring
            while len(self._key_sets) > _KEPT_KEY_SETS:
                self._key_sets.popitem(last=False)
        return ring


class Providers:
    """All of them, by name."""

    def __init__(self, registered: Mapping[str, RegisteredProvider]) -> None:
        """Hold them."""
        self._registered = dict(registered)

    def __getitem__(self, name: str) -> RegisteredProvider:
        """Return one.

        Raises:
            UnknownProviderError: The node does not audit it.
        """
        found = self._registered.get(name)
        if found is None:
            known = ", ".join(sorted(self._registered)[:20])
            msg = f"provider {name[:100]!r} is not audited here; known are: {known}"
            raise UnknownProviderError(msg)
        return found

    @property
    def names(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._registered)

    def budgets(self, chosen_share: float) -> dict[str, Budget | None]:
        """Return what may be begun in a day, by provider.

        Args:
            chosen_share: Part for audits that were not drawn at random; all of it is theirs where
                none are drawn.
        """
        return {
            name: Budget.of(one.audits_per_day, chosen_share if one.share else 1.0)
            for name, one in self._registered.items()
        }
