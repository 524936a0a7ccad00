"""Test vectors of statements: which signed bytes are read, and which are refused (section 5).

`_RULES` states by hand, once more, what every field of every statement is held to; vectors are
made at each limit and past it. Good messages are serialized by protobuf; what no serializer
writes is put together by hand. Nothing is read by the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.testing.forgeries import change, put, without
from coin_protocol.testing.key_vectors import NOON, ed25519_key, spki
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    in_base64,
    made,
    refused,
)
from coin_protocol.testing.world import Edit
from coin_protocol.v1 import envelope_pb2, keys_pb2, opening_pb2, receipt_pb2, statements_pb2

_ERROR: Final = "StatementError"
_NOON: Final = Timestamp(seconds=NOON)
_UNKNOWN: Final = b"\xf8\x07\x01"
"""Field 127, a varint: version 1 knows none."""

MAX_TOKENS: Final = 1 << 24
MAX_BLOCKS: Final = 1 << 20
LAST_SECOND: Final = 253_402_300_799
FIRST_SECOND: Final = -62_135_596_800


def _hash(what: str) -> bytes:
    return made(f"statement {what}", 32)


def _token() -> opening_pb2.TokenOpening:
    return opening_pb2.TokenOpening(
        position=1,
        salt=made("salt", 16),
        token_id=65,
        row=made("row", 7),
        proof=[_hash("proof")],
        table_proof=[_hash("table proof")],
    )


STATEMENTS: Final[Mapping[str, Message]] = {
    "keyset": keys_pb2.KeySet(
        owner="acme",
        keys=[
            keys_pb2.PublicKey(
                name="acme",
                algorithm=keys_pb2.KEY_ALGORITHM_ED25519,
                spki=spki(ed25519_key("one")),
                not_before=_NOON,
                not_after=Timestamp(seconds=NOON + 86_400),
            )
        ],
        issued_at=_NOON,
        sequence=1,
    ),
    "checkpoint": statements_pb2.Checkpoint(
        session_id=made("session id", 16),
        profile_sha256=_hash("profile"),
        client_nonce=made("nonce", 32),
        block_count=2,
        token_count=16,
        token_root=_hash("token root"),
        provider_time=_NOON,
    ),
    "commitment": statements_pb2.Commitment(
        profile_sha256=_hash("profile"),
        provider="acme",
        model="model",
        session_id=made("session id", 16),
        client_nonce=made("nonce", 32),
        request_sha256=_hash("request"),
        answer_sha256=_hash("answer"),
        summary_sha256=_hash("summary"),
        token_root=_hash("token root"),
        block_count=3,
        reasoning_tokens=20,
        answer_tokens=5,
        id_source=statements_pb2.ID_SOURCE_SAMPLED,
        usage=statements_pb2.Usage(
            prompt_tokens=7,
            completion_tokens=25,
            reasoning_tokens=20,
            reasoning_counting=statements_pb2.REASONING_COUNTING_INSIDE_COMPLETION,
        ),
        flip_anchor=_hash("anchor"),
        started_at=_NOON,
        ended_at=Timestamp(seconds=NOON + 2),
        answers_until=Timestamp(seconds=NOON + 86_400),
    ),
    "fingerprints": statements_pb2.Fingerprints(
        commitment_sha256=_hash("commitment"),
        fingerprint_root=_hash("fingerprint root"),
        size=3,
        provider_time=_NOON,
    ),
    "manifest": statements_pb2.Manifest(
        commitment_sha256=_hash("commitment"),
        blocks=[
            statements_pb2.BlockEntry(token_count=8, token_root=_hash("block 0")),
            statements_pb2.BlockEntry(token_count=4, token_root=_hash("block 1")),
        ],
        provider_time=_NOON,
    ),
    "challenge": opening_pb2.Challenge(
        fingerprints_sha256=_hash("fingerprints"),
        verifier="verifier",
        nonce=made("challenge nonce", 32),
        round=1,
        blocks=1,
        tokens_per_block=2,
        deadline=_NOON,
        token_blocks=1,
    ),
    "whole-challenge": opening_pb2.WholeBlockChallenge(
        fingerprints_sha256=_hash("fingerprints"),
        verifier="verifier",
        nonce=made("challenge nonce", 32),
        round=1,
        blocks=1,
        deadline=_NOON,
    ),
    "opening": opening_pb2.Opening(
        challenge_sha256=_hash("challenge"),
        flip_index=1,
        flip=_hash("flip"),
        blocks=[opening_pb2.BlockOpening(block_index=1, tokens=[_token()])],
        edge=opening_pb2.EdgeOpening(block_index=2, last_token=_token()),
        provider_time=_NOON,
        token_blocks=[opening_pb2.TokenBlockOpening(block_index=0, tokens=[_token()])],
    ),
    "whole-opening": opening_pb2.WholeBlockOpening(
        challenge_sha256=_hash("challenge"),
        flip_index=1,
        flip=_hash("flip"),
        blocks=[
            opening_pb2.WholeBlock(
                block_index=1,
                token_ids=[65, 66, 300],
                text="AB",
                vocabulary=[opening_pb2.TableEntry(token_id=65, fingerprint=_hash("fp"))],
            )
        ],
        provider_time=_NOON,
    ),
    "refusal": opening_pb2.Refusal(
        challenge_sha256=_hash("challenge"),
        reason=opening_pb2.REFUSAL_REASON_EXPOSURE_CAP,
        answered=[
            opening_pb2.AnsweredChallenge(
                challenge=envelope_pb2.Envelope(payload=b"x"), flip_index=1, flip=_hash("flip")
            )
        ],
        provider_time=_NOON,
    ),
    "verdict": receipt_pb2.Verdict(
        commitment_sha256=_hash("commitment"),
        profile_sha256=_hash("profile"),
        policy_sha256=_hash("policy"),
        verifier="verifier",
        outcome=receipt_pb2.OUTCOME_PASS,
        tier=receipt_pb2.TIER_ASSERTED,
        tiers=[receipt_pb2.TIER_ASSERTED],
        checks=[receipt_pb2.CheckResult(code="SIGNATURE", status=receipt_pb2.CHECK_STATUS_PASSED)],
        exposure=receipt_pb2.Exposure(tokens=3),
        id_source=statements_pb2.ID_SOURCE_SAMPLED,
        decided_at=_NOON,
    ),
}
"""A good statement of each kind."""


@dataclass(frozen=True)
class Field:
    """What a field of a statement may be: changes that are fine, and ones that are not."""

    fine: Mapping[str, Edit[Any]]
    wrong: Mapping[str, Edit[Any]]


Rule = Callable[[str], Field]


def sized(length: int) -> Rule:
    """Return the rule of a field of so many bytes."""

    def rule(path: str) -> Field:
        wrong = {"short": length - 1, "long": length + 1, "empty": 0}
        return Field({}, {name: put(path, made(path, size)) for name, size in wrong.items()})

    return rule


def between(least: int, most: int) -> Rule:
    """Return the rule of a number from `least` to `most`."""

    def rule(path: str) -> Field:
        wrong = {"past-its-limit": put(path, most + 1)}
        if least > 0:
            wrong["below-its-limit"] = put(path, least - 1)
        return Field({"least": put(path, least), "greatest": put(path, most)}, wrong)

    return rule


def one_of(*values: int) -> Rule:
    """Return the rule of an enumeration, 0 to be given where it may be left out."""

    def rule(path: str) -> Field:
        wrong = {"unknown": put(path, max(values) + 1), "negative": put(path, -1)}
        if 0 not in values:
            wrong["unsaid"] = put(path, 0)
        return Field({f"of-{value}": put(path, value) for value in values}, wrong)

    return rule


def named(path: str) -> Field:
    """Return the rule of a name: 1 to 256 bytes of UTF-8."""
    fine = {"of-256-bytes": "x" * 256, "of-128-letters-of-two-bytes": "é" * 128}
    wrong = {"of-257-bytes": "x" * 257, "of-258-bytes": "é" * 129, "empty": ""}
    return Field(
        {name: put(path, value) for name, value in fine.items()},
        {name: put(path, value) for name, value in wrong.items()},
    )


def nonce(path: str) -> Field:
    """Return the rule of a client's nonce: 16 to 64 bytes."""
    return Field(
        {f"of-{size}-bytes": put(path, made("n", size)) for size in (16, 64)},
        {f"of-{size}-bytes": put(path, made("n", size)) for size in (0, 15, 65)},
    )


