"""A provider keeps few bytes of a finished session, and needs few more while it streams.

What Python and numpy allocate, by tracemalloc. It does not see inside protobuf messages, so
each counts as its serialized size and 1 KiB, more than such a message takes: measured, a block
entry takes 584 bytes. The token table is shared by all sessions and not counted.
"""

from __future__ import annotations

import gc
import threading
import tracemalloc

import numpy as np
import numpy.typing as npt

from benchmarks._common import (
    CHUNK,
    TOKENS,
    UnembeddedProvider,
    finish,
    open_provider,
    random_ids,
    report,
)
from coin_protocol.encoding import digest

_SECONDS = 60.0
_MESSAGE_BYTES = 1024


class BehindProvider(UnembeddedProvider):
    """A provider whose embedding waits until told to go on: the longest queue there is."""

    go_on = threading.Event()

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        """Wait, then return the rows."""
        self.go_on.wait(_SECONDS)
        return super().embed_block(token_ids)


def main() -> None:
    """Measure one session of 100,000 tokens, embedded only after its end."""
    with open_provider(BehindProvider) as provider:
        ids = random_ids(provider.profile, TOKENS)
        _serve(provider, ids[: TOKENS // 10])  # what a first session allocates once for all
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        commitment = _serve(provider, ids)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        record = provider.store.get(commitment)
        blocks = len(record.tree.entries)
    signed = [record.commitment, record.manifest]
    if record.fingerprints is not None:
        signed.append(record.fingerprints)
    messages = sum(message.ByteSize() + _MESSAGE_BYTES for message in signed)
    kept = after - before + messages
    report("session_state.kept_per_token", kept / TOKENS, unit="bytes", better="lower", limit=8)
    # While it streams there is a message for each block as well.
    most = peak - before + messages + blocks * _MESSAGE_BYTES
    report("session_state.peak_per_token", most / TOKENS, unit="bytes", better="lower", limit=40)


def _serve(provider: BehindProvider, ids: npt.NDArray[np.uint32]) -> bytes:
    """Commit to ids 16 at a time; return the commitment's digest once its embeddings are made."""
    provider.go_on.clear()
    session = provider.new_session()
    for at in range(0, len(ids), CHUNK):
        session.append(ids[at : at + CHUNK].tolist())
    commitment = digest(finish(session))
    provider.go_on.set()
    provider.wait_ready(commitment, _SECONDS)
    return commitment


if __name__ == "__main__":
    main()
