"""Who calls: client certificates and bearer tokens, rotated while the service runs."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2

from coin_protocol import transport
from coin_protocol.errors import ConfigurationError, PeerUnavailableError
from coin_protocol.transport import BearerFiles, ServerTlsFiles, TlsFiles, make_token
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from provider_sdk.service import SERVICE, ServiceSettings, make_server
from tests.support.audits import bear_out, says, verdict_of
from tests.support.certificates import Certificates, make_certificates
from tests.support.parties import OTHER_VERIFIER, VERIFIER, WAIT_SECONDS, Parties, run_session
from tests.support.raw import call_raw
from verifier_sdk.client import ProviderClient

PASS = receipt_pb2.OUTCOME_PASS
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
GET_KEY_SET, ANSWER = f"/{SERVICE}/GetKeySet", f"/{SERVICE}/AnswerChallenge"
TlsKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

RATE_LIMITED = "UNAVAILABLE"
"""How a client tells a rate limit: it says to come again."""


class Seen(transport.Unobserved):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.verifiers: set[str] = set()
        self.reloads: list[tuple[str, bool]] = []

    def observed(self, method: str, verifier: str, code: str, seconds: float) -> None:
        del method, code, seconds
        self.verifiers.add(verifier)

    def reloaded(self, what: str, *, ok: bool) -> None:
        self.reloads.append((what, ok))


def put(path: Path, raw: bytes) -> None:
    """Replace a file as rotations do: by a new one under the old name."""
    new = path.with_suffix(".new")
    new.write_bytes(raw)
    new.replace(path)


async def answers(target: str, tls: transport.ClientTls) -> bool:
    """Whether a new connection with these files is answered."""
    async with ProviderClient(target, tls=tls, timeout=WAIT_SECONDS) as client:
        try:
            await client.key_set()
        except PeerUnavailableError:
            return False
    return True


@asynccontextmanager
async def served(server: aio.Server, tls: transport.ServerTls | None = None) -> AsyncIterator[str]:
    """Serve on a free port, with files of either kind; give HOST:PORT."""
    port = transport.bind(server, "127.0.0.1:0", tls)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def audit(
    parties: Parties, receipt: receipt_pb2.Receipt, target: str, tls: transport.ClientTls
) -> receipt_pb2.Verdict:
    """Audit with a client's files of either kind."""
    async with ProviderClient(target, tls=tls, timeout=WAIT_SECONDS) as client:
        bundle = await parties.auditor().audit(receipt, client)
    bear_out(parties, bundle, parties.policy)
    return verdict_of(bundle)


# Certificates


@dataclass(frozen=True)
class Rotation:
    """A server's files, which can be replaced by another authority's, and its old clients'."""

    files: TlsFiles
    old: Certificates
    new: Certificates

    @classmethod
    def make(cls, folder: Path) -> Rotation:
        """Write the old certificates where the server reads them."""
        for name in ("old", "new", "live"):
            (folder / name).mkdir()
        old, new = make_certificates(folder / "old"), make_certificates(folder / "new")
        live = folder / "live"
        files = TlsFiles(live / "certificate.pem", live / "key.pem", live / "ca.pem")
        shutil.copy(old.server.certificate, files.certificate)
        shutil.copy(old.server.key, files.key)
        shutil.copy(old.server.authorities, files.authorities)
        return cls(files, old, new)

    @property
    def moved(self) -> TlsFiles:
        """The old client, expecting the server's new certificate."""
        return replace(self.old.client, authorities=self.new.client.authorities)

    def replace_certificate(self) -> None:
        """Put the new certificate in place, and its key after it: for a moment they differ."""
        put(self.files.certificate, self.new.server.certificate.read_bytes())

    def replace_key(self) -> None:
        """Put the new key in place."""
        put(self.files.key, self.new.server.key.read_bytes())


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on(
    provider: Provider, tmp_path: Path
) -> None:
    rotation, seen = Rotation.make(tmp_path), Seen()
    server = await make_server(provider, ServiceSettings(observer=seen))
    async with (
        served(server, rotation.files) as target,
        ProviderClient(target, tls=rotation.old.client, timeout=WAIT_SECONDS) as old,
    ):
        assert await old.key_set() == provider.key_set
        assert not await answers(target, rotation.moved)
        rotation.replace_certificate()
        rotation.replace_key()
        assert await answers(target, rotation.moved)
        assert not await answers(target, rotation.old.client)
        # It does not trust the new certificate: it is the old connection that answers.
        assert await old.key_set() == provider.key_set
    assert seen.reloads == [("certificate", True)]
    assert seen.verifiers == {"client"}


