"""Public keys: what an id binds, which keys are refused, and when a signature counts."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.errors import (
    InvalidInputError,
    KeyWindowError,
    SignatureError,
)
from coin_protocol.keys import (
    ECDSA_P256,
    ED25519,
    KeyRing,
    ListedKey,
    VerificationKey,
    read_time,
)
from coin_protocol.keyset import (
    SignedKeySet,
    pinned,
    pinned_verifiers,
    read_key_set_file,
    read_signed_key_set,
    sign_key_set,
    stamp,
)
from coin_protocol.limits import MAX_KEYS, MAX_NAME_BYTES
from coin_protocol.signer import KeySigner, public_pem
from coin_protocol.testing.world import START, World
from coin_protocol.v1 import keys_pb2 as pb

Point = tuple[int, int]
ED_SIGNER = World().signer("key")
EC_SIGNER = KeySigner("key", ec.derive_private_key(7, ec.SECP256R1()))
SIGNERS = pytest.mark.parametrize("signer", [ED_SIGNER, EC_SIGNER], ids=["ed25519", "p-256"])
DAY = timedelta(days=1)
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
SPKI_HEAD = bytes.fromhex("302a300506032b6570032100")

# edwards25519 by the book (RFC 8032, section 5.1), to find its points of small order.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def add(left: Point, right: Point) -> Point:
    (x1, y1), (x2, y2) = left, right
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(scalar: int, point: Point) -> Point:
    total = (0, 1)
    for bit in f"{scalar:b}":
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def point_at(y: int) -> Point | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def torsion() -> list[Point]:
    """Return the eight points whose order divides eight: L times any point is one of them."""
    group_order = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 100):
        point = point_at(y)
        if point is None:
            continue
        small = times(group_order, point)
        if times(4, small) != (0, 1):  # of order eight: its multiples are all of them
            return [times(scalar, small) for scalar in range(8)]
    raise AssertionError


def encoded(y: int, sign: int) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


TORSION = torsion()
CANONICAL = {encoded(y, x & 1) for x, y in TORSION}
NON_CANONICAL = {
    encoded(y, sign)
    for y in (P, P + 1, 1, P - 1)  # 0 and 1 again, and x = 0 with the sign of minus zero
    for sign in (0, 1)
} - CANONICAL
ORDER_EIGHT = {encoded(y, x & 1) for x, y in TORSION if times(4, (x, y)) != (0, 1)}


def test_a_key_id_is_the_stated_digest_of_name_algorithm_and_key() -> None:
    for signer, algorithm in ((ED_SIGNER, 1), (EC_SIGNER, 2)):
        key = signer.public
        head = b"\x0bcoin.key.v1" + struct.pack(">H", 3) + b"key" + bytes((algorithm,))
        assert key.keyid == sha256(head + key.spki).hexdigest()
        assert key.algorithm == algorithm


def test_a_key_id_binds_the_name_and_the_key() -> None:
    key = ED_SIGNER.public
    assert VerificationKey.from_spki("key", key.spki).keyid == key.keyid
    assert VerificationKey.from_spki("yek", key.spki).keyid != key.keyid
    assert World(seed="another").signer("key").public.keyid != key.keyid


def test_a_key_id_binds_the_algorithm() -> None:
    key = ED_SIGNER.public
    other = VerificationKey(key.name, ECDSA_P256, key.spki, key.key)
    assert other.keyid != key.keyid


def test_a_key_id_counts_the_bytes_of_a_name_not_its_characters() -> None:
    key = VerificationKey.from_spki("\u00e9", ED_SIGNER.public.spki)
    head = b"\x0bcoin.key.v1\x00\x02\xc3\xa9\x01"
    assert key.keyid == sha256(head + key.spki).hexdigest()


@SIGNERS
def test_a_public_key_comes_back_from_pem_and_der_as_it_was(signer: KeySigner) -> None:
    key = signer.public
    assert VerificationKey.from_pem("key", public_pem(key)).spki == key.spki
    found = VerificationKey.from_spki("key", key.spki)
    assert (found.algorithm, found.keyid) == (key.algorithm, key.keyid)


@SIGNERS
def test_a_signature_verifies_over_the_very_bytes_only(signer: KeySigner) -> None:
    signature = signer.sign(b"data")
    signer.public.verify(signature, b"data")
    for wrong, data in (
        (signature, b"date"),
        (signature, b""),
        (signature[:-1], b"data"),
        (signature + b"\x00", b"data"),
        (bytes(len(signature)), b"data"),
        (b"", b"data"),
    ):
        with pytest.raises(SignatureError, match="'key'"):
            signer.public.verify(wrong, data)


def test_keys_do_not_take_each_others_signatures() -> None:
    with pytest.raises(SignatureError):
        ED_SIGNER.public.verify(EC_SIGNER.sign(b"data"), b"data")
    with pytest.raises(SignatureError):
        EC_SIGNER.public.verify(ED_SIGNER.sign(b"data"), b"data")


OTHER_KINDS: dict[str, Callable[[], object]] = {
    "RSA": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()).public_key(),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()).public_key(),
    "Ed448": lambda: ed448.Ed448PrivateKey.generate().public_key(),
    "X25519": lambda: x25519.X25519PrivateKey.generate().public_key(),
}


@pytest.mark.parametrize("make", OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_keys_of_other_algorithms_are_refused_in_every_form(make: Callable[[], object]) -> None:
    key = make()
    der = key.public_bytes(serialization.Encoding.DER, SPKI)  # type: ignore[attr-defined]
    pem = key.public_bytes(serialization.Encoding.PEM, SPKI)  # type: ignore[attr-defined]
    reads: tuple[Callable[[], object], ...] = (
        lambda: VerificationKey.from_key("key", key),
        lambda: VerificationKey.from_spki("key", der),
        lambda: VerificationKey.from_pem("key", pem),
    )
    for read in reads:
        with pytest.raises(InvalidInputError, match="wanted Ed25519 or ECDSA P-256"):
            read()


def test_a_private_key_is_no_public_key() -> None:
    with pytest.raises(InvalidInputError, match="Ed25519PrivateKey"):
        VerificationKey.from_key("key", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(InvalidInputError, match="BEGIN PUBLIC KEY"):
        VerificationKey.from_pem("key", ED_SIGNER.to_pem())


def test_the_curve_has_eight_points_of_small_order() -> None:
    assert len(CANONICAL) == 8
    assert len(ORDER_EIGHT) == 4
    assert all(times(8, point) == (0, 1) for point in TORSION)


@pytest.mark.parametrize("raw", sorted(CANONICAL | NON_CANONICAL), ids=bytes.hex)
def test_keys_of_small_order_are_refused_however_they_are_written(raw: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"small order|not a DER"):
        VerificationKey.from_spki("key", SPKI_HEAD + raw)


def test_ordinary_keys_are_not_taken_for_keys_of_small_order() -> None:
    for number in range(50):
        key = World(seed=f"{number}").signer("key").public
        assert VerificationKey.from_spki("key", key.spki).algorithm == ED25519


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        b"\x30",
        b"\xff" * 44,
        ED_SIGNER.public.spki[:-1],
        ED_SIGNER.public.spki + b"\x00",
        EC_SIGNER.public.spki[:-1],
        SPKI_HEAD + bytes(31),
    ],
    ids=["nothing", "a tag", "garbage", "short", "long", "short P-256", "short point"],
)
def test_what_is_not_the_der_of_a_key_is_refused(spki: bytes) -> None:
    with pytest.raises(InvalidInputError):
        VerificationKey.from_spki("key", spki)


def test_a_point_off_the_curve_is_refused() -> None:
    spki = EC_SIGNER.public.spki
    with pytest.raises(InvalidInputError):
        VerificationKey.from_spki("key", spki[:-1] + bytes((spki[-1] ^ 1,)))


def test_one_key_has_one_form_of_der_and_so_one_id() -> None:
    point = EC_SIGNER.public.key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    compressed = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    with pytest.raises(InvalidInputError):
        VerificationKey.from_spki("key", compressed)


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAA==\n"])
def test_what_is_not_pem_is_refused(pem: bytes) -> None:
    with pytest.raises(InvalidInputError, match="BEGIN PUBLIC KEY"):
        VerificationKey.from_pem("key", pem)


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME_BYTES + 1), "\u00e9" * 129])
def test_names_are_neither_empty_nor_longer_than_the_limit_in_bytes(name: str) -> None:
    key = ED_SIGNER.public
    reads: tuple[Callable[[], object], ...] = (
        lambda: VerificationKey.from_spki(name, key.spki),
        lambda: VerificationKey.from_pem(name, public_pem(key)),
        lambda: VerificationKey.from_key(name, key.key),
    )
    for read in reads:
        with pytest.raises(InvalidInputError, match="name"):
            read()
    assert VerificationKey.from_spki("x" * MAX_NAME_BYTES, key.spki).keyid


MICROSECOND = timedelta(microseconds=1)


def listed(revoked_at: datetime | None = None, signer: KeySigner = ED_SIGNER) -> ListedKey:
    return ListedKey(signer.public, START, START + DAY, revoked_at)


@pytest.mark.parametrize(
    ("revoked_at", "at", "why"),
    [
        (None, START - MICROSECOND, "valid from"),
        (None, START, None),
        (None, START + DAY - MICROSECOND, None),
        (None, START + DAY, "ends at"),
        (START + DAY / 2, START + DAY / 2 - MICROSECOND, None),
        (START + DAY / 2, START + DAY / 2, "was revoked at"),
        (START + DAY / 2, START + DAY, "was revoked at"),
        (START + 2 * DAY, START + DAY - MICROSECOND, None),
        (START + 2 * DAY, START + DAY, "ends at"),
        (START, START, "was revoked at"),
        (START - DAY, START, "was revoked at"),
    ],
)
def test_a_signature_counts_from_the_start_of_the_window_up_to_its_end(
    revoked_at: datetime | None, at: datetime, why: str | None
) -> None:
    key = listed(revoked_at)
    if why is None:
        key.require_valid(at)
        return
    with pytest.raises(KeyWindowError, match=why) as caught:
        key.require_valid(at)
    assert at.isoformat() in str(caught.value)


def key_set(*keys: ListedKey) -> pb.KeySet:
    message = pb.KeySet(owner="owner", sequence=3, issued_at=stamp(START))
    for entry in keys:
        message.keys.add(
            name=entry.key.name,
            algorithm=entry.key.algorithm,
            spki=entry.key.spki,
            not_before=stamp(entry.not_before),
            not_after=stamp(entry.not_after),
            revoked_at=None if entry.revoked_at is None else stamp(entry.revoked_at),
        )
    return message


def test_a_key_set_is_read_with_its_windows() -> None:
    later = START + DAY / 2
    ring = KeyRing.from_message(key_set(listed(), listed(later, EC_SIGNER)))
    assert (ring.owner, ring.sequence, ring.issued_at, len(ring)) == ("owner", 3, START, 2)
    assert ring.find(ED_SIGNER.public.keyid) == listed()
    found = ring.find(EC_SIGNER.public.keyid)
    assert found is not None
    assert found.revoked_at == later
    assert ring.find("") is None
    assert ring.find(World(seed="another").signer("key").public.keyid) is None


def test_an_empty_key_set_is_legal_and_knows_no_key() -> None:
    ring = KeyRing.from_message(key_set())
    assert len(ring) == 0
    assert ring.find(ED_SIGNER.public.keyid) is None


def test_a_key_set_without_a_time_of_issue_has_none() -> None:
    message = key_set(listed())
    message.ClearField("issued_at")
    assert KeyRing.from_message(message).issued_at is None


def test_a_key_set_of_the_greatest_number_of_keys_is_read() -> None:
    names = (f"{number}" for number in range(MAX_KEYS))
    keys = (VerificationKey.from_spki(name, ED_SIGNER.public.spki) for name in names)
    message = key_set(*(ListedKey(key, START, START + DAY) for key in keys))
    assert len(KeyRing.from_message(message)) == MAX_KEYS


def many(message: pb.KeySet) -> None:
    message.keys.extend([message.keys[0]] * MAX_KEYS)


def twice(message: pb.KeySet) -> None:
    message.keys.extend(list(message.keys))


def another_algorithm(message: pb.KeySet) -> None:
    message.keys[0].algorithm = ECDSA_P256


def no_algorithm(message: pb.KeySet) -> None:
    message.keys[0].algorithm = pb.KEY_ALGORITHM_UNSPECIFIED


def empty_window(message: pb.KeySet) -> None:
    message.keys[0].not_after.CopyFrom(message.keys[0].not_before)


def window_upside_down(message: pb.KeySet) -> None:
    message.keys[0].not_after.seconds = message.keys[0].not_before.seconds - 1


def time_out_of_range(message: pb.KeySet) -> None:
    message.keys[0].not_after.seconds = 1 << 60


def revoked_out_of_range(message: pb.KeySet) -> None:
    message.keys[0].revoked_at.seconds = -(1 << 60)


def no_start(message: pb.KeySet) -> None:
    message.keys[0].ClearField("not_before")


def no_end(message: pb.KeySet) -> None:
    message.keys[0].ClearField("not_after")


def no_owner(message: pb.KeySet) -> None:
    message.owner = ""


def no_name(message: pb.KeySet) -> None:
    message.keys[0].name = ""


def garbage_key(message: pb.KeySet) -> None:
    message.keys[0].spki = b"garbage"


def small_order_key(message: pb.KeySet) -> None:
    message.keys[0].spki = SPKI_HEAD + encoded(1, 0)


FLAWS = [
    many,
    twice,
    another_algorithm,
    no_algorithm,
    empty_window,
    window_upside_down,
    time_out_of_range,
    revoked_out_of_range,
    no_start,
    no_end,
    no_owner,
    no_name,
    garbage_key,
    small_order_key,
]


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.__name__)
def test_a_flawed_key_set_is_refused_as_a_whole(flaw: Callable[[pb.KeySet], None]) -> None:
    message = key_set(listed(), listed(signer=EC_SIGNER))
    KeyRing.from_message(message)
    flaw(message)
    with pytest.raises(InvalidInputError):
        KeyRing.from_message(message)


def test_a_key_set_that_readers_would_refuse_is_not_signed() -> None:
    with pytest.raises(InvalidInputError, match="twice"):
        sign_key_set("owner", [listed(), listed()], root=ED_SIGNER, issued_at=START, sequence=1)


@pytest.mark.parametrize("chain", [(), (b"leaf", b"intermediate")], ids=["pinned", "certified"])
def test_a_signed_key_set_reads_back_from_its_file(
    tmp_path: Path, chain: tuple[bytes, ...]
) -> None:
    signed = sign_key_set("owner", [listed()], root=EC_SIGNER, issued_at=START, sequence=1)
    path = tmp_path / "keyset.binpb"
    path.write_bytes(SignedKeySet(signed, chain).to_bytes())
    assert read_signed_key_set(path) == SignedKeySet(signed, chain)
    assert read_key_set_file(path) == signed


def test_what_is_no_signed_key_set_is_refused(tmp_path: Path) -> None:
    signed = sign_key_set("owner", [listed()], root=EC_SIGNER, issued_at=START, sequence=1)
    other = envelope.sign(signed.payload, envelope.VERDICT, EC_SIGNER)
    path = tmp_path / "keyset.binpb"
    for raw in (b"garbage", b"", signed.SerializeToString(), SignedKeySet(other).to_bytes()):
        path.write_bytes(raw)
        with pytest.raises(InvalidInputError, match=r"no signed key set|another statement"):
            read_key_set_file(path)
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_key_set_file(tmp_path / "missing")


def test_a_later_key_set_continues_an_older_one_if_it_lists_all_its_keys() -> None:
    def ring(*keys: ListedKey, owner: str = "owner", sequence: int = 2) -> KeyRing:
        return KeyRing(owner, keys, sequence=sequence)

    older = ring(listed(), sequence=1)
    assert ring(listed(), listed(signer=EC_SIGNER)).continues(older)
    assert ring(replace(listed(), revoked_at=START)).continues(older)
    assert not ring(listed(signer=EC_SIGNER)).continues(older)
    assert not ring(listed(), owner="another").continues(older)
    for sequence in (0, 1):
        assert not ring(listed(), listed(signer=EC_SIGNER), sequence=sequence).continues(older)


def test_one_key_may_stand_in_a_set_under_two_names() -> None:
    again = ListedKey(VerificationKey.from_spki("alias", ED_SIGNER.public.spki), START, START + DAY)
    assert len(KeyRing.from_message(key_set(listed(), again))) == 2


def test_pinned_keys_are_valid_at_any_time_and_come_before_every_key_set() -> None:
    ring = pinned("owner", [ED_SIGNER.public])
    assert (ring.sequence, ring.issued_at) == (0, None)
    found = ring.find(ED_SIGNER.public.keyid)
    assert found is not None
    for at in (datetime(1, 1, 1, tzinfo=UTC), START, datetime(9999, 12, 31, tzinfo=UTC)):
        found.require_valid(at)


def test_verifiers_are_pinned_under_the_names_given_with_their_pem() -> None:
    ring = pinned_verifiers({"one": public_pem(ED_SIGNER.public)})
    assert ring.find(VerificationKey.from_spki("one", ED_SIGNER.public.spki).keyid) is not None
    assert ring.find(ED_SIGNER.public.keyid) is None
    with pytest.raises(InvalidInputError, match="'two'"):
        pinned_verifiers({"two": b"garbage"})
    strangers = envelope.sign(b"", envelope.CHALLENGE, EC_SIGNER)
    with pytest.raises(SignatureError, match=r"no key of 'verifiers' signed this challenge$"):
        envelope.verify(strangers, envelope.CHALLENGE, ring)


def test_a_time_is_read_in_utc_to_the_microsecond_rounded_down() -> None:
    assert read_time(Timestamp(seconds=1, nanos=1_999)) == datetime(1970, 1, 1, 0, 0, 1, 1, UTC)
    assert read_time(stamp(START)) == START


@pytest.mark.parametrize("seconds", [1 << 62, -(1 << 62), 253_402_300_800, -62_135_596_801])
def test_a_time_outside_the_years_1_to_9999_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidInputError, match="1 to 9999"):
        read_time(Timestamp(seconds=seconds))
