"""A certificate of the provider's domain as root: which paths hold, at which times."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.checks import Case, Trust, rooted_keys, run_checks
from coin_protocol.errors import ConfigurationError, InvalidInputError, SignatureError
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, pinned, sign_key_set, stamp
from coin_protocol.root_certificate import (
    MAX_CERTIFICATE_BYTES,
    MAX_ROOT_CHAIN,
    CertificateError,
    RootDomain,
    certified_key,
    read_certificates,
    read_chain,
    window,
)
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.testing.world import World
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from tests.support.chains import DAY, DOMAIN, Authority, Certified, der, new_key
from tests.support.parties import PROVIDER, Clock, Parties, reasoning_ids, run_session

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = Certified()
OTHER = Authority("another CA")
LEAF = ROOT.authority.leaf(ROOT.key)
CHAIN = ROOT.authority.chain(LEAF)
NOBODY = pinned("verifiers", ())
TRUSTED = RootDomain(DOMAIN, (ROOT.authority.root,))
TRUST = Trust([], NOBODY, [TRUSTED])


def key_set(
    root: Signer = ROOT.signer,
    chain: tuple[bytes, ...] = CHAIN,
    *,
    issued_at: datetime = NOW,
    key: Signer | None = None,
) -> SignedKeySet:
    public = (key or World().signer(PROVIDER)).public
    listed = ListedKey(public, NOW - 400 * DAY, NOW + 400 * DAY)
    signed = sign_key_set(PROVIDER, [listed], root=root, issued_at=issued_at, sequence=1)
    return SignedKeySet(signed, chain)


# Paths


def test_a_key_set_signed_under_the_domains_certificate_is_believed() -> None:
    assert rooted_keys(key_set(), TRUST).owner == PROVIDER


def test_the_authoritys_own_certificate_may_come_along() -> None:
    chain = der(LEAF, ROOT.authority.middle, ROOT.authority.root)
    rooted_keys(key_set(chain=chain), TRUST)


def test_what_comes_after_the_path_is_not_looked_at() -> None:
    rooted_keys(key_set(chain=(*CHAIN, *der(OTHER.root))), TRUST)


def test_an_expired_certificate_is_good_for_what_was_issued_in_its_time() -> None:
    leaf = ROOT.authority.leaf(ROOT.key, begins=NOW - 200 * DAY)
    served = key_set(chain=ROOT.authority.chain(leaf), issued_at=NOW - 150 * DAY)
    assert rooted_keys(served, TRUST).issued_at == NOW - 150 * DAY


def test_one_of_several_domains_is_enough() -> None:
    other = RootDomain("other.example", (ROOT.authority.root,))
    rooted_keys(key_set(), Trust([], NOBODY, [other, TRUSTED]))
    with pytest.raises(CertificateError, match=r"none of 'other.example', 'other.example'"):
        rooted_keys(key_set(), Trust([], NOBODY, [other, other]))


def test_a_pinned_key_is_believed_whatever_chain_comes_along() -> None:
    for chain in ((), CHAIN, (b"garbage",)):
        served = key_set(chain=chain)
        rooted_keys(served, Trust([ROOT.signer.public], NOBODY))
        rooted_keys(served, Trust([ROOT.signer.public], NOBODY, [TRUSTED]))


def test_nobody_who_names_no_domain_believes_a_certificate() -> None:
    stranger = World().signer(ROOT_KEY_NAME).public
    for trust in (Trust([], NOBODY), Trust([stranger], NOBODY)):
        with pytest.raises(SignatureError, match="no pinned root key"):
            rooted_keys(key_set(), trust)


@dataclass(frozen=True)
class Flaw:
    name: str
    served: Callable[[], SignedKeySet]
    says: str
    trust: Trust = TRUST


def of_leaf(**given: object) -> SignedKeySet:
    leaf = ROOT.authority.leaf(ROOT.key, **given)  # type: ignore[arg-type]
    return key_set(chain=ROOT.authority.chain(leaf))


def long_chain() -> tuple[bytes, ...]:
    return CHAIN + CHAIN[1:] * (MAX_ROOT_CHAIN - 1)


FLAWS = (
    Flaw("wrong domain", lambda: of_leaf(domain="other.example"), "no matching subjectAltName"),
    Flaw("a subdomain", lambda: of_leaf(domain=f"www.{DOMAIN}"), "no matching subjectAltName"),
    Flaw("a wildcard below", lambda: of_leaf(domain=f"*.{DOMAIN}"), "no matching subjectAltName"),
    Flaw("expired", lambda: of_leaf(begins=NOW - 91 * DAY), "not valid at validation time"),
    Flaw("not yet valid", lambda: of_leaf(begins=NOW + DAY), "not valid at validation time"),
    Flaw(
        "issued after the end",
        lambda: key_set(issued_at=NOW + 100 * DAY),
        "not valid at validation time",
    ),
    Flaw("another CA", lambda: key_set(chain=OTHER.chain(OTHER.leaf(ROOT.key))), "exhausted"),
    Flaw(
        "a CA of the same name",
        lambda: key_set(chain=Authority().chain(Authority().leaf(ROOT.key))),
        "no path",
    ),
    Flaw("for clients only", lambda: of_leaf(use=ExtendedKeyUsageOID.CLIENT_AUTH), "EKU"),
    Flaw("not for signing", lambda: of_leaf(signs=False), "key usage"),
    Flaw("another key signed", lambda: key_set(root=Certified().signer), "no key of 'root'"),
    Flaw(
        "a leaf of another key",
        lambda: key_set(chain=ROOT.authority.chain(ROOT.authority.leaf())),
        "no key of 'root'",
    ),
    Flaw("intermediate first", lambda: key_set(chain=CHAIN[::-1]), "no key of 'root'"),
    Flaw(
        "root before intermediate",
        lambda: key_set(chain=der(LEAF, ROOT.authority.root, ROOT.authority.middle)),
        "out of order",
    ),
    Flaw("missing intermediate", lambda: key_set(chain=CHAIN[:1]), "exhausted"),
    Flaw("empty chain", lambda: key_set(chain=()), "without a certificate for 'acme.example'"),
    Flaw("chain too long", lambda: key_set(chain=long_chain()), "9 certificates"),
    Flaw("garbage", lambda: key_set(chain=(b"garbage",)), "certificate 1 of"),
    Flaw("garbage behind", lambda: key_set(chain=(*CHAIN, b"")), "certificate 3 of"),
    Flaw("cut short", lambda: key_set(chain=(CHAIN[0][:-1], CHAIN[1])), "certificate 1 of"),
    Flaw("trailing byte", lambda: key_set(chain=(CHAIN[0] + b"0", CHAIN[1])), "certificate 1 of"),
    Flaw(
        "a certificate too large",
        lambda: key_set(chain=(bytes(MAX_CERTIFICATE_BYTES + 1),)),
        "16385 bytes",
    ),
    Flaw(
        "the intermediate signs itself",
        lambda: key_set(KeySigner(ROOT_KEY_NAME, ROOT.authority.middle_key), chain=CHAIN[1:]),
        "key usage",
    ),
)


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.name)
def test_a_flawed_path_is_refused(flaw: Flaw) -> None:
    with pytest.raises(SignatureError, match=flaw.says):
        rooted_keys(flaw.served(), flaw.trust)


def test_a_path_longer_than_any_authoritys_is_refused() -> None:
    # Each intermediate of its own name, five of them between leaf and root.
    authority, links = ROOT.authority, []
    for number in range(5):
        authority = Authority(f"link {number}", root_key=authority.middle_key)
        links.append(authority)
    assert len(links) == 5
    leaf = authority.leaf(ROOT.key)
    chain = der(leaf, *(link.middle for link in reversed(links)), ROOT.authority.middle)
    with pytest.raises(CertificateError):
        TRUSTED.verify(chain, NOW)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["rsa", "p-384"],
)
def test_keys_that_statements_are_not_signed_with_are_refused(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    with pytest.raises(CertificateError, match="neither ECDSA P-256 nor Ed25519"):
        certified_key(ROOT.authority.chain(ROOT.authority.leaf(key)), ROOT_KEY_NAME)


def test_an_ed25519_certificate_of_an_own_authority_is_believed() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    chain = ROOT.authority.chain(ROOT.authority.leaf(key))
    rooted_keys(key_set(KeySigner(ROOT_KEY_NAME, key), chain), TRUST)


@given(st.binary(max_size=200), st.integers(0, 2), st.integers(0, 300))
def test_no_bytes_in_a_chain_do_more_than_fail(noise: bytes, place: int, at: int) -> None:
    flawed = list(CHAIN + CHAIN[1:])
    flawed[place] = flawed[place][:at] + noise + flawed[place][at + len(noise) :]
    try:
        rooted_keys(key_set(chain=tuple(flawed)), TRUST)
    except SignatureError:
        assert tuple(flawed) != CHAIN + CHAIN[1:]


@given(st.integers(-120, 120))
def test_a_certificate_counts_within_its_window_alone(days: int) -> None:
    at = NOW + timedelta(days=days)
    try:
        TRUSTED.verify(CHAIN, at)
    except CertificateError:
        assert not -1 <= days < 89
    else:
        assert -1 <= days <= 89


# The time that somebody else saw


def test_a_certificate_must_hold_when_the_key_set_was_seen_too() -> None:
    served = key_set()
    rooted_keys(served, TRUST, seen_at=lambda issued_at: issued_at + 80 * DAY)
    with pytest.raises(CertificateError, match="not valid at validation time"):
        rooted_keys(served, TRUST, seen_at=lambda issued_at: issued_at + 100 * DAY)
    # A pinned key is good whenever it is seen.
    rooted_keys(
        served,
        Trust([ROOT.signer.public], NOBODY),
        seen_at=lambda issued_at: issued_at + 100 * DAY,
    )


@pytest.mark.parametrize("late", [-100.0, 0.0, 200.0])
def test_a_key_set_dated_back_under_an_expired_certificate_fails_the_key_window(
    parties: Parties, provider: Provider, late: float
) -> None:
    """Seconds between the certificate's end and the reply; the policy allows clocks 300."""
    clock = Clock()
    began = datetime.fromtimestamp(clock.nanoseconds / 1e9, UTC)
    reply = run_session(provider, reasoning_ids(16), clock=clock)
    case = reply.case(parties)
    skew = parties.policy.clock_skew_seconds
    end = began - timedelta(seconds=late) if late <= 0 else began - timedelta(seconds=skew + late)
    leaf = ROOT.authority.leaf(ROOT.key, begins=end - 90 * DAY, ends=end)
    chain = ROOT.authority.chain(leaf)
    listed = ListedKey(parties.signer.public, began - DAY, began + DAY)
    signed = sign_key_set(PROVIDER, [listed], root=ROOT.signer, issued_at=end - DAY, sequence=1)
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    receipt.key_set.CopyFrom(signed)
    receipt.root_chain[:] = chain
    case = replace(case, receipt=receipt, trust=Trust([], parties.verifiers, [TRUSTED]))
    report = run_checks(case)
    if late <= 0:
        assert report.failed is None, report.detail
    else:
        assert report.failed is not None
        assert report.failed.code == "KEY_WINDOW"
        assert report.fault == receipt_pb2.FAULT_UNATTRIBUTED


