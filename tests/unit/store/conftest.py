"""Stores over both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from coin_protocol.testing.small import small_profile
from provider_sdk.store import KeySealer, SqlStore
from tests.support.databases import KINDS, database

MakeStore = Callable[..., SqlStore]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    with database(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def make_store(url: str) -> Iterator[MakeStore]:
    """Stores over one database, as so many processes would open them."""
    sealer = KeySealer.generate()
    with ExitStack() as stack:

        def make(**instead: object) -> SqlStore:
            arguments = {"profile": small_profile(), "sealer": sealer} | instead
            store = SqlStore(url, **arguments)  # type: ignore[arg-type]
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make_store: MakeStore) -> SqlStore:
    """One store."""
    return make_store()
