"""Whom a reader of evidence believes, and the provider's keys that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from coin_protocol import envelope, statements
from coin_protocol.errors import SignatureError
from coin_protocol.keys import KeyRing, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet
from coin_protocol.root_certificate import CertificateError, RootDomain, certified_key


@dataclass(frozen=True)
class Trust:
    """Whom the reader of evidence believes without evidence.

    Attributes:
        provider_roots: Pinned keys, one of which signs the provider's key set.
        verifiers: Keys of verifiers. A challenge or verdict signed by none of them is not
            believed.
        provider_domains: Domains of the provider, a certificate of which may sign its key set
            where no pinned key does.
    """

    provider_roots: Sequence[VerificationKey]
    verifiers: KeyRing
    provider_domains: Sequence[RootDomain] = ()


def rooted_keys(
    served: SignedKeySet, trust: Trust, seen_at: Callable[[datetime], datetime] | None = None
) -> KeyRing:
    """Return the keys of a key set that a pinned root or a certificate of the domain signed.

    Args:
        served: The key set, and the chain of its root's certificate.
        trust: Pinned keys and domains.
        seen_at: Takes the time of issue and returns when the key set came at the earliest by
            somebody else's clock: a certificate must be good then too. A pinned key is good
            always. None where nobody noted it.

    Raises:
        SignatureError: None did.
        StatementError: It is malformed.
    """
    wrong: SignatureError | None = None
    for root in trust.provider_roots:
        try:
            return statements.read_key_set(
                envelope.verify_with_key(served.signed, envelope.KEY_SET, root)
            )
        except SignatureError as error:
            wrong = error
    if not trust.provider_domains:
        msg = "no pinned root key signed the provider's key set"
        raise SignatureError(msg) from wrong
    if not served.root_chain:
        msg = (
            "the key set comes without a certificate for "
            f"{_named(trust.provider_domains)}, and no pinned root key signed it"
        )
        raise SignatureError(msg) from wrong
    return _certified_keys(served, trust.provider_domains, seen_at)


def _certified_keys(
    served: SignedKeySet,
    domains: Sequence[RootDomain],
    seen_at: Callable[[datetime], datetime] | None,
) -> KeyRing:
    leaf = certified_key(served.root_chain, ROOT_KEY_NAME)
    ring = statements.read_key_set(envelope.verify_with_key(served.signed, envelope.KEY_SET, leaf))
    # Never None in a key set that was read, and year 1 is in no certificate's window.
    issued_at = ring.issued_at or datetime.min.replace(tzinfo=UTC)
    times = {issued_at} if seen_at is None else {issued_at, seen_at(issued_at)}
    wrong: CertificateError | None = None
    for domain in domains:
        try:
            for at in sorted(times):
                domain.verify(served.root_chain, at)
        except CertificateError as error:
            wrong = error
        else:
            return ring
    if len(domains) == 1 and wrong is not None:
        raise wrong
    msg = f"the key set's certificate is for none of {_named(domains)}"
    raise CertificateError(msg) from wrong


def _named(domains: Sequence[RootDomain]) -> str:
    return ", ".join(repr(domain.domain) for domain in domains)
