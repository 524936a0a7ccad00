"""Two commitments to one session, found among what clients hand in."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.message import DecodeError

from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError
from coin_protocol.evidence import Kind, commitment_equivocation, verify_evidence
from coin_protocol.keyset import SignedKeySet
from coin_protocol.receipt import RECEIPT_FORMAT
from coin_protocol.statements import read_commitment, read_key_set
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.node.providers import Providers
from verifier_sdk.store.submissions import FoundEvidence


def commitment_conflict(first: bytes, second: bytes, providers: Providers) -> FoundEvidence | None:
    """Return what two receipts of one session prove, if they prove anything.

    Args:
        first: A receipt or a bundle, exact bytes.
        second: A receipt, exact bytes.
        providers: Whose roots are believed.
    """
    try:
        receipts = _receipt(first), receipt_pb2.Receipt.FromString(second)
        trust = providers[read_commitment(receipts[1].commitment.payload).provider].trust
        evidence = commitment_equivocation(
            receipts[0].commitment,
            receipts[1].commitment,
            key_set=_newest_key_set(*receipts),
            trust=trust,
        )
        finding = verify_evidence(evidence, trust=trust, log_key=None)
    except (CoinError, DecodeError):
        # Two that prove nothing, such as one commitment signed twice, are no finding.
        return None
    raw = evidence.SerializeToString()
    return FoundEvidence(digest(raw), str(Kind.COMMITMENTS), finding.party, finding.sentence, raw)


def _receipt(raw: bytes) -> receipt_pb2.Receipt:
    """Return a receipt, or the one in a bundle."""
    with suppress(DecodeError):  # as a bundle's bytes may well be no receipt
        receipt = receipt_pb2.Receipt.FromString(raw)
        if receipt.format == RECEIPT_FORMAT:
            return receipt
    return receipt_pb2.Bundle.FromString(raw).receipt


def _newest_key_set(*receipts: receipt_pb2.Receipt) -> SignedKeySet:
    """Return the later key set: it lists the keys of both."""
    newest = max(receipts, key=lambda one: read_key_set(one.key_set.payload).sequence)
    return SignedKeySet(newest.key_set, tuple(newest.root_chain))
