"""Statements: only well-formed ones of version 1 are read, every field within its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope, statements
from coin_protocol.errors import SignatureError, StatementError
from coin_protocol.keys import KeyRing
from coin_protocol.keyset import stamp
from coin_protocol.limits import (
    FLIP_CHAIN_LENGTH,
    MAX_BLOCKS,
    MAX_KEYS,
    MAX_REASONING_TOKENS,
    MAX_ROUNDS,
)
from coin_protocol.testing.forgeries import audit, both, change, put, without
from coin_protocol.testing.world import START, VERIFIER, Edit, World
from coin_protocol.v1 import keys_pb2, opening_pb2, receipt_pb2, statements_pb2

UNKNOWN = b"\xf8\x07\x01"  # field 127, a varint
WORLD = World()
AUDIT = audit().ask(token_blocks=1).ask_whole()
RECEIPT = AUDIT.reply.receipt


@dataclass(frozen=True)
class Kind:
    """One kind of statement: how it is read, and a good one."""

    read: Callable[[bytes], object]
    message: Message

    def raw(self, edit: Edit[Any] = lambda _: None) -> bytes:
        copy = type(self.message)()
        copy.CopyFrom(self.message)
        edit(copy)
        return copy.SerializeToString(deterministic=True)


KINDS = {
    "key set": Kind(statements.read_key_set, keys_pb2.KeySet.FromString(RECEIPT.key_set.payload)),
    "checkpoint": Kind(
        statements.read_checkpoint,
        statements_pb2.Checkpoint.FromString(RECEIPT.checkpoints[0].checkpoint.payload),
    ),
    "commitment": Kind(
        statements.read_commitment,
        statements_pb2.Commitment.FromString(RECEIPT.commitment.payload),
    ),
    "fingerprints": Kind(
        statements.read_fingerprints,
        statements_pb2.Fingerprints.FromString(RECEIPT.fingerprints.payload),
    ),
    "manifest": Kind(
        statements.read_manifest,
        statements_pb2.Manifest.FromString(AUDIT.reply.manifest.payload),
    ),
    "challenge": Kind(
        statements.read_challenge,
        opening_pb2.Challenge.FromString(AUDIT.rounds[0].challenge.payload),
    ),
    "whole challenge": Kind(
        statements.read_whole_challenge,
        opening_pb2.WholeBlockChallenge.FromString(AUDIT.whole_rounds[0].challenge.payload),
    ),
    "opening": Kind(
        statements.read_opening,
        opening_pb2.Opening.FromString(AUDIT.rounds[0].opening.payload),
    ),
    "whole opening": Kind(
        statements.read_whole_opening,
        opening_pb2.WholeBlockOpening.FromString(AUDIT.whole_rounds[0].opening.payload),
    ),
    "refusal": Kind(
        statements.read_refusal,
        opening_pb2.Refusal(
            challenge_sha256=bytes(32),
            reason=opening_pb2.REFUSAL_REASON_EXPOSURE_CAP,
            answered=[opening_pb2.AnsweredChallenge(flip_index=1, flip=bytes(32))],
            provider_time=stamp(START),
        ),
    ),
    "verdict": Kind(
        statements.read_verdict,
        receipt_pb2.Verdict(
            commitment_sha256=bytes(32),
            profile_sha256=bytes(32),
            policy_sha256=bytes(32),
            verifier=VERIFIER,
            outcome=receipt_pb2.OUTCOME_PASS,
            checks=[receipt_pb2.CheckResult(code="SIGNATURE")],
            decided_at=stamp(START + timedelta(hours=2)),
        ),
    ),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@EVERY_KIND
def test_a_good_statement_is_read_as_it_was_written(kind: Kind) -> None:
    found = kind.read(kind.raw())
    if isinstance(found, KeyRing):
        assert found.owner == "provider"
        assert len(found) == 1
    else:
        assert found == kind.message


@EVERY_KIND
def test_a_truncated_statement_is_refused_or_visibly_shorter(kind: Kind) -> None:
    raw = kind.raw()
    with pytest.raises(StatementError):
        kind.read(raw[:-1])
    for length in range(len(raw)):
        try:
            found = kind.read(raw[:length])
        except StatementError:
            continue
        # Cut between two fields: protobuf cannot tell, so the signature has to.
        assert found != kind.message


@EVERY_KIND
@pytest.mark.parametrize("raw", [b"", b"\xff", b"garbage", bytes(64), b"\x0a\xff\xff\xff\xff\x0f"])
def test_garbage_is_refused(kind: Kind, raw: bytes) -> None:
    with pytest.raises(StatementError):
        kind.read(raw)


@EVERY_KIND
def test_a_field_that_version_1_does_not_know_is_refused(kind: Kind) -> None:
    with pytest.raises(StatementError, match="fields that version 1 does not know"):
        kind.read(kind.raw() + UNKNOWN)


def add_unknown(path: str) -> Edit[Any]:
    """Return an edit that puts an unknown field into the message at `path`."""

    def add(message: Any) -> Any:
        message.MergeFromString(UNKNOWN)
        return message

    def edit(message: Any) -> None:
        for part in path.split("."):
            message = message[int(part)] if part.isdigit() else getattr(message, part)
        add(message)

    return edit


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("key set", "keys.0"),
        ("key set", "keys.0.not_after"),
        ("checkpoint", "provider_time"),
        ("commitment", "usage"),
        ("commitment", "ended_at"),
        ("manifest", "blocks.1"),
        ("opening", "blocks.0.tokens.0"),
        ("opening", "edge"),
        ("whole opening", "blocks.0.vocabulary.0"),
        ("refusal", "answered.0.challenge"),
        ("verdict", "checks.0"),
        ("verdict", "exposure"),
    ],
)
def test_an_unknown_field_is_refused_at_any_depth(name: str, path: str) -> None:
    with pytest.raises(StatementError, match="fields that version 1 does not know"):
        KINDS[name].read(KINDS[name].raw(add_unknown(path)))


def test_statements_of_another_version_go_under_another_payload_type() -> None:
    later = envelope.COMMITMENT.replace(".v1+", ".v2+")
    signed = WORLD.sign(KINDS["commitment"].message, later)
    with pytest.raises(SignatureError, match="v2"):
        envelope.verify(signed, envelope.COMMITMENT, AUDIT.case().keys)


def of_length(length: int) -> Callable[[bytes], bytes]:
    return lambda _: bytes(length)


def repeated(count: int) -> Callable[[Any], list[Any]]:
    return lambda found: [found[0]] * count


ANSWERED = opening_pb2.AnsweredChallenge(flip_index=1, flip=bytes(32))
LAST_ABORT = max(statements_pb2.AbortReason.values())

# (statement, field, value or change, how the message begins)
OUT_OF_LIMITS = [
    ("key set", "owner", "", "a name must have 1 to 256 bytes"),
    ("key set", "owner", "x" * 257, "a name must have 1 to 256 bytes"),
    ("key set", "keys.0.spki", b"", "public key 'provider' is not a DER SubjectPublicKeyInfo"),
    ("key set", "keys", repeated(MAX_KEYS + 1), f"the key set has {MAX_KEYS + 1} keys"),
    ("key set", "keys", repeated(2), "a key stands twice"),
    ("key set", "issued_at.seconds", 1 << 60, "issued_at: a time is out of the range"),
    ("checkpoint", "session_id", bytes(15), "session_id"),
    ("checkpoint", "session_id", bytes(17), "session_id"),
    ("checkpoint", "profile_sha256", bytes(31), "profile_sha256"),
    ("checkpoint", "token_root", b"", "token_root"),
    ("checkpoint", "client_nonce", bytes(15), "client_nonce"),
    ("checkpoint", "client_nonce", bytes(65), "client_nonce"),
    ("checkpoint", "block_count", 0, "block_count"),
    ("checkpoint", "block_count", MAX_BLOCKS + 1, "block_count"),
    ("checkpoint", "token_count", 0, "token_count"),
    ("checkpoint", "token_count", MAX_REASONING_TOKENS + 1, "token_count"),
    ("checkpoint", "provider_time.seconds", -(1 << 60), "provider_time"),
    ("commitment", "profile_sha256", bytes(33), "profile_sha256"),
    ("commitment", "request_sha256", b"", "request_sha256"),
    ("commitment", "answer_sha256", bytes(31), "answer_sha256"),
    ("commitment", "summary_sha256", b"", "summary_sha256"),
    ("commitment", "token_root", bytes(31), "token_root"),
    ("commitment", "flip_anchor", bytes(33), "flip_anchor"),
    ("commitment", "provider", "", "provider"),
    ("commitment", "provider", "x" * 257, "provider"),
    ("commitment", "model", "", "model"),
    ("commitment", "model", "\u00e9" * 129, "model"),
    ("commitment", "session_id", bytes(15), "session_id"),
    ("commitment", "client_nonce", bytes(15), "client_nonce"),
    ("commitment", "block_count", MAX_BLOCKS + 1, "block_count"),
    ("commitment", "reasoning_tokens", MAX_REASONING_TOKENS + 1, "reasoning_tokens"),
    ("commitment", "answer_tokens", MAX_REASONING_TOKENS + 1, "answer_tokens"),
    ("commitment", "id_source", 0, "id_source"),
    ("commitment", "id_source", 9, "id_source"),
    ("commitment", "abort_reason", LAST_ABORT + 1, "abort_reason"),
    ("commitment", "started_at.seconds", 1 << 60, "started_at"),
    ("commitment", "ended_at.seconds", 1 << 60, "ended_at"),
    ("commitment", "answers_until.seconds", 1 << 60, "answers_until"),
    ("fingerprints", "commitment_sha256", bytes(31), "commitment_sha256"),
    ("fingerprints", "fingerprint_root", bytes(33), "fingerprint_root"),
    ("fingerprints", "size", MAX_BLOCKS + 1, "size"),
    ("fingerprints", "provider_time.seconds", 1 << 60, "provider_time"),
    ("manifest", "commitment_sha256", b"", "commitment_sha256"),
    ("manifest", "blocks.2.token_root", bytes(31), "token_root"),
    ("manifest", "provider_time.seconds", 1 << 60, "provider_time"),
    ("challenge", "fingerprints_sha256", bytes(31), "fingerprints_sha256"),
    ("challenge", "verifier", "", "verifier"),
    ("challenge", "verifier", "x" * 257, "verifier"),
    ("challenge", "nonce", bytes(31), "nonce"),
    ("challenge", "nonce", bytes(33), "nonce"),
    ("challenge", "round", 0, "round"),
    ("challenge", "round", MAX_ROUNDS + 1, "round"),
    ("challenge", "blocks", MAX_BLOCKS + 1, "blocks"),
    ("challenge", "token_blocks", MAX_BLOCKS + 1, "token_blocks"),
    ("challenge", "tokens_per_block", 0, "tokens_per_block"),
    ("challenge", "tokens_per_block", MAX_REASONING_TOKENS + 1, "tokens_per_block"),
    ("challenge", "deadline.seconds", 1 << 60, "deadline"),
    ("whole challenge", "fingerprints_sha256", b"", "fingerprints_sha256"),
    ("whole challenge", "verifier", "", "verifier"),
    ("whole challenge", "nonce", b"", "nonce"),
    ("whole challenge", "round", 0, "round"),
    ("whole challenge", "blocks", 0, "blocks"),
    ("whole challenge", "deadline.seconds", 1 << 60, "deadline"),
    ("opening", "challenge_sha256", bytes(31), "challenge_sha256"),
    ("opening", "flip", bytes(31), "flip"),
    ("opening", "flip_index", 0, "flip_index"),
    ("opening", "flip_index", FLIP_CHAIN_LENGTH + 1, "flip_index"),
    ("opening", "answered", [ANSWERED] * (FLIP_CHAIN_LENGTH + 1), "answered"),
    ("opening", "provider_time.seconds", 1 << 60, "provider_time"),
    ("whole opening", "challenge_sha256", b"", "challenge_sha256"),
    ("whole opening", "flip", b"", "flip"),
    ("whole opening", "flip_index", 0, "flip_index"),
    ("whole opening", "provider_time.seconds", 1 << 60, "provider_time"),
    ("refusal", "challenge_sha256", bytes(31), "challenge_sha256"),
    ("refusal", "reason", 0, "reason"),
    ("refusal", "answered", repeated(FLIP_CHAIN_LENGTH + 1), "answered"),
    ("refusal", "provider_time.seconds", 1 << 60, "provider_time"),
    ("verdict", "commitment_sha256", bytes(31), "commitment_sha256"),
    ("verdict", "profile_sha256", b"", "profile_sha256"),
    ("verdict", "policy_sha256", bytes(33), "policy_sha256"),
    ("verdict", "verifier", "", "verifier"),
    ("verdict", "outcome", 0, "outcome"),
    ("verdict", "decided_at.seconds", 1 << 60, "decided_at"),
]


@pytest.mark.parametrize(("name", "path", "value", "match"), OUT_OF_LIMITS)
def test_a_field_out_of_its_limits_is_refused_by_name(
    name: str, path: str, value: object, match: str
) -> None:
    edit = change(path, value) if callable(value) else put(path, value)
    with pytest.raises(StatementError, match=rf"^{match}\b"):
        KINDS[name].read(KINDS[name].raw(edit))


# (statement, field, value): just inside.
AT_LIMITS = [
    ("checkpoint", "client_nonce", bytes(16)),
    ("checkpoint", "client_nonce", bytes(64)),
    ("commitment", "block_count", MAX_BLOCKS),
    ("commitment", "block_count", 0),
    ("commitment", "reasoning_tokens", 0),
    ("commitment", "reasoning_tokens", MAX_REASONING_TOKENS),
    ("commitment", "answer_tokens", 0),
    ("commitment", "answer_tokens", MAX_REASONING_TOKENS),
    ("commitment", "abort_reason", LAST_ABORT),
    ("commitment", "answers_until", stamp(START)),
    ("commitment", "provider", "x"),
    ("commitment", "provider", "x" * 256),
    ("commitment", "id_source", statements_pb2.ID_SOURCE_RETOKENIZED),
    ("fingerprints", "size", 0),
    ("manifest", "blocks", []),
    ("challenge", "round", MAX_ROUNDS),
    ("challenge", "blocks", MAX_BLOCKS),
    ("challenge", "blocks", 0),
    ("challenge", "token_blocks", MAX_BLOCKS),
    ("challenge", "token_blocks", 0),
    ("challenge", "tokens_per_block", MAX_REASONING_TOKENS),
    ("opening", "flip_index", FLIP_CHAIN_LENGTH),
    ("opening", "answered", [ANSWERED] * FLIP_CHAIN_LENGTH),
    ("refusal", "answered", []),
    ("refusal", "reason", opening_pb2.REFUSAL_REASON_FLIPS_USED_UP),
]


@pytest.mark.parametrize(("name", "path", "value"), AT_LIMITS)
def test_a_field_at_its_limit_is_read(name: str, path: str, value: object) -> None:
    assert KINDS[name].read(KINDS[name].raw(put(path, value)))


def test_a_manifest_has_as_many_blocks_as_a_commitment_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = KINDS["manifest"]
    monkeypatch.setattr(statements, "MAX_BLOCKS", 5)
    assert kind.read(kind.raw(change("blocks", repeated(5))))
    with pytest.raises(StatementError, match=r"^blocks must lie in \[0, 5\]; found 6$"):
        kind.read(kind.raw(change("blocks", repeated(6))))


def test_a_commitment_must_carry_usage_and_may_leave_out_a_summary() -> None:
    kind = KINDS["commitment"]
    with pytest.raises(StatementError, match="no usage"):
        kind.read(kind.raw(without("usage")))
    assert not statements.read_commitment(kind.raw()).HasField("summary_sha256")


def test_a_challenge_may_draw_embeddings_alone_or_tokens_alone_and_not_nothing() -> None:
    def read(blocks: int, token_blocks: int, tokens_per_block: int) -> opening_pb2.Challenge:
        return statements.read_challenge(
            KINDS["challenge"].raw(
                both(
                    put("blocks", blocks),
                    both(
                        put("token_blocks", token_blocks), put("tokens_per_block", tokens_per_block)
                    ),
                )
            )
        )

    for drawn in ((1, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)):
        assert read(*drawn)
    for nothing in ((0, 0, 0), (0, 0, 1)):
        with pytest.raises(StatementError, match="draws nothing"):
            read(*nothing)
    for token_blocks_of_nothing in ((0, 1, 0), (1, 1, 0)):
        with pytest.raises(StatementError, match="tokens_per_block"):
            read(*token_blocks_of_nothing)


def test_a_parse_error_says_what_was_wanted_and_how_much_was_found() -> None:
    with pytest.raises(StatementError, match="3 bytes do not parse as Commitment"):
        statements.read_commitment(b"\xff\xff\xff")


TIMES = [
    ("key set", "issued_at"),
    ("checkpoint", "provider_time"),
    ("commitment", "started_at"),
    ("commitment", "ended_at"),
    ("fingerprints", "provider_time"),
    ("manifest", "provider_time"),
    ("challenge", "deadline"),
    ("whole challenge", "deadline"),
    ("opening", "provider_time"),
    ("whole opening", "provider_time"),
    ("refusal", "provider_time"),
    ("verdict", "decided_at"),
]


@pytest.mark.parametrize(("name", "field"), TIMES)
def test_a_time_with_nanoseconds_out_of_range_is_refused(name: str, field: str) -> None:
    wrong = Timestamp(seconds=0, nanos=2_000_000_000)
    with pytest.raises(StatementError):
        KINDS[name].read(KINDS[name].raw(put(field, wrong)))


@pytest.mark.parametrize(("name", "field"), TIMES)
def test_a_statement_without_its_time_is_refused(name: str, field: str) -> None:
    with pytest.raises(StatementError, match=field):
        KINDS[name].read(KINDS[name].raw(without(field)))


@pytest.mark.parametrize(("name", "field"), [("refusal", "reason"), ("verdict", "outcome")])
def test_a_value_that_version_1_does_not_know_is_refused(name: str, field: str) -> None:
    with pytest.raises(StatementError, match=field):
        KINDS[name].read(KINDS[name].raw(put(field, 99)))
