"""Usage blocks that are drawn are read as what they tell, whoever sends them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from coin_protocol.testing import strategies as coin
from coin_protocol.vendors import CONVENTIONS, Reported, read_usage

SOME = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("vendor", CONVENTIONS)
def test_a_block_is_read_as_the_counts_that_it_was_made_of(vendor: str) -> None:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(
        coin.usage_blocks(
            vendor,
            prompt_tokens=st.just(36),
            reasoning_tokens=st.just(690),
            answer_tokens=st.just(10),
        )
    )
    def holds(block: dict[str, Any]) -> None:
        reported = read_usage(vendor, block)
        assert (reported.prompt_tokens, reported.generated) == (36, 700)
        assert reported.reasoning_tokens in (690, None)

    holds()


@pytest.mark.parametrize("vendor", CONVENTIONS)
def test_a_block_of_any_counts_adds_up(vendor: str) -> None:
    @SOME
    @given(coin.usage_blocks(vendor))
    def holds(block: dict[str, Any]) -> None:
        reported = read_usage(vendor, block)
        total = reported.prompt_tokens + reported.generated
        assert reported.total_tokens in (total, None)
        assert json.loads(json.dumps(block)) == block

    holds()


@given(coin.usage_reports(), coin.vendors(), coin.usage_reports("xai"))
@SOME
def test_reports_are_of_known_vendors(reported: Reported, vendor: str, of_one: Reported) -> None:
    assert {reported.vendor, vendor} <= CONVENTIONS.keys()
    assert of_one.vendor == "xai"


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "gemini"])
def test_a_block_shrinks_to_one_of_nothing(vendor: str) -> None:
    block = find(coin.usage_blocks(vendor), lambda _: True, settings=settings(database=None))
    reported = read_usage(vendor, block)
    assert (reported.prompt_tokens, reported.generated) == (0, 0)


@given(coin.usage_blocks(st.sampled_from(("openai", "vllm"))))
@SOME
def test_several_vendors_can_be_asked_for(block: dict[str, Any]) -> None:
    assert "total_tokens" in block


def test_a_vendor_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInputError, match="use one of openai, anthropic"):
        find(coin.usage_blocks("acme"), lambda _: True)
