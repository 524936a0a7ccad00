"""Test vectors of a verifier's log: leaves, keys of notes, heads, cosignatures (section 11).

Leaves, notes and verifier keys are put together here a second time, from the pages of the
protocol and of C2SP; signatures come from `cryptography`. What must come of each is stated by
hand, roots and proofs by the slow tree of `reference`.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol.testing import reference
from coin_protocol.testing.encoding_vectors import tag
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    flip,
    hash_leaf,
    in_base64,
    leaf_hashes,
    made,
    refused,
)

_STATEMENT: Final = "StatementError"
_SIGNATURE: Final = "SignatureError"
_LIMIT: Final = "LimitError"
_INVALID: Final = "InvalidInputError"
_CONSISTENCY: Final = "ConsistencyProofError"

ORIGIN: Final = "example.org/log"
PLAIN: Final = 1
COSIGNING: Final = 4
_AT: Final = 1_767_268_800

_SESSION: Final = made("session id", 16)
_DIGEST: Final = made("commitment digest", 32)
_VERDICT: Final = made("verdict digest", 32)
_COMMITMENT_TAG: Final = tag("coin.log.commitment.v1")
_VERDICT_TAG: Final = tag("coin.log.verdict.v1")


@dataclass(frozen=True)
class NoteKey:
    """An Ed25519 key that signs notes under a name."""

    name: str
    seed: str
    algorithm: int = PLAIN

    @property
    def key(self) -> ed25519.Ed25519PrivateKey:
        """The key, made of its seed."""
        return ed25519.Ed25519PrivateKey.from_private_bytes(made(f"note {self.seed}", 32))

    @property
    def material(self) -> bytes:
        """Algorithm and public key."""
        return bytes((self.algorithm,)) + self.key.public_key().public_bytes_raw()

    @property
    def key_hash(self) -> bytes:
        """What its signatures begin with."""
        return sha256(self.name.encode() + b"\n" + self.material).digest()[:4]

    @property
    def vkey(self) -> str:
        """The verifier key."""
        return f"{self.name}+{self.key_hash.hex()}+{b64encode(self.material).decode()}"

    def sign(self, text: str, at: int = _AT) -> bytes:
        """Return a signature over a text, a cosignature with its time."""
        if self.algorithm == PLAIN:
            return self.key.sign(text.encode())
        return at.to_bytes(8, "big") + self.key.sign(cosigned(text, at))

    def line(self, text: str, at: int = _AT) -> str:
        """Return a signature line."""
        return signature_line(self.name, self.key_hash + self.sign(text, at))


def cosigned(text: str, at: int) -> bytes:
    """Return what a cosignature/v1 signs."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def signature_line(name: str, raw: bytes) -> str:
    """Return a line of a note."""
    return f"\N{EM DASH} {name} {b64encode(raw).decode()}\n"


def head_text(size: int | str, root: bytes, *extensions: str, origin: str = ORIGIN) -> str:
    """Return the text of a head."""
    return "".join(f"{line}\n" for line in (origin, size, b64encode(root).decode(), *extensions))


def note(text: str, *lines: str) -> bytes:
    """Return a note."""
    return (text + "\n" + "".join(lines)).encode()


LOG: Final = NoteKey(ORIGIN, "log")
WITNESSES: Final = tuple(
    NoteKey(f"witness.example/{letter}", letter, COSIGNING) for letter in "abc"
)
_STRANGER: Final = NoteKey("stranger.example", "stranger")


def log_vectors() -> Documents:
    """Return all vectors."""
    return by_file(
        [
            *_leaves(),
            *_no_leaves(),
            *_keys(),
            *_no_keys(),
            *_heads(),
            *_no_heads(),
            *_forged_heads(),
            *_cosigned(),
            *_not_cosigned(),
            *_consistent(),
        ]
    )


# Leaves.


def _commitment_leaf(provider: bytes) -> bytes:
    return _COMMITMENT_TAG + len(provider).to_bytes(2, "big") + provider + _SESSION + _DIGEST


