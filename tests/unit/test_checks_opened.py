"""The checks of what challenges opened: where their bounds lie, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pytest

from coin_protocol import merkle
from coin_protocol.checks import Case, opened, run_checks
from coin_protocol.errors import InclusionProofError
from coin_protocol.keyset import stamp
from coin_protocol.quantise import SCALE_BYTES
from coin_protocol.testing.evidence_vectors import ATTACKS
from coin_protocol.testing.forgeries import (
    aimed,
    audit,
    block_leaves,
    change,
    embedded,
    flipped,
    put,
    refused,
    rescaled,
    shown,
    unanswered,
    with_leaves,
)
from coin_protocol.testing.more_evidence_vectors import MORE_ATTACKS
from coin_protocol.testing.salt_vectors import SALT_ATTACKS
from coin_protocol.testing.small import DIMENSION, VOCABULARY
from coin_protocol.testing.world import START, Edit
from coin_protocol.v1 import opening_pb2, receipt_pb2

DEADLINE: Final = START + timedelta(hours=2)
VECTORS: Final = (*ATTACKS, *MORE_ATTACKS, *SALT_ATTACKS)
OF_ANOTHER_CHALLENGE: Final[Edit[Any]] = put("challenge_sha256", bytes(32))


def twice(path: str) -> Edit[Any]:
    """Return an edit that shows the first of several twice."""
    return change(path, lambda found: [*found, found[0]])


def vector(name: str) -> Case:
    return next(one for one in VECTORS if one.name == name).make()


def manifest_withheld(status: str) -> Case:
    return replace(audit().case(), manifest=None, no_manifest=status)


def refused_with_a_made_up_flip() -> Case:
    """The one answer is a refusal: there is no opening that has a flip."""
    before = audit()
    refusal = refused(before.world, shown(before.ask()), edit=put("answered.0.flip", bytes(32)))
    return before.ask(edit_round=refusal).case()


def proofs_of_other_leaves() -> Case:
    """Leaves beside the opened ones are others, and all proofs are of the tree that they give."""
    before = audit(tokens=24)
    (block,) = opening_pb2.Opening.FromString(before.ask().rounds[0].opening.payload).blocks
    kept = {token.position for token in block.tokens}
    leaves = [
        leaf if position in kept else merkle.leaf_hash(leaf)
        for position, leaf in enumerate(block_leaves(before.reply.opener, block.block_index))
    ]
    return before.ask(edit_opening=with_leaves(block.block_index, leaves)).case()


# fmt: off
FINDINGS: Final[dict[str, tuple[Callable[[], Case], str, str]]] = {
    "a refusal has a flip that is not of the chain": (
        refused_with_a_made_up_flip, "FLIP",
        "flip 1 does not lead to the anchor that the commitment carries"),
    "a block of a later round than one with another's opening is opened twice": (
        lambda: audit().ask(edit_opening=OF_ANOTHER_CHALLENGE)
        .ask(edit_opening=twice("blocks")).case(),
        "DRAW", "round 2 opens blocks [0, 0], drawn are [0]"),
    "a whole block of a later round than one with another's opening is opened twice": (
        lambda: audit().ask_whole(edit_opening=OF_ANOTHER_CHALLENGE)
        .ask_whole(edit_opening=twice("blocks")).case(),
        "DRAW", "blocks [2, 2] are opened whole, drawn are [2]"),
    "a token block is opened twice": (
        lambda: audit().ask(token_blocks=1, edit_opening=twice("token_blocks")).case(),
        "DRAW", "round 1 opens token blocks [0, 0], drawn are [0]"),
    "the manifest is withheld": (
        lambda: manifest_withheld("INTERNAL"), "OPENING_PRESENT",
        "the manifest of a commitment that the provider signed was not answered (INTERNAL)"),
    "the second challenge is not answered": (
        lambda: audit().ask().ask(edit_round=unanswered("CANCELLED")).case(),
        "OPENING_PRESENT", "the challenge of round 2 was not answered (CANCELLED)"),
    "the answer came a millisecond late": (
        lambda: audit().ask(edit_round=put(
            "received_at", stamp(DEADLINE + timedelta(milliseconds=1)))).case(),
        "OPENING_PRESENT", "round 1: the answer came 0.001 s past the deadline"),
    "the last token has no salt": (
        lambda: vector("last-token-salt-left-out"), "INCLUSION_PROOF",
        "token 3 of block 0 has a salt of 0 bytes, wanted 16"),
    "a block's salt is a byte short": (
        lambda: vector("block-salt-too-short"), "INCLUSION_PROOF",
        "block 0 has a salt of 31 bytes, wanted 32"),
    "a leaf is repeated": (
        lambda: vector("leaf-repeated"), "LEAF_REPEATED",
        "1 of the 4 leaves of block 2 repeat another one"),
    "an id is the first past the vocabulary": (
        lambda: audit().ask_whole(edit_opening=put(
            "blocks.0.vocabulary.0.token_id", VOCABULARY)).case(),
        "WHOLE_LEAVES", "token id 300 is outside the vocabulary of 300 ids"),
}
# fmt: on


@pytest.mark.parametrize(("make", "code", "detail"), FINDINGS.values(), ids=FINDINGS)
def test_a_finding_names_what_was_found(make: Callable[[], Case], code: str, detail: str) -> None:
    report = run_checks(make())
    assert report.failed is not None
    assert (report.failed.code, report.detail) == (code, detail)
    assert (report.fault, report.outcome) == (
        receipt_pb2.FAULT_PROVIDER,
        receipt_pb2.OUTCOME_FAIL,
    )


def test_whoever_does_not_know_the_other_verifiers_is_told_to_ask_them() -> None:
    report = run_checks(vector("after-challenges-of-strangers"))
    assert report.advice == "Ask the other verifiers for their keys, list them, and audit again."


@pytest.mark.parametrize(
    "make",
    [
        lambda: audit().ask(edit_opening=flipped("blocks.0.tokens.1.salt")).case(),
        proofs_of_other_leaves,
    ],
    ids=["the first token of a block alone is in it", "proofs are of the leaves shown with them"],
)
def test_every_token_must_be_under_the_root_that_was_signed(make: Callable[[], Case]) -> None:
    report = run_checks(make())
    assert report.failed is not None
    assert report.failed.code == "INCLUSION_PROOF"


def test_a_position_past_its_block_is_no_leaf_of_it() -> None:
    case = audit(tokens=24).ask(edit_opening=put("blocks.0.tokens.0.position", 8)).case()
    with pytest.raises(InclusionProofError, match="found 8 of 8"):
        opened.inclusion_proofs(case)


def test_tokens_are_hashed_up_to_their_root_only_where_not_all_leaves_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roots: list[bytes] = []
    verify = merkle.verify_inclusion

    def noting(**given: Any) -> None:
        roots.append(given["root"])
        verify(**given)

    monkeypatch.setattr(merkle, "verify_inclusion", noting)
    before = audit()
    first = aimed(before.reply, lambda drawn: drawn.token_blocks[0].index == 0)
    case = before.ask(token_blocks=1, edit_challenge=first).case()
    opened.inclusion_proofs(case)
    assert [entry.token_root in roots for entry in case.blocks] == [True, False, False]


def test_the_last_window_of_a_block_may_be_of_fewer_tokens() -> None:
    case = audit(tokens=21).ask(blocks=3).ask_whole(blocks=3).case()
    assert run_checks(case).failed is None
    assert [len(block.windows) for block in case.openings[0].opening.blocks] == [2, 2, 2]
    assert case.token_counts == [8, 8, 5]


def off_by(difference: float, side: int) -> Callable[[list[bytes]], list[bytes]]:
    """Return a forgery of windows whose norms are rounding and `difference` away from 1.

    Args:
        difference: By how much more than rounding can move them.
        side: 1 for longer ones, -1 for shorter ones.
    """

    def forge(row: bytes) -> bytes:
        steps = np.frombuffer(row[SCALE_BYTES:], np.int8).astype(np.float64)
        # Solves |scale * norm(steps) - 1| = scale * sqrt(d) / 2 + difference.
        scale = (1 + side * difference) / (np.linalg.norm(steps) - side * DIMENSION**0.5 / 2)
        return rescaled(row, float(scale))

    return lambda rows: [forge(row) for row in rows]


@pytest.mark.parametrize("side", [1, -1], ids=["longer", "shorter"])
@pytest.mark.parametrize(
    ("difference", "failed"), [(0.5e-6, None), (1.5e-6, "WINDOW_EMBEDDING")], ids=["in", "out"]
)
def test_a_window_is_of_norm_1_within_rounding_and_a_millionth(
    difference: float, failed: str | None, side: int
) -> None:
    report = run_checks(audit(opener=embedded(off_by(difference, side))).ask().case())
    assert (None if report.failed is None else report.failed.code) == failed, report.detail