def dated(path: str) -> Field:
    """Return the rule of a time: there, in the years 1 to 9999, its nanoseconds in a second."""
    return Field(
        {
            "in-the-year-9999": put(path, Timestamp(seconds=LAST_SECOND, nanos=999_999_999)),
            "in-the-year-1": put(path, Timestamp(seconds=FIRST_SECOND)),
        },
        {
            "absent": without(path),
            "past-the-year-9999": put(path, Timestamp(seconds=LAST_SECOND + 1)),
            "before-the-year-1": put(path, Timestamp(seconds=FIRST_SECOND - 1)),
            "of-too-many-nanoseconds": put(path, Timestamp(seconds=NOON, nanos=1_000_000_000)),
            "of-negative-nanoseconds": put(path, Timestamp(seconds=NOON, nanos=-1)),
        },
    )


def dated_or_absent(path: str) -> Field:
    """Return the rule of a time that may be left out."""
    rule = dated(path)
    wrong = {name: edit for name, edit in rule.wrong.items() if name != "absent"}
    return Field({**rule.fine, "absent": without(path)}, wrong)


def needed(path: str) -> Field:
    """Return the rule of a part that must be there."""
    return Field({}, {"absent": without(path)})


def optional(path: str) -> Field:
    """Return the rule of a part that may be left out."""
    return Field({"absent": without(path)}, {})


