"""What committing costs the serving path with every block written to disk as it fills.

CPU of the whole process, the thread that writes included, for a session of 100,000 tokens that
come 32 at a time; SQLite, synced, secrets sealed. Then the time from the last token of a session
of 10,000 to its commitment on disk, and the memory of one session of a million.
"""

from __future__ import annotations

import asyncio
import gc
import re
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks._common import (
    TOKENS,
    HashFloor,
    UnembeddedProvider,
    least_seconds,
    open_provider,
    random_ids,
    report,
    sqlite_store,
)
from coin_protocol.usage import INSIDE, usage_for

_CHUNK = 32
_RECEIPTS = 200
_RECEIPT_TOKENS = 10_000
_LONG = 1_000_000
_MEBIBYTE = 1024 * 1024
_NONCE = bytes(range(32))


async def _serve(provider: UnembeddedProvider, ids: list[int]) -> float:
    """Commit to `ids` as they are decoded; return the seconds from the last one to the receipt."""
    async with provider.session(b"request", client_nonce=_NONCE, model="model") as session:
        for at in range(0, len(ids), _CHUNK):
            session.append(ids[at : at + _CHUNK])
        usage = usage_for(
            prompt_tokens=1, reasoning_tokens=len(ids), answer_tokens=1, counting=INSIDE
        )
        await session.flush()
        start = time.perf_counter()
        await session.finish(b"answer", usage)
        return time.perf_counter() - start


async def _receipts(provider: UnembeddedProvider, ids: list[int]) -> list[float]:
    return [await _serve(provider, ids) for _ in range(_RECEIPTS)]


def _anonymous_bytes() -> int:
    """Return the process's own memory; the token table is a file that all sessions share."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


class Peak:
    """Looks at the process's memory all the time."""

    def __init__(self) -> None:
        """Start looking."""
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        """Return the most seen."""
        self._stop.set()
        self._thread.join()
        return self.most

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, _anonymous_bytes())


def main() -> None:
    """Measure the three."""
    with tempfile.TemporaryDirectory() as folder:
        store = sqlite_store(Path(folder))
        with open_provider(UnembeddedProvider, store=store) as provider:
            ids = random_ids(provider.profile, _LONG).tolist()
            floor = HashFloor(TOKENS, provider.profile.block_size)
            least, served = least_seconds(
                floor.run,
                lambda: asyncio.run(_serve(provider, ids[:TOKENS])),
                rounds=7,
                clock=time.process_time,
            )
            seconds = asyncio.run(_receipts(provider, ids[:_RECEIPT_TOKENS]))
            gc.collect()
            before, peak = _anonymous_bytes(), Peak()
            asyncio.run(_serve(provider, ids))
            grown = peak.stop() - before
        store.close()
    report("live_session.per_token", served / TOKENS * 1e6, unit="us", better="lower", limit=3)
    report("live_session.to_hash_floor", served / least, unit="ratio", better="lower")
    late = float(np.quantile(seconds, 0.99))
    report("live_session.receipt_p99", late * 1e3, unit="ms", better="lower", limit=20)
    report("live_session.million", grown / _MEBIBYTE, unit="MiB", better="lower", limit=64)


if __name__ == "__main__":
    main()
