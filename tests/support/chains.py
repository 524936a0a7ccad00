"""Chains of certificates for a provider's domain, and key sets signed under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coin_protocol.keyset import ROOT_KEY_NAME
from coin_protocol.signer import KeySigner

DOMAIN = "acme.example"
DAY = timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Authority:
    """A certificate authority: one root and one intermediate."""

    name: str = "CA"
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    middle_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    begins: datetime = field(default_factory=lambda: datetime.now(UTC) - 1000 * DAY)

    @cached_property
    def root(self) -> x509.Certificate:
        """The authority's own certificate."""
        return self._authority(f"{self.name} root", self.root_key, path_length=None)

    @cached_property
    def middle(self) -> x509.Certificate:
        """The certificate that its leaves are issued under."""
        return self._authority(f"{self.name} intermediate", self.middle_key, path_length=0)

    def leaf(
        self,
        key: PrivateKey | None = None,
        *,
        domain: str = DOMAIN,
        begins: datetime | None = None,
        ends: datetime | None = None,
        use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        signs: bool = True,
    ) -> x509.Certificate:
        """Return a certificate for a domain, valid from yesterday for 90 days by default."""
        begins = datetime.now(UTC) - DAY if begins is None else begins
        ends = begins + 90 * DAY if ends is None else ends
        key = new_key() if key is None else key
        builder = _builder("leaf", f"{self.name} intermediate", key, begins, ends)
        names = x509.SubjectAlternativeName([x509.DNSName(domain)])
        return (
            builder.add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(_usage(digital_signature=signs, key_agreement=not signs), critical=True)
            .add_extension(_issued_by(self.middle_key), critical=False)
            .sign(self.middle_key, hashes.SHA256())
        )

    def chain(self, leaf: x509.Certificate) -> tuple[bytes, ...]:
        """Return the leaf with the intermediate, as a receipt has them."""
        return der(leaf, self.middle)

    def write(self, path: Path) -> Path:
        """Write the authority's own certificate as PEM."""
        path.write_bytes(self.root.public_bytes(Encoding.PEM))
        return path

    def _authority(
        self, name: str, key: ec.EllipticCurvePrivateKey, path_length: int | None
    ) -> x509.Certificate:
        builder = _builder(name, f"{self.name} root", key, self.begins, self.begins + 5000 * DAY)
        limits = x509.BasicConstraints(ca=True, path_length=path_length)
        return (
            builder.add_extension(limits, critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(_issued_by(self.root_key), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(self.root_key, hashes.SHA256())
        )


@dataclass(frozen=True)
class Certified:
    """A root key with its certificate for `DOMAIN`, and the authority behind it."""

    authority: Authority = field(default_factory=Authority)
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    @property
    def signer(self) -> KeySigner:
        """Signs with the certificate's key."""
        return KeySigner(ROOT_KEY_NAME, self.key)

    def write(
        self,
        folder: Path,
        leaf: x509.Certificate | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> tuple[Path, Path, Path]:
        """Write key, chain and authority to a folder; return their paths."""
        key = self.key if key is None else key
        leaf = self.authority.leaf(key) if leaf is None else leaf
        private, chain = folder / "leaf.key.pem", folder / "leaf.chain.pem"
        private.write_bytes(KeySigner(ROOT_KEY_NAME, key).to_pem())
        chain.write_bytes(
            b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, self.authority.middle))
        )
        return private, chain, self.authority.write(folder / "ca.pem")


def der(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    """Return certificates in DER."""
    return tuple(one.public_bytes(Encoding.DER) for one in certificates)


def _builder(
    subject: str, issuer: str, key: PrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _issued_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(**given: bool) -> x509.KeyUsage:
    names: Sequence[str] = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**(dict.fromkeys(names, False) | given))
