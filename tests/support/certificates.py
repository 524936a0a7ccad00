"""Certificates for mutual TLS on this machine."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coin_protocol.transport import TlsFiles


@dataclass(frozen=True)
class Certificates:
    """Files for mutual TLS on this machine.

    The stranger's certificate is another CA's; it trusts the right one.
    """

    server: TlsFiles
    client: TlsFiles
    stranger: TlsFiles


def make_certificates(folder: Path) -> Certificates:
    """Write a CA, another CA, and certificates for 127.0.0.1 and localhost to `folder`."""
    authority, other = _Authority("CA"), _Authority("another CA")
    trusted = folder / "ca.pem"
    trusted.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    return Certificates(
        server=authority.issue(folder, "server", trusted),
        client=authority.issue(folder, "client", trusted),
        stranger=other.issue(folder, "stranger", trusted),
    )


def put_certificate(
    certificate: Path, key_file: Path, name: str, *, key: str | None = None
) -> None:
    """Put a server's certificate of a new authority where a server looks for it.

    Args:
        certificate: File to write.
        key_file: File to write its key to.
        name: Another one for each call.
        key: Name of another certificate, whose key is written in place of the right one.
    """
    made = make_certificates(_made(certificate.parent / name)).server
    other = made if key is None else make_certificates(_made(certificate.parent / key)).server
    shutil.copy(made.certificate, certificate)
    shutil.copy(other.key, key_file)


async def certificate_shown(port: int) -> bytes:
    """Return the certificate (DER) that a new connection to this machine is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    raw: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return raw


def _made(path: Path) -> Path:
    path.mkdir()
    return path


class _Authority:
    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _certificate(self._name, self._name, self._key.public_key())
        self.certificate = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ).sign(self._key, hashes.SHA256())

    def issue(self, folder: Path, name: str, authorities: Path) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        )
        uses = x509.ExtendedKeyUsage(
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        )
        certificate = (
            _certificate(subject, self._name, key.public_key())
            .add_extension(names, critical=False)
            .add_extension(uses, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key.pem", authorities)
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
