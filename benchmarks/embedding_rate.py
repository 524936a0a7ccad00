"""How fast blocks are embedded in float64, as the protocol commits them, and in float32.

The text is that of the traces that ship. Wall time: the model uses every core it is given.
"""

from __future__ import annotations

import time

from benchmarks._common import Float32Embedder, least_seconds, report, skip
from coin_protocol.cli.common import quiet_models
from coin_protocol.embedding import TextEmbedder, embed_texts, window_texts
from coin_protocol.errors import ConfigurationError, TryLaterError
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from provider_sdk.replay import shipped_traces

_BLOCKS = 24
_ROUNDS = 5


def main() -> None:
    """Measure both with the same weights."""
    quiet_models()
    models = Models(Profile.shipped("default"))
    try:
        tokenizer, exact = models.tokenizer, models.embedder
    except (ConfigurationError, TryLaterError) as error:
        skip("embedding_rate.float64", f"{error}")
        return
    fast = Float32Embedder(exact)
    tokens = _BLOCKS * models.profile.block_size
    text = "\n".join(trace.reasoning for trace in shipped_traces())
    ids = tokenizer.encode(text)[:tokens]
    # Windows are cut alike in every block, so all blocks can be cut at once.
    texts = window_texts(tokenizer, models.profile.message.embedding, ids)

    def embed(embedder: TextEmbedder) -> None:
        # Block by block, as a provider does while tokens arrive.
        step = len(texts) // _BLOCKS
        for at in range(0, len(texts), step):
            embed_texts(embedder, texts[at : at + step])

    double, single = least_seconds(
        lambda: embed(exact), lambda: embed(fast), rounds=_ROUNDS, clock=time.perf_counter
    )
    for name, seconds in (("float64", double), ("float32", single)):
        report(f"embedding_rate.{name}", len(ids) / seconds, unit="tokens/s", better="higher")
    report("embedding_rate.float64_to_float32", single / double, unit="ratio", better="higher")


if __name__ == "__main__":
    main()
