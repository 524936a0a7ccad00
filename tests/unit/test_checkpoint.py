"""Checkpoints and cosignatures: real ones, and what is refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.checkpoint import (
    MAX_SIZE,
    Checkpoint,
    Cosignature,
    cosign,
    parse_checkpoint,
    parse_hash,
    parse_size,
    read_unverified,
    sign_checkpoint,
    verify_checkpoint,
)
from coin_protocol.errors import CoinError, InvalidInputError, SignatureError, StatementError
from coin_protocol.note import (
    NoteAlgorithm,
    NoteSigner,
    NoteVerifier,
    add_signatures,
    sign_note,
    split_note,
)
from coin_protocol.signer import KeySigner

# Source: sum.golang.org, the log of Go modules; heads of four years.
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_ORIGIN = "go.sum database tree"
GO_HEADS = {
    # The example of https://c2sp.org/tlog-checkpoint, under the origin that was signed.
    20852163: (
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        (
            "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOA"
            "YQ8="
        ),
    ),
    31700353: (
        "qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=",
        (
            "Az3grnmrIUEDFqHzAElIQCPNoRFRAAdFo47fooyWKMHb89k11GJh5zHIfNCOBmwn/C3YI8oW9/C8DJ87F61QqspB"
            "YwM="
        ),
    ),
    49189689: (
        "ftjbAOzaupaIvaPo/G+Dk63nxOZ2s1OPOKIaPtXs7S4=",
        (
            "Az3grlKZssqRoMNPpZfKt0TphbbcF+pzXqElURJKRNFKfaUAgqeI5k2AORH0QAhg/ebRwyIqD/OqP4oLtLnNumvO"
            "BAM="
        ),
    ),
    65209736: (
        "5+uGFjx6xBZG8ip1+wi77v+grwbhhukIrxEUS8PXvRo=",
        (
            "Az3grnbssgK7ubgFX36gVETtNv0U23qxyAhAMai2QUfeGa3nB/akvkMdlUErfcZz7l/R3cVtYspg3dxXABkGZZKd"
            "sQ8="
        ),
    ),
}

# Source: a staging log of Certificate Transparency, cosigned by witnesses of the public network.
CT_KEY = (
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)
CT_WITNESSES = (
    (
        "transparency.dev/DEV:witness-little-garden+d8042a87+"
        "BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM"
    ),
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
)
CT_ABSENT = "rgdd.se/poc-witness+db03732e+BCjJKlo6BU0xfIb8LutqerIFTWIXEA0L5n3tW3QyPFgG"
CT_HEAD = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ\
3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygN\
I75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIg\
cqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W\
3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTyn\
k5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2\
TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
""".encode()

ORIGIN = "example.org/log"
ROOT = sha256(b"root").digest()
HEAD = Checkpoint(ORIGIN, 7, ROOT)


def signer(
    name: str = ORIGIN, seed: int = 1, algorithm: NoteAlgorithm = NoteAlgorithm.ED25519
) -> NoteSigner:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return NoteSigner(KeySigner(name, key), algorithm)


def witness(number: int, name: str | None = None) -> NoteSigner:
    named = f"witness.example/{number}" if name is None else name
    return signer(named, 100 + number, NoteAlgorithm.COSIGNATURE)


LOG = signer()
WITNESSES = [witness(number) for number in range(3)]
KEYS = [one.verifier for one in WITNESSES]


def cosigned(*numbers: int, at: int = 1_700_000_000) -> bytes:
    raw = sign_checkpoint(HEAD, [LOG])
    return add_signatures(raw, [cosign(HEAD, WITNESSES[number], at) for number in numbers])


