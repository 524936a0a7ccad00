"""A provider in a process of its own: it makes replies when told to, and answers challenges.

It prints its port as one line of JSON. From then on each line that it reads is a number of replies
to make, and it writes each one's receipt: four bytes of length, then the receipt. Each reply is of
other words, so that no block of it is remembered already.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import threading
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks._crashes.site import TOKENS, serving_provider
from coin_protocol.clock import SteadyClock
from coin_protocol.signer import FileSigner
from provider_sdk.provider import Provider
from provider_sdk.record import Delivered, MemoryStore, SessionRecord
from tests.support.parties import PROVIDER, REQUEST, WAIT_SECONDS, Parties, run_session

LENGTH: Final = struct.Struct(">I")
"""What stands before a receipt."""

_KEPT: Final = 20_000
"""Sessions; what is older was decided long ago."""

_LETTERS: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz   ", np.uint8).astype(np.uint32)
_KEYS: Final = ("root", PROVIDER, "verifier")


def write_keys(folder: Path, parties: Parties) -> None:
    """Leave the private keys that this process takes."""
    signers = (parties.root, parties.signer, parties.verifier)
    for name, signer in zip(_KEYS, signers, strict=True):
        path = folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(signer.to_pem())


def _parties(folder: Path) -> Parties:
    signers = (FileSigner.from_uri(f"file:{folder / name}.key", name) for name in _KEYS)
    root, signer, verifier = signers
    return Parties(root=root, signer=signer, verifier=verifier)


class _Forgetful(MemoryStore):
    """Keeps the latest sessions."""

    def __init__(self) -> None:
        """Keep none yet."""
        super().__init__()
        self._order: deque[bytes] = deque()

    def finish(
        self, record: SessionRecord, rest: npt.NDArray[np.uint32], delivered: Delivered
    ) -> Future[None]:
        """Keep a record, and forget the oldest."""
        finished = super().finish(record, rest, delivered)
        self._order.append(record.commitment_sha256)
        if len(self._order) > _KEPT:
            self._records.pop(self._order.popleft(), None)
        return finished


def _make(provider: Provider, clock: SteadyClock) -> None:
    """Make replies until there is nothing more to read."""
    rng = np.random.default_rng()
    number = 0
    for line in sys.stdin:
        for _ in range(int(line)):
            number += 1
            now = dict(vars(clock))
            reply = run_session(
                provider, rng.choice(_LETTERS, TOKENS), request=b"%d %s" % (number, REQUEST)
            )
            # Replies take no time here, and move the provider's clock by what they would take.
            vars(clock).update(now)
            provider.wait_ready(reply.commitment_sha256, WAIT_SECONDS)
            raw = reply.receipt.SerializeToString()
            sys.stdout.buffer.write(LENGTH.pack(len(raw)) + raw)
        sys.stdout.flush()


async def _serve(provider: Provider, clock: SteadyClock) -> None:
    async with serving_provider(provider) as target:
        print(json.dumps({"target": target}), flush=True)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def make() -> None:
            try:
                _make(provider, clock)
            finally:
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=make, daemon=True).start()
        await ended.wait()


def main() -> None:
    """Serve until the input ends."""
    clock = SteadyClock()
    parties = _parties(Path(sys.argv[1]))
    with parties.provider(clock=clock, store=_Forgetful()) as provider:
        asyncio.run(_serve(provider, clock))


if __name__ == "__main__":
    main()
