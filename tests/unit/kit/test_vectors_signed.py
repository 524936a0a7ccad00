"""The product gives what vectors of keys, envelopes and statements say."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope, statements
from coin_protocol.checks import Trust, rooted_keys
from coin_protocol.keys import KeyRing, ListedKey, VerificationKey, read_time
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, pinned
from coin_protocol.v1 import envelope_pb2, keys_pb2
from tests.unit.kit.test_vectors import Runner, Vector, cases, run


def decoded(text: str) -> bytes:
    return b64decode(text, validate=True)


def key_of(given: Vector) -> VerificationKey:
    return VerificationKey.from_spki(given["name"], bytes.fromhex(given["spki"]))


def read_key(given: Vector) -> object:
    key = key_of(given)
    return {"algorithm": keys_pb2.KeyAlgorithm.Name(key.algorithm), "keyid": key.keyid}


def time_of(text: str) -> datetime:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return read_time(stamp)


def key_window(given: Vector) -> object:
    key = VerificationKey.from_key("acme", Ed25519PrivateKey.generate().public_key())
    revoked = given["revoked_at"]
    listed = ListedKey(
        key,
        time_of(given["not_before"]),
        time_of(given["not_after"]),
        None if revoked is None else time_of(revoked),
    )
    listed.require_valid(time_of(given["at"]))
    return "ok"


def ring_of(ring: KeyRing) -> object:
    return {
        "owner": ring.owner,
        "sequence": str(ring.sequence),
        "keyids": [listed.key.keyid for listed in ring.keys],
    }


def read_key_set(given: Vector) -> object:
    return ring_of(statements.read_key_set(decoded(given["payload"])))


def continues(given: Vector) -> object:
    older, newer = (statements.read_key_set(decoded(given[name])) for name in ("older", "newer"))
    return {"continues": newer.continues(older)}


def open_key_set(given: Vector) -> object:
    signed = envelope_pb2.Envelope.FromString(decoded(given["envelope"]))
    roots = [VerificationKey.from_pem(ROOT_KEY_NAME, pem.encode()) for pem in given["roots"]]
    trust = Trust(roots, pinned("verifiers", []))
    return ring_of(rooted_keys(SignedKeySet(signed), trust))


def pae(given: Vector) -> object:
    found = envelope.pre_authentication_encoding(
        given["payload_type"], bytes.fromhex(given["payload"])
    )
    return {"bytes": found.hex()}


def verify_signature(given: Vector) -> object:
    key = key_of(given | {"name": "acme"})
    key.verify(bytes.fromhex(given["signature"]), bytes.fromhex(given["data"]))
    return "ok"


def verify_envelope(given: Vector) -> object:
    signed = envelope_pb2.Envelope.FromString(decoded(given["envelope"]))
    ring = pinned("acme", map(key_of, given["keys"]))
    return {"keyid": envelope.verify(signed, given["payload_type"], ring).key.keyid}


READERS: dict[str, Callable[[bytes], Any]] = {
    "keyset": statements.read_key_set,
    "checkpoint": statements.read_checkpoint,
    "commitment": statements.read_commitment,
    "fingerprints": statements.read_fingerprints,
    "manifest": statements.read_manifest,
    "challenge": statements.read_challenge,
    "whole-challenge": statements.read_whole_challenge,
    "opening": statements.read_opening,
    "whole-opening": statements.read_whole_opening,
    "refusal": statements.read_refusal,
    "verdict": statements.read_verdict,
}


def field_of(message: Any, path: str) -> object:
    for part in path.split("."):
        message = message[int(part)] if part.isdigit() else getattr(message, part)
    return list(message) if hasattr(message, "extend") else message


def read_statement(given: Vector) -> object:
    payload = decoded(given["payload"])
    found = READERS[given["statement"]](payload)
    fields = {path: field_of(found, path) for path in given["fields"]}
    return {"sha256": sha256(payload).hexdigest(), "fields": fields}


RUNNERS: dict[str, dict[str, Runner]] = {
    "keys": {
        "read_key": read_key,
        "key_window": key_window,
        "read_key_set": read_key_set,
        "continues": continues,
        "open_key_set": open_key_set,
    },
    "envelopes": {
        "pae": pae,
        "verify_signature": verify_signature,
        "verify_envelope": verify_envelope,
    },
    "statements": {"read_statement": read_statement},
}
ALL: dict[str, Runner] = {name: one for kind in RUNNERS.values() for name, one in kind.items()}


@pytest.mark.parametrize("vector", cases(*RUNNERS))
def test_a_vector_comes_to_what_it_states(vector: Vector) -> None:
    run(vector, ALL)
