"""A price list that the user writes: money for a million tokens, by model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Final

from coin_protocol.errors import InvalidInputError, LimitError
from verifier_sdk.bill.fields import UnreadableError, read_json, read_money
from verifier_sdk.bill.limits import MAX_PRICES_BYTES
from verifier_sdk.bill.line import same_model

_TIERS: Final = "tiers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Money for a million tokens of one model; None where the list does not say.

    Attributes:
        input: Prompt tokens that are neither read from a cache nor written to one.
        output: Generated tokens.
        cached_input: Prompt tokens read from a cache.
        cache_write: Prompt tokens written to a cache.
        cache_write_1h: The same, kept for an hour.
        reasoning: Reasoning tokens, where they cost another price than `output`.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None


@dataclass(frozen=True, slots=True)
class PriceList:
    """What tokens should cost.

    Attributes:
        currency: ISO 4217, upper case.
        prices: By model as it is compared, and by service tier; the standard one is "".
    """

    currency: str
    prices: Mapping[str, Mapping[str, Price]]

    @classmethod
    def from_file(cls, path: Path) -> PriceList:
        """Read a list in TOML, or in JSON if the name ends in `.json`.

        Raises:
            InvalidInputError: It cannot be read; the message names the entry.
            LimitError: It is too large.
        """
        document = _document(path)
        try:
            return cls(_currency(document), _models(document))
        except UnreadableError as error:
            msg = f"{path}: {error}"
            raise InvalidInputError(msg) from error

    def price(self, model: str, tier: str) -> Price | None:
        """Return what a model costs at a service tier; None where the list does not say."""
        return self.prices.get(same_model(model), {}).get(tier)


def _currency(document: Mapping[str, object]) -> str:
    currency = document.get("currency")
    if not isinstance(currency, str) or not currency.isalpha() or len(currency) != 3:
        msg = "it needs a `currency` of three letters, such as USD"
        raise UnreadableError(msg)
    return currency.upper()


def _models(document: Mapping[str, object]) -> dict[str, dict[str, Price]]:
    models = document.get("models")
    if not isinstance(models, Mapping) or not models:
        msg = "it needs a table `models` with one entry a model"
        raise UnreadableError(msg)
    found: dict[str, dict[str, Price]] = {}
    for name, entry in models.items():
        if same_model(name) in found:
            msg = f"{name!r} stands twice; what routes to a model, and case, do not count"
            raise UnreadableError(msg)
        found[same_model(name)] = _tiers(name, entry)
    return found


def _document(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PRICES_BYTES + 1)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InvalidInputError(msg) from error
    if len(raw) > MAX_PRICES_BYTES:
        msg = f"{path} has more than {MAX_PRICES_BYTES} bytes"
        raise LimitError(msg)
    try:
        text = raw.decode()
        document: object
        if path.suffix == ".json":
            document = read_json(text)
        else:
            document = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        msg = f"{path} is no price list: {str(error).splitlines()[0][:120]}"
        raise InvalidInputError(msg) from error
    if not isinstance(document, Mapping):
        msg = f"{path} is of type {type(document).__name__}; wanted an object"
        raise InvalidInputError(msg)
    return document


def _tiers(name: str, entry: object) -> dict[str, Price]:
    if not isinstance(entry, Mapping):
        msg = f"the entry of {name!r} is no table"
        raise UnreadableError(msg)
    tiers = entry.get(_TIERS, {})
    if not isinstance(tiers, Mapping):
        msg = f"`{_TIERS}` of {name!r} is no table"
        raise UnreadableError(msg)
    own = {key: value for key, value in entry.items() if key != _TIERS}
    return {
        "": _price(name, own),
        **{tier.lower(): _price(f"{name}, {tier}", each) for tier, each in tiers.items()},
    }


def _price(name: str, entry: object) -> Price:
    known = {each.name for each in fields(Price)}
    if not isinstance(entry, Mapping) or not {"input", "output"} <= entry.keys() <= known:
        msg = f"{name!r} needs input and output, and may have {', '.join(sorted(known))}, no more"
        raise UnreadableError(msg)
    amounts = {key: read_money(f"{key} of {name}", value) for key, value in entry.items()}
    if any(amount < 0 for amount in amounts.values()):
        msg = f"a price of {name!r} is negative"
        raise UnreadableError(msg)
    return Price(**amounts)
