"""Test vectors of evidence files: two statements that nobody honest signs both (section 11).

Commitments are edits of a `World`'s, signed as in `key_vectors`, heads those of `log_vectors`.
What each file proves, or why it proves nothing, is stated by hand.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ed25519
from google.protobuf import json_format

from coin_protocol.keyset import stamp
from coin_protocol.testing.forgeries import both, flipped, put
from coin_protocol.testing.key_vectors import KEY_SET, key_id, pem, signed, spki
from coin_protocol.testing.log_vectors import LOG, WITNESSES, NoteKey, head_text, note, signed_head
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    in_base64,
    made,
    refused,
)
from coin_protocol.testing.world import PROVIDER, START, Edit, World
from coin_protocol.v1 import envelope_pb2, keys_pb2, statements_pb2
from coin_protocol.v1 import evidence_pb2 as pb

FORMAT: Final = "coin.evidence.v1"
_NOTHING: Final = "VerificationError"
_STATEMENT: Final = "StatementError"
_SIGNATURE: Final = "SignatureError"
_INVALID: Final = "InvalidInputError"

_WORLD: Final = World()
_HOUR: Final = timedelta(hours=1)
_SECOND_KEY: Final = "provider's second key"

C = Edit[statements_pb2.Commitment]
_TYPE: Final = "application/vnd.coin.commitment.v1+protobuf"
_VERIFY: Final = "verify_evidence"


def equivocation_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_commitments(), *_no_commitments(), *_heads(), *_no_heads(), *_no_evidence()])


@cache
def _honest() -> statements_pb2.Commitment:
    """Return a commitment to 20 tokens in blocks of 8."""
    return statements_pb2.Commitment.FromString(_WORLD.reply().receipt.commitment.payload)


def _keep(_: object) -> None:
    """Edit nothing."""


def _commitment(edit: Edit[Any] = _keep, signer: str = PROVIDER) -> envelope_pb2.Envelope:
    message = statements_pb2.Commitment()
    message.CopyFrom(_honest())
    edit(message)
    return _signed(message.SerializeToString(deterministic=True), signer)


def _key(name: str) -> ed25519.Ed25519PrivateKey:
    """Return a key of the world; all of the provider's sign in its name."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(_WORLD.random(f"key {name}", 32))


def _signed(
    payload: bytes, signer: str = PROVIDER, payload_type: str = _TYPE
) -> envelope_pb2.Envelope:
    raw = signed(payload, payload_type, (PROVIDER, _key(signer)))
    return envelope_pb2.Envelope.FromString(raw)


def _bill(tokens: int) -> C:
    """Return an edit that counts and bills other tokens than the honest 20."""

    def edit(message: statements_pb2.Commitment) -> None:
        message.reasoning_tokens = tokens
        message.usage.reasoning_tokens = tokens
        message.usage.completion_tokens = tokens + message.answer_tokens

    return edit


def _crash(blocks: int, *more: Edit[Any]) -> C:
    """Return an edit that makes of a commitment what recovery signs for full blocks of 8."""

    def edit(message: statements_pb2.Commitment) -> None:
        message.abort_reason = statements_pb2.ABORT_REASON_CRASHED
        message.block_count = blocks
        message.token_root = made(f"root of {blocks} blocks", 32)
        message.answer_tokens = 0
        message.answer_sha256 = sha256(b"").digest()
        message.usage.prompt_tokens = 0
        _bill(8 * blocks)(message)
        message.ended_at.seconds += 60
        for one in more:
            one(message)

    return edit


def _whole(blocks: int) -> C:
    """Return an edit that ends a reply where `_crash` would cut it, as if nothing had happened."""
    return _crash(blocks, put("abort_reason", statements_pb2.ABORT_REASON_UNSPECIFIED))