def _leaves() -> list[dict[str, object]]:
    found = []
    for name, about, provider in (
        ("of-a-commitment", "A provider's commitment to a session.", "acme"),
        ("of-the-shortest-name", "A name of one byte.", "a"),
        ("of-a-name-in-utf-8", "A name's length is that of its bytes.", "ácme"),
        ("of-the-longest-name", "A name of 256 bytes.", "é" * 128),
    ):
        data = _commitment_leaf(provider.encode())
        value = {
            "kind": "commitment",
            "provider": provider,
            "session_id": _SESSION,
            "commitment_sha256": _DIGEST,
            "leaf_hash": hash_leaf(data),
        }
        found.append(accepted(f"leaf-{name}", about, "read_leaf", {"data": data}, value))
    data = _VERDICT_TAG + _DIGEST + _VERDICT
    value = {
        "kind": "verdict",
        "commitment_sha256": _DIGEST,
        "verdict_sha256": _VERDICT,
        "leaf_hash": hash_leaf(data),
    }
    about = "A verdict on a commitment."
    return [*found, accepted("leaf-of-a-verdict", about, "read_leaf", {"data": data}, value)]


def _no_leaves() -> list[dict[str, object]]:
    good, verdict = _commitment_leaf(b"acme"), _VERDICT_TAG + _DIGEST + _VERDICT
    counted = _COMMITMENT_TAG + b"\0\x05acme" + _SESSION + _DIGEST
    cases = (
        ("empty", "No bytes.", b"", _STATEMENT),
        ("of-another-tag", "A tag that version 1 does not know.",
         tag("coin.log.refund.v1") + _DIGEST, _STATEMENT),
        ("of-version-2", "A tag of a later version.",
         good.replace(b"commitment.v1", b"commitment.v2"), _STATEMENT),
        ("of-a-tag-alone", "Nothing behind the tag.", _COMMITMENT_TAG, _STATEMENT),
        ("cut", "The last byte is missing.", good[:-1], _STATEMENT),
        ("with-a-byte-more", "A leaf has one form.", good + b"\0", _STATEMENT),
        ("without-a-name", "A name has a byte at least.", _commitment_leaf(b""), _STATEMENT),
        ("of-a-name-of-257-bytes", "A name has 256 bytes at most.",
         _commitment_leaf(b"x" * 257), _STATEMENT),
        ("of-a-name-not-utf-8", "A name is UTF-8.", _commitment_leaf(b"ac\xffe"), _STATEMENT),
        ("of-a-longer-name-than-said", "The length takes a byte of the session.", counted,
         _STATEMENT),
        ("of-a-verdict-cut", "The last byte is missing.", verdict[:-1], _STATEMENT),
        ("of-a-verdict-with-a-byte-more", "A leaf has one form.", verdict + b"\0", _STATEMENT),
        ("too-long", "No leaf has more than 512 bytes.", bytes(513), _LIMIT),
    )  # fmt: skip
    return [
        refused(f"leaf-{name}", about, "read_leaf", {"data": data}, error)
        for name, about, data, error in cases
    ]


# Verifier keys.


def _keys() -> list[dict[str, object]]:
    named = {PLAIN: "Ed25519", COSIGNING: "cosignature/v1"}
    return [
        accepted(
            f"vkey-{name}",
            f"A key for {named[key.algorithm]}.",
            "read_vkey",
            {"vkey": key.vkey},
            {
                "name": key.name,
                "key_hash": key.key_hash,
                "algorithm": key.algorithm,
                "public_key": key.material[1:],
            },
        )
        for name, key in (
            ("of-a-log", LOG),
            ("of-a-witness", WITNESSES[0]),
            ("of-the-same-key-as-a-witness", NoteKey(ORIGIN, "log", COSIGNING)),
            ("named-in-utf-8", NoteKey("ácme.example/log", "log")),
            ("named-by-255-bytes", NoteKey("x" * 255, "log")),
        )
    ]


def _vkey(name: str, material: bytes) -> str:
    key_hash = sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return f"{name}+{key_hash}+{b64encode(material).decode()}"