async def test_a_broken_new_certificate_leaves_the_old_one_in_use(
    provider: Provider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotation, seen = Rotation.make(tmp_path), Seen()
    server = await make_server(provider, ServiceSettings(observer=seen))
    async with served(server, rotation.files) as target:
        # Another key's certificate, as between the two steps of a rotation.
        rotation.replace_certificate()
        assert await answers(target, rotation.old.client)
        put(rotation.files.certificate, b"garbage")
        assert await answers(target, rotation.old.client)
        rotation.files.certificate.unlink()
        assert await answers(target, rotation.old.client)
        assert seen.reloads == [("certificate", False)] * 3
        assert "the old stays" in caplog.text
        rotation.replace_certificate()
        rotation.replace_key()
        assert await answers(target, rotation.moved)
    assert seen.reloads[-1] == ("certificate", True)


async def test_a_client_of_a_withdrawn_authority_gets_no_new_connection(
    provider: Provider, tmp_path: Path
) -> None:
    rotation = Rotation.make(tmp_path)
    async with served(await make_server(provider), rotation.files) as target:
        newcomer = replace(rotation.new.client, authorities=rotation.old.client.authorities)
        assert not await answers(target, newcomer)
        put(rotation.files.authorities, rotation.new.client.authorities.read_bytes())
        assert await answers(target, newcomer)
        assert not await answers(target, rotation.old.client)


def _self_signed(
    names: list[x509.GeneralName], common: str, *, days: int, key: TlsKey | None = None
) -> tuple[bytes, bytes]:
    """Return certificate and key in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    oid = x509.NameOID.COMMON_NAME
    subject = x509.Name([x509.NameAttribute(oid, common)] if common else [])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=not common)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, digest)
    )
    pem = serialization.Encoding.PEM
    raw = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), raw


@pytest.mark.parametrize(
    ("make", "served_at_all"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), True),
        (lambda: ec.generate_private_key(ec.SECP384R1()), True),
        (lambda: ec.generate_private_key(ec.SECP521R1()), False),
        (ed25519.Ed25519PrivateKey.generate, False),
    ],
    ids=["RSA", "P-384", "P-521", "Ed25519"],
)
async def test_a_certificate_that_no_handshake_can_use_is_refused_and_the_old_stays(
    provider: Provider, tokens: Tokens, make: Callable[[], TlsKey], *, served_at_all: bool
) -> None:
    names: list[x509.GeneralName] = [x509.IPAddress(ip_address("127.0.0.1"))]
    old = _self_signed(names, "old", days=1)
    new = _self_signed(names, "new", days=1, key=make())
    files = ServerTlsFiles(tokens.folder / "server.pem", tokens.folder / "server.key")
    authorities = tokens.folder / "authorities.pem"
    authorities.write_bytes(old[0])
    client, seen = replace(tokens.client("one"), authorities=authorities), Seen()
    put(files.certificate, old[0])
    put(files.key, old[1])
    server = await make_server(provider, ServiceSettings(tokens=tokens.known, observer=seen))
    async with served(server, files) as target:
        assert await answers(target, client)
        put(files.certificate, new[0])
        put(files.key, new[1])
        if served_at_all:
            authorities.write_bytes(new[0])
        assert await answers(target, client)
    assert seen.reloads == [("certificate", served_at_all)]
    if not served_at_all:
        with pytest.raises(ConfigurationError, match="wanted RSA, P-256 or P-384"):
            files.server_credentials()


def test_an_expired_certificate_is_a_configuration_error(tmp_path: Path) -> None:
    certificate, key = _self_signed([x509.DNSName("localhost")], "late", days=-1)
    (tmp_path / "certificate.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    files = ServerTlsFiles(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with pytest.raises(ConfigurationError, match="expired"):
        files.server_credentials()


URI, DNS = x509.UniformResourceIdentifier("spiffe://acme/verifier"), x509.DNSName("verifier.test")
LONG = "https://acme.test/" + 30 * "verifiers/"
SHORTENED = f"{LONG[: 256 - 65]} {sha256(LONG.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("names", "common", "name"),
    [
        ([DNS, URI], "common", "spiffe://acme/verifier"),
        ([DNS], "common", "common"),
        ([DNS], "", "verifier.test"),
        ([x509.UniformResourceIdentifier(LONG)], "", SHORTENED),
    ],
    ids=["URI first", "then the common name", "then the DNS name", "no longer than tables keep"],
)
async def test_a_verifier_is_known_by_one_name_of_its_certificate(
    provider: Provider,
    certificates: Certificates,
    tmp_path: Path,
    names: list[x509.GeneralName],
    common: str,
    name: str,
) -> None:
    certificate, key = _self_signed(names, common, days=1)
    own = TlsFiles(tmp_path / "c.pem", tmp_path / "k.pem", certificates.client.authorities)
    own.certificate.write_bytes(certificate)
    own.key.write_bytes(key)
    files = replace(certificates.server, authorities=own.certificate)
    seen = Seen()
    server = await make_server(provider, ServiceSettings(observer=seen))
    async with served(server, files) as target:
        assert await answers(target, own)
    assert seen.verifiers == {name}


# Tokens


@dataclass(frozen=True)
class Tokens:
    """The token file of a server, and clients' files."""

    certificates: Certificates
    folder: Path

    @property
    def known(self) -> Path:
        """The server's file."""
        return self.folder / "known"

    @property
    def server(self) -> ServerTlsFiles:
        """The server's TLS files."""
        return ServerTlsFiles(self.certificates.server.certificate, self.certificates.server.key)

    def client(self, name: str, *, known: bool = True) -> BearerFiles:
        """Give `name` a token; return its files."""
        made = make_token(name)
        path = self.folder / f"{name}.token"
        path.write_text(made.token)
        if known:
            put(self.known, self._lines() + made.line.encode() + b"\n")
        return BearerFiles(self.certificates.client.authorities, path)

    def _lines(self) -> bytes:
        return self.known.read_bytes() if self.known.exists() else b""


@pytest.fixture
def tokens(certificates: Certificates, tmp_path: Path) -> Tokens:
    """Token files."""
    return Tokens(certificates, tmp_path)


async def test_an_audit_under_a_bearer_token_passes(
    parties: Parties, provider: Provider, tokens: Tokens
) -> None:
    client, seen = tokens.client(VERIFIER), Seen()
    reply = run_session(provider)
    server = await make_server(provider, ServiceSettings(tokens=tokens.known, observer=seen))
    async with served(server, tokens.server) as target:
        verdict = await audit(parties, reply.receipt, target, client)
    assert verdict.outcome == PASS
    assert seen.verifiers == {VERIFIER}


async def test_without_a_known_token_nothing_but_health_is_answered(
    parties: Parties, provider: Provider, tokens: Tokens
) -> None:
    tokens.client(VERIFIER)
    stranger = tokens.client("stranger", known=False)
    reply = run_session(provider)
    server = await make_server(provider, ServiceSettings(tokens=tokens.known))
    bare = grpc.ssl_channel_credentials(stranger.authorities.read_bytes())
    async with served(server, tokens.server) as target:
        async with aio.secure_channel(target, bare) as channel:
            await call_raw(channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest())
            with pytest.raises(aio.AioRpcError) as caught:
                await call_raw(channel, GET_KEY_SET, pb.GetKeySetRequest())
            info = transport.details_of(caught.value, error_details_pb2.ErrorInfo())
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert info is not None
            assert info.reason == "TOKEN_MISSING"
        async with ProviderClient(target, tls=stranger, timeout=WAIT_SECONDS) as client:
            with pytest.raises(PeerUnavailableError) as raised:
                await client.key_set()
        verdict = await audit(parties, reply.receipt, target, stranger)
    assert raised.value.status == "UNAUTHENTICATED"
    # Not to be known to a provider is held against nobody.
    assert verdict.outcome == INCONCLUSIVE


async def test_two_tokens_in_one_call_are_none(provider: Provider, tokens: Tokens) -> None:
    shown = [("authorization", f"Bearer {tokens.client(name).token.read_text()}") for name in "ab"]
    server = await make_server(provider, ServiceSettings(tokens=tokens.known))
    async with served(server) as target, aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(GET_KEY_SET)
        for header in shown:
            assert await call(b"", metadata=[header], timeout=WAIT_SECONDS)
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"", metadata=shown, timeout=WAIT_SECONDS)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_are_read_again_on_both_sides(provider: Provider, tokens: Tokens) -> None:
    files = tokens.client(VERIFIER)
    server = await make_server(provider, ServiceSettings(tokens=tokens.known))
    async with (
        served(server, tokens.server) as target,
        ProviderClient(target, tls=files, timeout=WAIT_SECONDS) as client,
    ):
        await client.key_set()
        tokens.known.unlink()
        made = make_token(VERIFIER)
        put(tokens.known, made.line.encode())
        with pytest.raises(PeerUnavailableError, match="UNAUTHENTICATED"):
            await client.key_set()
        put(files.token, made.token.encode())
        assert await client.key_set() == provider.key_set


