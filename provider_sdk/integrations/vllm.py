"""vLLM's OpenAI server with receipts, in its own process.

COIN_CONFIG=provider.toml vllm serve MODEL \
    --middleware provider_sdk.integrations.vllm.CoinMiddleware

vLLM imports the class by this path and adds it outside of all its own middleware. It gives token
ids for streams and plain replies alike where a request asks for them, which the middleware does.
"""

from __future__ import annotations

from provider_sdk.integrations.middleware import CoinMiddleware

__all__ = ["CoinMiddleware"]
