"""Limits on what is signed: statements, envelopes, keys, profiles, and what is drawn and opened."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from google.protobuf.message import Message

from coin_protocol import draw, envelope, merkle, statements
from coin_protocol.checks import run_checks
from coin_protocol.commitment import CommitmentBuilder, SessionSecret
from coin_protocol.encoding import block_salts
from coin_protocol.keys import KeyRing, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, sign_key_set
from coin_protocol.limits import HASH_BYTES, SESSION_ID_BYTES
from coin_protocol.opening import Opener
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import KeySigner
from coin_protocol.testing import encoding_vectors
from coin_protocol.testing.forgeries import audit, change, put
from coin_protocol.testing.salts import salted_block, salted_tokens
from coin_protocol.testing.small import small_profile, small_table
from coin_protocol.testing.world import START, World
from coin_protocol.v1 import keys_pb2, opening_pb2, profile_pb2, statements_pb2
from tests.support.limit_cases.case import Kind, LimitCase, MadeCase, RefusedError

STATEMENTS: Final = "coin_protocol.statements"
PROFILE: Final = "coin_protocol.profile"
DRAW: Final = "coin_protocol.draw"
COMMITMENT: Final = "coin_protocol.commitment"
INCLUDED: Final = "coin_protocol.checks.included"

Of = Callable[[int], object]


@cache
def _audit() -> Any:
    return audit().ask().ask_whole()


def _checkpoint() -> Message:
    raw = _audit().reply.receipt.checkpoints[0].checkpoint.payload
    return statements_pb2.Checkpoint.FromString(raw)


def _commitment() -> Message:
    return statements_pb2.Commitment.FromString(_audit().reply.receipt.commitment.payload)


def _challenge() -> Message:
    return opening_pb2.Challenge.FromString(_audit().rounds[0].challenge.payload)


def _opening() -> Message:
    return opening_pb2.Opening.FromString(_audit().rounds[0].opening.payload)


def _refusal() -> Message:
    known = opening_pb2.AnsweredChallenge(flip_index=1, flip=bytes(HASH_BYTES))
    return opening_pb2.Refusal(
        challenge_sha256=bytes(HASH_BYTES),
        reason=opening_pb2.REFUSAL_REASON_EXPOSURE_CAP,
        answered=[known],
        provider_time=_audit().rounds[0].received_at,
    )


def _edited(
    read: Callable[[bytes], object], make: Callable[[], Message], path: str, of: Of
) -> Callable[[int], object]:
    """Return what reads a message with something of a size at `path`."""

    def reading(size: int) -> object:
        message = make()
        put(path, of(size))(message)
        return read(message.SerializeToString(deterministic=True))

    return reading


def _number(size: int) -> int:
    return size


def _twice_named(size: int) -> object:
    """Read a profile that gives its name twice, of which the last counts."""
    raw = small_profile().raw
    # Before the first come a tag, and a length in two bytes.
    first = profile_pb2.Profile(name="x" * (size - len(raw) - 3)).SerializeToString()
    return Profile.from_bytes(first + raw)


def _name(size: int) -> str:
    return "x" * size


def _answered(size: int) -> list[Message]:
    return [opening_pb2.AnsweredChallenge(flip_index=1, flip=bytes(HASH_BYTES))] * size


def _policy() -> Message:
    return World().policy.message


def _profile() -> Message:
    return small_profile().message


@cache
def _keys(count: int) -> tuple[ListedKey, ...]:
    # One key under many names is many keys: an id binds both.
    key = World().signer("key").public
    spki = key.spki
    return tuple(
        ListedKey(type(key).from_spki(f"key {number}", spki), START, START.replace(year=2030))
        for number in range(count)
    )


def _key_set(count: int) -> KeyRing:
    root = KeySigner.generate(ROOT_KEY_NAME)
    signed = sign_key_set("provider", _keys(count), root=root, issued_at=START, sequence=1)
    return KeyRing.from_message(keys_pb2.KeySet.FromString(signed.payload))


def _owner(size: int) -> KeyRing:
    return KeyRing.from_message(keys_pb2.KeySet(owner=_name(size)))


def _signatures(count: int) -> object:
    world = World()
    found = envelope.sign(b"payload", envelope.COMMITMENT, world.signer("key"))
    found.signatures.extend([found.signatures[0]] * (count - 1))
    return envelope.verify(found, envelope.COMMITMENT, _pinned())


def _payload(size: int) -> object:
    signed = envelope.sign(bytes(size), envelope.COMMITMENT, World().signer("key"))
    return envelope.verify(signed, envelope.COMMITMENT, _pinned())


def _pinned() -> KeyRing:
    key = World().signer("key").public
    return KeyRing("verifiers", [ListedKey(key, START, START.replace(year=2030))])


def _flip_index(index: int) -> None:
    secret = bytes(HASH_BYTES)
    anchor = draw.flip_link(secret, index)
    draw.verify_flip(flip=secret, index=index, anchor=anchor)


def _flip_bytes(size: int) -> None:
    flip = bytes(size)
    draw.verify_flip(flip=flip, index=1, anchor=draw.flip_link(flip, 1))


def _root_bytes(size: int) -> None:
    root = bytes(size)
    merkle.verify_inclusion(leaf_hash=root, index=0, size=1, proof=[], root=root)


def _tokens(count: int) -> object:
    secret = SessionSecret(bytes(SESSION_ID_BYTES), bytes(HASH_BYTES))
    builder = CommitmentBuilder(secret, block_size=8, fingerprints=small_table().fingerprints)
    return builder.append([1] * count)


def _token_salts(size: int) -> object:
    def resized(salts: bytes) -> bytes:
        tokens = len(salts) // 16
        return (salts + bytes(tokens))[: tokens * size]

    edit = change("blocks.0.token_salts", resized)
    report = run_checks(audit().ask_whole(edit_opening=edit).case())
    if report.failed is not None:
        raise RefusedError(report.detail)
    return report


def _salted(forge: Callable[[Opener], Opener], *, whole: bool = False) -> object:
    asked = audit(tokens=4, opener=forge)
    report = run_checks((asked.ask_whole() if whole else asked.ask()).case())
    if report.failed is not None:
        raise RefusedError(report.detail)
    return report


def _of(
    limit: str,
    read: Callable[[bytes], object],
    make: Callable[[], Message],
    path: str,
    of: Of,
    kind: Kind = Kind.MOST,
) -> LimitCase:
    return LimitCase(limit, STATEMENTS, path, _edited(read, make, path, of), path, kind)


def _agreed(
    limit: str, path: str, of: Of, kind: Kind = Kind.MOST, *, says: str = "", policy: bool = False
) -> LimitCase:
    read = Policy.from_bytes if policy else Profile.from_bytes
    reading = _edited(read, _policy if policy else _profile, path, of)
    return LimitCase(limit, PROFILE, path, reading, says or path, kind)


SIGNED: Final = (
    _of("HASH_BYTES", statements.read_checkpoint, _checkpoint, "token_root", bytes, Kind.EXACT),
    _of(
        "SESSION_ID_BYTES",
        statements.read_commitment,
        _commitment,
        "session_id",
        bytes,
        Kind.EXACT,
    ),
    _of(
        "NONCE_MIN_BYTES",
        statements.read_commitment,
        _commitment,
        "client_nonce",
        bytes,
        Kind.LEAST,
    ),
    _of("NONCE_MAX_BYTES", statements.read_commitment, _commitment, "client_nonce", bytes),
    _of("CHALLENGE_NONCE_BYTES", statements.read_challenge, _challenge, "nonce", bytes, Kind.EXACT),
    _of("FLIP_CHAIN_LENGTH", statements.read_opening, _opening, "flip_index", _number),
    _of("FLIP_CHAIN_LENGTH", statements.read_refusal, _refusal, "answered", _answered),
    _of("MAX_ROUNDS", statements.read_challenge, _challenge, "round", _number),
    _of("MAX_BLOCKS", statements.read_commitment, _commitment, "block_count", _number),
    _of("MAX_BLOCKS", statements.read_challenge, _challenge, "token_blocks", _number),
    _of(
        "MAX_REASONING_TOKENS",
        statements.read_commitment,
        _commitment,
        "reasoning_tokens",
        _number,
    ),
    _of("MAX_NAME_BYTES", statements.read_commitment, _commitment, "provider", _name),
    _agreed("HASH_BYTES", "tokenizer.sha256", bytes, Kind.EXACT),
    _agreed("MAX_BLOCK_SIZE", "block_size", _number),
    _agreed("MAX_BLOCK_SIZE", "rounds.tokens_per_block", _number, policy=True),
    _agreed("MAX_VOCABULARY", "tokenizer.vocabulary_size", _number, says="vocabulary_size"),
    _agreed("MAX_EMBEDDING_DIMENSION", "embedding.dimension", _number),
    _agreed("MAX_NAME_BYTES", "name", _name),
    _agreed("FLIP_CHAIN_LENGTH", "rounds.max_rounds", _number, policy=True),
    LimitCase(
        "MAX_PROFILE_BYTES", PROFILE, "file", _twice_named, "1001 bytes; .* at most", lowered=1000
    ),
    LimitCase("MAX_KEYS", "coin_protocol.keys", "keys", _key_set, "at most 1024 are read"),
    LimitCase("MAX_NAME_BYTES", "coin_protocol.keys", "owner", _owner, "a name must have"),
    LimitCase(
        "MAX_SIGNATURES", "coin_protocol.envelope", "signatures", _signatures, "at most .* are read"
    ),
    LimitCase(
        "MAX_STATEMENT_BYTES",
        "coin_protocol.envelope",
        "payload",
        _payload,
        "at most 1000 .* are read",
        lowered=1000,
    ),
    LimitCase("FLIP_CHAIN_LENGTH", DRAW, "flip index", _flip_index, "wanted 1 to 64"),
    LimitCase("HASH_BYTES", DRAW, "flip", _flip_bytes, "wanted .* with 32", Kind.EXACT),
    LimitCase(
        "HASH_BYTES",
        "coin_protocol.merkle",
        "root",
        _root_bytes,
        "must be 32 bytes",
        Kind.EXACT,
    ),
    LimitCase(
        "SESSION_ID_BYTES",
        COMMITMENT,
        "session id",
        lambda size: SessionSecret(bytes(size), bytes(HASH_BYTES)),
        "a session id of 16",
        Kind.EXACT,
    ),
    LimitCase(
        "HASH_BYTES",
        COMMITMENT,
        "secret",
        lambda size: SessionSecret(bytes(SESSION_ID_BYTES), bytes(size)),
        "a secret of 32",
        Kind.EXACT,
    ),
    LimitCase(
        "MAX_REASONING_TOKENS", COMMITMENT, "tokens", _tokens, "at most 20 reasoning", lowered=20
    ),
    LimitCase(
        "TOKEN_SALT_BYTES",
        "coin_protocol.checks.whole",
        "token salts of a block opened whole",
        _token_salts,
        "bytes of salts are shown",
        Kind.EXACT,
        behind="token root",
    ),
    LimitCase(
        "TOKEN_SALT_BYTES",
        INCLUDED,
        "salts of opened tokens",
        lambda size: _salted(salted_tokens(0, size)),
        "token [0-3] of block 0 has a salt of .* wanted 16",
        Kind.EXACT,
    ),
    LimitCase(
        "BLOCK_SALT_BYTES",
        INCLUDED,
        "salt of an opened block",
        lambda size: _salted(salted_block(0, size)),
        "block 0 has a salt of .* wanted 32",
        Kind.EXACT,
    ),
    LimitCase(
        "BLOCK_SALT_BYTES",
        INCLUDED,
        "salt of a block opened whole",
        lambda size: _salted(salted_block(0, size), whole=True),
        "block 0 has a salt of .* wanted 32",
        Kind.EXACT,
    ),
)
"""What must be refused before a signed byte is acted upon."""


def _salts() -> tuple[bytes, bytes]:
    return block_salts(bytes(HASH_BYTES), 3, 2)


def _salts_by_the_protocol() -> tuple[bytes, bytes]:
    block, tokens = encoding_vectors.salts(bytes(HASH_BYTES), 3, 2)
    return block, b"".join(tokens)


MADE: Final = tuple(
    MadeCase(limit, "coin_protocol.encoding", "salts of a block", _salts, _salts_by_the_protocol)
    for limit in ("BLOCK_SALT_BYTES", "TOKEN_SALT_BYTES")
)
"""Sizes of what only the provider makes."""
