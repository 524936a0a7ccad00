"""Test vectors of keys and key sets: ids, what is refused, windows, order (section 5).

Key ids are hashed here a second time, from the protocol's page; keys come from `cryptography`
and their SubjectPublicKeyInfo is put together by hand, so that malformed ones can be. What
must come of each is stated by hand.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.testing.encoding_vectors import tag
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    in_base64,
    made,
    refused,
)
from coin_protocol.v1 import envelope_pb2, keys_pb2

ED25519: Final = "KEY_ALGORITHM_ED25519"
ECDSA_P256: Final = "KEY_ALGORITHM_ECDSA_P256_SHA256"

KEY_SET: Final = "application/vnd.coin.keyset.v1+protobuf"
NOON: Final = 1_767_268_800
"""2026-01-01T12:00:00Z."""

_DAY: Final = 86_400
_INVALID: Final = "InvalidInputError"
_STATEMENT: Final = "StatementError"
_ED25519_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_P256_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_P256_PACKED_HEAD: Final = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")


def ed25519_key(name: str) -> ed25519.Ed25519PrivateKey:
    """Return a key made of its name."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(made(f"ed25519 {name}", 32))


def p256_key(name: str) -> ec.EllipticCurvePrivateKey:
    """Return a key made of its name."""
    return ec.derive_private_key(int.from_bytes(made(f"p256 {name}", 31), "big"), ec.SECP256R1())