def _no_keys() -> list[dict[str, object]]:
    good, material = LOG.vkey, LOG.material
    name, key_hash, encoded = good.split("+", 2)
    plus = next(
        key
        for key in (NoteKey(ORIGIN, f"url {number}") for number in range(99))
        if set("+/") & set(b64encode(key.material).decode())
    )
    url = f"{ORIGIN}+{plus.key_hash.hex()}+{urlsafe_b64encode(plus.material).decode()}"
    one = (1).to_bytes(32, "little")
    cases = (
        ("empty", "No text.", "", _INVALID),
        ("name-alone", "A name alone.", name, _INVALID),
        ("without-its-key", "Name and hash alone.", f"{name}+{key_hash}", _INVALID),
        ("without-a-name", "A key has a name.", _vkey("", material), _INVALID),
        ("name-with-a-space", "Names have no spaces.", _vkey("example org", material), _INVALID),
        ("name-with-an-odd-space", "Nor any other space of Unicode.",
         _vkey("example\u2003org", material), _INVALID),
        ("name-of-256-bytes", "A name has 255 bytes at most.", _vkey("x" * 256, material),
         _INVALID),
        ("of-another-hash", "The hash is that of name and key.",
         f"{name}+{flip(bytes.fromhex(key_hash)).hex()}+{encoded}", _INVALID),
        ("of-a-hash-in-capitals", "A hash is lower-case hex.",
         f"{name}+{key_hash.upper()}+{encoded}", _INVALID),
        ("of-a-short-hash", "A hash has eight digits.", f"{name}+{key_hash[1:]}+{encoded}",
         _INVALID),
        ("renamed", "The hash binds the name.", f"example.org/log2+{key_hash}+{encoded}", _INVALID),
        ("of-an-unknown-algorithm", "Algorithm 2 signs no notes.",
         _vkey(name, b"\x02" + material[1:]), _INVALID),
        ("of-31-bytes", "A public key has 32 bytes.", _vkey(name, material[:-1]), _INVALID),
        ("of-33-bytes", "A public key has 32 bytes.", _vkey(name, material + b"\0"), _INVALID),
        ("of-no-bytes", "No key at all.", f"{name}+{key_hash}+", _INVALID),
        ("of-small-order", "Anyone could sign for it.", _vkey(name, b"\x01" + one), _INVALID),
        ("in-base64-for-urls", "Base64 is the standard one.", url, _INVALID),
        ("with-a-newline", "A key is one line.", good + "\n", _INVALID),
        ("too-long", "More than 8 KiB are not looked at.", good + "A" * 8192, _LIMIT),
    )  # fmt: skip
    return [
        refused(f"vkey-{name}", about, "read_vkey", {"vkey": vkey}, error)
        for name, about, vkey, error in cases
    ]


# Heads.

_ROOT: Final = reference.root(leaf_hashes(7))


def _given(
    raw: bytes,
    *,
    log: NoteKey = LOG,
    origin: str | None = None,
    witnesses: Sequence[NoteKey] = (),
    quorum: int = 0,
) -> dict[str, object]:
    return {
        "note": in_base64(raw),
        "log": log.vkey,
        "origin": log.name if origin is None else origin,
        "witnesses": [witness.vkey for witness in witnesses],
        "quorum": quorum,
    }


def _value(
    size: int = 7,
    root: bytes = _ROOT,
    *,
    extensions: Sequence[str] = (),
    origin: str = ORIGIN,
    cosignatures: Sequence[tuple[NoteKey, int]] = (),
) -> dict[str, object]:
    return {
        "origin": origin,
        "size": str(size),
        "root": root,
        "extensions": list(extensions),
        "cosignatures": [{"name": key.name, "at": str(at)} for key, at in cosignatures],
    }


def signed_head(text: str, *others: str) -> bytes:
    """Return a head that its log signed, with other signature lines behind."""
    return note(text, LOG.line(text), *others)


