"""Whether the money of a line is that of its tokens, and if not, of which tokens it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from coin_protocol.vendors import Reported
from verifier_sdk.bill.codes import Code, Finding
from verifier_sdk.bill.line import Line
from verifier_sdk.bill.prices import Price, PriceList

_MILLION: Final = -6
_ROUNDED_TO: Final = Decimal("0.005")
"""Half a cent: an amount of whole units is not taken to be rounded to them."""
_SLACK: Final = Decimal("0.000001")
"""Of the amount: sums in binary floating point, as gateways make them, end in noise."""
_CLEAR: Final = 4
"""A mistake is named where it is so many times what rounding may hide: a cost in cents, or of
nothing, is near many sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """What a line should cost.

    Attributes:
        expected: In the line's currency; None where that cannot be said.
        unpriced: Why not; empty where it can, or where the line states no cost.
        findings: Where the cost is another.
    """

    expected: Decimal | None = None
    unpriced: str = ""
    findings: tuple[Finding, ...] = ()


def check_price(line: Line, reported: Reported, prices: PriceList) -> Priced:
    """Compare what a line costs with what its tokens cost, reasoning once.

    Args:
        line: With the money.
        reported: With the tokens.
        prices: The user's list.
    """
    if line.cost is None:
        return Priced()
    reason, price = _unpriced(line, reported, prices)
    if price is None:
        return Priced(unpriced=reason)
    expected = _input(line, reported, price) + _output(reported, price)
    if _same(line.cost, expected):
        return Priced(expected=expected)
    code, why = next(
        (
            (code, why)
            for code, amount, why in _mistakes(reported, price, expected)
            if _is(line.cost, amount, expected)
        ),
        (Code.PRICE_ABOVE_LIST if line.cost > expected else Code.PRICE_BELOW_LIST, ""),
    )
    sentence = (
        f"{line.cost:f} {line.currency} is billed; by the price list the tokens cost "
        f"{expected.normalize():f}{why}"
    )
    found = Finding(code=code, sentence=sentence, money=line.cost - expected)
    return Priced(expected=expected, findings=(found,))


def output_money(price: Price, tokens: int) -> Decimal:
    """Return what generated tokens cost, at the price of the answer."""
    return _of(tokens, price.output)


def _unpriced(line: Line, reported: Reported, prices: PriceList) -> tuple[str, Price | None]:
    """Return why a line cannot be priced, or its price."""
    tier = f" at tier {line.service_tier}" if line.service_tier else ""
    price = prices.price(line.model, line.service_tier)
    if line.own_key:
        return "somebody else bills the tokens", None
    if line.currency != prices.currency:
        return f"billed in {line.currency}, listed in {prices.currency}", None
    if price is None:
        return f"no price of {line.model or 'a line without model'}{tier}", None
    minutes, hour = line.cache_write
    for count, one, name in (
        (reported.cached_prompt_tokens, price.cached_input, "cached_input"),
        (minutes, price.cache_write, "cache_write"),
        (hour, price.cache_write_1h, "cache_write_1h"),
    ):
        if count and one is None:
            return f"no {name} price of {line.model}{tier}", None
    if reported.unnamed_tokens:
        return "tokens under no name", None
    return "", price


def _input(line: Line, reported: Reported, price: Price) -> Decimal:
    minutes, hour = line.cache_write
    cached = reported.cached_prompt_tokens
    rest = max(reported.prompt_tokens - cached - minutes - hour, 0)
    return (
        _of(rest, price.input)
        + _of(cached, price.cached_input)
        + _of(minutes, price.cache_write)
        + _of(hour, price.cache_write_1h)
    )


def _output(reported: Reported, price: Price) -> Decimal:
    reasoning = reported.reasoning_tokens or 0
    return _of(reported.generated - reasoning, price.output) + _of(reasoning, _reasoning(price))


def _mistakes(
    reported: Reported, price: Price, expected: Decimal
) -> Iterator[tuple[Code, Decimal, str]]:
    """Yield what the line would cost had somebody made a known mistake."""
    reasoning = reported.reasoning_tokens or 0
    answer = reported.generated - reasoning
    if reasoning:
        for one in {_reasoning(price), price.output}:
            amount = expected + _of(reasoning, one)
            why = f"; with the {reasoning} reasoning tokens once more {amount.normalize():f}"
            yield Code.REASONING_PRICED_TWICE, amount, why
        yield (
            Code.REASONING_NOT_PRICED,
            expected - _of(reasoning, _reasoning(price)),
            f"; the {reasoning} reasoning tokens are left out",
        )
        yield (
            Code.ANSWER_NOT_PRICED,
            expected - _of(answer, price.output),
            f"; the {answer} tokens of the answer are left out",
        )
    cached = reported.cached_prompt_tokens
    if cached:
        yield (
            Code.CACHE_PRICED_IN_FULL,
            expected - _of(cached, price.cached_input) + _of(cached, price.input),
            f"; the {cached} cached prompt tokens are priced like others",
        )


def _reasoning(price: Price) -> Decimal:
    return price.output if price.reasoning is None else price.reasoning


def _of(tokens: int, price: Decimal | None) -> Decimal:
    return (tokens * (price or Decimal())).scaleb(_MILLION)


def _is(cost: Decimal, mistaken: Decimal, expected: Decimal) -> bool:
    """Whether a cost is a mistaken amount, and no other that rounds alike."""
    clear = abs(mistaken - expected) > _CLEAR * _hidden(cost, mistaken)
    return clear and cost != 0 and _same(cost, mistaken)


def _same(cost: Decimal, amount: Decimal) -> bool:
    """Whether a cost is an amount, rounded as the cost is written."""
    return abs(cost - amount) <= _hidden(cost, amount)


def _hidden(cost: Decimal, amount: Decimal) -> Decimal:
    """Return by how much an amount may differ from a cost that it was rounded to."""
    exponent = cost.as_tuple().exponent
    written = Decimal(5).scaleb(exponent - 1) if isinstance(exponent, int) else Decimal()
    return min(written, _ROUNDED_TO) + abs(amount) * _SLACK
