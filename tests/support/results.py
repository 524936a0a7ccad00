"""Synthetic results: what a judge that is good at some families might come to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from verifier_sdk.training.results import SessionResult

HONEST: dict[str, Any] = {
    "attack": "none",
    "family": "",
    "rate": 0.0,
    "placement": "",
    "block_size": 256,
    "tier": "committed",
    "domain": "math",
    "model": "small",
    "blocks": 6,
    "original_blocks": 6,
    "outcome": "PASS",
    "p_value": 0.5,
    "probability": 0.2,
    "share": 0.0,
    "estimate": 0.0,
    "interval": (0.0, 0.3),
    "tokens_exposed": 40,
    "block_embeddings_exposed": 3,
    "whole_blocks": 0,
    "rounds": 1,
}

INFLATED = {
    **HONEST,
    "attack": "bag_of_own_tokens",
    "family": "bag",
    "rate": 1.0,
    "placement": "appended",
    "share": 0.5,
    "overcharge": 1.0,
    "blocks": 12,
    "outcome": "FAIL",
    "p_value": 0.01,
    "probability": 0.9,
}

ATTACKS = {
    "random_vocabulary": ("random", 6.0),
    "bag_of_own_tokens": ("bag", 3.0),
    "retrieved_near_answer": ("retrieved", 2.0),
    "blocks_repeated": ("repeated", 2.5),
    "answer_repeated": ("echoed", 3.0),
    "ngram_text": ("ngram", 1.0),
    "sentences_shuffled": ("shuffled", 0.6),
    "other_model_same_question": ("other_model", 0.0),
    "session_replayed": ("replayed", 1.0),
    "finer_tokenization": ("split", 1.5),
    "forged_vectors": ("forged", 1.0),
}
"""Family, and how strongly it shows."""


def honest(**changes: Any) -> SessionResult:
    return SessionResult(**{**HONEST, **changes})


def inflated(**changes: Any) -> SessionResult:
    return SessionResult(**{**INFLATED, **changes})


def evaluated(traces: int, seed: int, *, sampled: float = 1.0) -> Iterator[SessionResult]:
    """Yield results of honest and inflated sessions; p-values of honest ones are uniform."""
    rng = np.random.default_rng(seed)
    for _ in range(traces):
        length = int(min(60, 1 + rng.exponential(8)))
        base: dict[str, Any] = {
            "domain": str(
                rng.choice(["math", "code", "science", "chat"], p=[0.5, 0.3, 0.15, 0.05])
            ),
            "model": str(rng.choice(["small", "middle", "large"])),
        }
        for tier in ("committed", "opened"):
            for size in (256, 512, 1024):
                own = -(-length * 256 // size)
                sized = {**base, "tier": tier, "block_size": size, "original_blocks": own}
                kinds = ("loops",) if rng.random() < 0.1 else ()
                yield honest(**sized, blocks=own, kinds=kinds, **_judged(rng, 0.0, own, tier))
                for attack, (family, strength) in ATTACKS.items():
                    for placement in ("appended", "interleaved", "scattered"):
                        for rate in (0.1, 0.25, 0.5, 1.0, 2.0, 3.0):
                            if rng.random() >= sampled:
                                continue
                            shown = strength * (1.5 if tier == "opened" else 1.0)
                            shown *= rate / (1 + rate) * np.log2(1 + own) / 2
                            blocks = -(-int(length * 256 * (1 + rate)) // size)
                            yield inflated(
                                **sized,
                                attack=attack,
                                family="scattered"
                                if (family, placement) == ("bag", "scattered")
                                else family,
                                placement=placement,
                                rate=rate,
                                overcharge=rate,
                                share=rate / (1 + rate),
                                blocks=blocks,
                                **_judged(rng, float(shown), blocks, tier),
                            )


def _judged(rng: np.random.Generator, strength: float, blocks: int, tier: str) -> dict[str, Any]:
    p = max(1.0, float(np.ceil(rng.random() ** (1 + 6 * strength) * 501))) / 501
    return {
        "p_value": p,
        "probability": float(1 / (1 + 5 * p)) if rng.random() < 0.9 else float(rng.random()),
        "outcome": "FAIL" if p <= 0.04 else "INCONCLUSIVE" if p < 0.15 else "PASS",
        "tokens_exposed": min(256 * blocks, 17 + 4 * min(blocks, 64)),
        "block_embeddings_exposed": min(blocks, 3 + blocks // 8),
        "whole_blocks": min(4, blocks) if tier == "opened" else 0,
        "rounds": 1 + int(p < 0.3),
    }
