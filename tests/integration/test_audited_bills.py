"""What an audit, made over gRPC, adds to a receipt that a bill is held against."""

from __future__ import annotations

from coin_protocol.checks import Trust
from coin_protocol.keyset import pinned
from tests.support.files import AuditFiles
from tests.support.parties import Parties
from verifier_sdk.bill import Examiner, ReceiptBook, State


def believing(parties: Parties, *verifiers: bytes) -> Examiner:
    return Examiner(
        Trust(parties.trust.provider_roots, pinned("verifiers", ())),
        {parties.profile.digest: parties.profile},
        parties.policy,
        verifiers,
    )


def test_an_audit_that_is_believed_raises_the_tier(
    audited: tuple[Parties, AuditFiles],
) -> None:
    parties, files = audited
    believed = ReceiptBook.read([files.bundle], believing(parties, files.verifier.read_bytes()))
    assert [(facts.state, facts.tier) for facts in believed] == [(State.VERIFIED, "timed")]


def test_an_audit_of_nobody_known_leaves_the_receipt_as_it_is(
    audited: tuple[Parties, AuditFiles],
) -> None:
    parties, files = audited
    for keys in ((), (files.root.read_bytes(),)):
        found = ReceiptBook.read([files.bundle], believing(parties, *keys))
        assert [(facts.state, facts.tier) for facts in found] == [(State.VERIFIED, "asserted")]
