"""Signed notes: published vectors, what is refused and why, round trips."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import (
    CoinError,
    InvalidInputError,
    LimitError,
    SignatureError,
    StatementError,
)
from coin_protocol.limits import MAX_NOTE_BYTES, MAX_NOTE_LINE_BYTES, MAX_NOTE_SIGNATURES
from coin_protocol.note import (
    Note,
    NoteAlgorithm,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    add_signatures,
    open_note,
    sign_note,
    split_note,
    write_note,
)
from coin_protocol.signer import KeySigner

# Source: golang.org/x/mod/sumdb/note, note_test.go.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR"
    "Zb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33"
    "WWd1RvMc+QQ=\n"
)
# Source: https://c2sp.org/signed-note.
EXAMPLE = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ON"
    "ncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
QUASIMODO = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouF"
    "SQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)


def signer(
    name: str = "example.org/log",
    seed: int = 1,
    algorithm: NoteAlgorithm = NoteAlgorithm.ED25519,
) -> NoteSigner:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return NoteSigner(KeySigner(name, key), algorithm)


def peter() -> NoteSigner:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(PETER_SEED)
    return NoteSigner(KeySigner("PeterNeumann", key))


def note(*lines: str, text: str = TEXT) -> bytes:
    return (text + "\n" + "".join(lines)).encode()


def verifiers(*vkeys: str) -> list[NoteVerifier]:
    return [NoteVerifier.from_vkey(vkey) for vkey in vkeys]


def test_a_note_is_signed_as_published() -> None:
    assert sign_note(TEXT, [peter()]) == note(PETER_LINE)
    assert peter().verifier.vkey == PETER


def test_notes_open_as_published() -> None:
    found = open_note(note(PETER_LINE, ENOCH_LINE), verifiers(PETER))
    assert found.text == TEXT
    assert [one.line() for one in found.verified] == [PETER_LINE]
    assert [one.line() for one in found.unverified] == [ENOCH_LINE]
    both = open_note(note(PETER_LINE, ENOCH_LINE), verifiers(PETER, ENOCH))
    assert [one.line() for one in both.verified] == [PETER_LINE, ENOCH_LINE]
    assert open_note(EXAMPLE_NOTE.encode(), verifiers(EXAMPLE)).text.startswith("This is")


def test_text_is_parted_from_signatures_by_the_last_empty_line() -> None:
    text, (signature,) = split_note(QUASIMODO.encode())
    assert text.endswith("sole:\n\ned è subito sera.\n")
    assert signature.name == "quasimodo.example/salvatore"
    assert signature.key_hash == 0x367BA04B


BAD_NOTES = {
    # The first seven: golang.org/x/mod/sumdb/note, note_test.go.
    "no-signature-block": TEXT.encode(),
    "no-signature": note(),
    "no-newline-at-the-end": note(PETER_LINE[:-1]),
    "control-character": note(PETER_LINE, text="\x01" + TEXT),
    "not-utf-8": b"\xff" + note(PETER_LINE),
    "name-with-a-space": note(PETER_LINE.replace("PeterNeumann", "Bad Name")),
    "line-that-is-none": note(PETER_LINE, "Unexpected line.\n"),
    "tab": note(PETER_LINE, text="a\tb\n"),
    "carriage-return": note(PETER_LINE).replace(b"\n", b"\r\n"),
    "empty": b"",
    "two-newlines": b"\n\n",
    "name-with-a-plus": note(PETER_LINE.replace("PeterNeumann", "a+b")),
    "name-with-an-odd-space": note(PETER_LINE.replace("PeterNeumann", "a\u2003b")),
    "name-missing": note("—  x08go/ZJ\n"),
    "dash-missing": note(PETER_LINE.removeprefix("— ")),
    "hyphen-for-a-dash": note(PETER_LINE.replace("—", "-")),
    "base64-missing": note("— PeterNeumann\n"),
    "base64-empty": note("— PeterNeumann \n"),
    "base64-without-padding": note(PETER_LINE.replace("=", "")),
    "base64-with-spare-bits": note(PETER_LINE.replace("nAM=", "nAN=")),
    "base64-for-urls": note(PETER_LINE.replace("/", "_")),
    "base64-with-a-space": note(PETER_LINE.replace("nAM=", "nAM= ")),
    "key-hash-alone": note("— PeterNeumann x08gow==\n"),
}


@pytest.mark.parametrize("raw", BAD_NOTES.values(), ids=BAD_NOTES.keys())
def test_what_is_no_note_is_refused(raw: bytes) -> None:
    with pytest.raises(StatementError):
        open_note(raw, verifiers(PETER))


def test_a_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    wrong = PETER_LINE.replace("UG/SffcvI", "UG/SffcvJ")
    with pytest.raises(SignatureError, match="PeterNeumann"):
        open_note(note(wrong, ENOCH_LINE), verifiers(PETER, ENOCH))
    # A good one before it does not mend it: each line of a known key is checked.
    with pytest.raises(SignatureError, match="PeterNeumann"):
        open_note(note(PETER_LINE, wrong), verifiers(PETER))
    # That of a key that is not known harms nobody.
    found = open_note(note(wrong, ENOCH_LINE), verifiers(ENOCH))
    assert [one.name for one in found.unverified] == ["PeterNeumann"]
    # As published: bytes in between make it too long.
    longer = PETER_LINE[:60] + "ABCD" + PETER_LINE[60:]
    with pytest.raises(SignatureError):
        open_note(note(longer), verifiers(PETER))


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    with pytest.raises(SignatureError, match="known: nobody"):
        open_note(note(PETER_LINE), [])
    for other in (
        PETER_LINE.replace("PeterNeumann", "CarmenSandiego"),
        PETER_LINE.replace("x08g", "xxxx"),
    ):
        with pytest.raises(SignatureError, match="known: PeterNeumann"):
            open_note(note(other), verifiers(PETER))
        with pytest.raises(SignatureError, match=r"known: EnochRoot, PeterNeumann$"):
            open_note(note(other), verifiers(PETER, ENOCH))


def test_a_line_said_twice_counts_once() -> None:
    enoch_abcd = ENOCH_LINE[:60] + "ABCD" + ENOCH_LINE[60:]
    lines = (PETER_LINE, PETER_LINE, ENOCH_LINE, ENOCH_LINE, enoch_abcd)
    found = open_note(note(*lines), verifiers(PETER))
    assert [one.line() for one in found.verified] == [PETER_LINE]
    assert [one.line() for one in found.unverified] == [ENOCH_LINE, enoch_abcd]


def test_limits_are_checked_before_signatures() -> None:
    most = note(*[PETER_LINE] * MAX_NOTE_SIGNATURES)
    assert len(open_note(most, verifiers(PETER)).verified) == 1
    with pytest.raises(LimitError, match="101 signatures"):
        open_note(most + PETER_LINE.encode(), verifiers(PETER))
    long = "— x " + base64.b64encode(bytes(MAX_NOTE_LINE_BYTES)).decode() + "\n"
    with pytest.raises(LimitError, match="line 1"):
        open_note(note(long), verifiers(PETER))
    with pytest.raises(LimitError, match="bytes"):
        open_note(note(PETER_LINE, text="x" * (MAX_NOTE_LINE_BYTES + 1) + "\n"), [])
    with pytest.raises(LimitError, match="bytes"):
        open_note(bytes(MAX_NOTE_BYTES + 1), [])


def test_a_signature_may_have_a_single_byte() -> None:
    short = NoteSignature("PeterNeumann", 0xC74F20A3, b"x")
    assert split_note(write_note(TEXT, [short])) == (TEXT, (short,))


def test_sixteen_post_quantum_signatures_fit() -> None:
    """Signed notes: verifiers must take 16 signatures, and one can have nearly 5 kB."""
    large = [
        NoteSignature(f"witness.example/{number}", number, bytes([number]) * 5000)
        for number in range(1, 16)
    ]
    found = open_note(
        write_note(TEXT, [*split_note(note(PETER_LINE))[1], *large]), [*verifiers(PETER)]
    )
    assert list(found.unverified) == large


def test_two_keys_that_nobody_can_tell_apart_are_refused() -> None:
    (one,) = verifiers(PETER)
    other = NoteVerifier(one.key, signer("PeterNeumann").verifier.public)
    with pytest.raises(InvalidInputError, match="nobody can tell"):
        open_note(note(PETER_LINE), [one, other])
    assert open_note(note(PETER_LINE), [one, one]).verified


def test_signatures_are_added_and_those_of_the_same_key_replaced() -> None:
    text = "text\n"
    first = sign_note(text, [signer("a"), signer("b", 2)])
    again = sign_note(text, [signer("c", 3), signer("a")], existing=first)
    assert [one.name for one in split_note(again)[1]] == ["b", "c", "a"]
    stale = note("— PeterNeumann x08go0JBRFNJRw==\n")
    assert sign_note(TEXT, [peter()], existing=stale) == note(PETER_LINE)
    assert add_signatures(first, []) == first


def test_signatures_are_not_added_to_another_text() -> None:
    with pytest.raises(InvalidInputError, match="another text"):
        sign_note("one\n", [signer()], existing=sign_note("two\n", [signer()]))
    with pytest.raises(StatementError):
        sign_note("one\n", [signer()], existing=b"no note")


@pytest.mark.parametrize("text", ["", "abc", "a\x00b\n", "a\x1bb\n", "a\tb\n", "\ud800\n"])
def test_what_no_note_can_say_is_not_signed(text: str) -> None:
    with pytest.raises(InvalidInputError):
        sign_note(text, [signer()])


def test_a_note_needs_a_signature_and_bears_no_more_than_it_may() -> None:
    with pytest.raises(LimitError, match="found 0"):
        sign_note("text\n", [])
    many = [signer(f"key{number}") for number in range(MAX_NOTE_SIGNATURES + 1)]
    with pytest.raises(LimitError, match="found 101"):
        sign_note("text\n", many)
    assert len(split_note(sign_note("text\n", many[1:]))[1]) == MAX_NOTE_SIGNATURES
    with pytest.raises(LimitError):
        sign_note("x" * MAX_NOTE_LINE_BYTES + "y\n", [signer()])
    with pytest.raises(LimitError, match="at most"):
        write_note("x\n" * 40_000, [NoteSignature("k", 1, bytes(6000))] * 10)


LINES = st.lists(
    st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), max_size=40),
    min_size=1,
    max_size=6,
)
TEXTS = LINES.map(lambda lines: "\n".join(lines) + "\n")
NAMES = st.text(
    st.characters(min_codepoint=0x21, exclude_categories=["Cs", "Z"], exclude_characters="+\x85"),
    min_size=1,
    max_size=20,
)


@given(text=TEXTS, names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_any_text_under_any_names_comes_back(text: str, names: list[str]) -> None:
    signers = [signer(name, number + 1) for number, name in enumerate(names)]
    raw = sign_note(text, signers)
    found = open_note(raw, [one.verifier for one in signers])
    assert found == Note(text, tuple(one.sign(text) for one in signers), ())
    assert write_note(found.text, found.verified) == raw
    assert all(NoteVerifier.from_vkey(one.verifier.vkey) == one.verifier for one in signers)


@given(raw=st.binary(max_size=300), at=st.integers(0, 400))
def test_whatever_comes_in_is_opened_or_refused_by_an_error_of_ours(raw: bytes, at: int) -> None:
    good = note(PETER_LINE)
    for tried in (raw, good[:at] + raw + good[at:], good[: at % len(good)] + raw):
        try:
            found = open_note(tried, verifiers(PETER))
        except CoinError:
            continue
        assert found.text == TEXT
