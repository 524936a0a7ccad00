"""Mutations of statements: what the provider signs does not parse, or says what cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from google.protobuf.message import Message

from coin_protocol import envelope
from coin_protocol.limits import (
    FLIP_CHAIN_LENGTH,
    MAX_BLOCKS,
    MAX_NAME_BYTES,
    MAX_REASONING_TOKENS,
    NONCE_MAX_BYTES,
    NONCE_MIN_BYTES,
    SESSION_ID_BYTES,
)
from coin_protocol.testing.forgeries import change, put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Spot,
    altered,
    anywhere,
    replies,
    statements,
    where,
)
from coin_protocol.testing.mutations.plans import Plan, key_set, signed
from coin_protocol.testing.world import PROVIDER
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2

_YEAR_10000: Final = 253_402_300_800

Envelope = envelope_pb2.Envelope

KINDS: Final[Mapping[str, type[Message]]] = {
    envelope.CHECKPOINT: statements_pb2.Checkpoint,
    envelope.COMMITMENT: statements_pb2.Commitment,
    envelope.FINGERPRINTS: statements_pb2.Fingerprints,
    envelope.MANIFEST: statements_pb2.Manifest,
    envelope.OPENING: opening_pb2.Opening,
    envelope.WHOLE_OPENING: opening_pb2.WholeBlockOpening,
    envelope.REFUSAL: opening_pb2.Refusal,
}
"""Messages of the statements that a provider's key signs, by payload type."""

_HASHES: Final[Mapping[str, Sequence[str]]] = {
    envelope.CHECKPOINT: ("profile_sha256", "token_root"),
    envelope.COMMITMENT: (
        *("profile_sha256", "request_sha256", "answer_sha256"),
        *("token_root", "flip_anchor"),
    ),
    envelope.FINGERPRINTS: ("commitment_sha256", "fingerprint_root"),
    envelope.MANIFEST: ("commitment_sha256",),
    envelope.OPENING: ("challenge_sha256", "flip"),
    envelope.WHOLE_OPENING: ("challenge_sha256", "flip"),
    envelope.REFUSAL: ("challenge_sha256",),
}

_NUMBERS: Final[Mapping[str, Sequence[tuple[str, int]]]] = {
    envelope.CHECKPOINT: (
        *(("block_count", 0), ("block_count", MAX_BLOCKS + 1)),
        *(("token_count", 0), ("token_count", MAX_REASONING_TOKENS + 1)),
    ),
    envelope.COMMITMENT: (
        *(("block_count", MAX_BLOCKS + 1), ("reasoning_tokens", MAX_REASONING_TOKENS + 1)),
        ("answer_tokens", MAX_REASONING_TOKENS + 1),
    ),
    envelope.FINGERPRINTS: (("size", MAX_BLOCKS + 1),),
    envelope.OPENING: (("flip_index", 0), ("flip_index", FLIP_CHAIN_LENGTH + 1)),
    envelope.WHOLE_OPENING: (("flip_index", 0), ("flip_index", FLIP_CHAIN_LENGTH + 1)),
}

_WORDS: Final[Mapping[str, Sequence[tuple[str, int]]]] = {
    envelope.COMMITMENT: (("id_source", 0), ("id_source", 9), ("abort_reason", 9)),
    envelope.REFUSAL: (("reason", 0), ("reason", 9)),
}


def _restated(edit: Callable[[Spot, Message, str], object]) -> Callable[[Spot], Lie]:
    """Return what has the provider sign a statement that was edited."""

    def again(at: Spot, found: Envelope) -> Envelope:
        message = KINDS[found.payload_type].FromString(found.payload)
        edit(at, message, found.payload_type)
        payload = message.SerializeToString(deterministic=True)
        return signed(at.plan, payload, found.payload_type, PROVIDER)

    return altered(again)


def _followed_by(raw: bytes) -> Callable[[Spot], Lie]:
    """Return what has the provider sign a statement with bytes after it."""
    return altered(
        lambda at, found: signed(at.plan, found.payload + raw, found.payload_type, PROVIDER)
    )


def _typed(table: Mapping[str, object], *more: str) -> Callable[[Plan], list[Site]]:
    """Return the sites of statements that a table knows."""

    def found(plan: Plan) -> list[Site]:
        entries = plan.rounds
        return [site for site in statements(plan) if _type_at(site, entries) in {*table, *more}]

    return found


def _type_at(site: Site, entries: Sequence[receipt_pb2.Round]) -> str:
    if site.step >= 0:
        found: Envelope = getattr(entries[site.step], site.path)
        return found.payload_type
    if site.path.startswith("checkpoints"):
        return envelope.CHECKPOINT
    kinds = {
        "commitment": envelope.COMMITMENT,
        "fingerprints": envelope.FINGERPRINTS,
        "manifest": envelope.MANIFEST,
    }
    return kinds[site.path]


def _hash_cut(at: Spot, message: Message, kind: str) -> None:
    field = at.random.choice(_HASHES[kind])
    change(field, lambda raw: raw[: at.random.randrange(len(raw))])(message)


