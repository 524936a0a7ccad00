"""Each deterministic check: lies that trip it and no earlier one, and what trips none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import numpy as np
import pytest

from coin_protocol import draw, envelope, merkle
from coin_protocol.checks import CHECKS, Case, Report, Trust, opened, run_checks
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, MissingDependencyError
from coin_protocol.keys import ECDSA_P256
from coin_protocol.keyset import pinned, stamp
from coin_protocol.limits import FLIP_CHAIN_LENGTH, MAX_SIGNATURES
from coin_protocol.opening import Opener
from coin_protocol.profile import Policy, Profile
from coin_protocol.quantise import SCALE_BYTES
from coin_protocol.signer import KeySigner
from coin_protocol.testing.evidence_vectors import ATTACKS, Attack
from coin_protocol.testing.forgeries import (
    aimed,
    audit,
    billed,
    block_leaves,
    both,
    change,
    dated,
    embedded,
    flipped,
    put,
    recommitted,
    refused,
    rescaled,
    shown,
    unanswered,
    without,
)
from coin_protocol.testing.more_evidence_vectors import MORE_ATTACKS
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.salt_vectors import SALT_ATTACKS
from coin_protocol.testing.small import VOCABULARY, small_profile
from coin_protocol.testing.world import PROVIDER, START, VERIFIER, Audit, Edit, World
from coin_protocol.usage import generated_tokens
from coin_protocol.v1 import envelope_pb2, opening_pb2, profile_pb2, receipt_pb2, statements_pb2

NOBODY = receipt_pb2.FAULT_UNSPECIFIED
BY_PROVIDER = receipt_pb2.FAULT_PROVIDER
UNATTRIBUTED = receipt_pb2.FAULT_UNATTRIBUTED
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
FLIPS_USED_UP = opening_pb2.REFUSAL_REASON_FLIPS_USED_UP
HOUR = timedelta(hours=1)
LATER = stamp(START + 3 * HOUR)


def signed_by(name: str, path: str, payload_type: str) -> Edit[Any]:
    """Return an edit that signs the envelope at `path` again, as somebody else."""

    def again(signed: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        return envelope.sign(signed.payload, payload_type, World().signer(name))

    return change(path, again)


def signed(payload: bytes, payload_type: str, name: str = PROVIDER) -> envelope_pb2.Envelope:
    return envelope.sign(payload, payload_type, World().signer(name))


def crowded(path: str) -> Edit[Any]:
    """Return an edit that puts more signatures on an envelope than are read."""

    def crowd(signatures: Any) -> list[envelope_pb2.Signature]:
        return list(signatures) * (MAX_SIGNATURES + 1)

    return change(f"{path}.signatures", crowd)


def block_of(count: int) -> Callable[[Opener], Opener]:
    """Return what a provider does that adds a block with a count of its own choice."""

    def forge(honest: Opener) -> Opener:
        first, second = honest.tree.entries[:2]
        entry = statements_pb2.BlockEntry(token_count=count, token_root=second.token_root)
        middle = [second] if count == 0 else []
        return recommitted(honest, [first, *middle, entry])

    return forge


def windows(forge: Callable[[list[bytes]], list[bytes]]) -> Audit:
    """Return an audit of a provider that commits to forged window embeddings."""
    return audit(opener=embedded(forge))


def steps(
    change_steps: Callable[[np.ndarray[Any, Any]], Any],
) -> Callable[[list[bytes]], list[bytes]]:
    """Return a forgery of the numbers of each quantised vector."""

    def forge(rows: list[bytes]) -> list[bytes]:
        forged = []
        for row in rows:
            numbers = np.frombuffer(row[SCALE_BYTES:], np.int8).copy()
            forged.append(row[:SCALE_BYTES] + np.asarray(change_steps(numbers), np.int8).tobytes())
        return forged

    return forge


def reasoning_untold(told: statements_pb2.Usage) -> statements_pb2.Usage:
    """Return the same usage block of a provider that tells of no reasoning."""
    return statements_pb2.Usage(
        prompt_tokens=told.prompt_tokens,
        cached_prompt_tokens=told.cached_prompt_tokens,
        completion_tokens=generated_tokens(told),
    )


def zeroed(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return numbers * 0


def halved(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return numbers // 2


def lowest(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([numbers[:-1], [-128]])


def negated(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return -numbers


def swapped(path: str) -> Edit[Any]:
    return change(path, lambda found: [found[1], found[0], *found[2:]])


def repeated(path: str) -> Edit[Any]:
    return change(path, lambda found: [*found, found[0]])


def dropped(path: str) -> Edit[Any]:
    return change(path, lambda found: list(found)[:-1])


def second_round(**refusal: Any) -> Case:
    """Return two rounds, the second refused, with what `refused` takes."""
    first = audit().ask()
    answered = refusal.pop("answered", shown(first))
    return first.ask(edit_round=refused(first.world, answered, **refusal)).case()


def only_round(answered: list[opening_pb2.AnsweredChallenge], **refusal: Any) -> Case:
    """Return one round, refused."""
    return audit().ask(edit_round=refused(World(), answered, **refusal)).case()


def answered_elsewhere(
    count: int,
    *,
    named: bytes | None = None,
    whole: bool = False,
    blocks: int = 1,
    token_blocks: int = 0,
) -> list[opening_pb2.AnsweredChallenge]:
    """Return challenges of another verifier that the provider of the default reply answered."""
    world, found = World(), []
    for index in range(1, count + 1):
        message = opening_pb2.WholeBlockChallenge() if whole else opening_pb2.Challenge()
        message.fingerprints_sha256 = named or audit_fingerprints()
        message.verifier = "another"
        message.nonce = world.random(f"elsewhere {index}", 32)
        message.round, message.blocks = 1, blocks
        message.deadline.CopyFrom(stamp(START + HOUR))
        if isinstance(message, opening_pb2.Challenge):
            message.token_blocks, message.tokens_per_block = token_blocks, 1
        kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        found.append(
            opening_pb2.AnsweredChallenge(
                challenge=world.sign(message, kind, "another"),
                flip_index=index,
                flip=draw.flip_for(world.random("flip", 32), index),
            )
        )
    return found


def audit_fingerprints() -> bytes:
    return digest(audit().reply.receipt.fingerprints.payload)


def with_policy(case: Case, **values: Any) -> Case:
    message = rules_policy()
    for name, value in values.items():
        setattr(message, name, value)
    return replace(case, policy=Policy.from_bytes(message.SerializeToString()))


def summarised() -> Case:
    return audit(
        edit_commitment=put("summary_sha256", digest(b"a summary")),
        edit_receipt=put("summary", b"another"),
    ).case()


def one_flip_for_both_kinds() -> Case:
    first = audit().ask()
    used = opening_pb2.Opening.FromString(first.rounds[0].opening.payload)
    again = both(put("flip_index", used.flip_index), put("flip", used.flip))
    return first.ask_whole(edit_opening=again).case()


def inflated_and_padded() -> Case:
    """The vector `last-block-inflated`, with as many leaf hashes shown as are counted."""
    inflated = next(attack for attack in ATTACKS if attack.name == "last-block-inflated").make()
    entry = receipt_pb2.Round()
    entry.CopyFrom(inflated.rounds[0])
    opening = opening_pb2.Opening.FromString(entry.opening.payload)
    opening.edge.token_leaf_hashes += bytes(64)
    entry.opening.CopyFrom(World().sign(opening, envelope.OPENING))
    return replace(inflated, rounds=[entry])


def token_block_unasked_for() -> Case:
    before = audit()

    def edit(opening: opening_pb2.Opening) -> None:
        other = draw.DrawnBlock((opening.blocks[0].block_index + 1) % 3, (0,))
        opening.token_blocks.append(before.reply.opener.token_block(other))

    return before.ask(edit_opening=edit).case()


def block_of_both_kinds() -> Case:
    def edit(opening: opening_pb2.Opening) -> None:
        block = opening.blocks[0]
        opening.token_blocks.add(block_index=block.block_index, tokens=block.tokens)

    return audit().ask(token_blocks=1, edit_opening=edit).case()


def token_block_with_embedding() -> Case:
    before = audit()

    def edit(opening: opening_pb2.Opening) -> None:
        shown = opening.token_blocks[0]
        positions = tuple(token.position for token in shown.tokens)
        drawn = draw.DrawnBlock(shown.block_index, positions)
        opening.blocks.append(before.reply.opener.block(drawn))

    return before.ask(token_blocks=1, edit_opening=edit).case()


def leaf_repeated_in_a_token_block() -> Case:
    """A block repeats its first leaf in every place: no place but one can be opened."""

    def forge(honest: Opener) -> Opener:
        first = block_leaves(honest, 0)[0]
        entry = statements_pb2.BlockEntry(token_count=8, token_root=merkle.root([first] * 8))
        return recommitted(honest, [entry, *honest.tree.entries[1:]])

    before = audit(opener=forge, edit_receipt=without("checkpoints"))
    leaves = block_leaves(audit().reply.opener, 0)[:1] * 8

    def edit(opening: opening_pb2.Opening) -> None:
        (block,) = opening.token_blocks
        for token in block.tokens:
            put("proof", merkle.inclusion_proof(leaves, token.position))(token)

    return before.ask(
        blocks=0,
        token_blocks=1,
        edit_challenge=aimed(before.reply, lambda drawn: drawn.token_blocks[0].index == 0),
        edit_opening=edit,
    ).case()


def refused_whole(*, at_cap: bool) -> Case:
    first = audit().ask_whole()
    opening = opening_pb2.WholeBlockOpening.FromString(first.whole_rounds[0].opening.payload)
    answered = [
        opening_pb2.AnsweredChallenge(
            challenge=first.whole_rounds[0].challenge,
            flip_index=opening.flip_index,
            flip=opening.flip,
        )
    ]
    edit = refused(first.world, answered if at_cap else ())
    return first.ask_whole(edit_round=edit).case()


def receipt_with(edit: Edit[Any], **reply: Any) -> Case:
    return audit(edit_receipt=edit, **reply).case()


# fmt: off
MORE = (
    Attack("no-root-pinned", "", "SIGNATURE",
           lambda: replace(audit().case(), trust=Trust([], pinned("verifiers", []))),
           fault=UNATTRIBUTED),
    Attack("key-set-signed-garbage", "", "SIGNATURE",
           lambda: receipt_with(put("key_set", signed(b"\xff", envelope.KEY_SET, "root"))),
           fault=UNATTRIBUTED),
    Attack("commitment-with-too-many-signatures", "", "SIGNATURE",
           lambda: receipt_with(crowded("commitment")), fault=UNATTRIBUTED),
    Attack("key-set-with-too-many-signatures", "", "SIGNATURE",
           lambda: receipt_with(crowded("key_set")), fault=UNATTRIBUTED),
    Attack("fingerprints-altered", "", "SIGNATURE",
           lambda: receipt_with(flipped("fingerprints.signatures.0.sig")), fault=UNATTRIBUTED),
    Attack("manifest-signed-by-the-verifier", "", "SIGNATURE",
           lambda: replace(audit().case(), manifest=signed(
               audit().reply.manifest.payload, envelope.MANIFEST, VERIFIER)),
           fault=UNATTRIBUTED),
    Attack("opening-signed-by-the-verifier", "", "SIGNATURE",
           lambda: audit().ask(edit_round=signed_by(
               VERIFIER, "opening", envelope.OPENING)).case(), fault=UNATTRIBUTED),
    Attack("whole-opening-signed-by-the-verifier", "", "SIGNATURE",
           lambda: audit().ask_whole(edit_round=signed_by(
               VERIFIER, "opening", envelope.WHOLE_OPENING)).case(), fault=UNATTRIBUTED),
    Attack("refusal-signed-by-the-verifier", "", "SIGNATURE",
           lambda: audit().ask(edit_round=both(refused(World()), signed_by(
               VERIFIER, "refusal", envelope.REFUSAL))).case(), fault=UNATTRIBUTED),

    Attack("commitment-garbage", "", "STATEMENT",
           lambda: receipt_with(put("commitment", signed(b"\xff", envelope.COMMITMENT)))),
    Attack("commitment-without-usage", "", "STATEMENT",
           lambda: audit(edit_commitment=without("usage"), edit_receipt=without("billed")).case()),
    Attack("refusal-without-a-reason", "", "STATEMENT",
           lambda: second_round(edit=put("reason", 0))),
    Attack("refusal-of-an-unknown-reason", "", "STATEMENT",
           lambda: second_round(edit=put("reason", 99))),
    Attack("checkpoint-of-nothing", "", "STATEMENT",
           lambda: audit(edit_checkpoint=both(
               put("block_count", 0), put("token_count", 0))).case()),
    Attack("fingerprint-root-short", "", "STATEMENT",
           lambda: audit(edit_fingerprints=put("fingerprint_root", b"short")).case()),
    Attack("manifest-root-short", "", "STATEMENT",
           lambda: audit(edit_manifest=put("blocks.0.token_root", b"short")).case()),
    Attack("opening-flip-short", "", "STATEMENT",
           lambda: audit().ask(edit_opening=put("flip", b"short")).case()),
    Attack("whole-opening-flip-short", "", "STATEMENT",
           lambda: audit().ask_whole(edit_opening=put("flip", b"short")).case()),

    Attack("key-not-valid-yet", "", "KEY_WINDOW",
           lambda: receipt_with(dated(not_before=START + HOUR)), fault=UNATTRIBUTED),
    Attack("key-revoked-before", "", "KEY_WINDOW",
           lambda: receipt_with(dated(revoked_at=START)), fault=UNATTRIBUTED),
    Attack("fingerprints-after-the-key-ended", "", "KEY_WINDOW",
           lambda: audit(edit_fingerprints=put("provider_time", stamp(START + HOUR)),
                         edit_receipt=dated(not_after=START + HOUR / 2)).case(),
           fault=UNATTRIBUTED),
    Attack("checkpoint-before-the-key-began", "", "KEY_WINDOW",
           lambda: audit(edit_checkpoint=put("provider_time", stamp(START - HOUR)),
                         edit_receipt=dated(not_before=START - HOUR / 2)).case(),
           fault=UNATTRIBUTED),
    Attack("whole-opening-after-the-key-ended", "", "KEY_WINDOW",
           lambda: audit(edit_receipt=dated(not_after=START + HOUR / 2)).ask_whole().case(),
           fault=UNATTRIBUTED),

    Attack("profile-of-other-caps", "", "PROFILE",
           lambda: replace(audit().case(), profile=small_profile(whole_blocks_ppm=0)),
           fault=NOBODY, outcome=INCONCLUSIVE),

    Attack("nonce-of-the-receipt-altered", "", "CLIENT_NONCE",
           lambda: receipt_with(flipped("client_nonce")), fault=UNATTRIBUTED),
    Attack("request-digest-of-another", "", "REQUEST_DIGEST",
           lambda: audit(edit_commitment=put("request_sha256", bytes(32))).case(),
           fault=UNATTRIBUTED),
    Attack("summary-altered", "", "ANSWER_DIGEST", summarised, fault=UNATTRIBUTED),

    Attack("cached-beyond-prompt", "", "BILL",
           lambda: audit(edit_commitment=put("usage.cached_prompt_tokens", 8)).case()),
    Attack("bill-of-unsaid-convention", "", "BILL",
           lambda: audit(edit_commitment=put("usage.reasoning_counting", 0)).case()),
    Attack("bill-of-another-sum", "", "BILL",
           lambda: audit(edit_commitment=put("usage.completion_tokens", 26)).case()),
    Attack("answer-tokens-of-another-count", "", "BILL",
           lambda: audit(edit_commitment=put("answer_tokens", 4)).case()),

    Attack("manifest-without-the-last-block", "", "MANIFEST_ROOT",
           lambda: audit(edit_manifest=dropped("blocks")).case()),
    Attack("manifest-out-of-order", "", "MANIFEST_ROOT",
           lambda: audit(edit_manifest=swapped("blocks")).case()),
    Attack("manifest-of-other-counts", "", "MANIFEST_ROOT",
           lambda: audit(edit_manifest=put("blocks.2.token_count", 8)).case()),

    Attack("last-block-beyond-full", "", "SIZES",
           lambda: audit(opener=block_of(12), edit_receipt=without("checkpoints")).case()),
    Attack("last-block-of-nothing", "", "SIZES",
           lambda: audit(tokens=16, opener=block_of(0)).case()),
    Attack("blocks-beyond-tree", "", "SIZES",
           lambda: audit(edit_commitment=billed(20, blocks=4)).case()),

    Attack("checkpoint-of-another-profile", "", "CHECKPOINT_PREFIX",
           lambda: audit(edit_checkpoint=put("profile_sha256", bytes(32))).case()),
    Attack("checkpoint-of-another-nonce", "", "CHECKPOINT_PREFIX",
           lambda: audit(edit_checkpoint=put("client_nonce", bytes(32))).case()),
    Attack("checkpoint-of-a-session-without-reasoning", "", "CHECKPOINT_PREFIX",
           lambda: audit(tokens=0, edit_receipt=put(
               "checkpoints", list(audit().reply.receipt.checkpoints))).case()),

    Attack("fingerprints-of-more-blocks", "", "FINGERPRINTS",
           lambda: audit(edit_fingerprints=put("size", 4)).case()),

    Attack("one-flip-for-both-kinds", "", "FLIP", one_flip_for_both_kinds),
    Attack("flip-of-an-opening-shown-for-another-challenge", "", "FLIP",
           lambda: second_round(answered=answered_elsewhere(3))),
    Attack("whole-flip-made-up", "", "FLIP",
           lambda: audit().ask_whole(edit_opening=put("flip", bytes(32))).case()),

    Attack("block-opened-twice", "", "DRAW",
           lambda: audit().ask(edit_opening=repeated("blocks")).case()),
    Attack("position-opened-twice", "", "DRAW",
           lambda: audit().ask(edit_opening=repeated("blocks.0.tokens")).case()),
    Attack("position-past-the-block", "", "DRAW",
           lambda: audit().ask(edit_opening=put("blocks.0.tokens.0.position", 8)).case()),
    Attack("block-past-the-tree", "", "DRAW",
           lambda: audit().ask(edit_opening=put("blocks.0.block_index", 3)).case()),
    Attack("token-block-position-opened-twice", "", "DRAW",
           lambda: audit().ask(token_blocks=1, edit_opening=repeated(
               "token_blocks.0.tokens")).case()),
    Attack("token-block-position-past-the-block", "", "DRAW",
           lambda: audit().ask(token_blocks=1, edit_opening=put(
               "token_blocks.0.tokens.0.position", 8)).case()),
    Attack("token-block-past-the-tree", "", "DRAW",
           lambda: audit().ask(token_blocks=1, edit_opening=put(
               "token_blocks.0.block_index", 3)).case()),
    Attack("token-blocks-unasked-for", "", "DRAW", token_block_unasked_for),
    Attack("block-of-embedding-as-token-block-too", "", "DRAW", block_of_both_kinds),
    Attack("token-block-with-its-embedding", "", "DRAW", token_block_with_embedding),
    Attack("whole-block-opened-twice", "", "DRAW",
           lambda: audit().ask_whole(edit_opening=repeated("blocks")).case()),
    Attack("whole-block-past-the-tree", "", "DRAW",
           lambda: audit().ask_whole(edit_opening=put("blocks.0.block_index", 3)).case()),

    Attack("block-left-out", "", "OPENING_PRESENT",
           lambda: audit().ask(blocks=2, edit_opening=dropped("blocks")).case()),
    Attack("token-blocks-all-left-out", "", "OPENING_PRESENT",
           lambda: audit().ask(token_blocks=2, edit_opening=without("token_blocks")).case()),
    Attack("token-block-without-its-tokens", "", "OPENING_PRESENT",
           lambda: audit().ask(token_blocks=1, edit_opening=put(
               "token_blocks.0.tokens", [])).case()),
    Attack("whole-block-left-out", "", "OPENING_PRESENT",
           lambda: audit().ask_whole(blocks=2, edit_opening=dropped("blocks")).case()),
    Attack("edge-of-another-position", "", "OPENING_PRESENT",
           lambda: audit().ask(edit_opening=put("edge.last_token.position", 2)).case()),
    Attack("edge-of-another-block", "", "OPENING_PRESENT",
           lambda: audit().ask(edit_opening=put("edge.block_index", 1)).case()),
    Attack("edge-past-the-tree", "", "OPENING_PRESENT",
           lambda: audit().ask(edit_opening=put("edge.block_index", 3)).case()),
    Attack("whole-answer-late", "", "OPENING_PRESENT",
           lambda: audit().ask_whole(edit_round=put("received_at", LATER)).case()),
    Attack("whole-no-answer", "", "OPENING_PRESENT",
           lambda: audit().ask_whole(edit_round=unanswered("CANCELLED")).case()),
    Attack("whole-not-reached", "", "OPENING_PRESENT",
           lambda: audit().ask_whole(edit_round=unanswered("UNAVAILABLE")).case(),
           fault=NOBODY, outcome=INCONCLUSIVE),
    Attack("whole-opening-of-another-challenge", "", "OPENING_PRESENT",
           lambda: audit().ask_whole(edit_opening=put("challenge_sha256", bytes(32))).case()),
    Attack("second-round-unanswered", "", "OPENING_PRESENT",
           lambda: audit().ask().ask(edit_round=unanswered("DEADLINE_EXCEEDED")).case()),
    Attack("refusal-late", "", "OPENING_PRESENT",
           lambda: audit().ask(edit_round=both(
               refused(World()), put("received_at", LATER))).case()),
    Attack("refusal-of-another-challenge", "", "OPENING_PRESENT",
           lambda: second_round(edit=put("challenge_sha256", bytes(32)))),
    Attack("refusal-shows-a-challenge-twice", "", "OPENING_PRESENT",
           lambda: second_round(answered=shown(audit().ask()) * 2)),
    Attack("refusal-shows-challenges-of-another-commitment", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(2, named=bytes(32)))),
    Attack("refusal-shows-whole-challenges-of-another-commitment", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(2, named=bytes(32), whole=True))),
    Attack("refusal-shows-garbage", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(2),
                              edit=put("answered.0.challenge.payload", b"\xff"))),
    Attack("refusal-shows-challenges-that-nobody-signed", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(3), edit=put(
               "answered.2.challenge.signatures", []))),
    Attack("refusal-shows-a-challenge-that-this-verifier-did-not-sign", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(3), edit=put(
               "answered.2.challenge.signatures.0.keyid",
               World().signer(VERIFIER).public.keyid))),
    Attack("refusal-of-flips-not-used-up", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(FLIP_CHAIN_LENGTH - 1), reason=FLIPS_USED_UP)),
    Attack("whole-refused-without-a-cap", "", "OPENING_PRESENT",
           lambda: refused_whole(at_cap=False)),
    Attack("sampled-refused-for-whole-blocks", "", "OPENING_PRESENT",
           lambda: only_round(answered_elsewhere(9, whole=True))),

    Attack("token-salt-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("blocks.0.tokens.0.salt")).case()),
    Attack("token-row-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("blocks.0.tokens.0.row")).case()),
    Attack("token-proof-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("blocks.0.tokens.0.proof.0")).case()),
    Attack("token-proof-short", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=dropped("blocks.0.tokens.0.proof")).case()),
    Attack("token-block-salt-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(token_blocks=1, edit_opening=flipped(
               "token_blocks.0.tokens.0.salt")).case()),
    Attack("token-block-row-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(token_blocks=1, edit_opening=flipped(
               "token_blocks.0.tokens.1.row")).case()),
    Attack("token-block-proof-short", "", "INCLUSION_PROOF",
           lambda: audit().ask(token_blocks=1, edit_opening=dropped(
               "token_blocks.0.tokens.0.proof")).case()),
    Attack("token-block-leaf-repeated", "", "INCLUSION_PROOF", leaf_repeated_in_a_token_block),
    Attack("block-salt-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("blocks.0.block_salt")).case()),
    Attack("fingerprint-proof-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("blocks.0.fingerprint_proof.0")).case()),
    Attack("windows-swapped", "", "INCLUSION_PROOF",
           lambda: audit(tokens=24).ask(edit_opening=swapped("blocks.0.windows")).case()),
    Attack("edge-proof-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("edge.last_token.proof.0")).case()),
    Attack("edge-salt-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("edge.last_token.salt")).case()),
    Attack("whole-block-proof-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask_whole(edit_opening=flipped("blocks.0.block_proof.0")).case()),
    Attack("whole-block-salt-altered", "", "INCLUSION_PROOF",
           lambda: audit().ask_whole(edit_opening=flipped("blocks.0.block_salt")).case()),

    Attack("last-block-inflated-and-padded", "", "BLOCK_COUNT", inflated_and_padded),
    Attack("leaf-hash-altered", "", "BLOCK_COUNT",
           lambda: audit().ask(edit_opening=flipped("blocks.0.token_leaf_hashes")).case()),
    Attack("leaf-hashes-torn", "", "BLOCK_COUNT",
           lambda: audit().ask(edit_opening=change(
               "blocks.0.token_leaf_hashes", lambda raw: raw[:-1])).case()),

    Attack("table-proof-altered", "", "TOKEN_ROW",
           lambda: audit().ask(edit_opening=flipped("blocks.0.tokens.0.table_proof.3")).case()),
    Attack("token-block-table-proof-left-out", "", "TOKEN_ROW",
           lambda: audit().ask(token_blocks=1, edit_opening=put(
               "token_blocks.0.tokens.1.table_proof", [])).case()),
    Attack("edge-table-proof-left-out", "", "TOKEN_ROW",
           lambda: audit().ask(edit_opening=put("edge.last_token.table_proof", [])).case()),

    Attack("window-too-many", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [*rows, rows[0]]).ask().case()),
    Attack("windows-none", "", "WINDOW_EMBEDDING", lambda: windows(lambda _: []).ask().case()),
    Attack("window-infinite", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [rescaled(row, inf) for row in rows]).ask().case()),
    Attack("window-of-no-length", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [rescaled(row, 0.0) for row in rows]).ask().case()),
    Attack("window-of-negative-scale", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [rescaled(row, -0.002) for row in rows]).ask().case()),
    Attack("window-slightly-long", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [rescaled(row, 0.004) for row in rows]).ask().case()),
    Attack("window-torn", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [row[:-1] for row in rows]).ask().case()),
    Attack("window-of-zeros", "", "WINDOW_EMBEDDING",
           lambda: windows(steps(zeroed)).ask().case()),
    Attack("window-not-at-full-range", "", "WINDOW_EMBEDDING",
           lambda: windows(steps(halved)).ask().case()),
    Attack("window-below-the-range", "", "WINDOW_EMBEDDING",
           lambda: windows(steps(lowest)).ask().case()),
    Attack("whole-window-not-of-unit-norm", "", "WINDOW_EMBEDDING",
           lambda: windows(lambda rows: [rescaled(row, 0.1) for row in rows]).ask_whole().case()),

    Attack("whole-id-left-out", "", "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=dropped("blocks.0.token_ids")).case()),
    Attack("whole-salts-torn", "", "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=change(
               "blocks.0.token_salts", lambda raw: raw[:-1])).case()),
    Attack("whole-fingerprint-altered", "", "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=flipped(
               "blocks.0.vocabulary.0.fingerprint")).case()),
    Attack("whole-vocabulary-of-another-id", "", "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=change(
               "blocks.0.vocabulary.0.token_id", lambda known: known ^ 1)).case()),
    Attack("whole-vocabulary-past-its-end", "", "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=put(
               "blocks.0.vocabulary.0.token_id", VOCABULARY)).case()),

    Attack("whole-text-left-out", "", "WHOLE_TEXT",
           lambda: audit().ask_whole(edit_opening=put("blocks.0.text", "")).case()),
    Attack("whole-text-with-more", "", "WHOLE_TEXT",
           lambda: audit().ask_whole(edit_opening=change(
               "blocks.0.text", lambda text: text + " ")).case()),

    Attack("embedding-negated", "", "WHOLE_EMBEDDING",
           lambda: windows(steps(negated)).ask_whole().case()),
    Attack("windows-committed-in-another-order", "", "WHOLE_EMBEDDING",
           lambda: audit(tokens=24, opener=embedded(lambda rows: rows[::-1])).ask_whole().case()),

    Attack("told-more-than-was-generated-and-of-no-reasoning", "", "BILL",
           lambda: receipt_with(both(
               change("billed", reasoning_untold),
               change("billed.completion_tokens", lambda tokens: tokens + 1))),
           fault=UNATTRIBUTED),
    Attack("checkpoint-seen-before-the-request", "", "ARRIVAL_TIME",
           lambda: receipt_with(put("checkpoints.1.seen_at", stamp(START - HOUR))),
           fault=UNATTRIBUTED),
    Attack("checkpoint-dated-before-the-start", "", "ARRIVAL_TIME",
           lambda: audit(edit_checkpoint=put("provider_time", stamp(START - HOUR))).case()),
    Attack("tokens-past-a-slower-rate", "", "ARRIVAL_TIME",
           lambda: with_policy(audit().case(), max_tokens_per_second=79.0)),
)

HONEST = {
    "another verifier used up the caps": lambda: only_round(answered_elsewhere(3)),
    "another verifier used up the cap on tokens by token blocks":
        lambda: only_round(answered_elsewhere(4, blocks=0, token_blocks=3)),
    "every flip is used up":
        lambda: only_round(answered_elsewhere(FLIP_CHAIN_LENGTH), reason=FLIPS_USED_UP),
    "whole blocks are refused at their cap": lambda: refused_whole(at_cap=True),
    "one answer is shown twice":
        lambda: replace(audit().case(), rounds=audit().ask().rounds * 2),
    "the client was told no bill": lambda: receipt_with(without("billed")),
    "the client was told all that was generated, and of no reasoning":
        lambda: receipt_with(change("billed", reasoning_untold)),
    "the client was told of no reasoning, and of the same sum":
        lambda: receipt_with(put("billed.reasoning_tokens", 0)),
    "the client noted no end of the answer": lambda: receipt_with(without("answer_last_at")),
    "the client saw no checkpoint": lambda: receipt_with(without("checkpoints")),
    "the client missed a checkpoint": lambda: receipt_with(dropped("checkpoints")),
    "the key was revoked just after the last opening":
        lambda: audit(edit_receipt=dated(revoked_at=START + HOUR + timedelta(seconds=1)))
        .ask().case(),
    "the client's clock is ahead within the skew":
        lambda: audit(edit_receipt=both(
            put("answer_last_at", stamp(START + timedelta(seconds=290))),
            dated(not_after=START + timedelta(seconds=1)))).case(),
    "tokens came just at the greatest rate":
        lambda: with_policy(audit().case(), max_tokens_per_second=80.0),
    "a committed summary was received":
        lambda: audit(edit_commitment=put("summary_sha256", digest(b"a summary")),
                      edit_receipt=put("summary", b"a summary")).case(),
    "the answer came at the deadline":
        lambda: audit().ask(edit_round=put("received_at", stamp(START + 2 * HOUR))).case(),
    "the client kept no committed summary":
        lambda: audit(edit_commitment=put("summary_sha256", digest(b"a summary"))).case(),
    "the fingerprints are still being made":
        lambda: replace(receipt_with(without("fingerprints")), manifest=None),
}

NOT_THE_PROVIDERS = {
    "no known verifier signed the challenge":
        lambda: audit().ask(edit_round=signed_by("stranger", "challenge", envelope.CHALLENGE)),
    "no known verifier signed the whole challenge":
        lambda: audit().ask_whole(edit_round=signed_by(
            "stranger", "challenge", envelope.WHOLE_CHALLENGE)),
    "the provider itself signed the challenge":
        lambda: audit().ask(edit_round=signed_by(PROVIDER, "challenge", envelope.CHALLENGE)),
    "the challenge is of the other kind":
        lambda: audit().ask(edit_round=put(
            "challenge", audit().ask_whole().whole_rounds[0].challenge)),
    "the challenge names other fingerprints":
        lambda: audit().ask(edit_challenge=put("fingerprints_sha256", bytes(32))),
    "the whole challenge names other fingerprints":
        lambda: audit().ask_whole(edit_challenge=put("fingerprints_sha256", bytes(32))),
    "the challenge has a short nonce":
        lambda: audit().ask(edit_challenge=put("nonce", b"short")),
    "the whole challenge is of no round":
        lambda: audit().ask_whole(edit_challenge=put("round", 0)),
    "the refused challenge names other fingerprints":
        lambda: audit().ask(edit_challenge=put("fingerprints_sha256", bytes(32)),
                            edit_round=unanswered("DEADLINE_EXCEEDED")),
    "the unanswered challenge is a stranger's":
        lambda: audit().ask(edit_round=both(
            unanswered("DEADLINE_EXCEEDED"),
            signed_by("stranger", "challenge", envelope.CHALLENGE))),
}
# fmt: on

ALL = [*ATTACKS, *MORE_ATTACKS, *SALT_ATTACKS, *MORE]
LIES = [attack for attack in ALL if attack.failed is not None]


def named(attack: Attack) -> str:
    return attack.name


def statuses(report: Report) -> dict[str, receipt_pb2.CheckStatus.ValueType]:
    return {result.code: result.status for result in report.results}


@pytest.mark.parametrize("attack", LIES, ids=named)
def test_a_lie_trips_its_check_and_no_earlier_one(attack: Attack) -> None:
    report = run_checks(attack.make())
    assert report.failed is not None
    assert report.failed.code == attack.failed, report.detail
    assert (report.fault, report.outcome) == (attack.fault, attack.outcome)
    assert report.detail


@pytest.mark.parametrize("attack", LIES, ids=named)
def test_checks_before_a_failed_one_passed_and_those_after_it_did_not_run(attack: Attack) -> None:
    report = run_checks(attack.make())
    codes = [result.code for result in report.results]
    assert codes == [check.code for check in CHECKS]
    at = codes.index(attack.failed or "")
    found = [result.status for result in report.results]
    assert receipt_pb2.CHECK_STATUS_FAILED not in found[:at]
    assert found[at] == receipt_pb2.CHECK_STATUS_FAILED
    assert set(found[at + 1 :]) <= {receipt_pb2.CHECK_STATUS_SKIPPED}
    assert report.results[at].detail == report.detail


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_every_check_has_lies_that_trip_it(check: Any) -> None:
    tripped = [attack.name for attack in LIES if attack.failed == check.code]
    assert len(tripped) >= 2, tripped


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST.keys())
def test_what_honest_parties_do_trips_nothing(make: Callable[[], Case]) -> None:
    report = run_checks(make())
    assert report.failed is None, report.detail
    assert report.outcome == receipt_pb2.OUTCOME_UNSPECIFIED
    assert report.fault == NOBODY


def test_a_full_honest_audit_runs_and_passes_every_check() -> None:
    report = run_checks(audit().ask().ask_whole().case())
    assert set(statuses(report).values()) == {receipt_pb2.CHECK_STATUS_PASSED}
    assert all(report.passed(check.code) for check in CHECKS)
    assert not report.passed("NO_SUCH_CHECK")


@pytest.mark.parametrize("make", NOT_THE_PROVIDERS.values(), ids=NOT_THE_PROVIDERS.keys())
def test_a_malformed_challenge_is_the_verifiers_fault_and_no_finding(
    make: Callable[[], Audit],
) -> None:
    with pytest.raises(InvalidInputError):
        run_checks(make().case())


def empty_challenged(edit: Edit[receipt_pb2.Round]) -> Case:
    """Return a challenge of a commitment to no tokens, answered as `edit` says."""
    empty = audit(tokens=0)
    fingerprints = digest(empty.reply.receipt.fingerprints.payload)
    asked = audit().ask(
        edit_challenge=put("fingerprints_sha256", fingerprints),
        edit_opening=put("blocks", []),
        edit_round=edit,
    )
    return replace(empty.case(), rounds=asked.rounds)


def test_a_challenge_of_an_empty_commitment_is_no_finding_if_it_was_answered() -> None:
    with pytest.raises(InvalidInputError, match="without blocks"):
        run_checks(empty_challenged(lambda _: None))


@pytest.mark.parametrize(
    "edit", [unanswered("INVALID_ARGUMENT"), refused(World())], ids=["no answer", "refused"]
)
def test_a_challenge_of_an_empty_commitment_is_no_finding_either_way(
    edit: Edit[receipt_pb2.Round],
) -> None:
    with pytest.raises(InvalidInputError):
        run_checks(empty_challenged(edit))


def test_evidence_that_is_not_at_hand_is_skipped_and_never_counts_as_passed() -> None:
    case = audit().case()
    found = statuses(run_checks(replace(case, manifest=None)))
    for code in ("MANIFEST_ROOT", "SIZES", "DRAW", "WHOLE_LEAVES"):
        assert found[code] == receipt_pb2.CHECK_STATUS_SKIPPED
    assert found["BILL"] == receipt_pb2.CHECK_STATUS_PASSED


def test_without_models_whole_blocks_are_not_embedded_again() -> None:
    case = replace(audit().ask_whole().case(), installed=None)
    found = statuses(run_checks(case))
    assert found["WHOLE_LEAVES"] == receipt_pb2.CHECK_STATUS_PASSED
    assert found["WHOLE_TEXT"] == receipt_pb2.CHECK_STATUS_SKIPPED
    assert found["WHOLE_EMBEDDING"] == receipt_pb2.CHECK_STATUS_SKIPPED
    with pytest.raises(MissingDependencyError, match="coin-audit"):
        _ = case.models


def test_checks_stand_in_the_order_of_the_protocol() -> None:
    codes = [check.code for check in CHECKS]
    assert len(set(codes)) == len(codes)
    assert codes.index("SIGNATURE") == 0
    for earlier, later in (
        ("STATEMENT", "KEY_WINDOW"),
        ("BILL", "MANIFEST_ROOT"),
        ("MANIFEST_ROOT", "SIZES"),
        ("SIZES", "CHECKPOINT_PREFIX"),
        ("FLIP", "DRAW"),
        ("DRAW", "OPENING_PRESENT"),
        ("OPENING_PRESENT", "INCLUSION_PROOF"),
        ("INCLUSION_PROOF", "BLOCK_COUNT"),
        ("BLOCK_COUNT", "TOKEN_ROW"),
        ("WHOLE_TEXT", "WHOLE_EMBEDDING"),
    ):
        assert codes.index(earlier) < codes.index(later)


def test_every_check_claims_and_advises_in_whole_sentences() -> None:
    for check in CHECKS:
        assert check.claim.endswith(".")
        assert "\n" not in check.claim
        assert check.advice.endswith(".")


def test_a_leaf_list_must_hold_the_tokens_opened_from_it_whatever_their_proofs_say() -> None:
    case = audit().ask(edit_opening=flipped("blocks.0.tokens.0.salt")).case()
    with pytest.raises(CheckFailure, match="is not the token opened there"):
        opened.block_counts(case)


def test_findings_name_what_was_found_and_what_was_wanted() -> None:
    report = run_checks(audit(edit_commitment=billed(44, blocks=6)).case())
    assert "6 blocks" in report.detail
    assert "3" in report.detail
    report = run_checks(audit(edit_commitment=put("usage.reasoning_tokens", 30)).case())
    assert "30" in report.detail
    assert "20" in report.detail


def test_a_refusal_exposes_what_its_challenges_drew() -> None:
    case = audit().case()
    refusal = opening_pb2.Refusal(answered=answered_elsewhere(2))
    ledger = opened.refusal_ledger(case, refusal)
    assert 1 <= len(ledger.block_embeddings) <= 2
    assert case.edge in ledger.tokens
    refusal = opening_pb2.Refusal(answered=answered_elsewhere(1, whole=True))
    assert len(opened.refusal_ledger(case, refusal).whole_blocks) == 1


def test_a_key_set_with_one_of_several_pinned_roots_is_enough() -> None:
    case = audit().case()
    stranger = KeySigner.generate("root").public
    roots = [stranger, *case.trust.provider_roots]
    assert run_checks(replace(case, trust=replace(case.trust, provider_roots=roots))).failed is None


def test_a_profile_of_another_block_size_is_inconclusive() -> None:
    report = run_checks(replace(audit().case(), profile=small_profile(block_size=16)))
    assert report.failed is not None
    assert (report.failed.code, report.fault, report.outcome) == ("PROFILE", NOBODY, INCONCLUSIVE)


def test_too_many_signatures_on_a_challenge_are_no_finding() -> None:
    with pytest.raises(InvalidInputError):
        run_checks(audit().ask(edit_round=crowded("challenge")).case())


def test_openings_without_their_manifest_are_no_finding() -> None:
    with pytest.raises(InvalidInputError):
        run_checks(replace(audit().ask().case(), manifest=None))


def test_a_challenge_without_a_deadline_is_no_finding() -> None:
    with pytest.raises(InvalidInputError):
        run_checks(audit().ask(edit_challenge=without("deadline")).case())


def test_a_deadline_that_nobody_could_meet_is_no_finding() -> None:
    with pytest.raises(InvalidInputError):
        run_checks(audit().ask(edit_challenge=put("deadline", stamp(START))).case())


def test_a_manifest_under_a_revoked_key_proves_nothing_against_the_provider() -> None:
    forged = both(put("provider_time", stamp(START + HOUR)), put("blocks.0.token_root", bytes(32)))
    report = run_checks(
        audit(edit_manifest=forged, edit_receipt=dated(revoked_at=START + HOUR / 2)).case()
    )
    assert report.failed is not None
    assert (report.failed.code, report.fault) == ("KEY_WINDOW", UNATTRIBUTED)


def test_a_refusal_under_a_revoked_key_proves_nothing_against_the_provider() -> None:
    before = audit(edit_receipt=dated(revoked_at=START + HOUR / 2))
    report = run_checks(before.ask(edit_round=refused(before.world)).case())
    assert report.failed is not None
    assert (report.failed.code, report.fault) == ("KEY_WINDOW", UNATTRIBUTED)


def test_the_earliest_time_that_a_receipt_may_hold_does_not_crash() -> None:
    earliest = put("answer_last_at", stamp(datetime.min.replace(tzinfo=UTC)))
    assert run_checks(receipt_with(earliest)).failed is None


def test_a_signature_of_an_algorithm_that_the_profile_leaves_out_fails() -> None:
    message = profile_pb2.Profile.FromString(small_profile().raw)
    message.key_algorithms[:] = [ECDSA_P256]
    world = World(profile=Profile.from_bytes(message.SerializeToString()))
    assert run_checks(world.audit(world.reply()).case()).failed is not None


def test_an_opening_under_a_revoked_key_that_is_dated_back_fails() -> None:
    backdated = put("provider_time", stamp(START))
    before = audit(edit_receipt=dated(revoked_at=START + HOUR / 2))
    report = run_checks(before.ask(edit_opening=backdated).case())
    assert report.failed is not None
    assert (report.failed.code, report.fault) == ("KEY_WINDOW", UNATTRIBUTED)


def test_a_refusal_that_shows_challenges_of_the_providers_own_making_fails() -> None:
    answered = answered_elsewhere(3)
    for entry in answered:
        own = envelope.sign(
            entry.challenge.payload, entry.challenge.payload_type, World().signer(PROVIDER)
        )
        entry.challenge.CopyFrom(own)
    report = run_checks(audit().ask(edit_round=refused(World(), answered)).case())
    assert report.failed is not None
    assert (report.failed.code, report.fault) == ("OPENING_PRESENT", BY_PROVIDER)
    assert "signed itself" in report.detail


# Replies that are a part


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED, receipt_pb2.CHECK_STATUS_SKIPPED),
        (statements_pb2.ABORT_REASON_CRASHED, receipt_pb2.CHECK_STATUS_SKIPPED),
        (statements_pb2.ABORT_REASON_UPSTREAM_ERROR, receipt_pb2.CHECK_STATUS_FAILED),
        (statements_pb2.ABORT_REASON_CANCELLED, receipt_pb2.CHECK_STATUS_FAILED),
    ],
)
def test_an_answer_binds_where_both_sides_can_know_it(
    reason: statements_pb2.AbortReason.ValueType, status: receipt_pb2.CheckStatus.ValueType
) -> None:
    world = World()
    reply = world.reply(edit_commitment=lambda c: setattr(c, "abort_reason", reason))
    audit = world.audit(reply)
    audit.reply.receipt.answer = b"another answer"
    report = run_checks(audit.case())
    found = {result.code: result.status for result in report.results}
    assert found["ANSWER_DIGEST"] == status