def _key_set(*revoked: str) -> envelope_pb2.Envelope:
    """Return the provider's key set, some keys revoked an hour after the reply."""
    message = keys_pb2.KeySet(owner=PROVIDER, issued_at=stamp(START), sequence=2)
    for name in (PROVIDER, _SECOND_KEY):
        message.keys.add(
            name=PROVIDER,
            algorithm=keys_pb2.KEY_ALGORITHM_ED25519,
            spki=spki(_key(name)),
            not_before=stamp(START - 24 * _HOUR),
            not_after=stamp(START + 24 * _HOUR),
            revoked_at=stamp(START + _HOUR) if name in revoked else None,
        )
    payload = message.SerializeToString(deterministic=True)
    return envelope_pb2.Envelope.FromString(signed(payload, KEY_SET, ("root", _key("root"))))


def _evidence(
    first: envelope_pb2.Envelope,
    second: envelope_pb2.Envelope,
    key_set: envelope_pb2.Envelope | None = None,
) -> pb.Evidence:
    key_set = key_set or _key_set()
    return pb.Evidence(
        format=FORMAT,
        commitments=pb.CommitmentEquivocation(key_set=key_set, first=first, second=second),
    )


_ROOT: Final = pem(spki(_key("root")))


def _given(
    evidence: pb.Evidence | bytes, *, roots: list[str] | None = None, log: NoteKey | None = None
) -> dict[str, object]:
    raw = evidence
    if isinstance(raw, pb.Evidence):
        raw = raw.SerializeToString(deterministic=True)
    vkey = None if log is None else log.vkey
    return {"file": in_base64(raw), "provider_roots": roots, "log": vkey}


def _commitments() -> list[dict[str, object]]:
    honest = _commitment()
    crashed = _commitment(_crash(1))
    second = _commitment(_bill(28), _SECOND_KEY)
    pairs: tuple[tuple[str, str, envelope_pb2.Envelope, envelope_pb2.Envelope], ...] = (
        ("bills-more", "The second commitment bills eight tokens more.",
         honest, _commitment(_bill(28))),
        ("bills-less", "Whichever comes first.", _commitment(_bill(28)), honest),
        ("of-another-tree", "The same counts over other tokens.",
         honest, _commitment(put("token_root", bytes(32)))),
        ("of-another-answer", "Another answer was committed to.",
         honest, _commitment(put("answer_sha256", bytes(32)))),
        ("of-another-end", "A nanosecond is a difference.",
         honest, _commitment(put("ended_at.nanos", 1))),
        ("by-two-keys", "Two keys of one key set signed.", honest, second),
        ("client-disconnected", "One says that the client hung up.", honest,
         _commitment(put("abort_reason", statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED))),
        ("crash-of-another-anchor", "A crash does not change the flip anchor.", honest,
         _commitment(_crash(1, put("flip_anchor", bytes(32))))),
        ("crash-of-another-nonce", "Nor the client's nonce.", honest,
         _commitment(_crash(1, put("client_nonce", bytes(32))))),
        ("crash-of-another-request", "Nor the request.", honest,
         _commitment(_crash(1, put("request_sha256", bytes(32))))),
        ("crash-of-another-model", "Nor the model.", honest,
         _commitment(_crash(1, put("model", "another")))),
        ("crash-of-another-profile", "Nor the profile.", honest,
         _commitment(_crash(1, put("profile_sha256", bytes(32))))),
        ("crash-of-another-start", "Nor when the reply began.", honest,
         _commitment(_crash(1, put("started_at.nanos", 1)))),
        ("crash-that-bills-the-prompt", "After a crash nothing but reasoning is billed.", honest,
         _commitment(_crash(1, put("usage.prompt_tokens", 7)))),
        ("crash-that-bills-an-answer", "After a crash nothing but reasoning is billed.", honest,
         _commitment(_crash(1, put("answer_tokens", 5)))),
        ("crash-past-the-end", "More was on disk than the reply ended with.", honest,
         _commitment(_crash(50))),
        ("crash-in-as-many-blocks", "Fewer tokens in as many blocks are no full blocks.", honest,
         _commitment(_crash(2, put("block_count", 3)))),
        ("two-crashes-over-other-tokens", "Of as many tokens there is one tree only.", crashed,
         _commitment(_crash(1, put("token_root", bytes(32))))),
    )  # fmt: skip
    found = []
    for name, about, first, other in pairs:
        given = _given(_evidence(first, other), roots=[_ROOT])
        found.append(accepted(f"commitments-{name}", about, _VERIFY, given, _value(first, other)))
    pair = honest, second
    for name, about, revoked in (
        ("by-a-key-revoked-later", "A key revoked since is named beside the finding.",
         (PROVIDER,)),
        ("by-two-keys-revoked-later", "Both are.", (PROVIDER, _SECOND_KEY)),
    ):  # fmt: skip
        given = _given(_evidence(*pair, _key_set(*revoked)), roots=[_ROOT])
        value = _value(*pair) | {
            "revoked": [key_id(PROVIDER, 1, spki(_key(key))) for key in revoked]
        }
        found.append(accepted(f"commitments-{name}", about, _VERIFY, given, value))
    text = json_format.MessageToJson(_evidence(*pair), preserving_proto_field_name=True).encode()
    given = _given(text, roots=[_ROOT])
    about = "Evidence in its JSON form."
    return [*found, accepted("commitments-in-json", about, _VERIFY, given, _value(*pair))]


