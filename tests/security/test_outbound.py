"""What a node could be made to call by receipts, certificates, answers and the environment."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from coin_protocol import envelope
from coin_protocol.checks import Trust, rooted_keys
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import SignedKeySet, pinned, sign_key_set
from coin_protocol.root_certificate import RootDomain
from coin_protocol.signer import KeySigner
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from tests.support.chains import DAY, DOMAIN, Certified
from tests.support.parties import PROVIDER, Parties, run_session
from tests.support.witness_answers import KEY, answer, answering, client_of
from tests.support.witnesses import Log
from verifier_sdk.node.intake import ForgedReceiptError, Intake
from verifier_sdk.node.providers import Providers, RegisteredProvider, UnknownProviderError

NOW = datetime.now(UTC).replace(microsecond=0)
VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Trap:
    """An address within, which nobody may be led to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.address}/"

    def close(self) -> None:
        self._socket.close()

    @property
    def called(self) -> bool:
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return False
        connection.close()
        return True


@pytest.fixture
def trap() -> Iterator[Trap]:
    with closing(Trap()) as trap:
        yield trap


def test_a_trap_tells_when_it_is_called(trap: Trap) -> None:
    assert not trap.called
    host, _, port = trap.address.rpartition(":")
    socket.create_connection((host, int(port)), 2).close()
    assert trap.called


def test_addresses_in_certificates_are_never_fetched(trap: Trap) -> None:
    root = Certified()
    where = x509.UniformResourceIdentifier(trap.url)
    access = [
        x509.AccessDescription(method, where)
        for method in (
            AuthorityInformationAccessOID.OCSP,
            AuthorityInformationAccessOID.CA_ISSUERS,
        )
    ]
    point = x509.DistributionPoint([where], None, None, None)
    plain = root.authority.leaf(root.key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]))
        .issuer_name(plain.issuer)
        .public_key(root.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.AuthorityInformationAccess(access), critical=False)
        .add_extension(x509.CRLDistributionPoints([point]), critical=False)
    )
    for extension in plain.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    leaf = builder.sign(root.authority.middle_key, hashes.SHA256())
    signer = KeySigner.generate(PROVIDER)
    listed = ListedKey(signer.public, NOW - DAY, NOW + DAY)
    signed = sign_key_set(PROVIDER, [listed], root=root.signer, issued_at=NOW, sequence=1)
    served = SignedKeySet(signed, root.authority.chain(leaf))
    trust = Trust([], pinned("verifiers", ()), [RootDomain(DOMAIN, (root.authority.root,))])
    assert rooted_keys(served, trust).owner == PROVIDER
    assert not trap.called


async def test_a_witness_sends_nobody_elsewhere(trap: Trap) -> None:
    log = Log().grow(7)
    for status in (301, 302, 303, 307, 308):
        said = answer(status, more=f"location: {trap.url}\r\n")
        async with answering(said) as port, client_of(port) as client:
            with pytest.raises(PeerUnavailableError, match=str(status)):
                await client.cosign(log.note(), log.proof)
    assert not trap.called


async def test_a_witness_is_reached_by_no_proxy_of_the_environment(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, trap.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    log = Log().grow(7)
    async with answering(answer(503)) as port, client_of(port, KEY) as client:
        with pytest.raises(PeerUnavailableError, match="503"):
            await client.cosign(log.note(), log.proof)
    assert not trap.called


# Whose word a receipt is


def intake_of(*parties: tuple[str, Parties, str]) -> Intake:
    """Return an intake of these providers; nothing is ever written."""
    known = {
        name: RegisteredProvider(name, target, one.trust, 1.0, None)
        for name, one, target in parties
    }
    return Intake(
        None,  # type: ignore[arg-type] # no receipt here comes as far as a database
        Providers(known),
        secret=bytes(32),
        block_size=8,
        failed_share=lambda _: 0.0,
    )


def test_a_receipt_names_no_address_to_call(provider: Provider, parties: Parties) -> None:
    receipt = run_session(provider).receipt
    intake = intake_of((PROVIDER, parties, "127.0.0.1:1"))
    kept = intake.prepare(receipt, "")
    assert kept.provider == PROVIDER
    odd = receipt_pb2.Receipt()
    odd.CopyFrom(receipt)
    statement = read_commitment(receipt.commitment.payload)
    statement.provider = "127.0.0.1:22"
    payload = statement.SerializeToString()
    odd.commitment.CopyFrom(envelope.sign(payload, envelope.COMMITMENT, parties.signer))
    with pytest.raises(UnknownProviderError, match=r"'127\.0\.0\.1:22' is not audited here"):
        intake.prepare(odd, "")
    fields = [field.name for field in receipt_pb2.Receipt.DESCRIPTOR.fields]
    assert not [name for name in fields if "url" in name or "address" in name or "host" in name]


def test_the_root_of_one_provider_speaks_for_no_other(parties: Parties) -> None:
    evil = Parties()
    intake = intake_of((PROVIDER, parties, "127.0.0.1:1"), ("evil", evil, "127.0.0.1:2"))
    # A provider that is known here signs a whole reply in another's name.
    with evil.provider() as pretender:
        receipt = run_session(pretender).receipt
    with pytest.raises(ForgedReceiptError, match="not signed by 'acme'"):
        intake.prepare(receipt, "")


def test_a_key_set_of_one_provider_lists_no_key_of_another(
    parties: Parties, provider: Provider
) -> None:
    receipt = run_session(provider).receipt
    listed = ListedKey(parties.signer.public, NOW - DAY, NOW + timedelta(days=1))
    other = sign_key_set("evil", [listed], root=parties.root, issued_at=NOW, sequence=1)
    receipt.key_set.CopyFrom(other)
    with pytest.raises(ForgedReceiptError):
        intake_of((PROVIDER, parties, "127.0.0.1:1")).prepare(receipt, "")
