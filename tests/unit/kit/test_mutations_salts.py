"""Leaves with salts of another length: of such audits nothing but that length is wrong."""

from __future__ import annotations

from random import Random
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coin_protocol.checks import Report, included, run_checks
from coin_protocol.limits import BLOCK_SALT_BYTES, TOKEN_SALT_BYTES
from coin_protocol.testing.evidence_vectors import Attack
from coin_protocol.testing.forgeries import audit
from coin_protocol.testing.mutations import Mutation, Plan
from coin_protocol.testing.mutations.salts import SALTS
from coin_protocol.testing.mutations.strategies import plans
from coin_protocol.testing.salt_vectors import SALT_ATTACKS
from coin_protocol.testing.salts import salted_block, salted_tokens
from coin_protocol.v1 import receipt_pb2
from tests.support.limit_cases.case import Whatever

ATTACKS: Final = [attack for attack in SALT_ATTACKS if attack.failed == "INCLUSION_PROOF"]


@pytest.fixture
def any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(included, "TOKEN_SALT_BYTES", Whatever(TOKEN_SALT_BYTES))
    monkeypatch.setattr(included, "BLOCK_SALT_BYTES", Whatever(BLOCK_SALT_BYTES))


def required_lengths(report: Report) -> None:
    assert report.failed is not None
    assert report.failed.code == "INCLUSION_PROOF"
    assert "has a salt of" in report.detail
    assert report.fault == receipt_pb2.FAULT_PROVIDER


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_vector_fails_by_the_length_of_a_salt(attack: Attack) -> None:
    required_lengths(run_checks(attack.make()))


@pytest.mark.usefixtures("any_length")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_vector_passes_where_salts_may_have_any_length(attack: Attack) -> None:
    report = run_checks(attack.make())
    assert report.failed is None, report.detail


@given(plan=plans(), mutation=st.sampled_from(SALTS), random=st.randoms(use_true_random=False))
def test_a_mutation_fails_by_the_length_of_a_salt_and_by_nothing_else(
    plan: Plan, mutation: Mutation, random: Random
) -> None:
    assume(mutation.applies(plan))
    case = mutation.make(plan, random)
    required_lengths(run_checks(case))
    with pytest.MonkeyPatch.context() as lifted:
        lifted.setattr(included, "TOKEN_SALT_BYTES", Whatever(TOKEN_SALT_BYTES))
        lifted.setattr(included, "BLOCK_SALT_BYTES", Whatever(BLOCK_SALT_BYTES))
        # The memo of the case keeps no failure.
        report = run_checks(case)
    assert report.failed is None, (mutation.name, report.detail)


def test_a_provider_that_salts_as_the_protocol_says_commits_to_the_same() -> None:
    honest = audit().reply
    for forge in (salted_tokens(1, TOKEN_SALT_BYTES), salted_block(1, BLOCK_SALT_BYTES)):
        other = audit(opener=forge).ask(blocks=9, tokens_per_block=9).ask_whole(blocks=9)
        assert other.reply.receipt == honest.receipt
        wanted = audit().ask(blocks=9, tokens_per_block=9).ask_whole(blocks=9)
        assert (other.rounds, other.whole_rounds) == (wanted.rounds, wanted.whole_rounds)