@pytest.mark.parametrize("size", GO_HEADS)
def test_real_heads_of_the_go_checksum_database_verify(size: int) -> None:
    root, signature = GO_HEADS[size]
    raw = f"{GO_ORIGIN}\n{size}\n{root}\n\n— sum.golang.org {signature}\n".encode()
    key = NoteVerifier.from_vkey(GO_KEY)
    found = verify_checkpoint(raw, key, origin=GO_ORIGIN)
    assert found.checkpoint == Checkpoint(GO_ORIGIN, size, base64.b64decode(root))
    assert found.checkpoint.text() == found.note.text
    for other in (str(size + 1), str(size)[:-1]):
        with pytest.raises(SignatureError):
            verify_checkpoint(raw.replace(str(size).encode(), other.encode()), key)
    with pytest.raises(StatementError, match=r"wanted 'sum\.golang\.org'"):
        verify_checkpoint(raw, key)


def test_a_real_head_with_its_cosignatures_verifies() -> None:
    log = NoteVerifier.from_vkey(CT_KEY)
    witnesses = [NoteVerifier.from_vkey(vkey) for vkey in (*CT_WITNESSES, CT_ABSENT)]
    found = verify_checkpoint(CT_HEAD, log, witnesses, 4)
    assert found.checkpoint.size == 1432088532
    assert {one.at for one in found.cosignatures} == {0x6A122120}
    assert len(found.cosignatures) == 4
    assert len(found.note.unverified) == 1  # of a kind that is not known here (0x05)
    with pytest.raises(SignatureError, match="4 of 5 witnesses"):
        verify_checkpoint(CT_HEAD, log, witnesses, 5)
    for changed in (b"1432088533", b"1432088531"):
        with pytest.raises(SignatureError):
            verify_checkpoint(CT_HEAD.replace(b"1432088532", changed), log, witnesses, 4)


def test_the_published_example_is_read() -> None:
    raw = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/"
        "Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    ).encode()
    found = read_unverified(raw)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert found.root.hex().startswith("0ac5186a91863e8e")


def test_a_text_has_three_lines_and_those_of_extension() -> None:
    root = base64.b64encode(ROOT).decode()
    assert HEAD.text() == f"example.org/log\n7\n{root}\n"
    extended = replace(HEAD, extensions=("one", "two"))
    assert extended.text() == f"example.org/log\n7\n{root}\none\ntwo\n"
    assert parse_checkpoint(extended.text()) == extended


