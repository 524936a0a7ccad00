"""The checks that need the receipt and the manifest, and expose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256

from coin_protocol import envelope
from coin_protocol.checks.case import Case
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.errors import VerificationError
from coin_protocol.keys import read_time
from coin_protocol.usage import verify_usage
from coin_protocol.v1 import envelope_pb2, receipt_pb2


def signature(case: Case) -> None:
    """Every statement of the provider is signed by one of its keys."""
    ring = case.keys
    for signed, payload_type in _provider_envelopes(case):
        envelope.verify(signed, payload_type, ring)


def statement(case: Case) -> None:
    """Every statement parses, and every field is within its limits."""
    if case.keys.owner != case.commitment.provider:
        msg = (
            f"the commitment names provider {case.commitment.provider!r}, "
            f"the key set belongs to {case.keys.owner!r}"
        )
        raise CheckFailure(msg)
    _ = case.fingerprints, case.checkpoints, case.blocks
    for answered in case.openings:
        _ = answered.opening
    for whole in case.whole_openings:
        _ = whole.opening


def key_window(case: Case) -> None:
    """Every signing key was valid when its statement is dated."""
    dated: list[tuple[envelope_pb2.Envelope, str, datetime]] = [
        (
            case.receipt.commitment,
            envelope.COMMITMENT,
            read_time(case.commitment.ended_at),
        )
    ]
    if case.receipt.HasField("answer_last_at"):
        # A stolen key can be backdated; the client's clock says when the reply really came.
        skew = timedelta(seconds=case.policy.clock_skew_seconds)
        seen = read_time(case.receipt.answer_last_at) - skew
        dated.append((case.receipt.commitment, envelope.COMMITMENT, max(seen, dated[0][2])))
    if has_fingerprints(case):
        dated.append(
            (
                case.receipt.fingerprints,
                envelope.FINGERPRINTS,
                read_time(case.fingerprints.provider_time),
            )
        )
    for seen_checkpoint, message in zip(case.receipt.checkpoints, case.checkpoints, strict=True):
        dated.append(
            (seen_checkpoint.checkpoint, envelope.CHECKPOINT, read_time(message.provider_time))
        )
    for answered in case.openings:
        time = read_time(answered.opening.provider_time)
        dated.append((answered.entry.opening, envelope.OPENING, time))
    for whole in case.whole_openings:
        time = read_time(whole.opening.provider_time)
        dated.append((whole.entry.opening, envelope.WHOLE_OPENING, time))
    for signed, payload_type, at in dated:
        envelope.verify(signed, payload_type, case.keys).require_valid(at)


def profile_known(case: Case) -> None:
    """The commitment is made of the profile that the verifier has."""
    found = case.commitment.profile_sha256
    if found != case.profile.digest:
        msg = (
            f"the commitment is made of profile {found.hex()}, "
            f"this verifier has {case.profile.digest.hex()} ({case.profile.message.name})"
        )
        raise CheckFailure(msg)


def client_nonce(case: Case) -> None:
    """The commitment answers this client's request and no other."""
    _require_same("client nonce", case.commitment.client_nonce, case.receipt.client_nonce)


def request_digest(case: Case) -> None:
    """The commitment is to the request that the client sent."""
    found = sha256(case.receipt.request).digest()
    _require_same("digest of the request", case.commitment.request_sha256, found)


def answer_digest(case: Case) -> None:
    """The commitment is to the answer, and summary, that the client received."""
    found = sha256(case.receipt.answer).digest()
    _require_same("digest of the answer", case.commitment.answer_sha256, found)
    if case.receipt.HasField("summary"):
        found = sha256(case.receipt.summary).digest()
        _require_same("digest of the summary", case.commitment.summary_sha256, found)


def bill(case: Case) -> None:
    """The bill counts what was committed, reasoning once."""
    commitment = case.commitment
    verify_usage(
        commitment.usage,
        reasoning_tokens=commitment.reasoning_tokens,
        answer_tokens=commitment.answer_tokens,
    )
    if case.receipt.HasField("billed") and case.receipt.billed != commitment.usage:
        told, signed = case.receipt.billed, commitment.usage
        msg = (
            f"the client was told {told.reasoning_tokens} reasoning of "
            f"{told.completion_tokens} completion tokens, signed are "
            f"{signed.reasoning_tokens} of {signed.completion_tokens}"
        )
        raise CheckFailure(msg, fault=receipt_pb2.FAULT_UNATTRIBUTED)


def has_manifest(case: Case) -> bool:
    """Whether the manifest was asked for."""
    return case.manifest is not None


def manifest_root(case: Case) -> None:
    """The manifest belongs to the commitment and gives its token root."""
    named = case.manifest_statement.commitment_sha256
    _require_same("commitment named by the manifest", named, case.commitment_sha256)
    _require_same("token root of the manifest", case.block_tree.root(), case.commitment.token_root)


