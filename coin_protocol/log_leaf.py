"""What a verifier's log says of a commitment and of a verdict (protocol, section 11). Pure.

A leaf names a session and digests, and nothing else: a public log must not tell a client's
business. `T(x)` is one length byte, then ASCII; integers are big endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from coin_protocol.encoding import tag
from coin_protocol.errors import InvalidInputError, LimitError, StatementError
from coin_protocol.limits import HASH_BYTES, MAX_LOG_LEAF_BYTES, MAX_NAME_BYTES, SESSION_ID_BYTES

COMMITMENT_LEAF_TAG: Final = tag("coin.log.commitment.v1")
VERDICT_LEAF_TAG: Final = tag("coin.log.verdict.v1")


@dataclass(frozen=True, slots=True)
class CommitmentLeaf:
    """That a provider committed to a session.

    Attributes:
        provider: Its name, as the commitment gives it.
        session_id: 16 bytes.
        commitment_sha256: Of the signed payload.
    """

    provider: str
    session_id: bytes
    commitment_sha256: bytes

    def __post_init__(self) -> None:
        """Refuse what no commitment says.

        Raises:
            InvalidInputError: A field is malformed.
        """
        if not 0 < len(_utf8(self.provider)) <= MAX_NAME_BYTES:
            msg = f"a provider's name has 1 to {MAX_NAME_BYTES} bytes of UTF-8"
            raise InvalidInputError(msg)
        _require("session_id", self.session_id, SESSION_ID_BYTES)
        _require("commitment_sha256", self.commitment_sha256, HASH_BYTES)

    def to_bytes(self) -> bytes:
        """Return the leaf's data; it still has to go through `merkle.leaf_hash`."""
        name = _utf8(self.provider)
        head = COMMITMENT_LEAF_TAG + struct.pack(">H", len(name)) + name
        return head + self.session_id + self.commitment_sha256


@dataclass(frozen=True, slots=True)
class VerdictLeaf:
    """That the verifier gave a verdict on a commitment.

    Attributes:
        commitment_sha256: Of the signed payload.
        verdict_sha256: Of the signed payload.
    """

    commitment_sha256: bytes
    verdict_sha256: bytes

    def __post_init__(self) -> None:
        """Refuse what no verdict says.

        Raises:
            InvalidInputError: A field is malformed.
        """
        _require("commitment_sha256", self.commitment_sha256, HASH_BYTES)
        _require("verdict_sha256", self.verdict_sha256, HASH_BYTES)

    def to_bytes(self) -> bytes:
        """Return the leaf's data; it still has to go through `merkle.leaf_hash`."""
        return VERDICT_LEAF_TAG + self.commitment_sha256 + self.verdict_sha256


def parse_leaf(data: bytes) -> CommitmentLeaf | VerdictLeaf:
    """Parse a leaf's data, which has one form only.

    Raises:
        StatementError: It is neither kind of leaf.
        LimitError: It is longer than any leaf.
    """
    if len(data) > MAX_LOG_LEAF_BYTES:
        msg = f"a leaf of {len(data)} bytes; the longest has {MAX_LOG_LEAF_BYTES}"
        raise LimitError(msg)
    try:
        if data.startswith(COMMITMENT_LEAF_TAG):
            return _commitment(data.removeprefix(COMMITMENT_LEAF_TAG))
        if data.startswith(VERDICT_LEAF_TAG):
            rest = data.removeprefix(VERDICT_LEAF_TAG)
            return VerdictLeaf(rest[:HASH_BYTES], rest[HASH_BYTES:])
    except (InvalidInputError, UnicodeDecodeError, struct.error) as error:
        msg = f"a malformed leaf of a log: {error}"
        raise StatementError(msg) from error
    msg = "neither a commitment's leaf nor a verdict's; update coin-audit if it is of a newer kind"
    raise StatementError(msg)


def _commitment(rest: bytes) -> CommitmentLeaf:
    (length,) = struct.unpack_from(">H", rest)
    name, fixed = rest[2 : 2 + length], rest[2 + length :]
    if len(name) != length:
        msg = f"the provider's name has {length} bytes; found {len(name)}"
        raise InvalidInputError(msg)
    return CommitmentLeaf(name.decode(), fixed[:SESSION_ID_BYTES], fixed[SESSION_ID_BYTES:])


def _utf8(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        msg = "a provider's name has halves of surrogate pairs, which no UTF-8 can say"
        raise InvalidInputError(msg) from error


def _require(name: str, found: bytes, wanted: int) -> None:
    if len(found) != wanted:
        msg = f"{name} has {wanted} bytes; found {len(found)}"
        raise InvalidInputError(msg)