def spki(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half as a DER SubjectPublicKeyInfo."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return _ED25519_HEAD + key.public_key().public_bytes_raw()
    return _P256_HEAD + _point(key, packed=False)


def pem(der: bytes) -> str:
    """Return a public key as PEM."""
    body = b64encode(der).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def key_id(name: str, algorithm: int, der: bytes) -> str:
    """Return a key id."""
    raw = name.encode()
    head = tag("coin.key.v1") + len(raw).to_bytes(2, "big") + raw + bytes((algorithm,))
    return sha256(head + der).hexdigest()


def signed(payload: bytes, kind: str, *signers: tuple[str, ed25519.Ed25519PrivateKey]) -> bytes:
    """Return a serialized envelope, signed by Ed25519 keys under their names."""
    covered = encoded(kind.encode(), payload)
    return envelope_pb2.Envelope(
        payload=payload,
        payload_type=kind,
        signatures=[
            envelope_pb2.Signature(sig=key.sign(covered), keyid=key_id(name, 1, spki(key)))
            for name, key in signers
        ],
    ).SerializeToString(deterministic=True)


def encoded(kind: bytes, payload: bytes) -> bytes:
    """Return what DSSE signs."""
    return b" ".join(
        (b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload)
    )


def key_vectors() -> Documents:
    """Return all vectors."""
    return by_file(
        [
            *_read_keys(),
            *_refused_keys(),
            *_windows(),
            *_read_key_sets(),
            *_refused_key_sets(),
            *_successions(),
            *_rooted(),
        ]
    )


def _point(key: ec.EllipticCurvePrivateKey, *, packed: bool) -> bytes:
    form = (
        serialization.PublicFormat.CompressedPoint
        if packed
        else serialization.PublicFormat.UncompressedPoint
    )
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def _read_keys() -> list[dict[str, object]]:
    one, curve = ed25519_key("one"), p256_key("one")
    cases = (
        ("ed25519", "An Ed25519 key.", "acme", 1, spki(one)),
        ("ecdsa", "A P-256 key.", "acme", 2, spki(curve)),
        ("of-another-name", "The name is in the id.", "acme-2", 1, spki(one)),
        ("named-in-utf-8", "A name's length is that of its bytes.", "ácme", 1, spki(one)),
        ("named-by-one-byte", "The shortest name.", "a", 1, spki(one)),
        ("named-by-256-bytes", "The longest name.", "é" * 128, 1, spki(one)),
    )
    return [
        accepted(
            f"key-{name}",
            about,
            "read_key",
            {"name": named, "spki": der},
            {
                "algorithm": ED25519 if algorithm == 1 else ECDSA_P256,
                "keyid": key_id(named, algorithm, der),
            },
        )
        for name, about, named, algorithm, der in cases
    ]


# Points of order 1, 2, 4 and 8 on edwards25519, as they are encoded and in the other encodings
# that some decoders take. Source: RFC 8032 section 5.1.3 and the group's equation.
_EIGHTH: Final = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
_PRIME: Final = 2**255 - 19


def _small_order() -> Iterable[tuple[str, bytes]]:
    eighth = int.from_bytes(bytes.fromhex(_EIGHTH), "little")
    for name, y in (
        ("order-1", 1),
        ("order-2", _PRIME - 1),
        ("order-4", 0),
        ("order-8", eighth),
        ("the-other-order-8", _PRIME - eighth),
        ("order-4-past-the-prime", _PRIME),
        ("order-1-past-the-prime", _PRIME + 1),
    ):
        yield name, y.to_bytes(32, "little")
        yield f"{name}-with-the-sign-bit", (y | 1 << 255).to_bytes(32, "little")


def _refused_keys() -> list[dict[str, object]]:
    one, curve = spki(ed25519_key("one")), spki(p256_key("one"))
    p384 = ec.derive_private_key(12_345, ec.SECP384R1()).public_key()
    other = x25519.X25519PrivateKey.from_private_bytes(made("x25519", 32)).public_key()
    modulus = int.from_bytes(b"\xc1" + made("modulus", 255), "big") | 1
    large = rsa.RSAPublicNumbers(65_537, modulus).public_key()
    small = [
        refused(
            f"key-of-{name}",
            "A key of small order: anyone can sign for it.",
            "read_key",
            {"name": "acme", "spki": _ED25519_HEAD + raw},
            _INVALID,
        )
        for name, raw in _small_order()
    ]
    off_curve = curve[:-1] + bytes((curve[-1] ^ 1,))
    packed = _P256_PACKED_HEAD + _point(p256_key("one"), packed=True)
    cases = (
        ("empty", "No bytes.", "acme", b""),
        ("not-der", "Bytes that are no DER.", "acme", b"\xff" * 44),
        ("cut", "The last byte is missing.", "acme", one[:-1]),
        ("with-a-byte-more", "A byte behind the key.", "acme", one + b"\0"),
        ("raw", "32 bytes alone are no SubjectPublicKeyInfo.", "acme", one[-32:]),
        ("of-31-bytes", "A point of 31 bytes.", "acme",
         bytes.fromhex("3029300506032b6570032000") + one[-31:]),
        ("of-long-lengths", "One key in two encodings would have two ids.", "acme",
         b"\x30\x81\x2a" + one[2:]),
        ("of-a-packed-point", "One key in two encodings would have two ids.", "acme", packed),
        ("off-its-curve", "A point that is not on P-256.", "acme", off_curve),
        ("of-p384", "Another curve.", "acme", _der(p384)),
        ("of-x25519", "A key that cannot sign.", "acme", _der(other)),
        ("of-rsa", "Another algorithm.", "acme", _der(large)),
        ("in-pem", "PEM where DER is wanted.", "acme", pem(one).encode()),
        ("without-a-name", "A name has a byte at least.", "", one),
        ("named-by-257-bytes", "A name has at most 256 bytes.", "x" * 257, one),
        ("named-by-258-bytes", "129 characters of two bytes.", "é" * 129, one),
    )  # fmt: skip
    return small + [
        refused(f"key-{name}", about, "read_key", {"name": named, "spki": der}, _INVALID)
        for name, about, named, der in cases
    ]


def _der(key: ec.EllipticCurvePublicKey | x25519.X25519PublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _windows() -> list[dict[str, object]]:
    begin, end = "2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z"
    middle = "2026-01-02T00:00:00Z"
    cases: tuple[tuple[str, str, str, str | None, bool], ...] = (
        ("at-its-begin", "The first moment counts.", begin, None, True),
        ("inside", "Somewhere inside.", middle, None, True),
        ("just-before-its-end", "The last microsecond counts.",
         "2026-01-02T11:59:59.999999Z", None, True),
        ("before-its-begin", "A microsecond early.", "2026-01-01T11:59:59.999999Z", None, False),
        ("at-its-end", "The end is outside.", end, None, False),
        ("past-its-end", "A second late.", "2026-01-02T12:00:01Z", None, False),
        ("just-before-its-revocation", "The key was good until then.",
         "2026-01-01T23:59:59.999999Z", middle, True),
        ("at-its-revocation", "Revocation is outside.", middle, middle, False),
        ("past-its-revocation", "Inside the window, but revoked.",
         "2026-01-02T06:00:00Z", middle, False),
        ("revoked-past-its-end", "A revocation later than the window changes nothing.",
         middle, "2026-01-03T00:00:00Z", True),
        ("past-its-end-and-revoked-later", "A revocation does not prolong a window.",
         "2026-01-02T18:00:00Z", "2026-01-03T00:00:00Z", False),
        ("revoked-before-its-begin", "A key that was never good.",
         begin, "2026-01-01T06:00:00Z", False),
        ("at-its-begin-but-for-nanoseconds", "Times are cut to microseconds.",
         "2026-01-01T12:00:00.000000999Z", None, True),
        ("at-a-revocation-but-for-nanoseconds", "Times are cut to microseconds, both of them.",
         "2026-01-02T00:00:00.000000100Z", "2026-01-02T00:00:00.000000900Z", False),
    )  # fmt: skip
    found = []
    for name, about, at, revoked, holds in cases:
        given: dict[str, object] = {
            "not_before": begin,
            "not_after": end,
            "revoked_at": revoked,
            "at": at,
        }
        if holds:
            found.append(accepted(f"window-{name}", about, "key_window", given))
        else:
            found.append(refused(f"window-{name}", about, "key_window", given, "KeyWindowError"))
    return found


def _listed(of: str, **change: object) -> keys_pb2.PublicKey:
    """Return a key of a key set, as it should be but for some fields."""
    fields: dict[str, object] = {
        "name": "acme",
        "algorithm": 1,
        "spki": spki(ed25519_key(of)),
        "not_before": Timestamp(seconds=NOON),
        "not_after": Timestamp(seconds=NOON + _DAY),
    }
    known = {key: value for key, value in (fields | change).items() if value is not None}
    return keys_pb2.PublicKey(**known)  # type: ignore[arg-type] # the fields of the message


def _key_set(keys: Iterable[keys_pb2.PublicKey], sequence: int = 1) -> bytes:
    message = keys_pb2.KeySet(
        owner="acme", keys=keys, issued_at=Timestamp(seconds=NOON), sequence=sequence
    )
    return message.SerializeToString(deterministic=True)


def _ids(*names: str) -> list[str]:
    return [key_id("acme", 1, spki(ed25519_key(name))) for name in names]


def _read_key_sets() -> list[dict[str, object]]:
    curve = p256_key("one")
    named = _listed("one", name="acme-2")
    cases: tuple[tuple[str, str, list[keys_pb2.PublicKey], int, list[str]], ...] = (
        ("of-one-key", "One key.", [_listed("one")], 1, _ids("one")),
        ("of-two-keys", "Keys stand in the order of the key set.",
         [_listed("two"), _listed("one")], 2, _ids("two", "one")),
        ("of-both-algorithms", "Algorithms may be mixed.",
         [_listed("one"), _listed("x", algorithm=2, spki=spki(curve))], 3,
         [*_ids("one"), key_id("acme", 2, spki(curve))]),
        ("of-a-revoked-key", "Revoked keys stay listed.",
         [_listed("one", revoked_at=Timestamp(seconds=NOON))], 4, _ids("one")),
        ("of-no-keys", "A key set may list nothing, and nothing is signed then.", [], 5, []),
        ("of-one-key-under-two-names", "Two names, two ids.",
         [_listed("one"), named], 6, [*_ids("one"), key_id("acme-2", 1, spki(ed25519_key("one")))]),
        ("of-the-greatest-sequence", "A sequence may have 64 bits.",
         [_listed("one")], (1 << 64) - 1, _ids("one")),
    )  # fmt: skip
    return [
        accepted(
            f"key-set-{name}",
            about,
            "read_key_set",
            {"payload": in_base64(_key_set(keys, sequence))},
            {"owner": "acme", "sequence": str(sequence), "keyids": ids},
        )
        for name, about, keys, sequence, ids in cases
    ]


def _refused_key_sets() -> list[dict[str, object]]:
    good = _listed("one")
    noon = Timestamp(seconds=NOON)
    identity = _ED25519_HEAD + (1).to_bytes(32, "little")
    cases: tuple[tuple[str, str, bytes], ...] = (
        ("key-twice", "A key stands twice.", _key_set([good, good])),
        ("key-twice-in-other-windows", "A key in two windows is a key twice.",
         _key_set([good, _listed("one", not_after=Timestamp(seconds=NOON + 1))])),
        ("key-of-small-order", "Anyone could sign for the provider.",
         _key_set([_listed("one", spki=identity)])),
        ("key-of-another-algorithm", "An Ed25519 key that is listed as ECDSA.",
         _key_set([_listed("one", algorithm=2)])),
        ("key-of-no-algorithm", "The algorithm must be said.",
         _key_set([_listed("one", algorithm=0)])),
        ("key-of-an-unknown-algorithm", "Algorithm 3 is none of version 1.",
         _key_set([_listed("one", algorithm=3)])),
        ("key-without-bytes", "A key without a key.", _key_set([_listed("one", spki=b"")])),
        ("key-without-a-name", "A key without a name.", _key_set([_listed("one", name="")])),
        ("window-without-begin", "Both ends must be said.",
         _key_set([_listed("one", not_before=None)])),
        ("window-without-end", "Both ends must be said.",
         _key_set([_listed("one", not_after=None)])),
        ("window-empty", "It ends where it begins.", _key_set([_listed("one", not_after=noon)])),
        ("window-backwards", "It ends before it begins.",
         _key_set([_listed("one", not_after=Timestamp(seconds=NOON - 1))])),
        ("window-of-nanoseconds", "Cut to microseconds it is empty.",
         _key_set([_listed("one", not_after=Timestamp(seconds=NOON, nanos=999))])),
        ("window-past-the-year-9999", "Times lie in the years 1 to 9999.",
         _key_set([_listed("one", not_after=Timestamp(seconds=253_402_300_800))])),
        ("window-before-the-year-1", "Times lie in the years 1 to 9999.",
         _key_set([_listed("one", not_before=Timestamp(seconds=-62_135_596_801))])),
        ("revocation-of-no-time", "A second has 10^9 nanoseconds.",
         _key_set([_listed("one", revoked_at=Timestamp(seconds=NOON, nanos=1_000_000_000))])),
        ("past-1024-keys", "At most 1024 keys are read, whatever they are.",
         _key_set([keys_pb2.PublicKey()] * 1025)),
        ("without-an-owner", "A key set is somebody's.",
         keys_pb2.KeySet(keys=[good], issued_at=noon).SerializeToString()),
        ("without-a-date", "A key set is dated.",
         keys_pb2.KeySet(owner="acme", keys=[good]).SerializeToString()),
        ("with-an-unknown-field", "Version 1 knows no field 127.",
         _key_set([good]) + b"\xf8\x07\x01"),
        ("empty", "No bytes.", b""),
        ("garbage", "Bytes that are no message.", b"\xff\xff\xff"),
    )  # fmt: skip
    return [
        refused(
            f"key-set-{name}", about, "read_key_set", {"payload": in_base64(payload)}, _STATEMENT
        )
        for name, about, payload in cases
    ]


def _successions() -> list[dict[str, object]]:
    one, two, three = _listed("one"), _listed("two"), _listed("three")
    old = _key_set([one, two], 7)
    revoked = _listed("one", revoked_at=Timestamp(seconds=NOON))
    other = keys_pb2.KeySet.FromString(_key_set([one, two, three], 8))
    other.owner = "bcme"
    cases = (
        ("with-a-key-more", "A key more, and all older ones.",
         _key_set([one, two, three], 8), True),
        ("with-the-same-keys", "The sequence alone is greater.", _key_set([one, two], 8), True),
        ("with-a-key-revoked", "A revoked key is still listed.", _key_set([revoked, two], 8), True),
        ("in-another-order", "Order does not matter.", _key_set([three, two, one], 100), True),
        ("of-the-same-sequence", "It must be greater.", _key_set([one, two, three], 7), False),
        ("of-a-smaller-sequence", "An older key set.", _key_set([one, two], 6), False),
        ("without-an-old-key", "What it signed could no longer be checked.",
         _key_set([one, three], 8), False),
        ("with-an-old-key-renamed", "Under another name it is another key.",
         _key_set([one, _listed("two", name="acme-2")], 8), False),
        ("of-another-owner", "Somebody else's.", other.SerializeToString(), False),
    )  # fmt: skip
    return [
        accepted(
            f"succession-{name}",
            about,
            "continues",
            {"older": in_base64(old), "newer": in_base64(newer)},
            {"continues": holds},
        )
        for name, about, newer, holds in cases
    ]


def _rooted() -> list[dict[str, object]]:
    root, other = ed25519_key("root"), ed25519_key("another root")
    payload = _key_set([_listed("one")])
    good = signed(payload, KEY_SET, ("root", root))
    altered = envelope_pb2.Envelope.FromString(good)
    altered.payload = _key_set([_listed("one"), _listed("two")])
    unsigned = envelope_pb2.Envelope.FromString(good)
    unsigned.ClearField("signatures")
    both = [pem(spki(other)), pem(spki(root))]
    value = {"owner": "acme", "sequence": "1", "keyids": _ids("one")}
    cases: tuple[tuple[str, str, bytes, list[str], str | None], ...] = (
        ("pinned", "A pinned root signed it.", good, both[1:], None),
        ("one-of-two-pinned", "One of the pinned roots signed it.", good, both, None),
        ("signed-by-two-roots", "Signed by the old root and by the new one.",
         signed(payload, KEY_SET, ("root", other), ("root", root)), both[1:], None),
        ("not-pinned", "Another root signed it.", good, both[:1], "SignatureError"),
        ("none-pinned", "Nobody is believed.", good, [], "SignatureError"),
        ("altered", "A key was added after it was signed.",
         altered.SerializeToString(), both, "SignatureError"),
        ("unsigned", "Nobody signed it.", unsigned.SerializeToString(), both, "SignatureError"),
        ("signed-under-another-name", "Root keys sign under the name root.",
         signed(payload, KEY_SET, ("acme", root)), both, "SignatureError"),
        ("of-another-type", "Signed as a commitment.",
         signed(payload, KEY_SET.replace("keyset", "commitment"), ("root", root)), both,
         "SignatureError"),
        ("of-version-2", "Signed as a later version's.",
         signed(payload, KEY_SET.replace("v1", "v2"), ("root", root)), both, "SignatureError"),
        ("signed-by-its-own-key", "A key cannot vouch for itself.",
         signed(payload, KEY_SET, ("acme", ed25519_key("one"))), both, "SignatureError"),
        ("malformed", "A root signed a key set that lists a key twice.",
         signed(_key_set([_listed("one")] * 2), KEY_SET, ("root", root)), both, _STATEMENT),
    )  # fmt: skip
    found = []
    for name, about, envelope, roots, error in cases:
        given = {"envelope": in_base64(envelope), "roots": roots}
        if error is None:
            found.append(accepted(f"rooted-{name}", about, "open_key_set", given, value))
        else:
            found.append(refused(f"rooted-{name}", about, "open_key_set", given, error))
    return found
