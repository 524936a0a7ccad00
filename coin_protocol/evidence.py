"""Two statements that nobody honest signs both, in one file that anyone can check offline.

A provider that commits to one session twice tells two stories of one reply. A log that signs two
heads of one size over different entries shows them to different people. Evidence of either holds
both statements as they were signed, and nobody needs to be asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from coin_protocol import envelope
from coin_protocol.checkpoint import Checkpoint, read_unverified, verify_checkpoint
from coin_protocol.checks import Trust, rooted_keys
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, LimitError, StatementError, VerificationError
from coin_protocol.keys import KeyRing, ListedKey, read_time
from coin_protocol.keyset import SignedKeySet
from coin_protocol.limits import MAX_EVIDENCE_BYTES
from coin_protocol.note import NoteVerifier
from coin_protocol.receipt import parse_file
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import envelope_pb2, statements_pb2
from coin_protocol.v1 import evidence_pb2 as pb

EVIDENCE_FORMAT: Final = "coin.evidence.v1"

_FIXED_AT_OPENING: Final = (
    "profile_sha256",
    "model",
    "client_nonce",
    "request_sha256",
    "flip_anchor",
    "started_at",
)
"""What a session has from its beginning on, beside its id."""


class Kind(StrEnum):
    """What is proven."""

    COMMITMENTS = "commitments"
    HEADS = "heads"


@dataclass(frozen=True, slots=True)
class Finding:
    """What evidence proves.

    Attributes:
        kind: Of what there are two.
        party: Name of the provider, or origin of the log, that signed both.
        subject: Hex id of the session, or size of the tree, that both are about.
        first: SHA-256 of the first commitment, or root of the first head.
        second: The same of the second.
        sentence: All of it, for people.
        caveats: What its reader should know besides.
    """

    kind: Kind
    party: str
    subject: str
    first: bytes
    second: bytes
    sentence: str
    caveats: tuple[str, ...] = ()


def read_evidence(raw: bytes) -> pb.Evidence:
    """Parse an evidence file, protobuf or JSON (told apart by the first byte).

    Raises:
        InvalidInputError: It is neither, of another format version, or holds no evidence.
        LimitError: It is too large.
    """
    if len(raw) > MAX_EVIDENCE_BYTES:
        msg = f"{len(raw)} bytes; evidence has at most {MAX_EVIDENCE_BYTES}"
        raise LimitError(msg)
    evidence = parse_file(pb.Evidence(), raw, EVIDENCE_FORMAT)
    if evidence.WhichOneof("of") is None:
        msg = "the file holds no evidence, or evidence of a newer kind: update coin-audit"
        raise InvalidInputError(msg)
    return evidence


def commitment_equivocation(
    first: envelope_pb2.Envelope,
    second: envelope_pb2.Envelope,
    *,
    key_set: SignedKeySet,
    trust: Trust,
) -> pb.Evidence:
    """Return evidence that a provider committed to one session twice.

    Args:
        first: A commitment.
        second: Another one.
        key_set: The provider's, that lists the keys of both: its newest one.
        trust: Roots of the provider.

    Raises:
        VerificationError: The two prove nothing; the message says why.
    """
    evidence = pb.Evidence(
        format=EVIDENCE_FORMAT,
        commitments=pb.CommitmentEquivocation(
            key_set=key_set.signed, root_chain=key_set.root_chain, first=first, second=second
        ),
    )
    verify_evidence(evidence, trust=trust, log_key=None)
    return evidence


def head_equivocation(first: bytes, second: bytes, *, log_key: NoteVerifier) -> pb.Evidence:
    """Return evidence that a log signed two heads of one size.

    Args:
        first: A checkpoint, exact bytes of its note.
        second: Another one.
        log_key: The log's.

    Raises:
        VerificationError: The two prove nothing; the message says why.
    """
    evidence = pb.Evidence(
        format=EVIDENCE_FORMAT, heads=pb.HeadEquivocation(first=first, second=second)
    )
    verify_evidence(evidence, trust=None, log_key=log_key)
    return evidence


def verify_evidence(
    evidence: pb.Evidence, *, trust: Trust | None, log_key: NoteVerifier | None
) -> Finding:
    """Return what evidence proves.

    Args:
        evidence: As `read_evidence` gives it.
        trust: Roots of the provider, for evidence of commitments.
        log_key: The log's, for evidence of heads.

    Raises:
        VerificationError: It proves nothing; the message says why.
        InvalidInputError: The keys that it takes are not given.
    """
    kind = evidence.WhichOneof("of")
    if kind == "commitments":
        if trust is None:
            msg = "evidence about a provider: say whom to believe, a root key or a domain"
            raise InvalidInputError(msg)
        return _two_commitments(evidence.commitments, trust)
    if kind == "heads":
        if log_key is None:
            msg = "evidence about a log: give the log's verifier key"
            raise InvalidInputError(msg)
        return _two_heads(evidence.heads, log_key)
    msg = "no evidence"
    raise StatementError(msg)


def _two_commitments(evidence: pb.CommitmentEquivocation, trust: Trust) -> Finding:
    ring = rooted_keys(SignedKeySet(evidence.key_set, tuple(evidence.root_chain)), trust)
    first, key = _commitment(evidence.first, ring)
    second, other_key = _commitment(evidence.second, ring)
    if first.session_id != second.session_id:
        msg = (
            f"two commitments to two sessions, {first.session_id.hex()} and "
            f"{second.session_id.hex()}, as there should be"
        )
        raise VerificationError(msg)
    if first == second:
        msg = "both commitments say the same: one commitment, however often it was signed"
        raise VerificationError(msg)
    if _is_explained_by_a_crash(first, second):
        msg = (
            "one of the two commits to what was on disk when a process died, and the other goes on "
            "from there: a provider whose database lost its last writes closes such a session "
            "again, and bills nothing but its reasoning"
        )
        raise VerificationError(msg)
    digests = digest(evidence.first.payload), digest(evidence.second.payload)
    return Finding(
        kind=Kind.COMMITMENTS,
        party=ring.owner,
        subject=first.session_id.hex(),
        first=digests[0],
        second=digests[1],
        sentence=(
            f"{ring.owner!r} signed two commitments to session {first.session_id.hex()}: "
            f"{digests[0].hex()} bills {first.usage.reasoning_tokens} reasoning tokens, "
            f"{digests[1].hex()} bills {second.usage.reasoning_tokens}. They differ in "
            f"{', '.join(_differing(first, second))}."
        ),
        caveats=tuple(_caveats(key, other_key)),
    )


def _commitment(
    signed: envelope_pb2.Envelope, ring: KeyRing
) -> tuple[statements_pb2.Commitment, ListedKey]:
    """Return a commitment of the ring's owner, and the key that it counts by."""
    key = envelope.verify(signed, envelope.COMMITMENT, ring)
    found = read_commitment(signed.payload)
    if found.provider != ring.owner:
        msg = f"a commitment names {found.provider!r}, the key set belongs to {ring.owner!r}"
        raise StatementError(msg)
    key.require_valid(read_time(found.ended_at))
    return found, key