def under_certificate_until(end: datetime, case: Case, parties: Parties) -> Case:
    """Return the case with its key set under a certificate that ended then, issued before."""
    leaf = ROOT.authority.leaf(ROOT.key, begins=end - 90 * DAY, ends=end)
    served = key_set(chain=ROOT.authority.chain(leaf), issued_at=end - DAY, key=parties.signer)
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    receipt.key_set.CopyFrom(served.signed)
    receipt.root_chain[:] = served.root_chain
    return replace(case, receipt=receipt, trust=Trust([], parties.verifiers, [TRUSTED]))


def test_a_receipt_without_an_answer_is_held_against_the_time_of_sending(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider, reasoning_ids(16), answer="")
    case = reply.case(parties)
    sent = case.receipt.sent_at.ToDatetime(UTC)
    end = sent - timedelta(seconds=parties.policy.clock_skew_seconds + 60)
    case = under_certificate_until(end, case, parties)
    report = run_checks(case)
    assert report.failed is not None
    assert report.failed.code == "KEY_WINDOW"
    case.receipt.sent_at.CopyFrom(stamp(end - timedelta(hours=1)))
    assert run_checks(replace(case)).failed is None


def test_a_receipt_with_an_answer_is_held_against_the_time_that_its_end_came(
    parties: Parties, provider: Provider
) -> None:
    """The request may have been sent while the certificate was good."""
    case = run_session(provider, reasoning_ids(16)).case(parties)
    came = case.receipt.answer_last_at.ToDatetime(UTC)
    end = came - timedelta(seconds=parties.policy.clock_skew_seconds + 60)
    case = under_certificate_until(end, case, parties)
    case.receipt.sent_at.CopyFrom(stamp(end - timedelta(hours=1)))
    report = run_checks(case)
    assert report.failed is not None
    assert report.failed.code == "KEY_WINDOW"
    case.receipt.ClearField("answer_last_at")
    assert run_checks(replace(case)).failed is None