ROOT_LINE = base64.b64encode(ROOT).decode()
BAD_TEXTS = {
    "two-lines": f"{ORIGIN}\n7\n",
    "empty": "\n",
    "origin-empty": f"\n7\n{ROOT_LINE}\n",
    "origin-long": f"{'x' * 256}\n7\n{ROOT_LINE}\n",
    "size-empty": f"{ORIGIN}\n\n{ROOT_LINE}\n",
    "size-with-leading-zero": f"{ORIGIN}\n07\n{ROOT_LINE}\n",
    "size-00": f"{ORIGIN}\n00\n{ROOT_LINE}\n",
    "size-negative": f"{ORIGIN}\n-7\n{ROOT_LINE}\n",
    "size-with-plus": f"{ORIGIN}\n+7\n{ROOT_LINE}\n",
    "size-with-space": f"{ORIGIN}\n7 \n{ROOT_LINE}\n",
    "size-in-hex": f"{ORIGIN}\n0x7\n{ROOT_LINE}\n",
    "size-with-underscore": f"{ORIGIN}\n1_0\n{ROOT_LINE}\n",
    "size-in-other-digits": f"{ORIGIN}\n\u0667\n{ROOT_LINE}\n",
    "size-of-2-63": f"{ORIGIN}\n{1 << 63}\n{ROOT_LINE}\n",
    "size-of-many-digits": f"{ORIGIN}\n{'9' * 5000}\n{ROOT_LINE}\n",
    "root-empty": f"{ORIGIN}\n7\n\n",
    "root-short": f"{ORIGIN}\n7\n{base64.b64encode(ROOT[:31]).decode()}\n",
    "root-long": f"{ORIGIN}\n7\n{base64.b64encode(ROOT + b'x').decode()}\n",
    "root-without-padding": f"{ORIGIN}\n7\n{ROOT_LINE.rstrip('=')}\n",
    "root-with-spare-bits": f"{ORIGIN}\n7\n{ROOT_LINE[:-2]}{chr(ord(ROOT_LINE[-2]) + 1)}=\n",
    "root-in-hex": f"{ORIGIN}\n7\n{ROOT.hex()}\n",
    "extension-empty": f"{ORIGIN}\n7\n{ROOT_LINE}\n\nx\n",
    "last-line-empty": f"{ORIGIN}\n7\n{ROOT_LINE}\n\n",
    "no-newline": f"{ORIGIN}\n7\n{ROOT_LINE}",
    "carriage-returns": f"{ORIGIN}\r\n7\r\n{ROOT_LINE}\r\n",
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(StatementError):
        parse_checkpoint(text)


def test_a_signed_note_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(StatementError, match="three lines"):
        verify_checkpoint(sign_note("hello\n", [LOG]), LOG.verifier)


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": ""},
        {"origin": "a\nb"},
        {"origin": "a\tb"},
        {"origin": "\ud800"},
        {"origin": "x" * 256},
        {"size": -1},
        {"size": MAX_SIZE + 1},
        {"root": b""},
        {"root": ROOT + b"x"},
        {"extensions": ("",)},
        {"extensions": ("a\n",)},
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        replace(HEAD, **fields)


def test_k_of_n_witnesses_make_a_quorum() -> None:
    for numbers in ((), (1,), (0, 2), (0, 1, 2)):
        raw = cosigned(*numbers)
        found = verify_checkpoint(raw, LOG.verifier, KEYS, len(numbers))
        wanted = [Cosignature(f"witness.example/{number}", 1_700_000_000) for number in numbers]
        assert list(found.cosignatures) == wanted
        if len(numbers) < 3:
            with pytest.raises(SignatureError, match="witnesses signed"):
                verify_checkpoint(raw, LOG.verifier, KEYS, len(numbers) + 1)


def test_a_witness_counts_once_however_often_it_signed() -> None:
    raw = cosigned(0)
    lines = raw.decode().split("\n\n")[1] + cosign(HEAD, WITNESSES[0], 1_800_000_000).line()
    twice = (HEAD.text() + "\n" + lines).encode()
    found = verify_checkpoint(twice, LOG.verifier, KEYS, 1)
    assert found.cosignatures == (Cosignature("witness.example/0", 1_800_000_000),)
    with pytest.raises(SignatureError, match="1 of 3"):
        verify_checkpoint(twice, LOG.verifier, KEYS, 2)


def test_a_cosignature_of_another_head_spoils_the_note() -> None:
    other = cosign(replace(HEAD, size=8), WITNESSES[1], 5)
    raw = add_signatures(cosigned(0), [other])
    with pytest.raises(SignatureError):
        verify_checkpoint(raw, LOG.verifier, KEYS, 1)
    # To those who do not know the witness it says nothing.
    assert verify_checkpoint(raw, LOG.verifier, KEYS[:1], 1).cosignatures


def test_a_cosignature_covers_extensions() -> None:
    extended = replace(HEAD, extensions=("note",))
    raw = sign_checkpoint(extended, [LOG])
    good = add_signatures(raw, [cosign(extended, WITNESSES[0], 5)])
    assert verify_checkpoint(good, LOG.verifier, KEYS, 1).checkpoint == extended
    with pytest.raises(SignatureError):
        verify_checkpoint(add_signatures(raw, [cosign(HEAD, WITNESSES[0], 5)]), LOG.verifier, KEYS)


def test_witnesses_alone_make_no_head() -> None:
    raw = cosigned(0, 1, 2)
    text, signatures = split_note(raw)
    bare = (text + "\n" + "".join(one.line() for one in signatures[1:])).encode()
    with pytest.raises(SignatureError, match=r"the log 'example\.org/log' has not signed"):
        verify_checkpoint(bare, LOG.verifier, KEYS, 3)
    with pytest.raises(SignatureError):
        verify_checkpoint(raw, signer(seed=2).verifier, KEYS, 3)


def test_a_head_of_another_log_is_refused_though_this_key_signed_it() -> None:
    other = Checkpoint("example.org/other", 7, ROOT)
    with pytest.raises(StatementError, match=r"wanted 'example\.org/log'"):
        verify_checkpoint(sign_checkpoint(other, [LOG]), LOG.verifier)


@pytest.mark.parametrize("quorum", [-1, 4])
def test_a_quorum_that_cannot_be_is_refused(quorum: int) -> None:
    with pytest.raises(InvalidInputError, match="quorum"):
        verify_checkpoint(cosigned(0, 1, 2), LOG.verifier, KEYS, quorum)


def test_one_key_is_one_witness_and_never_the_log() -> None:
    again = witness(0, "witness.example/alias").verifier
    own = signer("witness.example/own", 1, NoteAlgorithm.COSIGNATURE).verifier
    for witnesses in ([KEYS[0], again], [own], [KEYS[0], KEYS[0]]):
        with pytest.raises(InvalidInputError, match="stands twice"):
            verify_checkpoint(cosigned(0), LOG.verifier, witnesses, 1)
    plain = signer("witness.example/plain", 50).verifier
    with pytest.raises(InvalidInputError, match="0x04"):
        verify_checkpoint(cosigned(0), LOG.verifier, [plain], 1)


def test_a_log_key_does_not_cosign_and_a_witness_does_not_sign() -> None:
    with pytest.raises(InvalidInputError):
        cosign(HEAD, LOG, 5)
    with pytest.raises(InvalidInputError):
        sign_checkpoint(HEAD, WITNESSES)


HEADS = st.builds(
    Checkpoint,
    origin=st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: len(text.encode()) <= 255
    ),
    size=st.integers(0, MAX_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(
        st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1),
        max_size=3,
    ).map(tuple),
)