def _heads() -> list[dict[str, object]]:
    text = head_text(7, _ROOT)
    empty, last = head_text(0, sha256(b"").digest()), head_text((1 << 63) - 1, _ROOT)
    extended = head_text(7, _ROOT, "one", "two")
    other = head_text(7, _ROOT, origin="go.sum database tree")
    long = head_text(7, _ROOT, "x" * 8192)
    stranger = _STRANGER.line(text)
    unknown = signature_line(ORIGIN, b"\0\0\0\x07" + bytes(90))
    cases: tuple[tuple[str, str, dict[str, object], dict[str, object]], ...] = (
        ("good", "Three lines and a signature.", _given(signed_head(text)), _value()),
        ("of-nothing", "The head of an empty log.", _given(signed_head(empty)),
         _value(0, sha256(b"").digest())),
        ("of-the-greatest-size", "2^63 - 1 leaves.", _given(signed_head(last)),
         _value((1 << 63) - 1)),
        ("with-extensions", "Lines of extension are signed with it.",
         _given(signed_head(extended)), _value(extensions=("one", "two"))),
        ("with-a-line-of-8192-bytes", "The longest line.", _given(signed_head(long)),
         _value(extensions=("x" * 8192,))),
        ("of-an-origin-unlike-its-key", "A reader may know the origin by itself.",
         _given(signed_head(other), origin="go.sum database tree"),
         _value(origin="go.sum database tree")),
        ("with-a-stranger-s-signature", "Signatures of keys that are not known are passed over.",
         _given(note(text, stranger, LOG.line(text))), _value()),
        ("with-a-signature-of-an-unknown-kind", "A key of the log's name that is not known.",
         _given(signed_head(text, unknown)), _value()),
        ("with-a-line-twice", "A line said twice counts once.",
         _given(signed_head(text, LOG.line(text))), _value()),
        ("with-100-signatures", "At most 100 are read.",
         _given(signed_head(text, *[stranger] * 99)), _value()),
    )  # fmt: skip
    return [
        accepted(f"head-{name}", about, "open_head", given, value)
        for name, about, given, value in cases
    ]


def _no_heads() -> list[dict[str, object]]:
    """Return signed notes that are no heads, and heads that are no notes."""
    root, url_root = b64encode(_ROOT).decode(), urlsafe_b64encode(b"\xff" * 32).decode()
    signed = (
        ("of-two-lines", "The root is missing.", f"{ORIGIN}\n7\n"),
        ("of-one-line", "Size and root are missing.", f"{ORIGIN}\n"),
        ("without-an-origin", "The origin is a line that is not empty.", f"\n7\n{root}\n"),
        ("of-an-origin-of-256-bytes", "An origin has 255 bytes at most.",
         head_text(7, _ROOT, origin="x" * 256)),
        ("size-with-a-leading-zero", "A size has no leading zero.", head_text("07", _ROOT)),
        ("size-of-two-zeros", "A size has no leading zero.", head_text("00", _ROOT)),
        ("size-with-a-plus", "A size is digits alone.", head_text("+7", _ROOT)),
        ("size-negative", "A size is digits alone.", head_text("-7", _ROOT)),
        ("size-with-a-space", "A size is digits alone.", head_text("7 ", _ROOT)),
        ("size-in-hex", "A size is decimal.", head_text("0x7", _ROOT)),
        ("size-with-a-fraction", "A size is whole.", head_text("7.0", _ROOT)),
        ("size-in-other-digits", "Digits are those of ASCII.", head_text("\u0667", _ROOT)),
        ("size-empty", "A size has a digit at least.", head_text("", _ROOT)),
        ("size-of-2-63", "A size is below 2^63.", head_text(1 << 63, _ROOT)),
        ("size-of-2-64-and-7", "A size does not wrap.", head_text((1 << 64) + 7, _ROOT)),
        ("root-of-31-bytes", "A root has 32 bytes.", head_text(7, _ROOT[:-1])),
        ("root-of-33-bytes", "A root has 32 bytes.", head_text(7, _ROOT + b"\0")),
        ("root-empty", "A root has 32 bytes.", head_text(7, b"")),
        ("root-in-hex", "A root is in base64.", f"{ORIGIN}\n7\n{_ROOT.hex()}\n"),
        ("root-without-padding", "Base64 has its padding.", f"{ORIGIN}\n7\n{root.rstrip('=')}\n"),
        ("root-with-a-space", "Base64 has no spaces.", f"{ORIGIN}\n7\n{root} \n"),
        ("root-in-base64-for-urls", "Base64 is the standard one.",
         f"{ORIGIN}\n7\n{url_root}\n"),
        ("root-with-spare-bits", "Bytes have one form in base64.",
         f"{ORIGIN}\n7\n{'A' * 42}B=\n"),
        ("with-an-empty-line", "An extension is a line that is not empty.",
         head_text(7, _ROOT, "one", "", "two")),
        ("with-a-tab", "A note has no control characters but newlines.",
         head_text(7, _ROOT, "a\tb")),
        ("of-lines-with-carriage-returns", "Lines end in newlines alone.",
         head_text(7, _ROOT).replace("\n", "\r\n")),
    )  # fmt: skip
    text = head_text(7, _ROOT)
    line = LOG.line(text)
    encoded = b64encode(LOG.key_hash + LOG.sign(text)).decode()
    unsigned: tuple[tuple[str, str, bytes, str], ...] = (
        ("empty", "No bytes.", b"", _STATEMENT),
        ("without-signatures", "The text alone.", text.encode(), _STATEMENT),
        ("of-no-signature-line", "An empty line, and nothing behind it.", note(text), _STATEMENT),
        ("without-an-empty-line", "Text and signatures are parted by one.",
         (text + line).encode(), _STATEMENT),
        ("without-the-last-newline", "Every line ends in one.", note(text, line)[:-1], _STATEMENT),
        ("with-a-line-behind", "Behind the signatures comes nothing.",
         note(text, line, "a line\n"), _STATEMENT),
        ("signed-behind-a-hyphen", "A signature line begins with an em dash.",
         note(text, line.replace("\N{EM DASH}", "-")), _STATEMENT),
        ("signed-without-a-name", "A signature names its key.",
         note(text, f"\N{EM DASH} {encoded}\n"), _STATEMENT),
        ("signed-by-a-name-with-a-plus", "Names have no plus.",
         note(text, signature_line("a+b", bytes(68))), _STATEMENT),
        ("signed-without-padding", "Base64 has its padding.",
         note(text, line.replace("=", "")), _STATEMENT),
        ("signed-by-a-key-hash-alone", "Behind the key's hash comes a signature.",
         note(text, signature_line(ORIGIN, LOG.key_hash)), _STATEMENT),
        ("not-utf-8", "A note is UTF-8.", note(text, line).replace(b"example", b"ex\xffmple"),
         _STATEMENT),
        ("with-101-signatures", "At most 100 are read.", note(text, *[line] * 101), _LIMIT),
        ("with-a-line-of-8193-bytes", "No line is longer than 8 KiB.",
         signed_head(head_text(7, _ROOT, "x" * 8193)), _LIMIT),
    )  # fmt: skip
    found = [
        refused(f"head-{name}", about, "open_head", _given(signed_head(body)), _STATEMENT)
        for name, about, body in signed
    ]
    return found + [
        refused(f"head-{name}", about, "open_head", _given(raw), error)
        for name, about, raw, error in unsigned
    ]