def counted(most: int) -> Rule:
    """Return the rule of a list of at most so many entries."""

    def rule(path: str) -> Field:
        def times(count: int) -> Edit[Any]:
            return change(path, lambda found: [found[0]] * count)

        return Field(
            {"none": times(0), "greatest": times(most)}, {"past-its-limit": times(most + 1)}
        )

    return rule


_HASH: Final = sized(32)
_RULES: Final[Mapping[str, tuple[tuple[str, Rule], ...]]] = {
    "keyset": (("issued_at", dated),),
    "checkpoint": (
        ("session_id", sized(16)),
        ("profile_sha256", _HASH),
        ("client_nonce", nonce),
        ("block_count", between(1, MAX_BLOCKS)),
        ("token_count", between(1, MAX_TOKENS)),
        ("token_root", _HASH),
        ("provider_time", dated),
    ),
    "commitment": (
        ("profile_sha256", _HASH),
        ("provider", named),
        ("model", named),
        ("session_id", sized(16)),
        ("client_nonce", nonce),
        ("request_sha256", _HASH),
        ("answer_sha256", _HASH),
        ("summary_sha256", _HASH),
        ("summary_sha256", optional),
        ("token_root", _HASH),
        ("block_count", between(0, MAX_BLOCKS)),
        ("reasoning_tokens", between(0, MAX_TOKENS)),
        ("answer_tokens", between(0, MAX_TOKENS)),
        ("id_source", one_of(1, 2)),
        ("usage", needed),
        ("flip_anchor", _HASH),
        ("started_at", dated),
        ("ended_at", dated),
        ("abort_reason", one_of(0, 1, 2, 3, 4)),
        ("answers_until", dated_or_absent),
    ),
    "fingerprints": (
        ("commitment_sha256", _HASH),
        ("fingerprint_root", _HASH),
        ("size", between(0, MAX_BLOCKS)),
        ("provider_time", dated),
    ),
    "manifest": (
        ("commitment_sha256", _HASH),
        ("blocks.1.token_root", _HASH),
        ("provider_time", dated),
    ),
    "challenge": (
        ("fingerprints_sha256", _HASH),
        ("verifier", named),
        ("nonce", sized(32)),
        ("round", between(1, 64)),
        ("blocks", between(0, MAX_BLOCKS)),
        ("token_blocks", between(0, MAX_BLOCKS)),
        ("tokens_per_block", between(1, MAX_TOKENS)),
        ("deadline", dated),
    ),
    "whole-challenge": (
        ("fingerprints_sha256", _HASH),
        ("verifier", named),
        ("nonce", sized(32)),
        ("round", between(1, 64)),
        ("blocks", between(1, MAX_BLOCKS)),
        ("deadline", dated),
    ),
    "opening": (
        ("challenge_sha256", _HASH),
        ("flip_index", between(1, 64)),
        ("flip", _HASH),
        ("provider_time", dated),
    ),
    "whole-opening": (
        ("challenge_sha256", _HASH),
        ("flip_index", between(1, 64)),
        ("flip", _HASH),
        ("provider_time", dated),
    ),
    "refusal": (
        ("challenge_sha256", _HASH),
        ("reason", one_of(1, 2)),
        ("answered", counted(64)),
        ("provider_time", dated),
    ),
    "verdict": (
        ("commitment_sha256", _HASH),
        ("profile_sha256", _HASH),
        ("policy_sha256", _HASH),
        ("verifier", named),
        ("outcome", one_of(1, 2, 3)),
        ("decided_at", dated),
    ),
}

