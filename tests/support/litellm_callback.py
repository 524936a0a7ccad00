"""What a proxy under test is told to call: the hook over a provider of the small models."""

from __future__ import annotations

import os

from provider_sdk.integrations.host import open_for_good
from provider_sdk.integrations.litellm import CoinHandler
from tests.support.hosts import Hosts
from tests.support.parties import Parties

handler = CoinHandler(
    open_for_good(Hosts(Parties(), token_ids=os.environ.get("COIN_TEST_TOKEN_IDS", "auto"))())
)