def _is_explained_by_a_crash(
    first: statements_pb2.Commitment, second: statements_pb2.Commitment
) -> bool:
    """Whether an honest provider may have signed both, its database having lost what came last.

    Restored from a backup, or after a failover that lost writes, a session that had ended is open
    again, its process is gone, and recovery closes it as crashed (section 5): to full blocks that
    the other commitment begins with, under a bill for nothing else.
    """
    if any(getattr(first, name) != getattr(second, name) for name in _FIXED_AT_OPENING):
        return False
    if not all(_bills_only_reasoning(found) for found in (first, second) if _crashed(found)):
        return False
    return _goes_on(first, second) or _goes_on(second, first)


def _crashed(found: statements_pb2.Commitment) -> bool:
    return found.abort_reason == statements_pb2.ABORT_REASON_CRASHED


def _bills_only_reasoning(found: statements_pb2.Commitment) -> bool:
    return not found.answer_tokens and not found.usage.prompt_tokens


def _goes_on(crashed: statements_pb2.Commitment, other: statements_pb2.Commitment) -> bool:
    """Whether the first is what recovery makes of the second's beginning, or of all of it."""
    if crashed.reasoning_tokens < other.reasoning_tokens:
        return _crashed(crashed) and crashed.block_count < other.block_count
    # Of as many tokens there is one tree only.
    return _crashed(crashed) and all(
        getattr(crashed, name) == getattr(other, name)
        for name in ("reasoning_tokens", "block_count", "token_root")
    )


def _differing(first: statements_pb2.Commitment, second: statements_pb2.Commitment) -> list[str]:
    """Return the names of the fields in which two commitments differ."""
    one, other = ({field.name: value for field, value in m.ListFields()} for m in (first, second))
    return [
        field.name
        for field in statements_pb2.Commitment.DESCRIPTOR.fields
        if one.get(field.name) != other.get(field.name)
    ]


def _caveats(*keys: ListedKey) -> Iterator[str]:
    for key in {listed.key.keyid: listed for listed in keys}.values():
        if key.revoked_at is not None:
            yield (
                f"Key {key.key.name!r} ({key.key.keyid[:16]}…) was revoked at "
                f"{key.revoked_at.isoformat()}: whoever had it by then could sign a commitment "
                "and date it back."
            )


def _two_heads(evidence: pb.HeadEquivocation, log_key: NoteVerifier) -> Finding:
    first, second = _head(evidence.first, log_key), _head(evidence.second, log_key)
    for name in ("origin", "size"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            msg = f"the heads have two different values of {name}, {one!r} and {other!r}"
            raise VerificationError(msg)
    if first.root == second.root:
        msg = f"both heads of {first.size} entries have one root: they are of one tree"
        raise VerificationError(msg)
    return Finding(
        kind=Kind.HEADS,
        party=first.origin,
        subject=str(first.size),
        first=first.root,
        second=second.root,
        sentence=(
            f"The log {first.origin!r} signed two heads of {first.size} entries, with roots "
            f"{first.root.hex()} and {second.root.hex()}: it shows different entries to different "
            "people."
        ),
    )


def _head(note: bytes, log_key: NoteVerifier) -> Checkpoint:
    try:
        origin = read_unverified(note).origin
        return verify_checkpoint(note, log_key, origin=origin).checkpoint
    except LimitError as error:
        raise StatementError(str(error)) from error
