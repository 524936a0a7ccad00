"""Collectors that keep what they hear in a folder, or in lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from provider_sdk.provider import Provider
from tests.support.parties import Parties
from tests.unit.collecting.house import House


@pytest.fixture
def house(parties: Parties, provider: Provider, tmp_path: Path) -> House:
    return House(parties, provider, tmp_path / "receipts")


@pytest.fixture
def lines(parties: Parties, provider: Provider, tmp_path: Path) -> House:
    return House(parties, provider, tmp_path / "receipts.jsonl", asserted=True)
