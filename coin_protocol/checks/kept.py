"""The checks that need the receipt and the manifest, and expose nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.checks.case import Case
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.checks.trust import rooted_keys
from coin_protocol.errors import VerificationError
from coin_protocol.keys import read_time
from coin_protocol.usage import is_as_signed, verify_usage
from coin_protocol.v1 import envelope_pb2, receipt_pb2, statements_pb2

_TOLD_OTHERWISE: Final = (
    "Hold the invoice against the signed counts: it may be right. A server that passes on its "
    "upstream's own usage block tells of other counts than it signs; ask for the signed ones."
)


_OF_ANOTHER_SESSION: Final = (
    "Take the statements of this session: ask provider and client for theirs again."
)


class _Dated(Protocol):
    @property
    def provider_time(self) -> Timestamp: ...


def signature(case: Case) -> None:
    """Every statement of the provider is signed by one of its keys."""
    case.check_kept_once(_kept_signed)
    for signed, payload_type in _answers(case):
        case.signing_key(signed, payload_type)


def _kept_signed(case: Case) -> None:
    for signed, payload_type in _kept(case):
        case.signing_key(signed, payload_type)


def statement(case: Case) -> None:
    """Every statement parses, and every field is within its limits."""
    case.check_kept_once(_kept_parses)
    for answered in case.openings:
        _ = answered.opening
    for whole in case.whole_openings:
        _ = whole.opening
    _ = case.refusals


def _kept_parses(case: Case) -> None:
    if case.keys.owner != case.commitment.provider:
        msg = (
            f"the commitment names provider {case.commitment.provider!r}, "
            f"the key set belongs to {case.keys.owner!r}"
        )
        raise CheckFailure(msg)
    _ = case.fingerprints, case.checkpoints, case.blocks


def key_window(case: Case) -> None:
    """Every signing key was valid when its statement is dated."""
    case.check_kept_once(_kept_in_window)
    for signed, payload_type, at in _answers_dated(case):
        case.signing_key(signed, payload_type).require_valid(at)


def _kept_in_window(case: Case) -> None:
    if case.trust.provider_domains:
        # A certificate must have been good when the client saw what it vouches for, too.
        rooted_keys(case.served, case.trust, seen_at=lambda issued_at: _seen_at(case, issued_at))
    for signed, payload_type, at in _kept_dated(case):
        case.signing_key(signed, payload_type).require_valid(at)


def profile_known(case: Case) -> None:
    """The commitment is made of the profile that the verifier has, and signed as it says."""
    found = case.commitment.profile_sha256
    if found != case.profile.digest:
        msg = (
            f"the commitment is made of profile {found.hex()}, "
            f"this verifier has {case.profile.digest.hex()} ({case.profile.message.name})"
        )
        raise CheckFailure(msg)
    case.check_kept_once(_kept_algorithms)
    _require_algorithms(case, _answers(case))


def _kept_algorithms(case: Case) -> None:
    _require_algorithms(case, _kept(case))


def _require_algorithms(
    case: Case, statements: Iterable[tuple[envelope_pb2.Envelope, str]]
) -> None:
    allowed = case.profile.message.key_algorithms
    for signed, payload_type in statements:
        key = case.signing_key(signed, payload_type).key
        if key.algorithm not in allowed:
            msg = f"key {key.name!r} signs with an algorithm that the profile does not list"
            raise CheckFailure(msg)


def client_nonce(case: Case) -> None:
    """The commitment answers this client's request and no other."""
    _require_same("client nonce", case.commitment.client_nonce, case.receipt.client_nonce)


def request_digest(case: Case) -> None:
    """The commitment is to the request that the client sent."""
    found = sha256(case.receipt.request).digest()
    _require_same("digest of the request", case.commitment.request_sha256, found)


def answer_known(case: Case) -> bool:
    """Whether provider and client can know the same answer."""
    return case.commitment.abort_reason not in (
        statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED,
        statements_pb2.ABORT_REASON_CRASHED,
    )


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
    told, signed = case.receipt.billed, commitment.usage
    if case.receipt.HasField("billed") and not is_as_signed(told, signed):
        prompts = (told.prompt_tokens, told.cached_prompt_tokens) != (
            signed.prompt_tokens,
            signed.cached_prompt_tokens,
        )
        msg = (
            f"the client was told {_counts(told, prompts=prompts)}, "
            f"signed are {_counts(signed, prompts=prompts)}; what was told is not signed, so that "
            "nobody is shown to be wrong"
        )
        raise CheckFailure(msg, fault=receipt_pb2.FAULT_UNATTRIBUTED, advice=_TOLD_OTHERWISE)


def _counts(usage: statements_pb2.Usage, *, prompts: bool) -> str:
    """Return what a usage block says, that of the prompt where it matters."""
    known = usage.reasoning_counting != statements_pb2.REASONING_COUNTING_UNSPECIFIED
    reasoning = f"{usage.reasoning_tokens} reasoning of " if known else ""
    generated = f"{reasoning}{usage.completion_tokens} completion tokens"
    if not prompts:
        return generated
    return (
        f"{generated} for {usage.prompt_tokens} prompt tokens ({usage.cached_prompt_tokens} cached)"
    )


def has_manifest(case: Case) -> bool:
    """Whether the manifest was asked for."""
    return case.manifest is not None


def manifest_root(case: Case) -> None:
    """The manifest belongs to the commitment and gives its token root."""
    named = case.manifest_statement.commitment_sha256
    _require_ours("commitment named by the manifest", named, case.commitment_sha256)
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


