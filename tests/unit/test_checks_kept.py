"""What the checks of receipt and manifest say: what was found, what was wanted, what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from coin_protocol import merkle
from coin_protocol.checks import Check, run_checks
from coin_protocol.commitment import block_leaf_hashes
from coin_protocol.encoding import digest
from coin_protocol.keyset import stamp
from coin_protocol.opening import Opener
from coin_protocol.testing.forgeries import audit, billed, both, change, put, recommitted
from coin_protocol.testing.world import START, Audit, World
from coin_protocol.usage import generated_tokens
from coin_protocol.v1 import receipt_pb2, statements_pb2

BY_PROVIDER = receipt_pb2.FAULT_PROVIDER
UNATTRIBUTED = receipt_pb2.FAULT_UNATTRIBUTED
TREE = audit().reply.opener.tree
COMMITMENT = digest(audit().reply.receipt.commitment.payload)
NONCE = World().random("client nonce", 32)
SESSION = World().random("session", 16)
PREFIX = merkle.root(block_leaf_hashes(SESSION, TREE.entries[:1]))
ZEROS = bytes(32)
MILLISECOND = stamp(START + timedelta(milliseconds=1))


@dataclass(frozen=True)
class Said:
    """A lie, the check that it fails, and what that says."""

    lie: str
    make: Callable[[], Audit]
    code: str
    sentence: str
    fault: receipt_pb2.Fault.ValueType = BY_PROVIDER
    advice: str = ""
    """How it begins; empty where it is that of the table."""


def differs(what: str, found: bytes, wanted: bytes) -> str:
    return f"{what}: found {found.hex() or 'nothing'}, wanted {wanted.hex()}"


def short_between(honest: Opener) -> Opener:
    """Return what a provider commits to whose short block is not the last."""
    first, second, last = TREE.entries
    return recommitted(honest, [first, last, second])


def reasoning_untold(usage: statements_pb2.Usage) -> statements_pb2.Usage:
    """Return what a client is told of one more token, by a server that tells of no reasoning."""
    return statements_pb2.Usage(
        prompt_tokens=usage.prompt_tokens, completion_tokens=generated_tokens(usage) + 1
    )


def of_another_session(
    lie: str, make: Callable[[], Audit], code: str, what: str, wanted: bytes
) -> Said:
    sentence = differs(what, bytes(len(wanted)), wanted)
    return Said(lie, make, code, sentence, UNATTRIBUTED, "Take the statements of this session")


def told(lie: str, edit: Callable[[Any], object], counts: str, signed: str) -> Said:
    sentence = (
        f"the client was told {counts}, signed are {signed}; what was told is not signed, "
        "so that nobody is shown to be wrong"
    )
    advice = "Hold the invoice against the signed counts"
    return Said(lie, lambda: audit(edit_receipt=edit), "BILL", sentence, UNATTRIBUTED, advice)


# fmt: off
SAID = (
    Said("another nonce", lambda: audit(edit_receipt=put("client_nonce", ZEROS)),
         "CLIENT_NONCE", differs("client nonce", NONCE, ZEROS), UNATTRIBUTED),
    Said("another request", lambda: audit(edit_receipt=put("request", b"another")),
         "REQUEST_DIGEST",
         differs("digest of the request", digest(b'{"messages": []}'), digest(b"another")),
         UNATTRIBUTED),
    Said("another answer", lambda: audit(edit_receipt=put("answer", b"another")),
         "ANSWER_DIGEST",
         differs("digest of the answer", digest(b"the answer"), digest(b"another")),
         UNATTRIBUTED),
    Said("a summary that is not committed", lambda: audit(edit_receipt=put("summary", b"another")),
         "ANSWER_DIGEST", differs("digest of the summary", b"", digest(b"another")),
         UNATTRIBUTED),

    told("told of one more token", put("billed.completion_tokens", 26),
         "20 reasoning of 26 completion tokens", "20 reasoning of 25 completion tokens"),
    told("told of one more token and of no reasoning", change("billed", reasoning_untold),
         "26 completion tokens", "20 reasoning of 25 completion tokens"),
    told("told of a longer prompt", put("billed.prompt_tokens", 8),
         "20 reasoning of 25 completion tokens for 8 prompt tokens (0 cached)",
         "20 reasoning of 25 completion tokens for 7 prompt tokens (0 cached)"),
    told("told of a cached prompt", put("billed.cached_prompt_tokens", 3),
         "20 reasoning of 25 completion tokens for 7 prompt tokens (3 cached)",
         "20 reasoning of 25 completion tokens for 7 prompt tokens (0 cached)"),

    of_another_session(
        "the manifest of another", lambda: audit(edit_manifest=put("commitment_sha256", ZEROS)),
        "MANIFEST_ROOT", "commitment named by the manifest", COMMITMENT),
    Said("another root", lambda: audit(edit_commitment=put("token_root", ZEROS)),
         "MANIFEST_ROOT", differs("token root of the manifest", TREE.token_root, ZEROS)),
    Said("a block too many", lambda: audit(edit_commitment=billed(20, blocks=4)),
         "SIZES", "4 blocks are signed, the tree has 3"),
    Said("a token too many", lambda: audit(edit_commitment=billed(21)),
         "SIZES", "21 tokens are signed, the blocks hold 20"),
    Said("a short block between others", lambda: audit(opener=short_between),
         "SIZES", "block 1 of 3 has 4 tokens; full is 8"),

    of_another_session(
        "the checkpoints of another", lambda: audit(edit_checkpoint=put("session_id", bytes(16))),
        "CHECKPOINT_PREFIX", "session of a checkpoint", SESSION),
    Said("checkpoints of another profile",
         lambda: audit(edit_checkpoint=put("profile_sha256", ZEROS)), "CHECKPOINT_PREFIX",
         differs("profile of a checkpoint", ZEROS, World().profile.digest)),
    Said("checkpoints for another client",
         lambda: audit(edit_checkpoint=put("client_nonce", ZEROS)), "CHECKPOINT_PREFIX",
         differs("client nonce of a checkpoint", ZEROS, NONCE)),
    Said("a checkpoint of a part of a block", lambda: audit(edit_checkpoint=put("token_count", 7)),
         "CHECKPOINT_PREFIX", "a checkpoint after 1 full blocks counts 7 tokens, wanted 8"),
    Said("a checkpoint past the end",
         lambda: audit(edit_checkpoint=both(put("block_count", 3), put("token_count", 24))),
         "CHECKPOINT_PREFIX", "a checkpoint counts 3 full blocks, the commitment 2"),
    Said("checkpoints of other tokens", lambda: audit(edit_checkpoint=put("token_root", ZEROS)),
         "CHECKPOINT_PREFIX",
         differs("token root of the checkpoint after 1 blocks", ZEROS, PREFIX)),

    of_another_session(
        "the fingerprints of another",
        lambda: audit(edit_fingerprints=put("commitment_sha256", ZEROS)),
        "FINGERPRINTS", "commitment named by the fingerprints", COMMITMENT),
    Said("fingerprints of a block too many", lambda: audit(edit_fingerprints=put("size", 4)),
         "FINGERPRINTS", "the fingerprints cover 4 blocks, the commitment has 3"),

    Said("decoded too fast by the provider's clock",
         lambda: audit(edit_checkpoint=put("provider_time", MILLISECOND)), "ARRIVAL_TIME",
         "8 tokens were committed 0.001 s after the request by the provider's clock; "
         "at 5000 tokens a second that takes 0.002 s"),
    Said("decoded too fast by the client's clock",
         lambda: audit(edit_receipt=put("checkpoints.0.seen_at", MILLISECOND)), "ARRIVAL_TIME",
         "8 tokens were committed 0.001 s after the request by the client's clock; "
         "at 5000 tokens a second that takes 0.002 s", UNATTRIBUTED),
)
# fmt: on


@pytest.mark.parametrize("said", SAID, ids=lambda said: said.lie)
def test_a_failed_check_says_what_was_found_and_wanted_and_what_to_do(said: Said) -> None:
    report = run_checks(said.make().case())
    assert report.failed is not None
    assert (report.failed.code, report.detail) == (said.code, said.sentence)
    assert report.fault == said.fault
    if said.advice:
        assert report.advice.startswith(said.advice)
    else:
        assert report.advice == report.failed.advice


def test_a_report_without_a_failed_check_advises_nothing() -> None:
    report = run_checks(audit().case())
    assert (report.failed, report.detail, report.advice) == (None, "", "")


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 16, 17])
def test_a_last_block_may_hold_any_number_of_tokens_up_to_a_full_one(tokens: int) -> None:
    report = run_checks(audit(tokens=tokens).case())
    assert report.failed is None, report.detail
    assert report.passed("SIZES")


def test_a_check_without_a_docstring_claims_nothing() -> None:
    """Python leaves them out under `-OO`."""

    def check(_: object) -> None: ...

    assert Check("CODE", check, "Do nothing.").claim == ""
