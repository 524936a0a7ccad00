"""What the settings of a node allow, and what budgets and quotas come of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.parties import PROVIDER, Parties
from verifier_sdk.node.providers import Providers, RegisteredProvider
from verifier_sdk.node.settings import NodeSettings
from verifier_sdk.store.claims import Budget
from verifier_sdk.store.quota import DEFAULT_QUOTA


def settings(**given: Any) -> NodeSettings:
    return NodeSettings(**({"name": "auditor", "key": "file:key.pem"} | given))


@pytest.mark.parametrize("pause", [-1.0, math.inf, math.nan])
def test_a_pause_after_which_nothing_would_come_is_refused(pause: float) -> None:
    with pytest.raises(ValidationError, match="retry_seconds"):
        settings(retry_seconds=[pause])


def test_a_quota_is_what_the_settings_say() -> None:
    assert settings().quota == DEFAULT_QUOTA
    found = settings(receipts_per_day=7, megabytes_per_day=100, receipts_per_commitment=2).quota
    assert (found.receipts_per_day, found.bytes_per_day) == (7, 100_000_000)
    assert found.receipts_per_commitment == 2


@pytest.mark.parametrize(
    ("share", "audits", "budget"),
    [(0.2, 10, Budget(10, 5)), (0.0, 10, Budget(10, 10)), (1.0, None, None)],
    ids=["some are drawn", "none is drawn", "no budget"],
)
def test_where_none_is_drawn_at_random_the_whole_day_is_for_the_others(
    parties: Parties, share: float, audits: int | None, budget: Budget | None
) -> None:

    entry = RegisteredProvider(PROVIDER, "127.0.0.1:1", parties.trust, share, audits)
    assert Providers({PROVIDER: entry}).budgets(0.5) == {PROVIDER: budget}