_INSIDE: Final = (
    ("keyset", "keys.0"),
    ("keyset", "keys.0.not_after"),
    ("checkpoint", "provider_time"),
    ("commitment", "usage"),
    ("manifest", "blocks.1"),
    ("opening", "blocks.0.tokens.0"),
    ("opening", "token_blocks.0"),
    ("opening", "edge.last_token"),
    ("whole-opening", "blocks.0.vocabulary.0"),
    ("refusal", "answered.0.challenge"),
    ("verdict", "checks.0"),
    ("verdict", "exposure"),
)
"""Where a field that version 1 does not know may hide."""


def statement_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_good(), *_by_rule(), *_drawing(), *_unknown_fields(), *_on_the_wire()])


def _raw(kind: str, edit: Edit[Any] = lambda _: None) -> bytes:
    message = deepcopy(STATEMENTS[kind])
    edit(message)
    return message.SerializeToString(deterministic=True)


def _given(kind: str, payload: bytes, fields: Iterable[str] = ()) -> dict[str, object]:
    return {"statement": kind, "payload": in_base64(payload), "fields": list(fields)}


def _read(
    name: str, about: str, kind: str, payload: bytes, fields: Mapping[str, object] | None = None
) -> dict[str, object]:
    value: dict[str, object] = {"sha256": sha256(payload).digest(), "fields": dict(fields or {})}
    return accepted(name, about, "read_statement", _given(kind, payload, fields or {}), value)


def _refused(name: str, about: str, kind: str, payload: bytes) -> dict[str, object]:
    return refused(name, about, "read_statement", _given(kind, payload), _ERROR)


def _good() -> list[dict[str, object]]:
    return [_read(f"{kind}-good", f"A good {kind}.", kind, _raw(kind)) for kind in STATEMENTS]


def _by_rule() -> Iterator[dict[str, object]]:
    for kind, rules in _RULES.items():
        for path, rule in rules:
            field, what = rule(path), f"{kind}-{path.replace('.', '-').replace('_', '-')}"
            about = f"The field {path} of a {kind}"
            for name, edit in field.fine.items():
                yield _read(
                    f"{what}-{name}", f"{about}, inside its limits.", kind, _raw(kind, edit)
                )
            for name, edit in field.wrong.items():
                yield _refused(
                    f"{what}-{name}", f"{about}, outside its limits.", kind, _raw(kind, edit)
                )