async def test_each_verifier_has_a_rate_limit_of_its_own(
    provider: Provider, tokens: Tokens
) -> None:
    one, two = tokens.client("one"), tokens.client("two")
    rate = transport.RateLimit(per_second=0.001, burst=1)
    server = await make_server(provider, ServiceSettings(tokens=tokens.known, rate=rate))
    async with served(server, tokens.server) as target:
        assert [await answers(target, files) for files in (one, one, two)] == [True, False, True]


async def test_a_flood_of_unknown_tokens_is_limited_and_costs_verifiers_nothing(
    provider: Provider, tokens: Tokens
) -> None:
    known, stranger = tokens.client("known"), tokens.client("stranger", known=False)
    rate = transport.RateLimit(per_second=0.001, burst=2)
    seen = Seen()
    settings = ServiceSettings(tokens=tokens.known, rate=rate, observer=seen)
    async with served(await make_server(provider, settings), tokens.server) as target:
        async with ProviderClient(target, tls=stranger, timeout=WAIT_SECONDS) as client:
            for status in ("UNAUTHENTICATED", "UNAUTHENTICATED", RATE_LIMITED):
                with pytest.raises(PeerUnavailableError) as raised:
                    await client.key_set()
                assert raised.value.status == status
        async with ProviderClient(target, tls=known, timeout=WAIT_SECONDS) as client:
            assert await client.key_set() == provider.key_set
    assert seen.verifiers == {"", "known"}