def _value(first: envelope_pb2.Envelope, second: envelope_pb2.Envelope) -> dict[str, object]:
    return {
        "kind": "commitments",
        "party": PROVIDER,
        "subject": _honest().session_id.hex(),
        "first": sha256(first.payload).digest(),
        "second": sha256(second.payload).digest(),
        "revoked": [],
    }


def _reordered() -> envelope_pb2.Envelope:
    """Return the honest commitment, its fields written in another order."""
    message = statements_pb2.Commitment()
    message.CopyFrom(_honest())
    provider = statements_pb2.Commitment(provider=message.provider).SerializeToString()
    message.ClearField("provider")
    return _signed(provider + message.SerializeToString(deterministic=True))


def _altered() -> envelope_pb2.Envelope:
    found = _commitment()
    found.payload = _commitment(_bill(28)).payload
    return found


def _no_commitments() -> list[dict[str, object]]:
    honest, more = _commitment(), _commitment(_bill(28))
    crashed = _commitment(_crash(1))
    later = _commitment(_crash(1, put("ended_at.nanos", 1)))
    late = stamp(START + 30 * _HOUR)
    pairs: tuple[tuple[str, str, envelope_pb2.Envelope, envelope_pb2.Envelope, str], ...] = (
        ("of-one-statement", "The same envelope twice.", honest, honest, _NOTHING),
        ("of-one-statement-in-two-encodings", "The same statement, its fields in another order.",
         honest, _reordered(), _NOTHING),
        ("of-one-statement-by-two-keys", "The same statement, signed by two keys.", honest,
         _commitment(signer=_SECOND_KEY), _NOTHING),
        ("of-two-sessions", "Two sessions have two commitments.", honest,
         _commitment(both(_bill(28), put("session_id", bytes(16)))), _NOTHING),
        ("explained-by-a-crash", "A database that lost its last writes closes a session again.",
         honest, crashed, _NOTHING),
        ("explained-by-a-crash-first", "Whichever comes first.", crashed, honest, _NOTHING),
        ("explained-by-a-crash-of-two-blocks", "All full blocks were on disk.", honest,
         _commitment(_crash(2)), _NOTHING),
        ("explained-by-a-crash-of-nothing", "No block was on disk.", honest,
         _commitment(_crash(0)), _NOTHING),
        ("of-two-crashes", "It was closed twice, of the same blocks.", crashed, later, _NOTHING),
        ("of-two-crashes-one-further", "It was closed twice, of more blocks then.", crashed,
         _commitment(_crash(2)), _NOTHING),
        ("of-a-crash-after-the-end", "The reply had ended with these blocks.", later,
         _commitment(_whole(1)), _NOTHING),
        ("by-a-stranger", "A key that the key set does not list.", honest,
         _commitment(_bill(28), "stranger"), _SIGNATURE),
        ("altered", "The second was altered after it was signed.", honest, _altered(), _SIGNATURE),
        ("unsigned", "The second is signed by nobody.", honest,
         envelope_pb2.Envelope(payload=more.payload, payload_type=more.payload_type), _SIGNATURE),
        ("beside-another-statement", "The second is signed as an opening.", honest,
         _signed(more.payload, payload_type=_TYPE.replace("commitment", "opening")), _SIGNATURE),
        ("of-another-provider", "The second names another provider.", honest,
         _commitment(both(_bill(28), put("provider", "another"))), _STATEMENT),
        ("malformed", "The second is no commitment of version 1.", honest,
         _signed(more.payload + b"\xf8\x07\x01"), _STATEMENT),
        ("past-its-key-s-window", "The second is dated after its key's window.", honest,
         _commitment(both(_bill(28), put("ended_at", late))), "KeyWindowError"),
    )  # fmt: skip
    found = []
    for name, about, first, second, error in pairs:
        given = _given(_evidence(first, second), roots=[_ROOT])
        found.append(refused(f"commitments-{name}", about, _VERIFY, given, error))
    pair = honest, more
    other_root = pem(spki(_key("another root")))
    early = stamp(START + 2 * _HOUR)
    after = honest, _commitment(both(_bill(28), put("ended_at", early)))
    stolen = _evidence(*after, _key_set(PROVIDER))
    broken = _evidence(*pair)
    flipped("commitments.key_set.payload")(broken)
    for name, about, given, error in (
        ("under-another-root", "The reader pins another root.",
         _given(_evidence(*pair), roots=[other_root]), _SIGNATURE),
        ("under-no-root", "The reader pins no root.", _given(_evidence(*pair), roots=[]),
         _SIGNATURE),
        ("under-a-key-set-altered", "The key set was altered.", _given(broken, roots=[_ROOT]),
         _SIGNATURE),
        ("after-the-revocation", "The second is dated after its key's revocation.",
         _given(stolen, roots=[_ROOT]), "KeyWindowError"),
        ("without-trust", "Nobody says whom to believe.", _given(_evidence(*pair), log=LOG),
         _INVALID),
    ):  # fmt: skip
        found.append(refused(f"commitments-{name}", about, _VERIFY, given, error))
    return found


