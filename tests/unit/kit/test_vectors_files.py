"""The product gives what vectors of receipts, bundles, logs and evidence files say."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

import pytest

from coin_protocol import merkle
from coin_protocol.checkpoint import verify_checkpoint
from coin_protocol.checks import Trust
from coin_protocol.errors import ConsistencyProofError, VerificationError
from coin_protocol.evidence import read_evidence, verify_evidence
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, pinned_verifiers
from coin_protocol.log_leaf import CommitmentLeaf, parse_leaf
from coin_protocol.note import NoteVerifier
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import read_bundle, read_receipt
from coin_protocol.statements import read_key_set
from coin_protocol.testing.small import SmallEmbedder, SmallTokenizer
from coin_protocol.v1 import receipt_pb2
from tests.unit.kit.test_vectors import Runner, Vector, cases, run
from verifier_sdk.witness.rules import Head, Refused, judge


def decoded(text: str) -> bytes:
    return b64decode(text, validate=True)


def roots_of(pems: list[str]) -> list[VerificationKey]:
    return [VerificationKey.from_pem(ROOT_KEY_NAME, pem.encode()) for pem in pems]


# Receipts.


def receipt(given: Vector) -> object:
    found = read_receipt(decoded(given["file"]))
    # One implementation of protobuf writes equal messages alike, if asked to.
    return {"protobuf": b64encode(found.SerializeToString(deterministic=True)).decode()}


# Bundles.


def bundle(given: Vector) -> object:
    verifiers = pinned_verifiers({name: pem.encode() for name, pem in given["verifiers"].items()})
    found = verify_bundle(
        read_bundle(decoded(given["bundle"])),
        trust=Trust(roots_of(given["provider_roots"]), verifiers),
        profile=Profile.from_bytes(decoded(given["profile"])),
        policy=Policy.from_bytes(decoded(given["policy"])),
        installed=(SmallTokenizer(), SmallEmbedder()) if given["models"] == "small" else None,
    )
    verdict, checks = found.verdict, found.verdict.checks
    failed = [one.code for one in checks if one.status == receipt_pb2.CHECK_STATUS_FAILED]
    return {
        "failed": failed[0] if failed else None,
        "outcome": receipt_pb2.Outcome.Name(verdict.outcome),
        "fault": receipt_pb2.Fault.Name(verdict.fault),
        "tiers": [receipt_pb2.Tier.Name(tier) for tier in verdict.tiers],
        "unchecked": list(found.unchecked),
    }


DIFFERENCES = {
    "checks": r"says of check [A-Z_]+ what the evidence does not give",
    "outcome": r"does not make the outcome|is PASS, though|accuses without",
    "fault": r"or the fault of the verdict|names another fault",
}
"""How errors say where a verdict differs; of any other field they name it."""


# A log.


def read_leaf(given: Vector) -> object:
    data = bytes.fromhex(given["data"])
    found = parse_leaf(data)
    leaf_hash = merkle.leaf_hash(data).hex()
    if isinstance(found, CommitmentLeaf):
        return {
            "kind": "commitment",
            "provider": found.provider,
            "session_id": found.session_id.hex(),
            "commitment_sha256": found.commitment_sha256.hex(),
            "leaf_hash": leaf_hash,
        }
    return {
        "kind": "verdict",
        "commitment_sha256": found.commitment_sha256.hex(),
        "verdict_sha256": found.verdict_sha256.hex(),
        "leaf_hash": leaf_hash,
    }


def read_vkey(given: Vector) -> object:
    found = NoteVerifier.from_vkey(given["vkey"])
    assert found.vkey == given["vkey"]
    return {
        "name": found.key.name,
        "key_hash": f"{found.key.key_hash:08x}",
        "algorithm": int(found.key.algorithm),
        "public_key": found.public.spki[-32:].hex(),
    }


def open_head(given: Vector) -> object:
    found = verify_checkpoint(
        decoded(given["note"]),
        NoteVerifier.from_vkey(given["log"]),
        [NoteVerifier.from_vkey(vkey) for vkey in given["witnesses"]],
        given["quorum"],
        origin=given["origin"],
    )
    head = found.checkpoint
    return {
        "origin": head.origin,
        "size": str(head.size),
        "root": head.root.hex(),
        "extensions": list(head.extensions),
        "cosignatures": [{"name": one.name, "at": str(one.at)} for one in found.cosignatures],
    }


def heads_consistent(given: Vector) -> object:
    """Have a witness judge the newer head, the older one being the last that it cosigned."""
    log = NoteVerifier.from_vkey(given["log"])
    old, new = (verify_checkpoint(decoded(given[name]), log).checkpoint for name in ("old", "new"))
    proof = [bytes.fromhex(entry) for entry in given["proof"]]
    found = judge(Head(old.size, old.root), old_size=old.size, proof=proof, checkpoint=new)
    if isinstance(found, Refused):
        raise ConsistencyProofError(found.message)
    return "ok"


# Evidence files.


def evidence(given: Vector) -> object:
    roots, vkey = given["provider_roots"], given["log"]
    trust = None if roots is None else Trust(roots_of(roots), pinned("verifiers", []))
    log_key = None if vkey is None else NoteVerifier.from_vkey(vkey)
    file = read_evidence(decoded(given["file"]))
    found = verify_evidence(file, trust=trust, log_key=log_key)
    return {
        "kind": found.kind,
        "party": found.party,
        "subject": found.subject,
        "first": found.first.hex(),
        "second": found.second.hex(),
        "revoked": [_revoked(text, file.commitments.key_set.payload) for text in found.caveats],
    }


def _revoked(caveat: str, key_set: bytes) -> str:
    """Return the id of the one key that a caveat names by its first digits."""
    (start,) = re.findall(r"\(([0-9a-f]{16})…\) was revoked", caveat)
    ids = [listed.key.keyid for listed in read_key_set(key_set).keys]
    (keyid,) = (one for one in ids if one.startswith(start))
    return keyid


RUNNERS: dict[str, dict[str, Runner]] = {
    "receipts": {"read_receipt": receipt},
    "bundles": {"verify_bundle": bundle},
    "log": {
        "read_leaf": read_leaf,
        "read_vkey": read_vkey,
        "open_head": open_head,
        "heads_consistent": heads_consistent,
    },
    "equivocation": {"verify_evidence": evidence},
}
ALL: dict[str, Runner] = {name: one for kind in RUNNERS.values() for name, one in kind.items()}


@pytest.mark.parametrize("vector", cases(*RUNNERS))
def test_a_vector_comes_to_what_it_states(vector: Vector) -> None:
    run(vector, ALL)


LIES = [case for case in cases("bundles") if "difference" in case.values[0]["expect"]]


@pytest.mark.parametrize("vector", LIES)
def test_the_first_difference_is_named(vector: Vector) -> None:
    where = vector["expect"]["difference"]
    said = DIFFERENCES.get(where, rf"the verdict's {where} is not what the evidence gives")
    with pytest.raises(VerificationError, match=said):
        bundle(vector["input"])