def _forged_heads() -> list[dict[str, object]]:
    text, more = head_text(7, _ROOT), head_text(8, _ROOT)
    other = head_text(7, _ROOT, origin="example.org/other")
    wrong = signature_line(ORIGIN, LOG.key_hash + flip(LOG.sign(text)))
    impostor = NoteKey(ORIGIN, "impostor")
    as_log = signature_line(ORIGIN, LOG.key_hash + impostor.sign(text))
    long = signature_line(ORIGIN, LOG.key_hash + LOG.sign(text) + b"\0")
    bare = signature_line(ORIGIN, LOG.key_hash + LOG.key.sign(text[:-1].encode()))
    cases = (
        ("of-another-size", "The size is another than was signed.",
         note(more, LOG.line(text)), _SIGNATURE),
        ("with-an-extension-added", "A line was added after it was signed.",
         note(text + "one\n", LOG.line(text)), _SIGNATURE),
        ("with-a-wrong-signature", "A bit of the signature is another.",
         note(text, wrong), _SIGNATURE),
        ("with-a-wrong-signature-beside-a-good-one", "Each signature of a known key must be good.",
         note(text, LOG.line(text), wrong), _SIGNATURE),
        ("signed-by-another-key-of-the-name", "A key of the log's name with another hash.",
         note(text, impostor.line(text)), _SIGNATURE),
        ("signed-by-another-key-under-its-hash", "A key that takes the log's name and hash.",
         note(text, as_log), _SIGNATURE),
        ("signed-by-a-stranger", "A key that is not known.",
         note(text, _STRANGER.line(text)), _SIGNATURE),
        ("with-a-signature-of-65-bytes", "An Ed25519 signature has 64.", note(text, long),
         _SIGNATURE),
        ("signed-without-the-last-newline", "The text is signed with its last newline.",
         note(text, bare), _SIGNATURE),
        ("of-another-origin", "A head of another log, that this one's key signed.",
         signed_head(other), _STATEMENT),
    )  # fmt: skip
    return [
        refused(f"head-{name}", about, "open_head", _given(raw), error)
        for name, about, raw, error in cases
    ]


