"""Serve a provider over the default profile: `python -m benchmarks._audits.provider FOLDER COUNT`.

Writes into FOLDER the keys that a verifier needs and COUNT receipts of 10,000 reasoning tokens, and
prints one JSON line with its port. All replies are to one question and of one reasoning, the sample
traces one after another, so that each block is embedded once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol import transport
from coin_protocol.cli.common import quiet_models
from coin_protocol.clock import SteadyClock
from coin_protocol.models import Models
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import public_pem
from coin_protocol.tokenizer import Tokenizer
from provider_sdk.provider import Provider
from provider_sdk.replay import shipped_traces
from provider_sdk.service import ServiceSettings, make_server
from tests.support.parties import Parties, run_session

TOKENS: Final = 10_000
_TRACES: Final = ("math-01", "math-02", "math-03", "logic-01", "logic-02")
_OFTEN: Final = transport.RateLimit(per_second=100_000.0, burst=1_000_000)
_READY_SECONDS: Final = 600.0


class Remembering(Provider):
    """A provider that embeds equal blocks once."""

    @cached_property
    def _embedded(self) -> dict[bytes, list[bytes]]:
        return {}

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        """Return the rows of the block's windows."""
        name = token_ids.tobytes()
        if name not in self._embedded:
            self._embedded[name] = super().embed_block(token_ids)
        return self._embedded[name]


def conversation(tokenizer: Tokenizer) -> tuple[list[int], bytes, str]:
    """Return the ids of the reasoning, the request and the answer."""
    traces = {trace.id: trace for trace in shipped_traces()}
    chosen = [traces[name] for name in _TRACES]
    ids = [token for trace in chosen for token in tokenizer.encode(trace.reasoning)]
    question = "\n\n".join(trace.question for trace in chosen)
    request = json.dumps({"messages": [{"role": "user", "content": question}]})
    return ids[:TOKENS], request.encode(), chosen[2].answer


def parties() -> Parties:
    """Return keys and rules under the default profile and the shipped policy."""
    return Parties(profile=Profile.shipped("default"), policy=Policy.shipped())


def write_keys(folder: Path, of: Parties) -> None:
    """Leave what a verifier needs: the provider's root, and its own private key."""
    (folder / "root.pub.pem").write_bytes(public_pem(of.root.public))
    key = folder / "verifier.pem"
    key.touch(mode=0o600)
    key.write_bytes(of.verifier.to_pem())


async def _serve(provider: Provider, ready: Callable[[int], None]) -> None:
    server = await make_server(provider, ServiceSettings(rate=_OFTEN, queue=10_000))
    await transport.serve(server, "127.0.0.1:0", None, ready)


def main(arguments: Sequence[str]) -> None:
    """Make replies, then serve until SIGTERM."""
    quiet_models()
    folder, count = Path(arguments[0]), int(arguments[1])
    of, models = parties(), Models(Profile.shipped("default"))
    write_keys(folder, of)
    ids, request, answer = conversation(models.tokenizer)
    clock = SteadyClock()
    with of.provider(Remembering, models=models, clock=clock) as provider:
        for number in range(count):
            now = dict(vars(clock))
            reply = run_session(provider, ids, request=request, answer=answer, chunk=16)
            # Replies take no time here, and move the provider's clock by what they would take.
            vars(clock).update(now)
            provider.wait_ready(reply.commitment_sha256, _READY_SECONDS)
            (folder / f"{number}.receipt").write_bytes(reply.receipt.SerializeToString())
        asyncio.run(_serve(provider, lambda port: print(json.dumps({"port": port}), flush=True)))


if __name__ == "__main__":
    main(sys.argv[1:])