def _hash_extended(at: Spot, message: Message, kind: str) -> None:
    change(at.random.choice(_HASHES[kind]), lambda raw: raw + at.made_up(1))(message)


def _time_field(at: Spot, kind: str) -> str:
    names = ("started_at", "ended_at") if kind == envelope.COMMITMENT else ("provider_time",)
    return at.random.choice(names)


def _time_left_out(at: Spot, message: Message, kind: str) -> None:
    message.ClearField(_time_field(at, kind))


def _time_out_of_range(at: Spot, message: Message, kind: str) -> None:
    put(f"{_time_field(at, kind)}.seconds", _YEAR_10000)(message)


def _number_out_of_range(at: Spot, message: Message, kind: str) -> None:
    put(*at.random.choice(_NUMBERS[kind]))(message)


def _word_unknown(at: Spot, message: Message, kind: str) -> None:
    put(*at.random.choice(_WORDS[kind]))(message)


def _nonce_of_another_length(at: Spot, message: Message, kind: str) -> None:
    del kind
    length = at.random.choice([0, NONCE_MIN_BYTES - 1, NONCE_MAX_BYTES + 1])
    put("client_nonce", bytes(length))(message)


def _session_of_another_length(at: Spot, message: Message, kind: str) -> None:
    del kind
    length = at.random.choice([0, SESSION_ID_BYTES - 1, SESSION_ID_BYTES + 1])
    put("session_id", bytes(length))(message)


def _shows_too_many(at: Spot, message: Message, kind: str) -> None:
    del at, kind
    showing = cast("opening_pb2.Refusal", message)
    for _ in range(FLIP_CHAIN_LENGTH + 1):
        showing.answered.add()


def _named_badly(at: Spot) -> Lie:
    name = at.random.choice(["", "m" * (MAX_NAME_BYTES + 1)])
    return Lie(commitment=put("model", name))


def _without_usage(at: Spot) -> Lie:
    del at
    return Lie(commitment=lambda commitment: commitment.ClearField("usage"))


# fmt: off
STATEMENTS: Final = (
    Mutation("hash-cut-short", "A statement has a hash of fewer than 32 bytes.",
             statements, _restated(_hash_cut), "STATEMENT"),
    Mutation("hash-extended", "A statement has a hash of 33 bytes.",
             statements, _restated(_hash_extended), "STATEMENT"),
    Mutation("time-left-out", "A statement is not dated.",
             statements, _restated(_time_left_out), "STATEMENT"),
    Mutation("time-out-of-range", "A statement is dated after the year 9999.",
             statements, _restated(_time_out_of_range), "STATEMENT"),
    Mutation("number-out-of-range", "A statement counts what no statement may.",
             _typed(_NUMBERS), _restated(_number_out_of_range), "STATEMENT"),
    Mutation("word-unknown", "A statement gives a reason or source that version 1 does not know.",
             _typed(_WORDS), _restated(_word_unknown), "STATEMENT"),
    Mutation("field-unknown", "A statement has a field that version 1 does not know.",
             statements, _followed_by(b"\xf8\x07\x01"), "STATEMENT"),
    Mutation("statement-torn", "A signed statement ends inside a field.",
             statements, _followed_by(b"\xff"), "STATEMENT"),
    Mutation("nonce-of-another-length", "A statement has a client nonce of no allowed length.",
             _typed({envelope.COMMITMENT: 0, envelope.CHECKPOINT: 0}),
             _restated(_nonce_of_another_length), "STATEMENT"),
    Mutation("session-id-of-another-length", "A statement's session id has not 16 bytes.",
             _typed({envelope.COMMITMENT: 0, envelope.CHECKPOINT: 0}),
             _restated(_session_of_another_length), "STATEMENT"),
    Mutation("answered-beyond-the-chain", "An answer shows more before it than a chain has links.",
             replies, _restated(_shows_too_many), "STATEMENT"),
    Mutation("model-named-badly", "The commitment's model has no name, or one too long.",
             anywhere, _named_badly, "STATEMENT"),
    Mutation("usage-left-out", "The commitment carries no bill.",
             anywhere, _without_usage, "STATEMENT"),
    Mutation("manifest-root-cut-short", "A block's root in the manifest has too few bytes.",
             where(lambda plan: plan.manifest and plan.blocks > 0),
             lambda at: Lie(manifest=change(
                 f"blocks.{at.random.randrange(at.plan.blocks)}.token_root",
                 lambda raw: raw[:-1])),
             "STATEMENT"),
    Mutation("commitment-of-another-provider",
             "The commitment names another provider than the owner of the key set.",
             anywhere, lambda _: Lie(commitment=put("provider", "another")), "STATEMENT"),
    Mutation("key-set-of-another-owner", "The root lists the provider's key as somebody else's.",
             anywhere,
             lambda at: Lie(receipt=put("key_set", key_set(at.plan, owner="another"))),
             "STATEMENT"),
)
# fmt: on