@given(head=HEADS, at=st.integers(1, MAX_SIZE), quorum=st.integers(0, 3))
def test_any_head_comes_back_signed_and_cosigned(head: Checkpoint, at: int, quorum: int) -> None:
    assert parse_checkpoint(head.text()) == head
    raw = sign_checkpoint(head, [LOG])
    raw = add_signatures(raw, [cosign(head, one, at) for one in WITNESSES[:quorum]])
    found = verify_checkpoint(raw, LOG.verifier, KEYS, quorum, origin=head.origin)
    assert found.checkpoint == head
    assert [one.at for one in found.cosignatures] == [at] * quorum


@given(at=st.integers(0, 600), piece=st.binary(max_size=12), cut=st.integers(0, 12))
def test_no_change_to_a_cosigned_head_goes_unseen(at: int, piece: bytes, cut: int) -> None:
    good = cosigned(0, 1, 2)
    changed = good[:at] + piece + good[at + cut :]
    try:
        found = verify_checkpoint(changed, LOG.verifier, KEYS, 3)
    except CoinError:
        return
    assert found.checkpoint == HEAD


@given(size=st.integers(0, MAX_SIZE))
def test_sizes_are_read_as_written(size: int) -> None:
    assert parse_size(str(size)) == size
    with pytest.raises(StatementError):
        parse_size(f"0{size}")


def test_a_hash_is_read_as_written() -> None:
    assert parse_hash(ROOT_LINE) == ROOT
    with pytest.raises(StatementError, match=r"^a hash has 32 bytes; found 31"):
        parse_hash(base64.b64encode(ROOT[:31]).decode())
    with pytest.raises(StatementError, match=r"^a hash is not standard base64"):
        parse_hash(ROOT_LINE.rstrip("="))