def sizes(case: Case) -> None:
    """Blocks and tokens add up to the signed sizes, and only the last block is short."""
    counts = [entry.token_count for entry in case.blocks]
    commitment, block_size = case.commitment, case.profile.block_size
    if len(counts) != commitment.block_count:
        msg = f"{commitment.block_count} blocks are signed, the tree has {len(counts)}"
        raise CheckFailure(msg)
    if sum(counts) != commitment.reasoning_tokens:
        msg = f"{commitment.reasoning_tokens} tokens are signed, the blocks hold {sum(counts)}"
        raise CheckFailure(msg)
    for index, count in enumerate(counts):
        full = index < len(counts) - 1
        if not (count == block_size if full else 0 < count <= block_size):
            msg = f"block {index} of {len(counts)} has {count} tokens; full is {block_size}"
            raise CheckFailure(msg)


def saw_checkpoints(case: Case) -> bool:
    """Whether the client saw checkpoints."""
    return bool(case.receipt.checkpoints)


def has_checkpoints(case: Case) -> bool:
    """Whether the client saw checkpoints, and the manifest is there to hold them against."""
    return saw_checkpoints(case) and has_manifest(case)


def checkpoint_prefix(case: Case) -> None:
    """Each checkpoint is of this session and a prefix of the final tree."""
    full_blocks = case.commitment.reasoning_tokens // case.profile.block_size
    for message in case.checkpoints:
        _require_same("session of a checkpoint", message.session_id, case.commitment.session_id)
        _require_same("profile of a checkpoint", message.profile_sha256, case.profile.digest)
        _require_same(
            "client nonce of a checkpoint", message.client_nonce, case.commitment.client_nonce
        )
        if message.block_count > full_blocks:
            msg = (
                f"a checkpoint counts {message.block_count} full blocks, "
                f"the commitment {full_blocks}"
            )
            raise CheckFailure(msg)
        _require_same(
            f"token root of the checkpoint after {message.block_count} blocks",
            message.token_root,
            case.block_tree.root(message.block_count),
        )


def has_fingerprints(case: Case) -> bool:
    """Whether the fingerprints statement is there."""
    return case.receipt.HasField("fingerprints")


def fingerprints_binding(case: Case) -> None:
    """The fingerprints statement names this commitment and covers all its blocks."""
    _require_same(
        "commitment named by the fingerprints",
        case.fingerprints.commitment_sha256,
        case.commitment_sha256,
    )
    if case.fingerprints.size != case.commitment.block_count:
        msg = (
            f"the fingerprints cover {case.fingerprints.size} blocks, "
            f"the commitment has {case.commitment.block_count}"
        )
        raise CheckFailure(msg)


def arrival_time(case: Case) -> None:
    """No checkpoint counts more tokens than could have been decoded since the request."""
    rate = case.policy.message.max_tokens_per_second
    sent = read_time(case.receipt.sent_at)
    started = read_time(case.commitment.started_at)
    for seen, message in zip(case.receipt.checkpoints, case.checkpoints, strict=True):
        for since, at, fault, clock in (
            (started, read_time(message.provider_time), receipt_pb2.FAULT_PROVIDER, "provider"),
            (sent, read_time(seen.seen_at), receipt_pb2.FAULT_UNATTRIBUTED, "client"),
        ):
            elapsed = (at - since).total_seconds()
            if message.token_count > rate * max(elapsed, 0.0):
                msg = (
                    f"{message.token_count} tokens were committed {elapsed:.3f} s after the "
                    f"request by the {clock}'s clock; at {rate:g} tokens a second that takes "
                    f"{message.token_count / rate:.3f} s"
                )
                raise CheckFailure(msg, fault=fault)


def _provider_envelopes(case: Case) -> Iterator[tuple[envelope_pb2.Envelope, str]]:
    yield case.receipt.commitment, envelope.COMMITMENT
    if case.receipt.HasField("fingerprints"):
        yield case.receipt.fingerprints, envelope.FINGERPRINTS
    for seen in case.receipt.checkpoints:
        yield seen.checkpoint, envelope.CHECKPOINT
    if case.manifest is not None:
        yield case.manifest, envelope.MANIFEST
    for rounds, payload_type in (
        (case.rounds, envelope.OPENING),
        (case.whole_rounds, envelope.WHOLE_OPENING),
    ):
        for entry in rounds:
            if entry.HasField("opening"):
                yield entry.opening, payload_type
            if entry.HasField("refusal"):
                yield entry.refusal, envelope.REFUSAL


def _require_same(what: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        msg = f"{what}: found {found.hex() or 'nothing'}, wanted {wanted.hex() or 'nothing'}"
        raise VerificationError(msg)