async def test_tls_without_anything_that_says_who_calls_is_refused(
    provider: Provider, tokens: Tokens
) -> None:
    server = await make_server(provider)
    with pytest.raises(ConfigurationError, match="tokens"):
        transport.bind(server, "127.0.0.1:0", tokens.server)
    with pytest.raises(ConfigurationError, match="tokens"):
        transport.bind(aio.server(), "127.0.0.1:0", tokens.server)
    await server.stop(None)


async def test_a_token_is_not_sent_in_plaintext(tokens: Tokens) -> None:
    with pytest.raises(ConfigurationError):
        transport.open_channel("192.0.2.1:1", None)
    files = tokens.client(VERIFIER)
    for broken in (
        replace(files, authorities=files.token),
        replace(files, token=files.authorities),
        replace(files, token=files.token.with_name("missing")),
    ):
        with pytest.raises(ConfigurationError):
            transport.open_channel("127.0.0.1:1", broken)


# Caller and signer


@pytest.mark.parametrize("whole", [False, True], ids=["drawn tokens", "whole blocks"])
@pytest.mark.parametrize(
    ("name", "answered"),
    [(VERIFIER, True), (OTHER_VERIFIER, False), ("messenger", True)],
)
async def test_a_known_verifier_sends_its_own_challenges_only(
    parties: Parties, provider: Provider, tokens: Tokens, name: str, *, answered: bool, whole: bool
) -> None:
    files = tokens.client(name)
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    challenge = (parties.whole_challenge if whole else parties.challenge)(fingerprints)
    # A signature of the caller's key over something else makes it no challenge of the caller's.
    other = parties.challenge(fingerprints, signer=parties.other).signatures[0]
    challenge.signatures.append(other)
    server = await make_server(provider, ServiceSettings(tokens=tokens.known))
    async with (
        served(server, tokens.server) as target,
        ProviderClient(target, tls=files, timeout=WAIT_SECONDS) as client,
    ):
        entry = await client.challenge(reply.commitment_sha256, challenge, whole=whole)
    assert entry.HasField("opening") == answered
    assert entry.no_answer == ("" if answered else "PERMISSION_DENIED")


async def test_a_token_is_no_leave_to_challenge(
    parties: Parties, provider: Provider, tokens: Tokens
) -> None:
    files = tokens.client(VERIFIER)
    strangers = Parties(root=parties.root, signer=parties.signer)
    reply = run_session(provider)
    server = await make_server(provider, ServiceSettings(tokens=tokens.known))
    async with served(server, tokens.server) as target:
        verdict = await audit(strangers, reply.receipt, target, files)
    assert verdict.outcome == INCONCLUSIVE
    assert says(verdict, "permission_denied")
