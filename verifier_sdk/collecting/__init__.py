"""Keep a receipt of every reply that OpenAI's client is given. Three lines change.

from verifier_sdk.collecting import collecting                       # 1

client = OpenAI(
    base_url="https://llm.example/v1",
    http_client=collecting("receipts/"),                             # 2: a folder, or a .jsonl
)
reply = client.chat.completions.create(model="acme-1", messages=messages, stream=True)

`AsyncOpenAI` takes `collecting_async("receipts/")`. A reply flows as it did: no byte of it is
changed or waits, and what cannot be kept is logged. Receipts hold the conversation; keep them as
you keep that. `coin receipt verify receipts/` checks them, offline.
"""

from __future__ import annotations

from pathlib import Path

from verifier_sdk.collecting.collector import Collector
from verifier_sdk.collecting.http import Client
from verifier_sdk.collecting.problems import Problem, ProblemKind

__all__ = ["Collector", "Problem", "ProblemKind", "collecting", "collecting_async"]


def collecting(to: Path | str, *, asserted: bool = False, **options: object) -> Client:
    """Return an HTTP client for `OpenAI(http_client=…)` that keeps a receipt of every reply.

    Args:
        to: A folder, which gets a file for each; or a file whose name ends in `.jsonl`, which gets
            a line for each.
        asserted: Also keep a line of usage and times for each reply without a receipt.
        options: Of `httpx.Client`: `proxy`, `verify`, `timeout` and so on.

    Raises:
        MissingDependencyError: The package openai is not installed.
        InvalidInputError: Nothing can be kept at `to`.
    """
    return Collector(to, asserted=asserted).client(**options)


def collecting_async(to: Path | str, *, asserted: bool = False, **options: object) -> Client:
    """Return the same for `AsyncOpenAI(http_client=…)`."""
    return Collector(to, asserted=asserted).async_client(**options)