Cosigned = tuple[str, str, bytes, Sequence[NoteKey], int, Sequence[tuple[NoteKey, int]]]


def _cosigned() -> list[dict[str, object]]:
    text = head_text(7, _ROOT)
    first, second, third = WITNESSES
    lines = [witness.line(text) for witness in WITNESSES]
    later = first.line(text, _AT + 60)
    wrong = signature_line(second.name, second.key_hash + flip(second.sign(text)))
    greatest = first.line(text, (1 << 63) - 1)
    two = (first, second)
    cases: tuple[Cosigned, ...] = (
        ("by-one-of-one", "A quorum of one.", signed_head(text, lines[0]), (first,), 1,
         [(first, _AT)]),
        ("by-two-of-three", "Two of three witnesses signed.", signed_head(text, *lines[:2]),
         WITNESSES, 2, [(first, _AT), (second, _AT)]),
        ("by-all", "Names are sorted.", signed_head(text, *reversed(lines)), WITNESSES, 3,
         [(first, _AT), (second, _AT), (third, _AT)]),
        ("by-none-of-two", "A quorum of none.", signed_head(text), two, 0, []),
        ("before-the-log", "Lines stand in any order.", note(text, lines[0], LOG.line(text)),
         (first,), 1, [(first, _AT)]),
        ("twice", "A witness counts once, by its latest time.",
         signed_head(text, later, lines[0]), two, 1, [(first, _AT + 60)]),
        ("by-a-witness-that-is-not-known", "It is passed over, right or wrong.",
         signed_head(text, lines[0], wrong), (first,), 1, [(first, _AT)]),
        ("at-the-last-second", "Times end with 2^63 - 1.", signed_head(text, greatest), (first,),
         1, [(first, (1 << 63) - 1)]),
    )  # fmt: skip
    return [
        accepted(
            f"cosigned-{name}",
            about,
            "open_head",
            _given(raw, witnesses=witnesses, quorum=quorum),
            _value(cosignatures=counted),
        )
        for name, about, raw, witnesses, quorum, counted in cases
    ]


def _not_cosigned() -> list[dict[str, object]]:
    text = head_text(7, _ROOT)
    first, second, _ = WITNESSES
    line = first.line(text)
    redated = signature_line(
        first.name, first.key_hash + (_AT + 1).to_bytes(8, "big") + first.sign(text)[8:]
    )
    late = signature_line(
        first.name,
        first.key_hash + (1 << 63).to_bytes(8, "big") + first.key.sign(cosigned(text, 1 << 63)),
    )
    untimed = signature_line(first.name, first.key_hash + first.key.sign(text.encode()))
    plain = signature_line(first.name, first.key_hash + bytes(8) + first.key.sign(text.encode()))
    of_the_log = NoteKey("witness.example/log", "log", COSIGNING)
    renamed = NoteKey("witness.example/z", "a", COSIGNING)
    two = (first, second)
    cases = (
        ("by-one-of-a-quorum-of-two", "One of two signed.", signed_head(text, line), two, 2,
         _SIGNATURE),
        ("by-one-twice", "A witness counts once.",
         signed_head(text, line, first.line(text, _AT + 1)), two, 2, _SIGNATURE),
        ("without-the-log", "A witness alone makes no head.", note(text, line), (first,), 1,
         _SIGNATURE),
        ("redated", "The time is signed with it.", signed_head(text, redated), (first,), 1,
         _SIGNATURE),
        ("past-the-last-second", "Times end with 2^63 - 1.", signed_head(text, late), (first,), 1,
         _SIGNATURE),
        ("without-a-time", "A cosignature has its time.", signed_head(text, untimed), (first,), 1,
         _SIGNATURE),
        ("as-a-log-signs", "A witness signs more than the text.", signed_head(text, plain),
         (first,), 1, _SIGNATURE),
        ("wrong-though-not-needed", "Each signature of a known key must be good.",
         signed_head(text, redated), (first,), 0, _SIGNATURE),
        ("by-the-log-s-own-key", "A log cannot be its own witness.",
         signed_head(text, of_the_log.line(text)), (of_the_log,), 1, _INVALID),
        ("by-one-key-of-two-names", "A key is one witness.",
         signed_head(text, line, renamed.line(text)), (first, renamed), 2, _INVALID),
        ("by-a-key-of-a-log", "A witness's key is one for cosignatures.",
         signed_head(text, _STRANGER.line(text)), (_STRANGER,), 1, _INVALID),
        ("by-more-than-there-are", "Two of one are never a quorum.", signed_head(text, line),
         (first,), 2, _INVALID),
        ("by-fewer-than-none", "A quorum is none at least.", signed_head(text, line), (first,), -1,
         _INVALID),
    )  # fmt: skip
    return [
        refused(
            f"cosigned-{name}",
            about,
            "open_head",
            _given(raw, witnesses=witnesses, quorum=quorum),
            error,
        )
        for name, about, raw, witnesses, quorum, error in cases
    ]


