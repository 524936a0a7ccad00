"""Providers of the small models, for hooks into other processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from provider_sdk.gateway.config import load_settings
from provider_sdk.integrations.host import Host
from provider_sdk.ops.metrics import Metrics
from provider_sdk.provider import Provider
from tests.support.parties import Parties


class Hosts:
    """Opens a provider for a hook, and says whether it is open."""

    def __init__(self, parties: Parties, **settings: Any) -> None:
        """Hold the parties."""
        self._parties = parties
        self._settings = load_settings(None, **({"upstream": "http://unused.invalid"} | settings))
        self.provider: Provider | None = None

    @contextmanager
    def __call__(self) -> Iterator[Host]:
        """Open the provider."""
        with self._parties.provider() as provider:
            self.provider = provider
            yield Host(self._settings, provider, Metrics())
        self.provider = None
