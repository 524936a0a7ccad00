"""What a proxy under test is told to call: the hook over a provider of the small models."""

from __future__ import annotations

import os
import threading

import uvicorn

from provider_sdk.gateway.app import Gateway
from provider_sdk.integrations.host import Host, open_for_good
from provider_sdk.integrations.litellm import CoinHandler
from tests.support.hosts import Hosts
from tests.support.parties import Parties


def serve_receipts(host: Host, port: int) -> None:
    """Stand a gateway over the same store, as for clients that ask for a receipt later."""
    gateway = Gateway(host.settings, host.provider)
    server = uvicorn.Server(uvicorn.Config(gateway, port=port, log_config=None))
    threading.Thread(target=server.run, daemon=True).start()


_HOST = open_for_good(Hosts(Parties(), token_ids=os.environ.get("COIN_TEST_TOKEN_IDS", "auto"))())
serve_receipts(_HOST, int(os.environ["COIN_TEST_PORT"]))
handler = CoinHandler(_HOST)
