"""The checks of blocks opened whole: where their bounds lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coin_protocol.checks import Case, run_checks
from coin_protocol.embedding import quantised_windows, unit, window_texts
from coin_protocol.profile import Policy
from coin_protocol.quantise import dequantise, quantise
from coin_protocol.testing.forgeries import audit, change, embedded
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.small import DIMENSION


def turned(rows: list[bytes]) -> list[bytes]:
    """Return windows that point a little elsewhere, well formed and of unit norm."""
    vectors = dequantise(rows, DIMENSION)
    vectors[:, 0] += 0.1
    return [row.tobytes() for row in quantise(unit(vectors))]


def demanding(case: Case, least: float) -> Case:
    """Return the same evidence, and what was found of it, under a policy with another cosine."""
    message = rules_policy()
    message.min_recomputed_cosine = least
    return replace(case, policy=Policy.from_bytes(message.SerializeToString()))


def least_cosine(case: Case) -> float:
    """Return the least cosine of a window of the first whole block to that of its text."""
    tokenizer, embedder = case.models
    spec = case.profile.message.embedding
    (block,) = case.whole_openings[0].opening.blocks
    texts = window_texts(tokenizer, spec, block.token_ids)
    of_text = dequantise(quantised_windows(embedder, spec, texts), DIMENSION)
    committed = dequantise(block.windows, DIMENSION)
    norms = np.linalg.norm(of_text, axis=1) * np.linalg.norm(committed, axis=1)
    return float((np.sum(of_text * committed, axis=1) / norms).min())


def failed(case: Case) -> str | None:
    report = run_checks(case)
    return None if report.failed is None else report.failed.code


def test_an_embedding_may_be_just_as_far_off_as_the_policy_says() -> None:
    case = audit(opener=embedded(turned)).ask_whole().case()
    found = least_cosine(case)
    assert 0.9 < found < 0.9999
    # One case knows what the others found.
    for least, wanted in (
        (found, None),
        (float(np.nextafter(found, 1)), "WHOLE_EMBEDDING"),
        (found, None),
    ):
        assert failed(demanding(case, least)) == wanted


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        (lambda salts: salts + bytes(1), 129),
        (lambda salts: salts + bytes(16), 144),
        (lambda salts: salts[:-1], 127),
        (lambda _: b"", 0),
    ],
    ids=["a byte more", "one more", "a byte less", "none"],
)
def test_a_block_opened_whole_has_one_salt_a_token(
    edit: Callable[[bytes], bytes], shown: int
) -> None:
    report = run_checks(audit().ask_whole(edit_opening=change("blocks.0.token_salts", edit)).case())
    assert report.failed is not None
    assert report.failed.code == "WHOLE_LEAVES"
    assert report.detail == f"block 0 counts 8 tokens; 8 ids and {shown} bytes of salts are shown"
