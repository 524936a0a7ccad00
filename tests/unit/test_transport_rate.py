"""Token buckets: never more than burst and rate allow, and never less after waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from coin_protocol.transport import RateLimit, RateLimiter
from coin_protocol.transport import rate as rate_module


class Seconds:
    """A clock moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


PAUSES = st.lists(st.floats(0, 3), max_size=60)


@given(PAUSES, st.sampled_from([0.5, 1.0, 7.0]), st.integers(1, 5))
def test_no_more_calls_pass_than_burst_and_rate_allow(
    pauses: list[float], per_second: float, burst: int
) -> None:
    clock = Seconds()
    limiter = RateLimiter(RateLimit(per_second=per_second, burst=burst), clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limiter.take("a") == 0.0
        assert passed <= burst + per_second * clock.now + 1e-6


@given(PAUSES)
def test_who_waits_as_long_as_told_is_let_through(pauses: list[float]) -> None:
    clock = Seconds()
    limiter = RateLimiter(RateLimit(per_second=0.7, burst=2), clock)
    for pause in pauses:
        clock.now += pause
        wait = limiter.take("a")
        if wait:
            clock.now += wait + 1e-6
            assert limiter.take("a") == 0.0


def test_a_refused_call_costs_nothing() -> None:
    clock = Seconds()
    limiter = RateLimiter(RateLimit(per_second=1.0, burst=1), clock)
    assert limiter.take("a") == 0.0
    assert [limiter.take("a") for _ in range(3)] == [1.0, 1.0, 1.0]


def test_each_name_has_a_bucket_of_its_own() -> None:
    limiter = RateLimiter(RateLimit(per_second=1.0, burst=1), Seconds())
    assert [limiter.take(name) for name in ("a", "b", "", "a")] == [0.0, 0.0, 0.0, 1.0]


def test_the_names_remembered_are_bounded_and_empty_buckets_are_kept_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_module, "MAX_BUCKETS", 3)
    clock = Seconds()
    limiter = RateLimiter(RateLimit(per_second=1.0, burst=1), clock)
    for name in "abcdef":
        limiter.take(name)
        assert len(limiter._buckets) <= 3
    assert limiter.take("f") > 0
    clock.now += 5
    limiter.take("g")
    assert list(limiter._buckets) == ["g"]


@pytest.mark.parametrize(
    ("per_second", "burst"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)]
)
def test_a_limit_that_lets_nobody_through_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(InvalidInputError):
        RateLimit(per_second=per_second, burst=burst)