# Heads.


def _two_heads(first: bytes, second: bytes) -> pb.Evidence:
    return pb.Evidence(format=FORMAT, heads=pb.HeadEquivocation(first=first, second=second))


_ONE: Final = made("root one", 32)
_TWO: Final = made("root two", 32)


def _heads() -> list[dict[str, object]]:
    other = "go.sum database tree"
    cosigned = head_text(7, _TWO)
    cases = (
        ("of-one-size", "Two roots of seven leaves.", 7, LOG.name,
         signed_head(head_text(7, _ONE)), signed_head(head_text(7, _TWO))),
        ("of-nothing", "Two roots of no leaves.", 0, LOG.name,
         signed_head(head_text(0, sha256(b"").digest())), signed_head(head_text(0, _TWO))),
        ("of-the-greatest-size", "Two roots of 2^63 - 1 leaves.", (1 << 63) - 1, LOG.name,
         signed_head(head_text((1 << 63) - 1, _ONE)), signed_head(head_text((1 << 63) - 1, _TWO))),
        ("of-an-origin-unlike-the-key", "The log is the one that the heads name.", 7, other,
         signed_head(head_text(7, _ONE, origin=other)),
         signed_head(head_text(7, _TWO, origin=other))),
        ("one-cosigned", "A witness was shown one of them.", 7, LOG.name,
         signed_head(head_text(7, _ONE)), signed_head(cosigned, WITNESSES[0].line(cosigned))),
    )  # fmt: skip
    return [
        accepted(
            f"heads-{name}",
            about,
            _VERIFY,
            _given(_two_heads(first, second), log=LOG),
            {
                "kind": "heads",
                "party": origin,
                "subject": str(size),
                "first": _ONE if size else sha256(b"").digest(),
                "second": _TWO,
                "revoked": [],
            },
        )
        for name, about, size, origin, first, second in cases
    ]