# Domains, files and the system's store


@pytest.mark.parametrize(
    "domain", ["", "*.acme.example", "acme example", "ä.example", "a..b", "x" * 300]
)
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(InvalidInputError, match="no domain"):
        RootDomain(domain, (ROOT.authority.root,))


def test_a_domain_without_authorities_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no authority"):
        RootDomain(DOMAIN, ())


def test_authorities_and_chains_are_read_from_pem(tmp_path: Path) -> None:
    _, chain, authorities = ROOT.write(tmp_path, LEAF)
    assert RootDomain.from_file(DOMAIN, authorities) == TRUSTED
    assert read_chain(chain) == CHAIN
    assert window(CHAIN) == (LEAF.not_valid_before_utc, LEAF.not_valid_after_utc)
    for raw in (b"", b"garbage", ROOT.signer.to_pem()):
        (tmp_path / "bad").write_bytes(raw)
        with pytest.raises(InvalidInputError, match="no certificates"):
            read_certificates(tmp_path / "bad")
    (tmp_path / "bad").write_bytes(LEAF.public_bytes(Encoding.PEM) * (MAX_ROOT_CHAIN + 1))
    with pytest.raises(InvalidInputError, match="9 certificates"):
        read_chain(tmp_path / "bad")


def test_the_systems_store_is_the_one_that_openssl_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = ROOT.authority.write(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert RootDomain.from_system(DOMAIN) == TRUSTED


def test_a_system_with_a_folder_of_authorities_alone_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROOT.authority.write(tmp_path / "0a1b2c3d.0")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    if ssl.get_default_verify_paths().capath is None:
        pytest.skip("this OpenSSL knows no folder of authorities")
    assert RootDomain.from_system(DOMAIN) == TRUSTED


def test_a_system_without_a_store_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError, match="--ca"):
        RootDomain.from_system(DOMAIN)


def test_a_public_authority_vouches_for_nobody_it_did_not_certify() -> None:
    domain = RootDomain.from_system(DOMAIN)
    with pytest.raises(CertificateError, match="no path"):
        domain.verify(CHAIN, NOW)


def test_keys_are_new_each_time() -> None:
    assert new_key().public_key() != new_key().public_key()
