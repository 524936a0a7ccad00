"""What a fingerprint worker makes of the embedding model's own speed.

The model alone embeds the windows of twelve sessions, already cut and spelled, in the batches that
the worker uses. The worker takes the same sessions from the database, unseals and spells them,
embeds, quantises, seals, writes and signs. Wall time, SQLite.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks._common import open_provider, report, skip, sqlite_store
from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import embed_texts, window_texts
from coin_protocol.errors import ConfigurationError, TryLaterError
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.usage import INSIDE, usage_for
from provider_sdk import Provider
from provider_sdk.fingerprints import BATCH_BLOCKS, FingerprintWorker
from provider_sdk.replay import shipped_traces

_SESSIONS = 12
_TOKENS = 2_048


async def _commit(provider: Provider, ids: list[int]) -> None:
    async with provider.session(b"request", client_nonce=bytes(32), model="model") as session:
        session.append(ids)
        usage = usage_for(
            prompt_tokens=1, reasoning_tokens=len(ids), answer_tokens=1, counting=INSIDE
        )
        await session.finish(b"answer", usage)


def main() -> None:
    """Measure both in turns, session by session."""
    quiet_models()
    models = Models(Profile.shipped("default"))
    try:
        embedder = models.embedder
    except (ConfigurationError, TryLaterError) as error:
        skip("fingerprint_rate.to_bare_model", f"{error}")
        return
    text = "\n".join(trace.reasoning for trace in shipped_traces())
    ids = (models.tokenizer.encode(text) * 2)[:_TOKENS]
    spec, size = models.profile.message.embedding, models.profile.block_size * BATCH_BLOCKS
    batches = [
        window_texts(models.tokenizer, spec, ids[at : at + size]) for at in range(0, _TOKENS, size)
    ]
    bare = worked = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = sqlite_store(Path(folder))
        with open_provider(Provider, models=models, store=store) as provider:
            for _ in range(_SESSIONS + 1):
                asyncio.run(_commit(provider, ids))
            worker = FingerprintWorker(provider, store)
            worker.run_once()  # warms what is made once
            for _ in range(_SESSIONS):
                start = time.perf_counter()
                for texts in batches:
                    embed_texts(embedder, texts)
                middle = time.perf_counter()
                worker.run_once()
                bare += middle - start
                worked += time.perf_counter() - middle
        store.close()
    tokens = _SESSIONS * _TOKENS
    report("fingerprint_rate.tokens", tokens / worked, unit="tokens/s", better="higher")
    report(
        "fingerprint_rate.to_bare_model", bare / worked, unit="ratio", better="higher", limit=0.9
    )


if __name__ == "__main__":
    main()