def _drawing() -> Iterator[dict[str, object]]:
    """Yield challenges by what they draw together."""
    cases = (
        ("of-embeddings-alone", "Blocks for their embeddings alone.", 1, 0, 0, True),
        ("of-tokens-alone", "Token blocks alone.", 0, 1, 1, True),
        ("of-nothing", "No block of either kind.", 0, 0, 0, False),
        ("of-tokens-of-no-block", "Tokens of no block of either kind.", 0, 0, 1, False),
        ("of-token-blocks-without-tokens", "Token blocks have tokens.", 0, 1, 0, False),
        ("of-both-without-tokens", "Token blocks have tokens.", 1, 1, 0, False),
    )
    for name, about, blocks, token_blocks, tokens, fine in cases:
        message = deepcopy(STATEMENTS["challenge"])
        for path, value in (
            ("blocks", blocks),
            ("token_blocks", token_blocks),
            ("tokens_per_block", tokens),
        ):
            put(path, value)(message)
        make = _read if fine else _refused
        raw = message.SerializeToString(deterministic=True)
        yield make(f"challenge-{name}", about, "challenge", raw)
    yield _read(
        "manifest-of-no-blocks",
        "A reply without reasoning has no blocks.",
        "manifest",
        _raw("manifest", without("blocks")),
    )


def _unknown_fields() -> Iterator[dict[str, object]]:
    for kind in STATEMENTS:
        yield _refused(
            f"{kind}-with-an-unknown-field",
            "A field that version 1 does not know.",
            kind,
            _raw(kind) + _UNKNOWN,
        )
    for kind, path in _INSIDE:
        yield _refused(
            f"{kind}-with-an-unknown-field-in-{path.replace('.', '-').replace('_', '-')}",
            f"A field that version 1 does not know, inside {path}.",
            kind,
            _raw(kind, _hidden(path)),
        )


def _hidden(path: str) -> Edit[Any]:
    def edit(message: Any) -> None:  # noqa: ANN401 - a message of any kind
        for part in path.split("."):
            message = message[int(part)] if part.isdigit() else getattr(message, part)
        message.MergeFromString(_UNKNOWN)

    return edit


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


def _field(number: int, wire: int, content: bytes) -> bytes:
    """Return a field as it stands on the wire; wire type 2 has its length before it."""
    length = _varint(len(content)) if wire == 2 else b""
    return _varint(number << 3 | wire) + length + content