def checkpoint_prefix(case: Case) -> None:
    """Each checkpoint is of this session and a prefix of the final tree."""
    case.check_kept_once(_prefixes)


def _prefixes(case: Case) -> None:
    full_blocks = case.commitment.reasoning_tokens // case.profile.block_size
    for message in case.checkpoints:
        _require_ours("session of a checkpoint", message.session_id, case.commitment.session_id)
        _require_same("profile of a checkpoint", message.profile_sha256, case.profile.digest)
        _require_same(
            "client nonce of a checkpoint", message.client_nonce, case.commitment.client_nonce
        )
        full = message.block_count * case.profile.block_size
        if message.token_count != full:
            msg = (
                f"a checkpoint after {message.block_count} full blocks counts "
                f"{message.token_count} tokens, wanted {full}"
            )
            raise CheckFailure(msg)
        if message.block_count > full_blocks:
            msg = (
                f"a checkpoint counts {message.block_count} full blocks, "
                f"the commitment {full_blocks}"
            )
            raise CheckFailure(msg)
        if has_manifest(case):
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
    _require_ours(
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
    case.check_kept_once(_decoded_in_time)


def _decoded_in_time(case: Case) -> None:
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


def _kept(case: Case) -> Iterator[tuple[envelope_pb2.Envelope, str]]:
    """Yield every statement that was made before a challenge."""
    yield case.receipt.commitment, envelope.COMMITMENT
    if case.receipt.HasField("fingerprints"):
        yield case.receipt.fingerprints, envelope.FINGERPRINTS
    for seen in case.receipt.checkpoints:
        yield seen.checkpoint, envelope.CHECKPOINT
    if case.manifest is not None:
        yield case.manifest, envelope.MANIFEST


def _answers(case: Case) -> Iterator[tuple[envelope_pb2.Envelope, str]]:
    """Yield every statement that answers a challenge."""
    for rounds, payload_type in (
        (case.rounds, envelope.OPENING),
        (case.whole_rounds, envelope.WHOLE_OPENING),
    ):
        for entry in rounds:
            if entry.HasField("opening"):
                yield entry.opening, payload_type
            if entry.HasField("refusal"):
                yield entry.refusal, envelope.REFUSAL


def _kept_dated(case: Case) -> Iterator[tuple[envelope_pb2.Envelope, str, datetime]]:
    """Yield what was made before a challenge, with each time that its key must be valid at.

    A stolen key can be dated back. Where somebody else's clock saw the statement come, its
    time counts too, less what honest clocks may differ by.
    """
    receipt = case.receipt
    signed = receipt.commitment, envelope.COMMITMENT
    yield *signed, read_time(case.commitment.ended_at)
    if receipt.HasField("answer_last_at"):
        yield *signed, _came(case, receipt.answer_last_at, case.commitment.ended_at)
    for seen, checkpoint in zip(receipt.checkpoints, case.checkpoints, strict=True):
        yield seen.checkpoint, envelope.CHECKPOINT, read_time(checkpoint.provider_time)
    if has_fingerprints(case):
        time = read_time(case.fingerprints.provider_time)
        yield receipt.fingerprints, envelope.FINGERPRINTS, time
    if case.manifest is not None:
        time = read_time(case.manifest_statement.provider_time)
        yield case.manifest, envelope.MANIFEST, time


def _answers_dated(case: Case) -> Iterator[tuple[envelope_pb2.Envelope, str, datetime]]:
    """Yield every answer with each time that its key must be valid at, as `_kept_dated`."""
    answers: list[tuple[receipt_pb2.Round, envelope_pb2.Envelope, str, _Dated]] = []
    for answered in case.openings:
        entry = answered.entry
        answers.append((entry, entry.opening, envelope.OPENING, answered.opening))
    for whole in case.whole_openings:
        entry = whole.entry
        answers.append((entry, entry.opening, envelope.WHOLE_OPENING, whole.opening))
    for entry, refusal in case.refusals:
        answers.append((entry, entry.refusal, envelope.REFUSAL, refusal))
    for entry, answer, payload_type, message in answers:
        yield answer, payload_type, read_time(message.provider_time)
        yield answer, payload_type, _came(case, entry.received_at, message.provider_time)


def _came(case: Case, seen: Timestamp, dated: Timestamp) -> datetime:
    """Return when a statement came at the earliest, if `seen` by another party's clock."""
    return _earliest(case, read_time(seen), read_time(dated))


def _seen_at(case: Case, issued_at: datetime) -> datetime:
    """Return when the key set came at the earliest, by the client's clock."""
    receipt = case.receipt
    came = receipt.answer_last_at if receipt.HasField("answer_last_at") else receipt.sent_at
    return _earliest(case, read_time(came), issued_at)


def _earliest(case: Case, seen: datetime, dated: datetime) -> datetime:
    skew = timedelta(seconds=case.policy.clock_skew_seconds)
    return dated + max(seen - dated - skew, timedelta())


def _require_ours(what: str, found: bytes, wanted: bytes) -> None:
    """Check that a statement is of this session.

    An honest statement of another one may have been put here by whoever keeps the evidence.
    """
    try:
        _require_same(what, found, wanted)
    except VerificationError as error:
        raise CheckFailure(
            str(error), fault=receipt_pb2.FAULT_UNATTRIBUTED, advice=_OF_ANOTHER_SESSION
        ) from error


def _require_same(what: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        msg = f"{what}: found {found.hex() or 'nothing'}, wanted {wanted.hex() or 'nothing'}"
        raise VerificationError(msg)
