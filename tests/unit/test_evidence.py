"""Evidence proves what nobody honest signs, and accuses nobody of what honest parties do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol import envelope
from coin_protocol.checks import Trust
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    CoinError,
    InvalidInputError,
    KeyWindowError,
    LimitError,
    SignatureError,
    StatementError,
    VerificationError,
)
from coin_protocol.evidence import (
    Kind,
    commitment_equivocation,
    head_equivocation,
    read_evidence,
    verify_evidence,
)
from coin_protocol.keys import ECDSA_P256, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, sign_key_set
from coin_protocol.limits import MAX_EVIDENCE_BYTES, MAX_NOTE_BYTES
from coin_protocol.note import NoteSigner
from coin_protocol.receipt import to_json, write_file
from coin_protocol.root_certificate import RootDomain
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import envelope_pb2, statements_pb2
from coin_protocol.v1 import evidence_pb2 as pb
from tests.support.chains import DOMAIN, Authority, new_key
from tests.support.equivocations import (
    ORIGIN,
    Edit,
    ForkedLog,
    TwoFaced,
    bill_more,
    crash,
    two_faced,
)
from tests.support.parties import PROVIDER, Parties


@pytest.fixture(scope="module")
def provider() -> Iterator[TwoFaced]:
    """A provider with one honest commitment."""
    with two_faced() as found:
        yield found


def accuse(
    provider: TwoFaced, first: envelope_pb2.Envelope, second: envelope_pb2.Envelope
) -> pb.Evidence:
    return commitment_equivocation(
        first, second, key_set=provider.key_set, trust=provider.parties.trust
    )


# Commitments


def test_two_commitments_to_one_session_are_proof(provider: TwoFaced) -> None:
    first, second = provider.honest, provider.signed(bill_more)
    evidence = accuse(provider, first, second)
    found = verify_evidence(evidence, trust=provider.parties.trust, log_key=None)
    statement = statements_pb2.Commitment.FromString(first.payload)
    assert found.kind is Kind.COMMITMENTS
    assert (found.party, found.subject) == (PROVIDER, statement.session_id.hex())
    assert (found.first, found.second) == (digest(first.payload), digest(second.payload))
    tokens = statement.reasoning_tokens
    assert found.sentence == (
        f"'acme' signed two commitments to session {found.subject}: {found.first.hex()} bills "
        f"{tokens} reasoning tokens, {found.second.hex()} bills {tokens + 8}. They differ in "
        "reasoning_tokens, usage."
    )
    assert not found.caveats


@pytest.mark.parametrize("form", ["evidence.json", "evidence.binpb"])
def test_evidence_outlives_its_file(provider: TwoFaced, tmp_path: Path, form: str) -> None:
    evidence = accuse(provider, provider.honest, provider.signed(bill_more))
    write_file(tmp_path / form, evidence)
    assert read_evidence((tmp_path / form).read_bytes()) == evidence


def test_the_same_commitment_twice_is_none(provider: TwoFaced) -> None:
    with pytest.raises(VerificationError, match="both commitments say the same"):
        accuse(provider, provider.honest, provider.honest)


def test_nor_is_one_that_was_signed_twice() -> None:
    # ECDSA gives another signature each time.
    parties = Parties(signer=KeySigner.generate(PROVIDER, ECDSA_P256))
    with two_faced(parties) as provider:
        again = provider.signed()
        assert again.payload == provider.honest.payload
        assert again.signatures[0].sig != provider.honest.signatures[0].sig
        with pytest.raises(VerificationError, match="both commitments say the same"):
            accuse(provider, provider.honest, again)


def test_nor_is_one_that_was_written_another_way(provider: TwoFaced) -> None:
    statement = statements_pb2.Commitment.FromString(provider.honest.payload)
    other = statements_pb2.Commitment(provider=statement.provider).SerializeToString()
    statement.ClearField("provider")
    payload = other + statement.SerializeToString()
    assert payload != provider.honest.payload
    again = envelope.sign(payload, envelope.COMMITMENT, provider.parties.signer)
    with pytest.raises(VerificationError, match="both commitments say the same"):
        accuse(provider, provider.honest, again)


def test_nor_are_two_to_two_sessions(provider: TwoFaced) -> None:
    other = provider.signed(lambda statement: setattr(statement, "session_id", bytes(16)))
    with pytest.raises(VerificationError, match="two commitments to two sessions"):
        accuse(provider, provider.honest, other)


def test_what_another_key_signed_accuses_nobody(provider: TwoFaced) -> None:
    forged = provider.signed(bill_more, KeySigner.generate(PROVIDER))
    with pytest.raises(SignatureError, match="no key of 'acme' signed this commitment"):
        accuse(provider, provider.honest, forged)
    tampered = provider.signed(bill_more)
    tampered.payload += b"\x40\x01"
    with pytest.raises(SignatureError):
        accuse(provider, provider.honest, tampered)


def test_what_another_provider_said_accuses_nobody(provider: TwoFaced) -> None:
    other = provider.signed(lambda statement: setattr(statement, "provider", "bcme"))
    with pytest.raises(StatementError, match="names 'bcme', the key set belongs to 'acme'"):
        accuse(provider, provider.honest, other)


def test_a_key_set_of_somebody_else_accuses_nobody(provider: TwoFaced) -> None:
    pair = provider.honest, provider.signed(bill_more)
    trust = Trust([KeySigner.generate(ROOT_KEY_NAME).public], provider.parties.verifiers)
    with pytest.raises(SignatureError, match="no pinned root key signed"):
        commitment_equivocation(*pair, key_set=provider.key_set, trust=trust)


def test_a_signature_outside_of_its_keys_window_accuses_nobody(provider: TwoFaced) -> None:
    def later(statement: statements_pb2.Commitment) -> None:
        statement.ended_at.FromDatetime(datetime.now(UTC) + timedelta(days=2))

    with pytest.raises(KeyWindowError, match="the signature is dated"):
        accuse(provider, provider.honest, provider.signed(later))


def test_a_revoked_key_is_named_beside_the_finding(provider: TwoFaced) -> None:
    parties = provider.parties
    now = datetime.now(UTC)
    day, revoked = timedelta(days=1), now + timedelta(hours=1)
    listed = ListedKey(parties.signer.public, now - day, now + day, revoked)
    key_set = sign_key_set(PROVIDER, [listed], root=parties.root, issued_at=now, sequence=2)
    evidence = commitment_equivocation(
        provider.honest,
        provider.signed(bill_more),
        key_set=SignedKeySet(key_set),
        trust=parties.trust,
    )
    (caveat,) = verify_evidence(evidence, trust=parties.trust, log_key=None).caveats
    key = parties.signer.public
    assert caveat == (
        f"Key {key.name!r} ({key.keyid[:16]}…) was revoked at {revoked.isoformat()}: whoever had "
        "it by then could sign a commitment and date it back."
    )


def test_a_certificate_of_the_domain_serves_as_root(provider: TwoFaced) -> None:
    authority, key = Authority(), new_key()
    root = KeySigner(ROOT_KEY_NAME, key)
    now = datetime.now(UTC)
    day = timedelta(days=1)
    listed = ListedKey(provider.parties.signer.public, now - day, now + day)
    signed = sign_key_set(PROVIDER, [listed], root=root, issued_at=now, sequence=1)
    key_set = SignedKeySet(signed, authority.chain(authority.leaf(key)))
    domain = RootDomain(DOMAIN, (authority.root,))
    pair = provider.honest, provider.signed(bill_more)
    trust = Trust([], provider.parties.verifiers, [domain])
    evidence = commitment_equivocation(*pair, key_set=key_set, trust=trust)
    again = read_evidence(evidence.SerializeToString())
    assert verify_evidence(again, trust=trust, log_key=None).party == PROVIDER
    other = RootDomain("bcme.example", (authority.root,))
    with pytest.raises(VerificationError, match="no path for"):
        verify_evidence(again, trust=Trust([], provider.parties.verifiers, [other]), log_key=None)


# What a lost database does to the honest


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_session_that_was_closed_again_after_a_restore_accuses_nobody(
    provider: TwoFaced, blocks: int
) -> None:
    recovered = provider.signed(partial(crash, blocks=blocks))
    for pair in ((provider.honest, recovered), (recovered, provider.honest)):
        with pytest.raises(VerificationError, match="lost its last writes closes such a session"):
            accuse(provider, *pair)


def test_nor_does_one_that_was_closed_twice(provider: TwoFaced) -> None:
    def crash_later(statement: statements_pb2.Commitment) -> None:
        crash(statement)
        statement.ended_at.nanos = 1

    def end(statement: statements_pb2.Commitment) -> None:
        crash(statement)
        statement.ClearField("abort_reason")

    later, whole = provider.signed(crash_later), provider.signed(end)
    for other in (provider.signed(crash), provider.signed(partial(crash, blocks=2)), whole):
        with pytest.raises(VerificationError, match="lost its last writes closes such a session"):
            accuse(provider, later, other)


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: setattr(s, "token_root", bytes(32)),
        lambda s: setattr(s, "request_sha256", bytes(32)),
        lambda s: setattr(s, "flip_anchor", bytes(32)),
        lambda s: setattr(s, "client_nonce", bytes(32)),
        lambda s: setattr(s, "model", "acme-2"),
        lambda s: setattr(s.started_at, "nanos", 1),
        lambda s: setattr(s, "answer_tokens", 5),
        lambda s: setattr(s.usage, "prompt_tokens", 5),
    ],
)
def test_a_crash_excuses_nothing_that_recovery_does_not_do(provider: TwoFaced, edit: Edit) -> None:
    once = provider.signed(crash)

    def other(statement: statements_pb2.Commitment) -> None:
        crash(statement)
        edit(statement)

    found = accuse(provider, once, provider.signed(other))
    assert verify_evidence(found, trust=provider.parties.trust, log_key=None).party == PROVIDER


def test_nor_more_reasoning_than_the_reply_ended_with(provider: TwoFaced) -> None:
    more = provider.signed(partial(crash, blocks=50))
    accuse(provider, provider.honest, more)


# Heads


def test_two_heads_of_one_size_are_proof() -> None:
    log = ForkedLog()
    first, second = log.head(root=bytes(32)), log.head(root=b"\1" * 32)
    evidence = head_equivocation(first, second, log_key=log.signer.verifier)
    again = read_evidence(to_json(evidence).encode())
    found = verify_evidence(again, trust=None, log_key=log.signer.verifier)
    assert found.kind is Kind.HEADS
    assert (found.party, found.subject) == (ORIGIN, "5")
    assert (found.first, found.second) == (bytes(32), b"\1" * 32)
    assert "shows different entries to different people" in found.sentence


def test_heads_of_a_log_that_only_grew_are_none() -> None:
    log = ForkedLog()
    key = log.signer.verifier
    for second, said in (
        (log.head(), "of one tree"),
        (log.head(size=6, root=b"\1" * 32), "two different values of size, 5 and 6"),
        (log.head(root=b"\1" * 32, origin="example.org/b"), "two different values of origin"),
    ):
        with pytest.raises(VerificationError, match=said):
            head_equivocation(log.head(), second, log_key=key)


def test_heads_that_the_log_did_not_sign_accuse_nobody() -> None:
    log, other = ForkedLog(), ForkedLog()
    with pytest.raises(SignatureError):
        head_equivocation(log.head(), other.head(root=b"\1" * 32), log_key=log.signer.verifier)
    tampered = log.head().replace(b"\n5\n", b"\n6\n")
    with pytest.raises(SignatureError):
        head_equivocation(log.head(), tampered, log_key=log.signer.verifier)
    with pytest.raises(StatementError):
        head_equivocation(log.head(), b"", log_key=log.signer.verifier)
    long = log.head() + b"x" * MAX_NOTE_BYTES
    with pytest.raises(StatementError, match="bytes"):
        head_equivocation(log.head(), long, log_key=log.signer.verifier)


# Files


def test_each_kind_says_which_keys_it_takes(provider: TwoFaced) -> None:
    log = ForkedLog()
    heads = head_equivocation(log.head(), log.head(root=b"\1" * 32), log_key=log.signer.verifier)
    with pytest.raises(InvalidInputError, match="give the log's verifier key"):
        verify_evidence(heads, trust=provider.parties.trust, log_key=None)
    commitments = accuse(provider, provider.honest, provider.signed(bill_more))
    with pytest.raises(InvalidInputError, match="say whom to believe"):
        verify_evidence(commitments, trust=None, log_key=log.signer.verifier)
    with pytest.raises(StatementError, match="no evidence"):
        verify_evidence(pb.Evidence(), trust=provider.parties.trust, log_key=None)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "found evidence format ''"),
        (b'{"format": "coin.evidence.v2"}', "wanted 'coin.evidence.v1'"),
        (b'{"format": "coin.evidence.v1"}', "holds no evidence"),
        (b'{"format": "coin.evidence.v1", "heads": 3}', "not a evidence"),
        (b"\xff\xff", "not a evidence"),
    ],
)
def test_what_is_no_evidence_is_told_so(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_evidence(raw)


def test_a_file_of_the_most_bytes_is_read(provider: TwoFaced) -> None:
    evidence = accuse(provider, provider.honest, provider.signed(bill_more))
    assert read_evidence(to_json(evidence).encode().ljust(MAX_EVIDENCE_BYTES)) == evidence


def test_what_is_too_large_is_not_parsed() -> None:
    with pytest.raises(LimitError, match="evidence has at most"):
        read_evidence(bytes(MAX_EVIDENCE_BYTES + 1))


@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans())
def test_rubbish_proves_nothing(first: bytes, second: bytes, heads: bool) -> None:  # noqa: FBT001
    evidence = pb.Evidence(format="coin.evidence.v1")
    if heads:
        evidence.heads.first, evidence.heads.second = first, second
    else:
        evidence.commitments.key_set.payload = first
        evidence.commitments.first.payload = second
    key = NoteSigner(KeySigner.generate(ORIGIN)).verifier
    trust = Trust([KeySigner.generate(ROOT_KEY_NAME).public], Parties().verifiers)
    try:
        verify_evidence(read_evidence(evidence.SerializeToString()), trust=trust, log_key=key)
    except CoinError:
        return
    pytest.fail("rubbish was taken for proof")
