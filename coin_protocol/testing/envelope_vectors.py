"""Test vectors of signatures and of DSSE envelopes (section 5).

What is signed is put together here a second time; signatures come from `cryptography`, ECDSA
ones by RFC 6979 so that they are always the same, and forgeries are made of their numbers.
What must come of each is stated by hand.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from coin_protocol.testing.key_vectors import (
    ed25519_key,
    encoded,
    key_id,
    p256_key,
    signed,
    spki,
)
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    flip,
    in_base64,
    made,
    refused,
)
from coin_protocol.v1 import envelope_pb2

_ERROR: Final = "SignatureError"
_COMMITMENT: Final = "application/vnd.coin.commitment.v1+protobuf"
_OPENING: Final = "application/vnd.coin.opening.v1+protobuf"

# Orders of the groups: RFC 8032 section 5.1, SEC 2 section 2.4.2.
_ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def envelope_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_encodings(), *_ed25519(), *_ecdsa(), *_envelopes(), *_forged_envelopes()])


def _encodings() -> list[dict[str, object]]:
    cases = (
        ("of-nothing", "Both lengths are 0.", "", b""),
        ("of-the-specification", "The example of DSSE.", "http://example.com/HelloWorld",
         b"hello world"),
        ("of-a-commitment", "A payload type of this protocol.", _COMMITMENT, bytes(range(40))),
        ("of-a-type-in-utf-8", "Lengths are those of bytes.", "application/é", b"\xc3\xa9"),
        ("of-spaces", "Spaces and digits inside change nothing.", "a 1 b", b" 2 c"),
        ("of-1000-bytes", "A length of four digits.", "t", made("payload", 1000)),
    )  # fmt: skip
    return [
        accepted(
            f"pae-{name}",
            about,
            "pae",
            {"payload_type": kind, "payload": payload},
            {"bytes": encoded(kind.encode(), payload)},
        )
        for name, about, kind, payload in cases
    ]


def _ed25519() -> list[dict[str, object]]:
    key, data = ed25519_key("one"), made("data", 100)
    good = key.sign(data)
    point, scalar = good[:32], int.from_bytes(good[32:], "little")
    right = (
        ("good", "A good signature.", data, good),
        ("of-nothing", "A signature over no bytes.", b"", key.sign(b"")),
        ("of-1000-bytes", "A signature over many bytes.", bytes(1000), key.sign(bytes(1000))),
    )
    wrong = (
        ("of-other-data", "A bit of the data is another.", flip(data), good),
        ("of-data-cut", "The data's last byte is missing.", data[:-1], good),
        ("point-altered", "A bit of its first half is another.", data, flip(point) + good[32:]),
        ("scalar-altered", "A bit of its second half is another.", data,
         point + bytes((good[32] ^ 1,)) + good[33:]),
        ("scalar-plus-the-order", "Anyone can add the group's order: one signature only counts.",
         data, point + (scalar + _ED25519_ORDER).to_bytes(32, "little")),
        ("scalar-of-the-order", "The scalar must be below the order.", data,
         point + _ED25519_ORDER.to_bytes(32, "little")),
        ("of-zeros", "64 zero bytes.", data, bytes(64)),
        ("empty", "No bytes.", data, b""),
        ("short", "63 bytes.", data, good[:-1]),
        ("long", "65 bytes.", data, good + b"\0"),
        ("halves-swapped", "The scalar before the point.", data, good[32:] + point),
        ("of-another-key", "Another key signed.", data, ed25519_key("two").sign(data)),
        ("by-ecdsa", "A signature of the other algorithm.", data, _sign(p256_key("one"), data)),
    )  # fmt: skip
    return _signatures("ed25519", spki(key), right, wrong)


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def _integer(number: int, *, padding: int = 0) -> bytes:
    raw = bytes(padding) + number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes((2, len(raw))) + raw


def _sequence(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((0x30, len(body))) + body


def _ecdsa() -> list[dict[str, object]]:
    key, data = p256_key("one"), made("data", 100)
    good = _sign(key, data)
    r, s = decode_dss_signature(good)
    order = _P256_ORDER
    other_hash = key.sign(data, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    # The first data of some whose r begins with a bit that DER would take for a sign.
    unpadded, raw = next(
        (tried, decode_dss_signature(_sign(key, tried)))
        for tried in (made(f"data {number}", 10) for number in range(100))
        if decode_dss_signature(_sign(key, tried))[0] >> 255
    )
    bare = raw[0].to_bytes(32, "big")
    right = (
        ("good", "A good signature.", data, good),
        ("of-nothing", "A signature over no bytes.", b"", _sign(key, b"")),
        ("of-the-other-s", "Anyone can take s from the order, and both signatures count.", data,
         _sequence(_integer(r), _integer(order - s))),
    )  # fmt: skip
    wrong = (
        ("of-other-data", "A bit of the data is another.", flip(data), good),
        ("numbers-swapped", "s before r.", data, _sequence(_integer(s), _integer(r))),
        ("plain", "r and s in 32 bytes each, as other standards have them: not DER.", data,
         r.to_bytes(32, "big") + s.to_bytes(32, "big")),
        ("integer-padded", "An integer with a zero byte too many: BER, and not DER.", data,
         _sequence(_integer(r, padding=1), _integer(s))),
        ("integer-negative", "An integer whose first bit makes it negative.", unpadded,
         _sequence(b"\x02\x20" + bare, _integer(raw[1]))),
        ("length-long", "A length in two bytes where one does: BER, and not DER.", data,
         b"\x30\x81" + good[1:]),
        ("length-indefinite", "A length unsaid: BER, and not DER.", data,
         b"\x30\x80" + good[2:] + b"\0\0"),
        ("with-a-byte-more", "A byte behind the sequence.", data, good + b"\0"),
        ("with-a-number-more", "Three numbers.", data,
         _sequence(_integer(r), _integer(s), _integer(1))),
        ("cut", "The last byte is missing.", data, good[:-1]),
        ("empty", "No bytes.", data, b""),
        ("of-zeros", "r and s are 0.", data, _sequence(_integer(0), _integer(0))),
        ("r-zero", "r is 0.", data, _sequence(_integer(0), _integer(s))),
        ("s-zero", "s is 0.", data, _sequence(_integer(r), _integer(0))),
        ("s-plus-the-order", "s is past the order.", data,
         _sequence(_integer(r), _integer(s + order))),
        ("s-of-the-order", "s is the order.", data, _sequence(_integer(r), _integer(order))),
        ("of-ones", "r and s are 1.", data, _sequence(_integer(1), _integer(1))),
        ("of-another-hash", "Signed with SHA-384.", data, other_hash),
        ("of-another-key", "Another key signed.", data, _sign(p256_key("two"), data)),
        ("by-ed25519", "A signature of the other algorithm.", data, ed25519_key("one").sign(data)),
    )  # fmt: skip
    return _signatures("ecdsa", spki(key), right, wrong)


Signature = tuple[str, str, bytes, bytes]


def _signatures(
    kind: str, der: bytes, right: tuple[Signature, ...], wrong: tuple[Signature, ...]
) -> list[dict[str, object]]:
    def given(data: bytes, signature: bytes) -> dict[str, object]:
        return {"spki": der, "data": data, "signature": signature}

    operation = "verify_signature"
    return [
        accepted(f"{kind}-{name}", about, operation, given(data, signature))
        for name, about, data, signature in right
    ] + [
        refused(f"{kind}-{name}", about, operation, given(data, signature), _ERROR)
        for name, about, data, signature in wrong
    ]


_PAYLOAD: Final = made("statement", 60)
_ONE: Final = ("acme", ed25519_key("one"))
_TWO: Final = ("acme", ed25519_key("two"))
_KEYS: Final[tuple[dict[str, object], ...]] = (
    {"name": "acme", "spki": spki(_ONE[1])},
    {"name": "acme", "spki": spki(_TWO[1])},
)
_STRANGER: Final = ("stranger", ed25519_key("stranger"))


def _id(number: int) -> str:
    return key_id("acme", 1, spki((_ONE, _TWO)[number][1]))


def _given(envelope: bytes, keys: tuple[dict[str, object], ...] = _KEYS) -> dict[str, object]:
    return {"envelope": in_base64(envelope), "payload_type": _COMMITMENT, "keys": list(keys)}


def _envelope(payload: bytes = _PAYLOAD, kind: str = _COMMITMENT) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(payload=payload, payload_type=kind)


def _by_ecdsa() -> bytes:
    found = _envelope()
    key = p256_key("one")
    signature = _sign(key, encoded(_COMMITMENT.encode(), _PAYLOAD))
    found.signatures.add(sig=signature, keyid=key_id("acme", 2, spki(key)))
    return found.SerializeToString(deterministic=True)


def _with(*signatures: tuple[bytes, str]) -> bytes:
    found = _envelope()
    for sig, keyid in signatures:
        found.signatures.add(sig=sig, keyid=keyid)
    return found.SerializeToString(deterministic=True)


def _envelopes() -> list[dict[str, object]]:
    covered = encoded(_COMMITMENT.encode(), _PAYLOAD)
    one = (_ONE[1].sign(covered), _id(0))
    two = (_TWO[1].sign(covered), _id(1))
    unknown = (bytes(64), "00" * 32)
    wrong = (bytes(64), _id(0))
    curve: dict[str, object] = {"name": "acme", "spki": spki(p256_key("one"))}
    cases = (
        ("good", "One signature.", _with(one), _KEYS, _id(0)),
        ("of-an-empty-payload", "Nothing was signed, and rightly.",
         signed(b"", _COMMITMENT, _ONE), _KEYS, _id(0)),
        ("by-ecdsa", "One signature of the other algorithm.", _by_ecdsa(), (curve,),
         key_id("acme", 2, spki(p256_key("one")))),
        ("by-two-keys", "The first good signature of a listed key counts.",
         _with(two, one), _KEYS, _id(1)),
        ("by-a-stranger-too", "Signatures of keys that are not listed are passed over.",
         signed(_PAYLOAD, _COMMITMENT, _STRANGER, _ONE), _KEYS, _id(0)),
        ("with-a-wrong-one-before", "A wrong signature does not spoil a good one behind it.",
         _with(wrong, two), _KEYS, _id(1)),
        ("with-a-wrong-one-of-the-same-key", "Nor does one that names the same key.",
         _with(wrong, one), _KEYS, _id(0)),
        ("with-sixteen-signatures", "At most sixteen are read.",
         _with(*[unknown] * 15, one), _KEYS, _id(0)),
    )  # fmt: skip
    found = []
    for name, about, raw, keys, keyid in cases:
        value = {"keyid": keyid}
        found.append(
            accepted(f"envelope-{name}", about, "verify_envelope", _given(raw, keys), value)
        )
    return found


def _forged_envelopes() -> list[dict[str, object]]:
    covered = encoded(_COMMITMENT.encode(), _PAYLOAD)
    good = _ONE[1].sign(covered)
    relabelled = envelope_pb2.Envelope.FromString(signed(_PAYLOAD, _OPENING, _ONE))
    relabelled.payload_type = _COMMITMENT
    altered = envelope_pb2.Envelope.FromString(_with((good, _id(0))))
    altered.payload = flip(_PAYLOAD)
    longer = envelope_pb2.Envelope.FromString(_with((good, _id(0))))
    longer.payload += b"\0"
    other_name = key_id("bcme", 1, spki(_ONE[1]))
    unknown = (bytes(64), "00" * 32)
    moved = encoded(_COMMITMENT.encode() + b" ", _PAYLOAD[1:])
    cases = (
        ("of-another-type", "Signed as an opening, and shown as one.",
         signed(_PAYLOAD, _OPENING, _ONE)),
        ("relabelled", "Signed as an opening, and shown as a commitment.",
         relabelled.SerializeToString()),
        ("of-version-2", "A later version's statement.",
         signed(_PAYLOAD, _COMMITMENT.replace("v1", "v2"), _ONE)),
        ("of-no-type", "A statement says what it is.", signed(_PAYLOAD, "", _ONE)),
        ("payload-altered", "A bit of the payload is another.", altered.SerializeToString()),
        ("payload-longer", "A byte behind the payload.", longer.SerializeToString()),
        ("signed-without-encoding", "The payload alone was signed.",
         _with((_ONE[1].sign(_PAYLOAD), _id(0)))),
        ("signed-with-the-border-moved", "Lengths keep type and payload apart.",
         _with((_ONE[1].sign(moved), _id(0)))),
        ("unsigned", "No signature.", _with()),
        ("signature-empty", "A signature of no bytes.", _with((b"", _id(0)))),
        ("by-a-stranger", "A key that is not listed.", signed(_PAYLOAD, _COMMITMENT, _STRANGER)),
        ("without-a-key-id", "Keys are found by their ids.", _with((good, ""))),
        ("key-id-of-another-listed-key", "The other key did not sign.", _with((good, _id(1)))),
        ("key-id-in-capitals", "A key id is lower-case hex.", _with((good, _id(0).upper()))),
        ("key-id-cut", "A key id has 64 characters.", _with((good, _id(0)[:16]))),
        ("key-id-under-another-name", "The name is in the id.", _with((good, other_name))),
        ("with-seventeen-signatures", "At most sixteen are read, good ones or not.",
         _with((good, _id(0)), *[unknown] * 16)),
    )  # fmt: skip
    return [
        refused(f"envelope-{name}", about, "verify_envelope", _given(raw), _ERROR)
        for name, about, raw in cases
    ]
