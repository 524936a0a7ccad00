"""What the generators of vectors share: documents, bytes made up, and of Merkle trees the roots."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256, shake_256
from typing import Final

from coin_protocol.testing import reference

Documents = dict[str, dict[str, object]]
AttackCase = tuple[str, str, int, int, dict[str, object]]
MalformedCase = tuple[str, str, dict[str, object]]

OK: Final = "ok"
INCLUSION_ERROR: Final = "InclusionProofError"
CONSISTENCY_ERROR: Final = "ConsistencyProofError"

PUBLISHED_LEAVES: Final = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
"""Leaf data, in hex, of the tree that Certificate Transparency's own tests use."""

PUBLISHED_ROOTS: Final = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Roots of its first 0 to 8 leaves, as published."""

GREATEST_SIZE: Final = 1 << 63


def document(
    name: str, about: str, operation: str, inputs: dict[str, object], expect: str
) -> dict[str, object]:
    """Return a vector as it stands in its file."""
    shown = {key: _hex(value) for key, value in inputs.items()}
    return {"name": name, "about": about, "operation": operation, **shown, "expect": expect}


def accepted(
    name: str,
    about: str,
    operation: str,
    given: Mapping[str, object],
    value: object = OK,
    *,
    never: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return a vector of an operation that gives a value.

    Args:
        name: Of the vector and its file.
        about: Why the case is there, a sentence.
        operation: What is run.
        given: What it takes.
        value: What it returns; `ok` where it only checks.
        never: What likely mistakes would return, by the mistake.
    """
    expect: dict[str, object] = {"value": _hex(value)}
    if never:
        expect["never"] = [{"about": key, "value": _hex(wrong)} for key, wrong in never.items()]
    return _vector(name, about, operation, given, expect)


def refused(
    name: str,
    about: str,
    operation: str,
    given: Mapping[str, object],
    error: str,
    **more: str,
) -> dict[str, object]:
    """Return a vector of an operation that must end in an error.

    Args:
        name: Of the vector and its file.
        about: Why the case is there, a sentence.
        operation: What is run.
        given: What it takes.
        error: The error's name, or a check's code.
        more: What else is known of the error.
    """
    return _vector(name, about, operation, given, {"error": error, **more})


def _vector(
    name: str, about: str, operation: str, given: Mapping[str, object], expect: object
) -> dict[str, object]:
    inputs = _hex(given)
    return {"name": name, "about": about, "operation": operation, "input": inputs, "expect": expect}


def in_base64(raw: bytes) -> str:
    """Return the form in which whole messages, notes and files stand in a vector."""
    return b64encode(raw).decode()


def made(what: str, count: int) -> bytes:
    """Return `count` bytes that look random and depend on `what` alone."""
    return shake_256(f"vectors/{what}".encode()).digest(count)


def by_file(documents: Iterable[dict[str, object]]) -> Documents:
    """Return vectors by the name of their file.

    Raises:
        ValueError: Two vectors have one name.
    """
    files: Documents = {}
    for found in documents:
        if files.setdefault(f"{found['name']}.json", found) is not found:
            msg = f"two vectors are named {found['name']}"
            raise ValueError(msg)
    return files


def _hex(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [_hex(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _hex(entry) for key, entry in value.items()}
    return value


def leaf_data(size: int) -> list[bytes]:
    """Return leaf data: the published leaves, then `leaf 8`, `leaf 9` and on."""
    published = [bytes.fromhex(leaf) for leaf in PUBLISHED_LEAVES]
    return [*published, *(b"leaf %d" % number for number in range(len(published), size))][:size]


def leaf_hashes(size: int) -> list[bytes]:
    """Return the leaf hashes of `leaf_data`."""
    return [hash_leaf(data) for data in leaf_data(size)]


def hash_leaf(data: bytes) -> bytes:
    """Return `SHA-256(0x00 || data)`, not computed by the code under test."""
    return sha256(b"\x00" + data).digest()


def tree_root(size: int) -> bytes:
    """Return the reference's root of the first `size` leaves."""
    return reference.root(leaf_hashes(size))


def bare_root(data: Sequence[bytes]) -> bytes:
    """Return the root of four leaves hashed without prefixes."""
    first, second, third, fourth = (sha256(leaf).digest() for leaf in data)
    left, right = sha256(first + second).digest(), sha256(third + fourth).digest()
    return sha256(left + right).digest()


def made_siblings(count: int) -> list[bytes]:
    """Return hashes that belong to no tree."""
    raw = shake_256(b"siblings").digest(32 * count)
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]


def flip(value: bytes) -> bytes:
    """Return `value` with its last bit changed."""
    return value[:-1] + bytes((value[-1] ^ 1,))
