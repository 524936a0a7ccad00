"""A provider in this process, and the files of a node's processes beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coin_protocol import transport
from coin_protocol.signer import public_pem
from provider_sdk.provider import Provider
from provider_sdk.service import ServiceSettings, make_server
from tests.support.parties import PROVIDER, VERIFIER, Parties, Reply, reasoning_ids, run_session
from tests.support.servers import served

LEASE_SECONDS: Final = 2.0
"""The least that the settings allow, so that audits of the dead are taken over soon."""

TOKENS: Final = 60
"""Of a reply: eight blocks of the small profile."""

_OFTEN: Final = transport.RateLimit(per_second=100_000.0, burst=1_000_000)


@dataclass(frozen=True)
class Site:
    """What the processes of a node go by.

    Attributes:
        folder: With all files in it, and logs.
        config: The node's settings.
        url: Of its database.
        parties: Keys and rules.
    """

    folder: Path
    config: Path
    url: str
    parties: Parties


@asynccontextmanager
async def serving_provider(provider: Provider) -> AsyncIterator[str]:
    """Serve an honest provider, as often as it is asked; give HOST:PORT."""
    server = await make_server(provider, ServiceSettings(rate=_OFTEN, queue=10_000))
    async with served(server) as target:
        yield target


def replies(provider: Provider, count: int) -> list[Reply]:
    """Return what so many clients hold."""
    return [run_session(provider, reasoning_ids(TOKENS)) for _ in range(count)]


def build(
    folder: Path,
    parties: Parties,
    *,
    url: str,
    target: str,
    nats: dict[str, Any] | None,
    at_once: int,
    more: Mapping[str, Any] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> Site:
    """Write the files of a node into a folder.

    Args:
        folder: Where.
        parties: Whose keys and rules.
        url: Of an empty database.
        target: HOST:PORT of the provider.
        nats: Servers and stream; None where the database hands audits out.
        at_once: Audits at once in each worker.
        more: Settings beside these, or instead of them.
        tables: Of the settings, beside the provider's.
    """
    files = {
        "profile": parties.profile.raw,
        "policy": parties.policy.raw,
        "verifier.pem": parties.verifier.to_pem(),
        "root.pub.pem": public_pem(parties.root.public),
    }
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    (folder / "verifier.pem").chmod(0o600)
    settings = {
        "name": VERIFIER,
        "key": f"file:{folder / 'verifier.pem'}",
        "profile": str(folder / "profile"),
        "policy": str(folder / "policy"),
        "database": url,
        "lease_seconds": LEASE_SECONDS,
        "audits_at_once": at_once,
        "calls_per_second": 100_000,
        "calls_burst": 1_000_000,
        "listen": "127.0.0.1:0",
        "log_format": "json",
        **(more or {}),
    }
    provider = {"endpoint": target, "roots": [str(folder / "root.pub.pem")]}
    found = {f"providers.{PROVIDER}": provider, **(tables or {})}
    if nats is not None:
        found["nats"] = nats
    config = folder / "node.toml"
    config.write_text(as_toml(settings) + "".join(f"[{k}]\n{as_toml(v)}" for k, v in found.items()))
    return Site(folder, config, url, parties)


def as_toml(values: Mapping[str, Any]) -> str:
    """Return the lines of one table."""
    # JSON's strings, numbers and lists are TOML's.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
