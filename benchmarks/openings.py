"""How many challenges a second one core answers, for sessions of 10,000 tokens in SQLite.

Challenges as the policy that ships plays them: the first round opens four blocks with their
embedding and tokens in all others, later rounds six embeddings. Each is read from disk, checked,
entered in the ledger (synced), opened and signed; gRPC is left out. The floor is the hashing that
an opening cannot do without: the leaves and nodes of each block that it shows something of.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from benchmarks._common import (
    HashFloor,
    UnembeddedProvider,
    open_provider,
    random_ids,
    report,
    sqlite_store,
)
from coin_protocol import envelope
from coin_protocol.embedding import window_dimension
from coin_protocol.encoding import digest
from coin_protocol.keyset import pinned, stamp
from coin_protocol.profile import Policy
from coin_protocol.quantise import SCALE_BYTES
from coin_protocol.signer import KeySigner
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, opening_pb2
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.store.sql import SqlStore

_SESSIONS = 60
_TOKENS = 10_000
_ROUNDS = 3


class RandomWindows(FingerprintWorker):
    """Makes rows of the right form that no model made."""

    def embed(self, session_id: bytes, rows: Sequence[Row[Any]]) -> Iterator[tuple[int, bytes]]:
        """Yield each block's index and its windows."""
        del session_id
        spec = self._provider.profile.message.embedding
        row = b"\x17\xb7\xd1\x38" + b"\x7f" + os.urandom(window_dimension(spec) - 1)
        row = row[:SCALE_BYTES] + row[SCALE_BYTES:].replace(b"\x80", b"\x00")
        for block in rows:
            yield block.block_index, row * -(-block.token_count // spec.window_tokens)


async def _commit(provider: UnembeddedProvider, ids: list[int]) -> bytes:
    async with provider.session(b"request", client_nonce=bytes(32), model="model") as session:
        session.append(ids)
        usage = usage_for(
            prompt_tokens=1, reasoning_tokens=len(ids), answer_tokens=1, counting=INSIDE
        )
        reply = await session.finish(b"answer", usage)
    return digest(reply.choice.commitment.payload)


def _challenge(
    fingerprints: envelope_pb2.Envelope, number: int, verifier: KeySigner
) -> envelope_pb2.Envelope:
    rounds = Policy.shipped().message.rounds
    first = number == 1
    message = opening_pb2.Challenge(
        fingerprints_sha256=digest(fingerprints.payload),
        verifier="verifier",
        nonce=os.urandom(32),
        round=number,
        blocks=rounds.blocks_first_round if first else rounds.blocks_per_round,
        token_blocks=rounds.token_blocks_first_round if first else 0,
        tokens_per_block=rounds.tokens_per_block if first else 0,
        deadline=stamp(datetime.now(UTC) + timedelta(minutes=5)),
    )
    return envelope.sign(message.SerializeToString(), envelope.CHALLENGE, verifier)


def _play(provider: UnembeddedProvider, store: SqlStore, verifier: KeySigner) -> list[float]:
    """Return the CPU seconds of an answer, by round."""
    ids = random_ids(provider.profile, _TOKENS).tolist()
    keys = [asyncio.run(_commit(provider, ids)) for _ in range(_SESSIONS)]
    worker = RandomWindows(provider, store)
    while worker.run_once():
        pass
    taken = []
    for number in range(1, _ROUNDS + 1):
        asked = [(key, _challenge(provider.manifest(key)[1], number, verifier)) for key in keys]
        start = time.process_time()
        for key, challenge in asked:
            provider.answer(key, challenge)
        taken.append((time.process_time() - start) / len(keys))
    return taken


def main() -> None:
    """Measure audits of 60 sessions, three rounds each."""
    verifier = KeySigner.generate("verifier")
    with tempfile.TemporaryDirectory() as folder:
        store = sqlite_store(Path(folder))
        ring = pinned("verifiers", [verifier.public])
        with open_provider(UnembeddedProvider, store=store, verifiers=ring) as provider:
            floor = HashFloor(_TOKENS, provider.profile.block_size)
            start = time.process_time()
            for _ in range(_SESSIONS):
                floor.run()
            hashing = (time.process_time() - start) / _SESSIONS
            taken = _play(provider, store, verifier)
        store.close()  # the write-ahead log goes into the file with the last connection
        size = (Path(folder) / "coin.db").stat().st_size / (_SESSIONS * _TOKENS)
    rate = _ROUNDS / sum(taken)
    report("openings.per_second", rate, unit="1/s", better="higher", limit=100)
    report("openings.first_round", taken[0] * 1e3, unit="ms", better="lower")
    report("openings.later_round", taken[-1] * 1e3, unit="ms", better="lower")
    report("openings.disk", size, unit="bytes/token", better="lower")
    report("openings.first_round_to_hashing", taken[0] / hashing, unit="ratio", better="lower")


if __name__ == "__main__":
    main()
