"""Roots of key sets: keys that readers pin, and certificates of a domain that they name.

Certificates lead from a leaf, over none to three others, to the one authority of this module. Its
keys come out of the pool, and the same certificate is made the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.checks import Trust
from coin_protocol.keys import ECDSA_P256, ED25519, KeyRing
from coin_protocol.keyset import ROOT_KEY_NAME
from coin_protocol.root_certificate import RootDomain
from coin_protocol.testing.strategies.pool import (
    POOL,
    PooledSigner,
    ecdsa_key,
    ed25519_key,
    pooled,
    sign_alike,
)
from coin_protocol.testing.world import START
from coin_protocol.v1 import keys_pb2

DOMAINS: Final = ("acme.example", "keys.acme.example")
"""What certificates are for."""

FIRST: Final = datetime(1950, 1, 1, tzinfo=UTC)
"""No certificate can begin before it."""

MOST_BETWEEN: Final = 3
"""Certificates between leaf and authority."""

_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_DAYS: Final = (2, 40, 4_000)
"""How long before and after its use a certificate is valid. Two days are more than a reply and its
audit take, with the greatest clock skew of a policy that is drawn."""

_ECDSA_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
"""The AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758)."""


@dataclass(frozen=True, repr=False)
class DrawnRoot:
    """What signs a key set, and what its readers go by.

    Attributes:
        signer: Signs under the name of roots.
        chain: Certificates of its key, DER, leaf first; empty where readers pin the key.
        domain: That the certificates are for; None where readers pin the key.
    """

    signer: PooledSigner
    chain: tuple[bytes, ...] = ()
    domain: RootDomain | None = None

    def __repr__(self) -> str:
        """Name what was drawn: certificates would fill pages."""
        key = self.signer.public.keyid[:8]
        if self.domain is None:
            return f"DrawnRoot({key}, pinned)"
        return f"DrawnRoot({key}, {self.domain.domain}, {len(self.chain)} certificates)"

    def trust(self, verifiers: KeyRing) -> Trust:
        """Return the trust of a reader who believes this root, and these verifiers."""
        if self.domain is None:
            return Trust([self.signer.public], verifiers)
        return Trust((), verifiers, [self.domain])


PINNED: Final = DrawnRoot(pooled(ROOT_KEY_NAME))
"""The root of whatever is drawn with no other one."""


def roots(
    *, certified: SearchStrategy[bool] | None = None, at: datetime = START
) -> SearchStrategy[DrawnRoot]:
    """Return a strategy of roots; the simplest is a key that is pinned.

    Args:
        certified: Whether it has a certificate; without one all pin the same key.
        at: When what it signs is issued, and used within a day. Before 1950 no root is certified.
    """
    if at < FIRST + timedelta(days=min(_DAYS)):
        return st.just(PINNED)
    with_one = _certified(at)
    wanted = st.booleans() if certified is None else certified
    return wanted.flatmap(lambda found: with_one if found else st.just(PINNED))


def domains() -> SearchStrategy[RootDomain]:
    """Return a strategy of the domains that roots are for, with their authority."""
    return st.sampled_from(DOMAINS).map(domain)


@lru_cache(maxsize=len(DOMAINS))
def domain(name: str) -> RootDomain:
    """Return a domain as its readers name it, with the authority that they believe."""
    return RootDomain(name, (_authority(0),))


@st.composite
def _certified(draw: st.DrawFn, at: datetime) -> DrawnRoot:
    between = draw(st.integers(0, MOST_BETWEEN))
    number, algorithm = draw(st.integers(0, POOL - 1)), draw(st.sampled_from((ECDSA_P256, ED25519)))
    name = draw(st.sampled_from(DOMAINS))
    others = draw(st.sampled_from(((), ("*.acme.example",), ("other.example", "acme.example"))))
    before, after = draw(st.sampled_from(_DAYS)), draw(st.sampled_from(_DAYS))
    at = at.replace(microsecond=0)
    leaf = _leaf(
        number,
        algorithm,
        tuple(dict.fromkeys((name, *others))),
        max(FIRST, at - timedelta(days=before)),
        _LAST if _LAST - at < timedelta(days=after) else at + timedelta(days=after),
        between,
    )
    chain = [leaf, *(_authority(each) for each in range(between, 0, -1))]
    if draw(st.booleans()):
        # It may be left out, and need not be.
        chain.append(_authority(0))
    return DrawnRoot(
        pooled(ROOT_KEY_NAME, number, algorithm),
        tuple(each.public_bytes(Encoding.DER) for each in chain),
        domain(name),
    )


@lru_cache(maxsize=1024)
def _leaf(
    number: int,
    algorithm: keys_pb2.KeyAlgorithm.ValueType,
    names: tuple[str, ...],
    begins: datetime,
    ends: datetime,
    between: int,
) -> x509.Certificate:
    key = ed25519_key(number) if algorithm == ED25519 else ecdsa_key(number)
    builder = _builder("leaf", key.public_key(), begins, ends, between)
    return _signed(
        builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(digital_signature=True), critical=True),
        _authority_key(between),
    )


@lru_cache(maxsize=1 + MOST_BETWEEN)
def _authority(depth: int) -> x509.Certificate:
    """Return the authority's own certificate, or one that it vouches for at this depth."""
    public, issuer = _authority_key(depth).public_key(), max(0, depth - 1)
    builder = _builder(_authority_name(depth), public, FIRST, _LAST, issuer)
    return _signed(
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False),
        _authority_key(issuer),
    )


def _authority_name(depth: int) -> str:
    return f"authority {depth}"


def _authority_key(depth: int) -> ec.EllipticCurvePrivateKey:
    return ecdsa_key(POOL + depth)


def _builder(
    subject: str,
    public: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    begins: datetime,
    ends: datetime,
    issuer: int,
) -> x509.CertificateBuilder:
    issued_by = _authority_key(issuer).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(_authority_name(issuer)))
        .public_key(public)
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issued_by), critical=False
        )
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(**given: bool) -> x509.KeyUsage:
    names: Sequence[str] = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**(dict.fromkeys(names, False) | given))


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return a certificate with the signature of RFC 6979.

    The oldest `cryptography` that is allowed signs certificates with chance alone.
    """
    told = builder.sign(key, hashes.SHA256()).tbs_certificate_bytes
    signature = sign_alike(key, told)
    # A BIT STRING without unused bits, and all three in a SEQUENCE of 256 bytes or more.
    body = told + _ECDSA_SHA256 + bytes((3, len(signature) + 1, 0)) + signature
    return x509.load_der_x509_certificate(b"\x30\x82" + len(body).to_bytes(2) + body)
