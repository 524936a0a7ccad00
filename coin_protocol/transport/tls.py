"""PEM files of either side of a connection, and the credentials that grpc makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates

from coin_protocol.errors import ConfigurationError
from coin_protocol.transport.observe import Observer, Unobserved
from coin_protocol.transport.reload import Reloaded
from coin_protocol.transport.tokens import read_token

_SPKI: Final = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side of a mutual-TLS connection.

    Attributes:
        certificate: This side's certificate chain.
        key: Its private key.
        authorities: Certificates that the other side's chain must end in.
    """

    certificate: Path
    key: Path
    authorities: Path

    def server_credentials(self, observer: Observer | None = None) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate; files are read again on change."""
        paths = (self.certificate, self.key, self.authorities)
        return _server_credentials(paths, self._configuration, observer, clients=True)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return a client's credentials."""
        key, certificate = _read_pair(self.certificate, self.key)
        return grpc.ssl_channel_credentials(
            root_certificates=_read_authorities(self.authorities),
            private_key=key,
            certificate_chain=certificate,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = _read_pair(self.certificate, self.key)
        authorities = _read_authorities(self.authorities)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)


@dataclass(frozen=True, slots=True)
class ServerTlsFiles:
    """PEM files of a server whose clients show bearer tokens in place of certificates.

    Attributes:
        certificate: The server's certificate chain.
        key: Its private key.
    """

    certificate: Path
    key: Path

    def server_credentials(self, observer: Observer | None = None) -> grpc.ServerCredentials:
        """Return credentials that ask clients for no certificate; read again on change."""
        paths = (self.certificate, self.key)
        return _server_credentials(paths, self._configuration, observer, clients=False)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([_read_pair(self.certificate, self.key)])


@dataclass(frozen=True, slots=True)
class BearerFiles:
    """Files of a client that shows a bearer token; the token is read again when it changes.

    Attributes:
        authorities: PEM certificates that the server's chain must end in.
        token: A file with the token, on its one line.
    """

    authorities: Path
    token: Path

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return a client's credentials."""
        authorities = _read_authorities(self.authorities)
        tokens = Reloaded("token", (self.token,), lambda: read_token(self.token), Unobserved())

        def metadata(
            context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
        ) -> None:
            del context
            callback((("authorization", f"Bearer {tokens.get()}"),), None)

        return grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(root_certificates=authorities),
            grpc.metadata_call_credentials(_Plugin(metadata)),
        )


ServerTls = TlsFiles | ServerTlsFiles
ClientTls = TlsFiles | BearerFiles


class _Plugin(grpc.AuthMetadataPlugin):
    def __init__(
        self, call: Callable[[grpc.AuthMetadataContext, grpc.AuthMetadataPluginCallback], None]
    ) -> None:
        self._call = call

    def __call__(
        self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        self._call(context, callback)


def _server_credentials(
    paths: tuple[Path, ...],
    load: Callable[[], grpc.ServerCertificateConfiguration],
    observer: Observer | None,
    *,
    clients: bool,
) -> grpc.ServerCredentials:
    """Return credentials that look at their files before every handshake.

    A connection lives on under the certificate that it was made with.
    """
    files = Reloaded("certificate", paths, load, observer or Unobserved())
    return grpc.dynamic_ssl_server_credentials(
        files.get(),
        # types-grpcio leaves out the None that stands for "no change".
        files.changed,  # type: ignore[arg-type]
        require_client_authentication=clients,
    )


def _read_pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """Return key and certificate chain, as grpc orders them.

    Raises:
        ConfigurationError: A file cannot be read or is no PEM, the key is another
            certificate's or of a kind that grpc cannot use, or the certificate has expired.
    """
    raw_key, raw_chain = _read(key), _read(certificate)
    try:
        public = load_pem_private_key(raw_key, None).public_key()
        own = load_pem_x509_certificates(raw_chain)[0]
        matches = public.public_bytes(*_SPKI) == own.public_key().public_bytes(*_SPKI)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = f"wanted an unencrypted PEM key in {key} and PEM certificates in {certificate}"
        raise ConfigurationError(msg) from error
    if not _can_be_served(own.public_key()):
        msg = f"the key in {key} is of a kind that TLS here cannot use: wanted RSA, P-256 or P-384"
        raise ConfigurationError(msg)
    if not matches:
        msg = f"the key in {key} is not that of the first certificate in {certificate}"
        raise ConfigurationError(msg)
    if own.not_valid_after_utc < datetime.now(UTC):
        ended = own.not_valid_after_utc.isoformat()
        msg = f"the certificate in {certificate} expired at {ended}: put a new one there"
        raise ConfigurationError(msg)
    return raw_key, raw_chain


def _can_be_served(public: object) -> bool:
    """Whether grpc's TLS signs with such keys; with others every handshake fails, and no start."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return isinstance(public.curve, (ec.SECP256R1, ec.SECP384R1))
    return isinstance(public, rsa.RSAPublicKey)


def _read_authorities(path: Path) -> bytes:
    raw = _read(path)
    try:
        load_pem_x509_certificates(raw)
    except ValueError as error:
        msg = f"wanted PEM certificates in {path}"
        raise ConfigurationError(msg) from error
    return raw


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"cannot read the TLS file {path}: {error.strerror}"
        raise ConfigurationError(msg) from error
