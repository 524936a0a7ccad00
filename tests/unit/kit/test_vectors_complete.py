"""No vector is without a runner, and no runner without a vector."""

from __future__ import annotations

from tests.unit.kit import test_vectors_bytes, test_vectors_files, test_vectors_signed
from tests.unit.kit.test_vectors import KINDS, OLDER, vectors

RUNNERS = test_vectors_bytes.RUNNERS | test_vectors_signed.RUNNERS | test_vectors_files.RUNNERS


def test_every_kind_is_run() -> None:
    assert sorted([*RUNNERS, *OLDER]) == KINDS


def test_every_operation_of_a_kind_is_run_and_shown() -> None:
    for kind, runners in RUNNERS.items():
        assert {vector["operation"] for vector in vectors(kind).values()} == set(runners), kind


def test_no_two_kinds_call_two_operations_the_same() -> None:
    names = [name for runners in RUNNERS.values() for name in runners]
    assert len(set(names)) == len(names)
