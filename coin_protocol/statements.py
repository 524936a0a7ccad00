"""Signed bytes to statements: parsed, and every field within its limits. Pure.

Each `read_*` takes the exact payload of an envelope whose signature was checked, and raises
`StatementError` for anything that is not a well-formed statement of version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from coin_protocol.errors import InvalidInputError, StatementError
from coin_protocol.keys import KeyRing, read_time
from coin_protocol.limits import (
    CHALLENGE_NONCE_BYTES,
    FLIP_CHAIN_LENGTH,
    HASH_BYTES,
    MAX_BLOCKS,
    MAX_NAME_BYTES,
    MAX_REASONING_TOKENS,
    MAX_ROUNDS,
    NONCE_MAX_BYTES,
    NONCE_MIN_BYTES,
    SESSION_ID_BYTES,
)
from coin_protocol.v1 import keys_pb2, opening_pb2, receipt_pb2, statements_pb2

M = TypeVar("M", bound=Message)


class _Sized(Protocol):
    def __len__(self) -> int: ...


def parse(kind: type[M], raw: bytes) -> M:
    """Parse exact bytes as a message without fields that this version does not know.

    Raises:
        StatementError: They are not.
    """
    message = kind()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        msg = f"{len(raw)} bytes do not parse as {kind.DESCRIPTOR.name}"
        raise StatementError(msg) from error
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        msg = f"{kind.DESCRIPTOR.name} has fields that version 1 does not know; update coin-audit"
        raise StatementError(msg)
    return message


def read_key_set(raw: bytes) -> KeyRing:
    """Read a key set."""
    message = parse(keys_pb2.KeySet, raw)
    _time("issued_at", message)
    try:
        return KeyRing.from_message(message)
    except InvalidInputError as error:
        raise StatementError(str(error)) from error


def read_checkpoint(raw: bytes) -> statements_pb2.Checkpoint:
    """Read a checkpoint."""
    message = parse(statements_pb2.Checkpoint, raw)
    _hash("profile_sha256", message.profile_sha256)
    _hash("token_root", message.token_root)
    _sized("session_id", message.session_id, SESSION_ID_BYTES)
    _nonce(message.client_nonce)
    _within("block_count", message.block_count, 1, MAX_BLOCKS)
    _within("token_count", message.token_count, 1, MAX_REASONING_TOKENS)
    _time("provider_time", message)
    return message


def read_commitment(raw: bytes) -> statements_pb2.Commitment:
    """Read a commitment. Zero reasoning tokens are legal."""
    message = parse(statements_pb2.Commitment, raw)
    for name in ("profile_sha256", "request_sha256", "answer_sha256", "token_root", "flip_anchor"):
        _hash(name, getattr(message, name))
    if message.HasField("summary_sha256"):
        _hash("summary_sha256", message.summary_sha256)
    _name("provider", message.provider)
    _name("model", message.model)
    _sized("session_id", message.session_id, SESSION_ID_BYTES)
    _nonce(message.client_nonce)
    _within("block_count", message.block_count, 0, MAX_BLOCKS)
    _within("reasoning_tokens", message.reasoning_tokens, 0, MAX_REASONING_TOKENS)
    _within("answer_tokens", message.answer_tokens, 0, MAX_REASONING_TOKENS)
    _known("id_source", message.id_source, statements_pb2.IdSource.values())
    # Absent is a value of its own here: the reply is whole.
    _within("abort_reason", message.abort_reason, 0, max(statements_pb2.AbortReason.values()))
    if not message.HasField("usage"):
        msg = "the commitment carries no usage"
        raise StatementError(msg)
    _time("started_at", message)
    _time("ended_at", message)
    if message.HasField("answers_until"):
        _time("answers_until", message)
    return message


def read_fingerprints(raw: bytes) -> statements_pb2.Fingerprints:
    """Read a fingerprints statement."""
    message = parse(statements_pb2.Fingerprints, raw)
    _hash("commitment_sha256", message.commitment_sha256)
    _hash("fingerprint_root", message.fingerprint_root)
    _within("size", message.size, 0, MAX_BLOCKS)
    _time("provider_time", message)
    return message


def read_manifest(raw: bytes) -> statements_pb2.Manifest:
    """Read a manifest."""
    message = parse(statements_pb2.Manifest, raw)
    _hash("commitment_sha256", message.commitment_sha256)
    _within("blocks", len(message.blocks), 0, MAX_BLOCKS)
    for entry in message.blocks:
        _hash("token_root", entry.token_root)
    _time("provider_time", message)
    return message


def read_challenge(raw: bytes) -> opening_pb2.Challenge:
    """Read a challenge."""
    message = parse(opening_pb2.Challenge, raw)
    _challenge_head(message)
    _within("blocks", message.blocks, 0, MAX_BLOCKS)
    _within("token_blocks", message.token_blocks, 0, MAX_BLOCKS)
    if not message.blocks and not message.token_blocks:
        msg = "blocks and token_blocks are both 0: the challenge draws nothing"
        raise StatementError(msg)
    # Blocks may be opened for their embeddings alone; token blocks have nothing else to show.
    least = 1 if message.token_blocks else 0
    _within("tokens_per_block", message.tokens_per_block, least, MAX_REASONING_TOKENS)
    return message


def read_whole_challenge(raw: bytes) -> opening_pb2.WholeBlockChallenge:
    """Read a whole-block challenge."""
    message = parse(opening_pb2.WholeBlockChallenge, raw)
    _challenge_head(message)
    _within("blocks", message.blocks, 1, MAX_BLOCKS)
    return message


def read_opening(raw: bytes) -> opening_pb2.Opening:
    """Read an opening: the head only, what it opens is for the checks."""
    message = parse(opening_pb2.Opening, raw)
    _answer_head(message)
    return message


def read_whole_opening(raw: bytes) -> opening_pb2.WholeBlockOpening:
    """Read a whole-block opening: the head only, what it opens is for the checks."""
    message = parse(opening_pb2.WholeBlockOpening, raw)
    _answer_head(message)
    return message


def read_refusal(raw: bytes) -> opening_pb2.Refusal:
    """Read a refusal."""
    message = parse(opening_pb2.Refusal, raw)
    _hash("challenge_sha256", message.challenge_sha256)
    _known("reason", message.reason, opening_pb2.RefusalReason.values())
    _within("answered", len(message.answered), 0, FLIP_CHAIN_LENGTH)
    _time("provider_time", message)
    return message


def read_verdict(raw: bytes) -> receipt_pb2.Verdict:
    """Read a verdict."""
    message = parse(receipt_pb2.Verdict, raw)
    for name in ("commitment_sha256", "profile_sha256", "policy_sha256"):
        _hash(name, getattr(message, name))
    _name("verifier", message.verifier)
    _known("outcome", message.outcome, receipt_pb2.Outcome.values())
    _time("decided_at", message)
    return message


def _challenge_head(message: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge) -> None:
    _hash("fingerprints_sha256", message.fingerprints_sha256)
    _name("verifier", message.verifier)
    _sized("nonce", message.nonce, CHALLENGE_NONCE_BYTES)
    _within("round", message.round, 1, MAX_ROUNDS)
    _time("deadline", message)


def _answer_head(message: opening_pb2.Opening | opening_pb2.WholeBlockOpening) -> None:
    _hash("challenge_sha256", message.challenge_sha256)
    _hash("flip", message.flip)
    _within("flip_index", message.flip_index, 1, FLIP_CHAIN_LENGTH)
    _within("answered", len(message.answered), 0, FLIP_CHAIN_LENGTH)
    _time("provider_time", message)


def _hash(name: str, found: bytes) -> None:
    _sized(name, found, HASH_BYTES)


def _nonce(found: bytes) -> None:
    if not NONCE_MIN_BYTES <= len(found) <= NONCE_MAX_BYTES:
        msg = (
            f"client_nonce must have {NONCE_MIN_BYTES} to {NONCE_MAX_BYTES} bytes; "
            f"found {len(found)}"
        )
        raise StatementError(msg)


def _sized(name: str, found: _Sized, wanted: int) -> None:
    if len(found) != wanted:
        msg = f"{name} must have {wanted} bytes; found {len(found)}"
        raise StatementError(msg)


def _name(what: str, found: str) -> None:
    if not 0 < len(found.encode()) <= MAX_NAME_BYTES:
        msg = f"{what} must have 1 to {MAX_NAME_BYTES} bytes"
        raise StatementError(msg)


def _within(name: str, found: int, least: int, most: int) -> None:
    if not least <= found <= most:
        msg = f"{name} must lie in [{least}, {most}]; found {found}"
        raise StatementError(msg)


def _known(name: str, found: int, values: Sequence[int]) -> None:
    """Check an enum's value; the first of `values` is the one that says nothing."""
    if found not in values[1:]:
        msg = f"{name} must be one of {list(values[1:])}; found {found}"
        raise StatementError(msg)


def _time(name: str, message: Message) -> None:
    if not message.HasField(name):
        msg = f"{name} is missing"
        raise StatementError(msg)
    try:
        read_time(getattr(message, name))
    except InvalidInputError as error:
        msg = f"{name}: {error}"
        raise StatementError(msg) from error