def _no_heads() -> list[dict[str, object]]:
    first = signed_head(head_text(7, _ONE))
    second = head_text(7, _TWO)
    other = head_text(7, _TWO, origin="example.org/other")
    impostor = NoteKey(LOG.name, "impostor")
    cases = (
        ("of-one-tree", "The same head twice.", first, first, LOG, _NOTHING),
        ("of-one-tree-with-an-extension", "One root, under two texts.", first,
         signed_head(head_text(7, _ONE, "a line")), LOG, _NOTHING),
        ("of-two-sizes", "A log that grew.", first, signed_head(head_text(8, _TWO)), LOG, _NOTHING),
        ("of-two-origins", "Two logs that share a key.", first, signed_head(other), LOG, _NOTHING),
        ("by-an-impostor", "Another key under the log's name.", first,
         note(second, impostor.line(second)), LOG, _SIGNATURE),
        ("under-another-key", "The reader knows another key.", first, signed_head(second), impostor,
         _SIGNATURE),
        ("altered", "The second was altered after it was signed.", first,
         note(second, LOG.line(head_text(7, _ONE))), LOG, _SIGNATURE),
        ("by-a-witness-alone", "The log did not sign the second.", first,
         note(second, WITNESSES[0].line(second)), LOG, _SIGNATURE),
        ("one-empty", "The second is no note.", first, b"", LOG, _STATEMENT),
        ("one-of-no-size", "The second is no head.", first,
         signed_head(head_text("07", _TWO)), LOG, _STATEMENT),
        ("one-too-long", "A line of the second is longer than 8 KiB.", first,
         signed_head(head_text(7, _TWO, "x" * 8193)), LOG, _STATEMENT),
        ("without-a-key", "Nobody says which key is the log's.", first, signed_head(second), None,
         _INVALID),
    )  # fmt: skip
    found = []
    for name, about, one, two, log, error in cases:
        roots = [_ROOT] if log is None else None
        given = _given(_two_heads(one, two), log=log, roots=roots)
        found.append(refused(f"heads-{name}", about, _VERIFY, given, error))
    return found


# Files.


def _no_evidence() -> list[dict[str, object]]:
    good = _two_heads(signed_head(head_text(7, _ONE)), signed_head(head_text(7, _TWO)))
    later = pb.Evidence()
    later.CopyFrom(good)
    later.format = "coin.evidence.v2"
    text = json_format.MessageToJson(good, preserving_proto_field_name=True)
    cases = (
        ("empty", "No bytes.", b""),
        ("garbage", "Bytes that are no message.", b"\xff\xff"),
        ("of-version-2", "A file of a later version.", later.SerializeToString()),
        ("of-no-format", "A file says what it is.", pb.Evidence(heads=good.heads)
         .SerializeToString()),
        ("of-a-receipt-s-format", "A file says what it is.",
         pb.Evidence(format="coin.receipt.v1", heads=good.heads).SerializeToString()),
        ("of-nothing", "A format alone.", pb.Evidence(format=FORMAT).SerializeToString()),
        ("in-json-of-nothing", "A format alone.", b'{"format": "coin.evidence.v1"}'),
        ("in-json-of-another-type", "A field of another type.",
         b'{"format": "coin.evidence.v1", "heads": 3}'),
        ("in-json-with-an-unknown-field", "A field that version 1 does not know.",
         text.replace('"heads"', '"tails"').encode()),
        ("in-json-cut", "The last bracket is missing.", text.rstrip()[:-1].encode()),
    )  # fmt: skip
    return [
        refused(f"file-{name}", about, _VERIFY, _given(raw, log=LOG, roots=[_ROOT]), _INVALID)
        for name, about, raw in cases
    ]