# Two heads of one log.


def _sized(size: int, leaves: Sequence[bytes] | None = None) -> bytes:
    hashes = leaf_hashes(size) if leaves is None else leaves
    return signed_head(head_text(size, reference.root(hashes)))


def _consistent() -> list[dict[str, object]]:
    rewritten = [hash_leaf(b"another"), *leaf_hashes(9)[1:]]
    right = [
        (f"from-{old}-to-{new}", f"{old} of {new} leaves.", _sized(old), _sized(new),
         reference.consistency_proof(leaf_hashes(new), old))
        for old, new in ((1, 2), (3, 7), (7, 8), (8, 9), (7, 7), (31, 33))
    ]  # fmt: skip
    right += [
        ("from-0-to-7", "A proof from nothing is empty.", _sized(0), _sized(7), []),
        ("from-0-to-0", "Nothing came to nothing.", _sized(0), _sized(0), []),
    ]
    proof = reference.consistency_proof(leaf_hashes(9), 7)
    false = reference.consistency_proof(rewritten, 7)
    forged = signed_head(head_text(0, _ROOT))
    wrong: tuple[tuple[str, str, bytes, bytes, Sequence[bytes], str], ...] = (
        ("history-rewritten", "The first leaf is another than it was.",
         _sized(7), _sized(9, rewritten), false, _CONSISTENCY),
        ("history-rewritten-honest-proof", "The proof is that of the honest log.",
         _sized(7), _sized(9, rewritten), proof, _CONSISTENCY),
        ("forked", "Two heads of one size.", _sized(9), _sized(9, rewritten), [], _CONSISTENCY),
        ("gone-back", "The log has fewer leaves than it had.", _sized(9), _sized(7), proof,
         _CONSISTENCY),
        ("gone-back-to-nothing", "The log has no leaves left.", _sized(7), _sized(0), [],
         _CONSISTENCY),
        ("proof-left-out", "Two sizes and no proof.", _sized(7), _sized(9), [], _CONSISTENCY),
        ("proof-cut", "The last hash is missing.", _sized(7), _sized(9), proof[:-1], _CONSISTENCY),
        ("proof-with-a-hash-more", "A hash too many.", _sized(7), _sized(9), [*proof, proof[0]],
         _CONSISTENCY),
        ("proof-between-equal-sizes", "A proof of what needs none.", _sized(7), _sized(7), proof,
         _CONSISTENCY),
        ("proof-from-0", "A proof from nothing is empty.", _sized(0), _sized(7), proof,
         _CONSISTENCY),
        ("root-of-0-leaves", "No leaves have one root.", _sized(0), forged, [], _CONSISTENCY),
        ("of-another-log", "The newer head is not the log's.", _sized(7),
         note(head_text(9, _ROOT), _STRANGER.line(head_text(9, _ROOT))), proof, _SIGNATURE),
        ("of-another-origin", "The newer head is that of another log of the same key.", _sized(7),
         signed_head(head_text(9, _ROOT, origin="example.org/other")), proof, _STATEMENT),
    )  # fmt: skip

    def given(old: bytes, new: bytes, hashes: Sequence[bytes]) -> dict[str, object]:
        shown = {"old": in_base64(old), "new": in_base64(new)}
        return {"log": LOG.vkey, **shown, "proof": list(hashes)}

    operation = "heads_consistent"
    return [
        accepted(f"heads-{name}", about, operation, given(old, new, hashes))
        for name, about, old, new, hashes in right
    ] + [
        refused(f"heads-{name}", about, operation, given(old, new, hashes), error)
        for name, about, old, new, hashes, error in wrong
    ]
