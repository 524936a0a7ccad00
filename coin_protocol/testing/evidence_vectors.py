"""Whole audits as JSON files: honest ones, and one lie each, with what the checks must say.

`ATTACKS` states by hand what every vector must come to; nothing of it is recorded from the
code under test. `evidence_vectors` makes the files in `vectors/evidence/`: exact bytes in
base64 (receipt, manifest, rounds, profile, policy) beside the pinned keys in PEM. Blocks
opened whole are those of the models in `coin_protocol.testing.small`.

Everything random comes out of `World`'s seed, so the same code gives the same bytes.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from math import nan
from typing import Final

from google.protobuf.message import Message

from coin_protocol import draw, merkle
from coin_protocol.checks import Case
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.embedding import quantised_windows
from coin_protocol.encoding import token_fingerprint, token_leaf
from coin_protocol.keyset import stamp
from coin_protocol.opening import Opener
from coin_protocol.signer import public_pem
from coin_protocol.testing.forgeries import (
    POLICY,
    ShiftedWorld,
    WideWorld,
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
    with_leaves,
    without,
)
from coin_protocol.testing.small import (
    small_profile,
)
from coin_protocol.testing.world import (
    ANSWER_TOKENS,
    START,
    Audit,
    World,
)
from coin_protocol.usage import BESIDE, usage_for
from coin_protocol.v1 import opening_pb2, receipt_pb2, statements_pb2

FOLDER: Final = "testing/vectors/evidence"

_ASSERTED: Final = (receipt_pb2.TIER_ASSERTED,)
_COMMITTED: Final = (*_ASSERTED, receipt_pb2.TIER_COMMITTED)
_TIMED: Final = (*_COMMITTED, receipt_pb2.TIER_TIMED)
_NOBODY: Final = receipt_pb2.FAULT_UNSPECIFIED
_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED
_INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Attack:
    """One audit, honest or not, and what the checks must say of it.

    Attributes:
        name: Of the vector's file.
        about: The attack, in one sentence.
        failed: Code of the first check that fails; None for an honest audit.
        make: Returns the evidence.
        tiers: Earned, weakest first.
        fault: Of the failure.
        outcome: Of the failure.
    """

    name: str
    about: str
    failed: str | None
    make: Callable[[], Case]
    tiers: tuple[receipt_pb2.Tier.ValueType, ...] = _ASSERTED
    fault: receipt_pb2.Fault.ValueType = receipt_pb2.FAULT_PROVIDER
    outcome: receipt_pb2.Outcome.ValueType = receipt_pb2.OUTCOME_FAIL


def evidence_vectors() -> dict[str, bytes]:
    """Return the files of all vectors, by path below `coin_protocol/`."""
    return {f"{FOLDER}/{attack.name}.json": document(attack) for attack in ATTACKS}


def document(attack: Attack) -> bytes:
    """Return an audit, and what the checks must say of it, as a JSON vector."""
    case = attack.make()
    honest = attack.failed is None
    fault = _NOBODY if honest else attack.fault
    outcome = receipt_pb2.OUTCOME_UNSPECIFIED if honest else attack.outcome
    parts = {
        "name": attack.name,
        "about": attack.about,
        "provider_roots": [public_pem(key).decode() for key in case.trust.provider_roots],
        "verifiers": {
            listed.key.name: public_pem(listed.key).decode() for listed in case.trust.verifiers.keys
        },
        "profile": _base64(case.profile.raw),
        "policy": _base64(case.policy.raw),
        "receipt": _exact(case.receipt),
        "manifest": None if case.manifest is None else _exact(case.manifest),
        "rounds": [_exact(entry) for entry in case.rounds],
        "whole_rounds": [_exact(entry) for entry in case.whole_rounds],
        "expect": {
            "failed": attack.failed,
            "outcome": receipt_pb2.Outcome.Name(outcome),
            "fault": receipt_pb2.Fault.Name(fault),
            "tiers": [receipt_pb2.Tier.Name(tier) for tier in attack.tiers],
        },
    }
    return (json.dumps(parts, indent=2) + "\n").encode()


def _exact(message: Message) -> str:
    return _base64(message.SerializeToString(deterministic=True))


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _receipt_alone() -> Case:
    return replace(audit().case(), manifest=None)


def _bunched(receipt: receipt_pb2.Receipt) -> None:
    for seen in receipt.checkpoints:
        seen.seen_at.CopyFrom(receipt.answer_first_at)


def _refused_at_cap() -> Case:
    first = audit().ask()
    return first.ask(edit_round=refused(first.world, shown(first))).case()


def _key_backdated() -> Case:
    hour = timedelta(hours=1)
    then = stamp(START - 2 * hour)
    return audit(
        tokens=4,
        edit_commitment=both(put("started_at", then), put("ended_at", then)),
        edit_fingerprints=put("provider_time", then),
        edit_receipt=dated(revoked_at=START - hour),
    ).case()


def _commitment_of_another_request() -> Case:
    other = put("client_nonce", bytes(32))
    return audit(edit_commitment=other, edit_checkpoint=other).case()


def _runs_of_tokens() -> Case:
    world = World(profile=small_profile(run_tokens=3), policy=POLICY)
    return world.audit(world.reply()).ask(token_blocks=9, tokens_per_block=4).ask_whole().case()


def _short_block_inside() -> Case:
    def forge(honest: Opener) -> Opener:
        first, second, third = honest.tree.entries
        return recommitted(honest, [first, third, second])

    return audit(opener=forge, edit_receipt=without("checkpoints")).case()


def _flip_used_twice() -> Case:
    first = audit().ask()
    used = opening_pb2.Opening.FromString(first.rounds[0].opening.payload)
    again = both(put("flip_index", used.flip_index), put("flip", used.flip))
    return first.ask(edit_opening=again).case()


def _undrawn_block() -> Case:
    before = audit()

    def edit(opening: opening_pb2.Opening) -> None:
        other = draw.DrawnBlock((opening.blocks[0].block_index + 1) % 3, (0, 1))
        opening.blocks[0].CopyFrom(before.reply.opener.block(other))

    return before.ask(edit_opening=edit).case()


def _undrawn_position() -> Case:
    before = audit(tokens=24)

    def edit(opening: opening_pb2.Opening) -> None:
        block = opening.blocks[0]
        drawn = {token.position for token in block.tokens}
        kinder = tuple(sorted(set(range(8)) - drawn))[:2]
        block.CopyFrom(before.reply.opener.block(draw.DrawnBlock(block.block_index, kinder)))

    return before.ask(edit_opening=edit).case()


def _undrawn_token_block() -> Case:
    before = audit()

    def edit(opening: opening_pb2.Opening) -> None:
        drawn = {block.block_index for block in shown_blocks(opening)}
        (other,) = set(range(3)) - drawn
        kinder = before.reply.opener.token_block(draw.DrawnBlock(other, (0, 1)))
        opening.token_blocks[0].CopyFrom(kinder)

    return before.ask(token_blocks=1, edit_opening=edit).case()


def _undrawn_run() -> Case:
    world = World(profile=small_profile(run_tokens=2), policy=POLICY)
    before = world.audit(world.reply(tokens=24))

    def edit(opening: opening_pb2.Opening) -> None:
        (block,) = opening.token_blocks
        first = block.tokens[0].position - 1 if block.tokens[0].position else 1
        shifted = draw.DrawnBlock(block.block_index, (first, first + 1))
        block.CopyFrom(before.reply.opener.token_block(shifted))

    return before.ask(token_blocks=1, edit_opening=edit).case()


def _embedding_withheld() -> Case:
    def edit(opening: opening_pb2.Opening) -> None:
        (block,) = opening.blocks
        opening.token_blocks.add(block_index=block.block_index, tokens=block.tokens)
        opening.ClearField("blocks")

    return audit().ask(token_blocks=1, edit_opening=edit).case()


def _token_blocks_exchanged() -> Case:
    def edit(opening: opening_pb2.Opening) -> None:
        first, second = opening.token_blocks
        positions = [[token.position for token in block.tokens] for block in (first, second)]
        tokens = list(first.tokens)
        put("tokens", list(second.tokens))(first)
        put("tokens", tokens)(second)
        for block, drawn in zip((first, second), positions, strict=True):
            for token, position in zip(block.tokens, drawn, strict=True):
                token.position = position

    return audit(tokens=24).ask(token_blocks=2, edit_opening=edit).case()


def _refused_for_token_blocks(tokens_per_block: int) -> Case:
    first = audit().ask(blocks=0, token_blocks=3, tokens_per_block=tokens_per_block)
    return first.ask(edit_round=refused(first.world, shown(first))).case()


def _undrawn_whole_block() -> Case:
    before = audit()

    def edit(opening: opening_pb2.WholeBlockOpening) -> None:
        other = (opening.blocks[0].block_index + 1) % 3
        tokenizer = before.world.models.tokenizer
        opening.blocks[0].CopyFrom(before.reply.opener.whole(other, tokenizer))

    return before.ask_whole(edit_opening=edit).case()


def _refused_with_made_up_flips() -> Case:
    first = audit().ask()
    answered = shown(first)
    answered[0].flip = bytes(32)
    return first.ask(edit_round=refused(first.world, answered)).case()


def _last_block_inflated() -> Case:
    def forged_leaves(honest: Opener) -> list[bytes]:
        last = honest.edge().last_token
        fingerprint = token_fingerprint(last.token_id, last.row)
        leaf = token_leaf(honest.session.session_id, 2, 5, last.salt, fingerprint)
        return [*block_leaves(honest, 2)[:3], merkle.leaf_hash(leaf)]

    def forge(honest: Opener) -> Opener:
        root = merkle.root(forged_leaves(honest))
        entry = statements_pb2.BlockEntry(token_count=6, token_root=root)
        return recommitted(honest, [*honest.tree.entries[:2], entry])

    before = audit(opener=forge, edit_commitment=billed(22))
    leaves = forged_leaves(audit().reply.opener)
    return before.ask(
        edit_challenge=aimed(before.reply, lambda drawn: drawn.blocks[0].index != 2),
        edit_opening=both(put("edge.last_token.position", 5), with_leaves(2, leaves)),
    ).case()


def _block_repeated() -> Case:
    def forge(honest: Opener) -> Opener:
        first, _, third = honest.tree.entries
        return recommitted(honest, [first, first, third])

    before = audit(opener=forge, edit_receipt=without("checkpoints"))
    return before.ask(
        edit_challenge=aimed(before.reply, lambda drawn: drawn.blocks[0].index != 1)
    ).case()


def _leaf_repeated() -> Case:
    def forged_leaves(honest: Opener) -> list[bytes]:
        first, _, *rest = block_leaves(honest, 2)
        return [first, first, *rest]

    def forge(honest: Opener) -> Opener:
        root = merkle.root(forged_leaves(honest))
        entry = statements_pb2.BlockEntry(token_count=4, token_root=root)
        return recommitted(honest, [*honest.tree.entries[:2], entry])

    before = audit(opener=forge)
    return before.ask(
        edit_challenge=aimed(
            before.reply,
            lambda drawn: drawn.blocks[0].index != 2 or 1 not in drawn.blocks[0].positions,
        ),
        edit_opening=with_leaves(2, forged_leaves(audit().reply.opener)),
    ).case()


def _shifted() -> Audit:
    world = ShiftedWorld(policy=POLICY)
    return world.audit(world.reply())


def _id_outside_vocabulary() -> Case:
    world = WideWorld(policy=POLICY)
    return world.audit(world.reply()).ask().case()


def _embedding_copied() -> Case:
    world = World(policy=POLICY)
    spec = world.profile.message.embedding
    copy = quantised_windows(world.models.embedder, spec, ["the answer"])
    reply = world.reply(opener=embedded(lambda rows: copy * len(rows)))
    return world.audit(reply).ask().ask_whole().case()


def _retokenized() -> Case:
    source = put("id_source", statements_pb2.ID_SOURCE_RETOKENIZED)
    return audit(edit_commitment=source).ask().case()


def _projected() -> Case:
    world = World(profile=small_profile(projection=6), policy=POLICY)
    return world.audit(world.reply()).ask().ask_whole().case()


def _beside() -> Case:
    usage = usage_for(
        prompt_tokens=7, reasoning_tokens=20, answer_tokens=ANSWER_TOKENS, counting=BESIDE
    )
    return audit(edit_commitment=put("usage", usage)).ask().case()


def _key_revoked_later() -> Case:
    later = START + timedelta(hours=2)
    return audit(edit_receipt=dated(revoked_at=later)).ask().case()


_HOURS_LATER: Final = stamp(START + timedelta(hours=3))
_ALL: Final = (*_TIMED, receipt_pb2.TIER_OPENED)
_UNTIMED: Final = (*_COMMITTED, receipt_pb2.TIER_OPENED)
_SECOND: Final = put("checkpoints.1.checkpoint.signatures.0.sig", b"")

# fmt: off
ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("honest-sampled-and-whole",
           "No attack: an honest audit of sampled tokens and a block opened whole.",
           None, lambda: audit().ask().ask_whole().case(), _ALL),
    Attack("honest-three-blocks",
           "No attack: one challenge draws every block and every token.",
           None, lambda: audit().ask(blocks=9, tokens_per_block=9).case(), _TIMED),
    Attack("honest-two-rounds",
           "No attack: the verifier asks twice.",
           None, lambda: audit(tokens=40).ask().ask(blocks=2).case(), _TIMED),
    Attack("honest-zero-tokens",
           "No attack: a reply without reasoning has nothing to open.",
           None, lambda: audit(tokens=0).case(), _COMMITTED),
    Attack("honest-one-token",
           "No attack: a reply of one reasoning token.",
           None, lambda: audit(tokens=1).ask().ask_whole().case(), _UNTIMED),
    Attack("honest-one-full-block",
           "No attack: as many tokens as a block holds.",
           None, lambda: audit(tokens=8).ask().ask_whole().case(), _ALL),
    Attack("honest-one-token-past-a-block",
           "No attack: one token more than a block holds.",
           None, lambda: audit(tokens=9).ask().ask_whole().case(), _ALL),
    Attack("honest-retokenized",
           "No attack: text was tokenized again, and the commitment says so.",
           None, _retokenized, _TIMED),
    Attack("honest-projected",
           "No attack: the profile projects window embeddings to fewer dimensions.",
           None, _projected, _ALL),
    Attack("honest-reasoning-beside-completion",
           "No attack: the bill counts reasoning tokens beside completion tokens.",
           None, _beside, _TIMED),
    Attack("honest-receipt-alone",
           "No attack: a receipt that was not audited yet.",
           None, _receipt_alone),
    Attack("honest-bunched-checkpoints",
           "No attack: the network delivered all checkpoints together, so no time is proven.",
           None, lambda: audit(tokens=24, edit_receipt=_bunched).ask().case(), _COMMITTED),
    Attack("honest-refusal-at-cap",
           "No attack: a second challenge could pass an exposure cap and is refused.",
           None, _refused_at_cap, _TIMED),
    Attack("honest-key-revoked-later",
           "No attack: the key was revoked after everything was signed.",
           None, _key_revoked_later, _TIMED),

    Attack("honest-token-blocks",
           "No attack: one challenge draws a block, and of two more blocks tokens alone.",
           None, lambda: audit().ask(token_blocks=2).ask_whole().case(), _ALL),
    Attack("honest-token-blocks-alone",
           "No attack: a challenge opens tokens and no embedding.",
           None, lambda: audit().ask(blocks=0, token_blocks=2).case(), _TIMED),
    Attack("honest-embeddings-alone",
           "No attack: a challenge opens an embedding and no tokens but the last.",
           None, lambda: audit().ask(tokens_per_block=0).case(), _TIMED),
    Attack("honest-runs-of-tokens",
           "No attack: the profile has tokens drawn three in a row, and the last block ends a run.",
           None, _runs_of_tokens, _ALL),
    Attack("honest-refusal-for-token-blocks",
           "No attack: tokens of token blocks have reached the cap on tokens.",
           None, lambda: _refused_for_token_blocks(3), _TIMED),

    Attack("key-set-of-another-root",
           "The key set is signed by a root that the reader did not pin.",
           "SIGNATURE",
           lambda: audit(edit_receipt=put("key_set", World(seed="other").key_set())).case(),
           fault=_UNATTRIBUTED),
    Attack("commitment-altered-after-signing",
           "One bit of the signed commitment is flipped.",
           "SIGNATURE", lambda: audit(edit_receipt=flipped("commitment.payload")).case(),
           fault=_UNATTRIBUTED),
    Attack("checkpoint-unsigned",
           "A checkpoint carries an empty signature.",
           "SIGNATURE", lambda: audit(edit_receipt=_SECOND).case(), fault=_UNATTRIBUTED),
    Attack("opening-of-another-type",
           "The manifest is shown as an opening: signed by the provider, as something else.",
           "SIGNATURE",
           lambda: audit().ask(edit_round=put("opening", audit().reply.manifest)).case(),
           fault=_UNATTRIBUTED),

    Attack("commitment-of-another-provider",
           "The commitment names another provider than the owner of the key set.",
           "STATEMENT", lambda: audit(edit_commitment=put("provider", "another")).case()),
    Attack("commitment-of-unsaid-source",
           "The commitment does not say where its ids come from.",
           "STATEMENT", lambda: audit(edit_commitment=put("id_source", 0)).case()),
    Attack("commitment-with-unknown-field",
           "The commitment has a field that version 1 does not know.",
           "STATEMENT",
           lambda: audit(edit_commitment=lambda c: c.MergeFromString(b"\xf8\x07\x01")).case()),

    Attack("key-expired",
           "The commitment is dated after the end of its key's window.",
           "KEY_WINDOW", lambda: audit(edit_receipt=dated(not_after=START)).case(),
           fault=_UNATTRIBUTED),
    Attack("key-stolen-and-backdated",
           "Statements under a revoked key are dated back, but the client's clock says when.",
           "KEY_WINDOW", _key_backdated, fault=_UNATTRIBUTED),
    Attack("key-ended-before-opening",
           "The opening is dated after the end of its key's window.",
           "KEY_WINDOW",
           lambda: audit(edit_receipt=dated(not_after=START + timedelta(minutes=30))).ask().case(),
           fault=_UNATTRIBUTED),

    Attack("another-profile",
           "The commitment is made of a profile that the verifier does not have.",
           "PROFILE", lambda: audit(edit_commitment=put("profile_sha256", bytes(32))).case(),
           fault=_NOBODY, outcome=_INCONCLUSIVE),

    Attack("commitment-of-another-request",
           "The commitment and its checkpoints answer the nonce of another client.",
           "CLIENT_NONCE", _commitment_of_another_request, fault=_UNATTRIBUTED),
    Attack("request-altered",
           "The client's receipt holds another request than the one committed to.",
           "REQUEST_DIGEST", lambda: audit(edit_receipt=put("request", b"{}")).case(),
           fault=_UNATTRIBUTED),
    Attack("answer-altered",
           "The client's receipt holds another answer than the one committed to.",
           "ANSWER_DIGEST", lambda: audit(edit_receipt=put("answer", b"42")).case(),
           fault=_UNATTRIBUTED),
    Attack("summary-uncommitted",
           "The client shows a summary that the commitment knows nothing of.",
           "ANSWER_DIGEST", lambda: audit(edit_receipt=put("summary", b"short")).case(),
           fault=_UNATTRIBUTED),

    Attack("bill-over-reported",
           "The signed bill counts half as many reasoning tokens again as are committed.",
           "BILL", lambda: audit(edit_commitment=put("usage.reasoning_tokens", 30)).case()),
    Attack("bill-counts-reasoning-twice",
           "Reasoning is billed beside completion tokens that contain it already.",
           "BILL", lambda: audit(edit_commitment=put("usage.reasoning_counting", BESIDE)).case()),
    Attack("bill-told-otherwise",
           "The client was told another bill than the one signed.",
           "BILL", lambda: audit(edit_receipt=put("billed.completion_tokens", 99)).case(),
           fault=_UNATTRIBUTED),

    Attack("manifest-with-another-root",
           "The manifest shows another root of a block than the one committed.",
           "MANIFEST_ROOT",
           lambda: audit(edit_manifest=put("blocks.1.token_root", bytes(32))).case()),
    Attack("manifest-of-another-commitment",
           "The manifest names another commitment.",
           "MANIFEST_ROOT",
           lambda: audit(edit_manifest=put("commitment_sha256", bytes(32))).case(),
           fault=_UNATTRIBUTED),

    Attack("size-beyond-tree",
           "Three blocks more are signed and billed than the tree has.",
           "SIZES", lambda: audit(edit_commitment=billed(44, blocks=6)).case()),
    Attack("tokens-beyond-tree",
           "Four tokens more are signed and billed than the tree has, in as many blocks.",
           "SIZES", lambda: audit(edit_commitment=billed(24)).case()),
    Attack("short-block-inside",
           "The short block stands in the middle, so that block indices mislead.",
           "SIZES", _short_block_inside),

    Attack("checkpoint-of-another-tree",
           "A checkpoint signed during the reply is no prefix of the final tree.",
           "CHECKPOINT_PREFIX",
           lambda: audit(edit_checkpoint=put("token_root", bytes(32))).case()),
    Attack("checkpoint-inside-a-block",
           "A checkpoint counts tokens of a block that is not full.",
           "CHECKPOINT_PREFIX", lambda: audit(edit_checkpoint=put("token_count", 5)).case()),
    Attack("checkpoint-of-another-session",
           "A checkpoint of another session stands in the receipt.",
           "CHECKPOINT_PREFIX",
           lambda: audit(edit_checkpoint=put("session_id", bytes(16))).case(),
           fault=_UNATTRIBUTED),
    Attack("checkpoint-past-the-end",
           "A checkpoint counts more full blocks than the commitment.",
           "CHECKPOINT_PREFIX",
           lambda: audit(edit_checkpoint=both(
               put("block_count", 3), put("token_count", 24))).case()),

    Attack("fingerprints-of-another-commitment",
           "The fingerprints statement names another commitment.",
           "FINGERPRINTS",
           lambda: audit(edit_fingerprints=put("commitment_sha256", bytes(32))).case(),
           fault=_UNATTRIBUTED),
    Attack("fingerprints-of-fewer-blocks",
           "The fingerprints statement leaves out the last block.",
           "FINGERPRINTS", lambda: audit(edit_fingerprints=put("size", 2)).case()),

    Attack("flip-made-up",
           "The provider picks the flip after it saw the challenge.",
           "FLIP", lambda: audit().ask(edit_opening=put("flip", bytes(32))).case()),
    Attack("flip-used-twice",
           "The provider answers two challenges with one link of its chain.",
           "FLIP", _flip_used_twice),
    Attack("flip-of-another-index",
           "The provider names another place in its chain than the flip has.",
           "FLIP", lambda: audit().ask(edit_opening=put("flip_index", 2)).case()),
    Attack("refused-with-made-up-flips",
           "The provider refuses and shows a challenge that it never answered.",
           "FLIP", _refused_with_made_up_flips),

    Attack("block-undrawn",
           "The provider opens a block that was not drawn.",
           "DRAW", _undrawn_block),
    Attack("position-undrawn",
           "The provider opens kinder positions than those drawn.",
           "DRAW", _undrawn_position),
    Attack("token-block-undrawn",
           "The provider opens tokens of a block that was not drawn.",
           "DRAW", _undrawn_token_block),
    Attack("token-block-opened-twice",
           "The provider opens one token block twice, in the place of another.",
           "DRAW",
           lambda: audit().ask(token_blocks=2, edit_opening=change(
               "token_blocks", lambda blocks: [blocks[0], blocks[0]])).case()),
    Attack("run-unaligned",
           "The provider opens a run of tokens that begins a place beside the one drawn.",
           "DRAW", _undrawn_run),
    Attack("embedding-withheld",
           "The provider opens tokens alone of a block that was drawn with its embedding.",
           "DRAW", _embedding_withheld),
    Attack("whole-block-undrawn",
           "The provider opens another block whole than the one drawn.",
           "DRAW", _undrawn_whole_block),

    Attack("position-left-out",
           "The provider leaves out one of the drawn tokens.",
           "OPENING_PRESENT",
           lambda: audit(tokens=24).ask(
               edit_opening=change("blocks.0.tokens", lambda tokens: list(tokens)[:1])).case()),
    Attack("token-block-left-out",
           "The provider leaves out one of the drawn token blocks.",
           "OPENING_PRESENT",
           lambda: audit().ask(token_blocks=2, edit_opening=change(
               "token_blocks", lambda blocks: list(blocks)[:1])).case()),
    Attack("token-block-position-left-out",
           "The provider leaves out one of the drawn tokens of a token block.",
           "OPENING_PRESENT",
           lambda: audit().ask(token_blocks=1, edit_opening=change(
               "token_blocks.0.tokens", lambda tokens: list(tokens)[:1])).case()),
    Attack("embedding-alone-left-out",
           "The provider leaves out a block that was drawn for its embedding alone.",
           "OPENING_PRESENT",
           lambda: audit().ask(tokens_per_block=0, edit_opening=without("blocks")).case()),
    Attack("refused-for-embeddings-of-token-blocks",
           "The provider refuses and counts token blocks as opened embeddings.",
           "OPENING_PRESENT", lambda: _refused_for_token_blocks(1)),
    Attack("last-token-left-out",
           "The provider does not open the right edge, where an inflated size shows.",
           "OPENING_PRESENT", lambda: audit().ask(edit_opening=without("edge")).case()),
    Attack("no-answer",
           "The provider lets the deadline pass.",
           "OPENING_PRESENT",
           lambda: audit().ask(edit_round=unanswered("DEADLINE_EXCEEDED")).case()),
    Attack("no-answer-not-reached",
           "No attack that is known: the challenge never reached the provider.",
           "OPENING_PRESENT", lambda: audit().ask(edit_round=unanswered("UNAVAILABLE")).case(),
           fault=_NOBODY, outcome=_INCONCLUSIVE),
    Attack("answer-late",
           "The opening came after the deadline.",
           "OPENING_PRESENT",
           lambda: audit().ask(edit_round=put("received_at", _HOURS_LATER)).case()),
    Attack("refused-without-a-cap",
           "The provider refuses and shows nothing that reaches a cap.",
           "OPENING_PRESENT", lambda: audit().ask(edit_round=refused(World())).case()),
    Attack("opening-of-another-challenge",
           "The opening names another challenge than the one sent.",
           "OPENING_PRESENT",
           lambda: audit().ask(edit_opening=put("challenge_sha256", bytes(32))).case()),

    Attack("token-swapped-after-challenge",
           "An opened token has another id than the one committed.",
           "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=change(
               "blocks.0.tokens.0.token_id", lambda token_id: token_id ^ 1)).case()),
    Attack("token-block-token-swapped",
           "An opened token of a token block has another id than the one committed.",
           "INCLUSION_PROOF",
           lambda: audit().ask(token_blocks=1, edit_opening=change(
               "token_blocks.0.tokens.0.token_id", lambda token_id: token_id ^ 1)).case()),
    Attack("token-block-proof-forged",
           "The path from a token to the root of its token block is altered.",
           "INCLUSION_PROOF",
           lambda: audit().ask(token_blocks=1, edit_opening=flipped(
               "token_blocks.0.tokens.1.proof.0")).case()),
    Attack("token-block-of-another-index",
           "A token block shows the tokens of another block, with the proofs they have there.",
           "INCLUSION_PROOF", _token_blocks_exchanged),
    Attack("embedding-swapped-after-challenge",
           "An opened window embedding is another than the one committed.",
           "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("blocks.0.windows.0")).case()),
    Attack("block-proof-forged",
           "The path from the last block to the signed root is altered.",
           "INCLUSION_PROOF",
           lambda: audit().ask(edit_opening=flipped("edge.block_proof.0")).case()),
    Attack("whole-embedding-swapped",
           "A block opened whole comes with another embedding than the one committed.",
           "INCLUSION_PROOF",
           lambda: audit().ask_whole(edit_opening=flipped("blocks.0.windows.0")).case()),

    Attack("last-block-inflated",
           "The last block counts six tokens and has four leaves; the last proof fits both.",
           "BLOCK_COUNT", _last_block_inflated),
    Attack("leaf-hashes-left-out",
           "The provider shows the leaves of half a block.",
           "BLOCK_COUNT",
           lambda: audit().ask(edit_opening=change(
               "edge.token_leaf_hashes", lambda raw: raw[: len(raw) // 2])).case()),

    Attack("block-repeated",
           "The first block stands in the tree twice and is billed twice.",
           "LEAF_REPEATED", _block_repeated),
    Attack("leaf-repeated",
           "A leaf stands in a block twice, where no token was drawn.",
           "LEAF_REPEATED", _leaf_repeated),

    Attack("rows-of-other-tokens",
           "Committed token embeddings are rows of other tokens.",
           "TOKEN_ROW", lambda: _shifted().ask().case()),
    Attack("token-block-rows-of-other-tokens",
           "Committed token embeddings are rows of other tokens, opened in a token block.",
           "TOKEN_ROW",
           lambda: _shifted().ask(blocks=0, token_blocks=1).case()),
    Attack("token-block-row-not-of-the-table",
           "An opened token of a token block does not show that its row is the table's.",
           "TOKEN_ROW",
           lambda: audit().ask(token_blocks=1, edit_opening=flipped(
               "token_blocks.0.tokens.0.table_proof.0")).case()),
    Attack("id-outside-vocabulary",
           "Committed ids are none of the tokenizer's.",
           "TOKEN_ROW", _id_outside_vocabulary),

    Attack("embedding-not-of-unit-norm",
           "Committed window embeddings are longer than one, to score higher.",
           "WINDOW_EMBEDDING",
           lambda: audit(opener=embedded(lambda rows: [rescaled(row, 0.1) for row in rows]))
           .ask().case()),
    Attack("embedding-not-a-number",
           "Committed window embeddings have a scale that is not a number.",
           "WINDOW_EMBEDDING",
           lambda: audit(opener=embedded(lambda rows: [rescaled(row, nan) for row in rows]))
           .ask().case()),
    Attack("window-left-out",
           "Blocks are committed without their last window.",
           "WINDOW_EMBEDDING",
           lambda: audit(opener=embedded(lambda rows: rows[:-1])).ask().case()),

    Attack("whole-ids-altered",
           "A block opened whole shows other ids than those committed.",
           "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=change(
               "blocks.0.token_ids", lambda ids: [ids[1], ids[0], *ids[2:]])).case()),
    Attack("whole-salts-altered",
           "A block opened whole shows other salts than those committed.",
           "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=flipped("blocks.0.token_salts")).case()),
    Attack("whole-vocabulary-left-out",
           "A block opened whole does not show which row of the token table an id has.",
           "WHOLE_LEAVES",
           lambda: audit().ask_whole(edit_opening=change(
               "blocks.0.vocabulary", lambda known: list(known)[1:])).case()),

    Attack("whole-text-altered",
           "A block opened whole shows other text than its ids spell.",
           "WHOLE_TEXT",
           lambda: audit().ask().ask_whole(edit_opening=put("blocks.0.text", "plausible")).case(),
           _COMMITTED),
    Attack("embedding-copied-from-answer",
           "Committed window embeddings are copies of the answer's, to score well.",
           "WHOLE_EMBEDDING", _embedding_copied, _COMMITTED),

    Attack("tokens-too-fast-for-the-client",
           "By the client's clock the first block was committed before it could be decoded.",
           "ARRIVAL_TIME",
           lambda: audit(edit_receipt=put("checkpoints.0.seen_at", stamp(START))).ask().case(),
           _COMMITTED, fault=_UNATTRIBUTED),
    Attack("tokens-too-fast-by-their-own-dates",
           "By the provider's own dates tokens were committed before they could be decoded.",
           "ARRIVAL_TIME",
           lambda: audit(edit_checkpoint=put("provider_time", stamp(START))).ask().case(),
           _COMMITTED),
)
# fmt: on
