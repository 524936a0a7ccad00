"""A certificate of the provider's domain as root of its key set (protocol, section 5).

A verifier that pins no key names the domain instead. The key of a certificate for that domain
signs the key set, and the path from it to an authority is checked by `cryptography`, offline, at
the time that counts: a certificate that has expired since is no less good.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from coin_protocol.errors import ConfigurationError, InvalidInputError, SignatureError
from coin_protocol.files import read_file
from coin_protocol.keys import VerificationKey

MAX_ROOT_CHAIN: Final = 8
"""Certificates in one chain: public authorities use two or three, cross-signed ones included."""

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
"""One certificate: those for a hundred domains have some 4 KiB."""

MAX_CHAIN_DEPTH: Final = 4
"""Intermediate certificates between leaf and authority."""


_UNREADABLE: Final = (
    *(ValueError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
    # Where warnings are errors.
    CryptographyDeprecationWarning,
)


class CertificateError(SignatureError):
    """A chain of certificates does not show that its key is the domain's."""


@dataclass(frozen=True)
class RootDomain:
    """A domain whose certificates are believed, and the authorities that may vouch for it.

    Attributes:
        domain: As in the certificate's subjectAltName; no wildcard.
        authorities: Certificates that a path must end in.
    """

    domain: str
    authorities: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            InvalidInputError: The domain is none, or there is no authority.
        """
        if not self.authorities:
            msg = f"no authority is given that could vouch for {self.domain!r}"
            raise InvalidInputError(msg)
        try:
            self._builder.build_server_verifier(x509.DNSName(self.domain))
        except ValueError as error:
            msg = f"{self.domain!r} is no domain; wanted one like acme.example (IDNs as xn--…)"
            raise InvalidInputError(msg) from error

    @classmethod
    def from_file(cls, domain: str, authorities: Path) -> RootDomain:
        """Believe the authorities of a PEM file.

        Raises:
            InvalidInputError: The domain is none, or the file holds no certificates.
        """
        return cls(domain, tuple(read_certificates(authorities)))

    @classmethod
    def from_system(cls, domain: str) -> RootDomain:
        """Believe the authorities of the system's own store.

        Raises:
            InvalidInputError: The domain is none.
            ConfigurationError: The system has no store that can be read.
        """
        found = tuple(_system_authorities())
        if not found:
            msg = "this system has no store of authorities that can be read; name one with --ca"
            raise ConfigurationError(msg)
        return cls(domain, found)

    def verify(self, chain: Sequence[bytes], at: datetime) -> None:
        """Check that a chain led from a certificate for this domain to an authority at `at`.

        Args:
            chain: DER, leaf first, each vouched for by the next. The authority's own
                certificate may be left out.
            at: An aware datetime.

        Raises:
            CertificateError: It did not, or the chain is malformed.
        """
        leaf, *others = _parsed(chain)
        _require_signing(leaf)
        name = x509.DNSName(self.domain)
        verifier = self._builder.time(at).build_server_verifier(name)
        try:
            path = verifier.verify(leaf, others)
        except (VerificationError, *_UNREADABLE) as error:
            reason = str(error).splitlines()[0].partition(" (encountered")[0]
            msg = f"no path for {self.domain!r} at {at.isoformat()}: {reason}"
            raise CertificateError(msg) from error
        between = path[1:-1]
        if between != others[: len(between)]:
            msg = (
                f"the certificates for {self.domain!r} are out of order: wanted the leaf first "
                "and after each the one that vouches for it"
            )
            raise CertificateError(msg)

    @property
    def _builder(self) -> PolicyBuilder:
        return PolicyBuilder().store(Store(list(self.authorities))).max_chain_depth(MAX_CHAIN_DEPTH)


def certified_key(chain: Sequence[bytes], name: str) -> VerificationKey:
    """Return the key of a chain's leaf under `name`. Nothing says yet whose it is.

    Raises:
        CertificateError: The chain is empty or malformed, or the key is of another kind than
            Ed25519 and P-256.
    """
    leaf = _parsed(chain)[0]
    try:
        return VerificationKey.from_key(name, leaf.public_key())
    except (InvalidInputError, ValueError, UnsupportedAlgorithm) as error:
        msg = "the key of the root's certificate is neither ECDSA P-256 nor Ed25519"
        raise CertificateError(msg) from error


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Read the certificates of a PEM file, in its order.

    Raises:
        InvalidInputError: It cannot be read or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = f"{path} holds no certificates in PEM (BEGIN CERTIFICATE)"
        raise InvalidInputError(msg) from error


def read_chain(path: Path) -> tuple[bytes, ...]:
    """Read a chain from PEM, leaf first, as `SignedKeySet.root_chain` has it.

    Raises:
        InvalidInputError: It cannot be read, holds no certificate or too many.
    """
    chain = tuple(found.public_bytes(Encoding.DER) for found in read_certificates(path))
    try:
        _parsed(chain)
    except CertificateError as error:
        msg = f"{path}: {error}"
        raise InvalidInputError(msg) from error
    return chain


def window(chain: Sequence[bytes]) -> tuple[datetime, datetime]:
    """Return the first and last second of a leaf's validity.

    Raises:
        CertificateError: The chain is malformed.
    """
    leaf = _parsed(chain)[0]
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


def _parsed(chain: Sequence[bytes]) -> list[x509.Certificate]:
    if not 0 < len(chain) <= MAX_ROOT_CHAIN:
        msg = f"{len(chain)} certificates of the key set's root; 1 to {MAX_ROOT_CHAIN} are read"
        raise CertificateError(msg)
    found = []
    for number, der in enumerate(chain, 1):
        if len(der) > MAX_CERTIFICATE_BYTES:
            msg = (
                f"certificate {number} has {len(der)} bytes; at most {MAX_CERTIFICATE_BYTES} "
                "are read"
            )
            raise CertificateError(msg)
        try:
            certificate = x509.load_der_x509_certificate(der)
            # Parsed only now, and a fault here must not look like one of ours.
            _ = certificate.extensions, certificate.not_valid_before_utc
        except _UNREADABLE as error:
            msg = f"certificate {number} of the key set's root is not one in DER"
            raise CertificateError(msg) from error
        found.append(certificate)
    return found


def _require_signing(leaf: x509.Certificate) -> None:
    """Refuse a key that its authority gave for something else than signing."""
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.digital_signature:
        msg = "the certificate's key usage does not allow signatures"
        raise CertificateError(msg)


def _system_authorities() -> list[x509.Certificate]:
    """Return the system's authorities; those that cannot be parsed here vouch for nothing."""
    found = []
    with warnings.catch_warnings():
        # Old authorities have flaws that are no fault of whoever runs this.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for der in _system_certificates():
            with suppress(ValueError):
                found.append(x509.load_der_x509_certificate(der))
    return found


def _system_certificates() -> Iterable[bytes]:
    context = ssl.create_default_context()
    found = context.get_ca_certs(binary_form=True)
    if found:
        return found
    # A folder of hashed names is read by OpenSSL only when it looks for one of them.
    folder = ssl.get_default_verify_paths().capath or ""
    for path in sorted(Path(folder).glob("*.[0-9]")) if folder else ():
        context.load_verify_locations(path)
    return context.get_ca_certs(binary_form=True)