def _on_the_wire() -> list[dict[str, object]]:
    """Return what the encoding of protobuf allows and forbids, and who reads signed bytes meets."""
    good = _raw("checkpoint")
    parts = [
        _field(1, 2, made("session id", 16)),
        _field(2, 2, _hash("profile")),
        _field(3, 2, made("nonce", 32)),
        _field(4, 0, _varint(2)),
        _field(5, 0, _varint(16)),
        _field(6, 2, _hash("token root")),
        _field(7, 2, _field(1, 0, _varint(NOON))),
    ]

    def with_part(number: int, part: bytes) -> bytes:
        return b"".join(part if at == number else one for at, one in enumerate(parts, 1))

    blocks: dict[str, object] = {"block_count": 2, "token_count": 16}
    in_pieces = [
        *parts[:6],
        _field(7, 2, _field(1, 0, _varint(NOON))),
        _field(7, 2, _field(2, 0, _varint(5))),
    ]
    fine: tuple[tuple[str, str, bytes, dict[str, object]], ...] = (
        ("by-hand", "Fields in the order of their numbers.", b"".join(parts), blocks),
        ("in-reverse", "Fields may stand in any order.", b"".join(reversed(parts)), blocks),
        ("field-twice", "Of a field that stands twice the last counts.",
         _field(4, 0, _varint(99)) + good, blocks),
        ("message-in-pieces", "A message that stands twice is put together.",
         b"".join(in_pieces), blocks | {"provider_time.seconds": NOON, "provider_time.nanos": 5}),
        ("varint-long", "A number may be written in more bytes than it needs.",
         with_part(4, _field(4, 0, b"\x82\x80\x00")), blocks),
        ("number-past-32-bits", "Of a number of 32 bits the low 32 count.",
         with_part(4, _field(4, 0, _varint((1 << 32) + 2))), blocks),
        ("time-of-no-fields", "A time that is there and empty is 1970.",
         with_part(7, _field(7, 2, b"")), blocks | {"provider_time.seconds": 0}),
    )  # fmt: skip
    wrong = (
        ("empty", "No bytes.", b""),
        ("garbage", "Bytes that are no message.", b"\xff\xff\xff\xff"),
        ("cut", "The last byte is missing.", good[:-1]),
        ("cut-between-fields", "The time is missing.", b"".join(parts[:6])),
        ("length-past-the-end", "A length that the bytes do not have.",
         with_part(7, b"\x3a\xff\xff\xff\xff\x0f")),
        ("varint-endless", "A number of more than ten bytes.",
         with_part(4, _field(4, 0, b"\x80" * 10 + b"\x01"))),
        ("field-twice-the-last-one-wrong", "Of a field that stands twice the last counts.",
         good + _field(4, 0, _varint(0))),
        ("number-as-fixed-32", "Field 4 of another wire type is a field that is not known.",
         good + _field(4, 5, bytes((2, 0, 0, 0)))),
        ("number-as-bytes", "Field 4 of another wire type is a field that is not known.",
         good + _field(4, 2, b"\x02")),
        ("bytes-as-number", "Field 6 of another wire type is a field that is not known.",
         good + _field(6, 0, _varint(2))),
        ("field-zero", "There is no field 0.", good + _field(0, 0, _varint(1))),
        ("group", "A group, which version 1 has none of.", good + b"\xfb\x07\xfc\x07"),
        ("group-not-ended", "A group without its end.", good + b"\xfb\x07"),
        ("group-not-begun", "An end without its group.", good + b"\xfc\x07"),
        ("wire-type-6", "There is no wire type 6.", good + _field(4, 6, b"")),
        ("wire-type-7", "There is no wire type 7.", good + _field(4, 7, b"")),
        ("zeros", "64 zero bytes.", bytes(64)),
        ("json", "Statements have no JSON form.", b'{"blockCount": 2}'),
    )  # fmt: skip
    found = [_read(f"wire-{name}", about, "checkpoint", raw, fields)
             for name, about, raw, fields in fine]  # fmt: skip
    found += [_refused(f"wire-{name}", about, "checkpoint", raw) for name, about, raw in wrong]
    return [*found, *_texts(), *_repeated()]


def _texts() -> Iterator[dict[str, object]]:
    """Yield challenges of verifiers whose name is no UTF-8."""
    without_name = _raw("challenge", without("verifier"))
    for name, about, raw in (
        ("not-utf-8", "A name that is no UTF-8.", b"verif\xff"),
        ("overlong", "UTF-8 writes each character in one way.", b"verif\xc0\xa9"),
        ("surrogate", "UTF-8 writes no halves of surrogate pairs.", b"verif\xed\xa0\x80"),
        ("past-unicode", "UTF-8 ends where Unicode does.", b"verif\xf4\x90\x80\x80"),
    ):
        yield _refused(f"wire-text-{name}", about, "challenge", without_name + _field(2, 2, raw))
    yield _read(
        "wire-text-with-a-zero",
        "A zero is a character like others.",
        "challenge",
        without_name + _field(2, 2, b"a\0b"),
        {"verifier": "a\0b"},
    )


def _repeated() -> Iterator[dict[str, object]]:
    """Yield the ids of a block opened whole, packed and not."""
    alone = _raw("whole-opening", without("blocks"))
    ids = (65, 66, 300)
    packed = _field(2, 2, b"".join(map(_varint, ids)))
    plain = b"".join(_field(2, 0, _varint(token_id)) for token_id in ids)
    mixed = _field(2, 2, _varint(65)) + _field(2, 0, _varint(66)) + _field(2, 2, _varint(300))
    for name, about, raw in (
        ("packed", "Ids in one field, as they are written.", packed),
        ("one-by-one", "Ids in a field each, as they may be written.", plain),
        ("in-pieces", "Some in one field, one in its own.", mixed),
    ):
        yield _read(
            f"wire-ids-{name}",
            about,
            "whole-opening",
            alone + _field(4, 2, raw),
            {"blocks.0.token_ids": list(ids)},
        )
