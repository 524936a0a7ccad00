"""The checks of what challenges opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

import numpy as np

from coin_protocol import draw, envelope, statements
from coin_protocol.checks.case import Answered, AnsweredWhole, Case
from coin_protocol.checks.failure import CheckFailure
from coin_protocol.checks.included import (
    leaf_tree,
    row_fingerprint,
    split_hashes,
    token_hash,
    verify_block,
    verify_fingerprint,
    verify_tokens,
    verify_vocabulary,
)
from coin_protocol.embedding import window_dimension
from coin_protocol.encoding import digest
from coin_protocol.errors import ExposureCapError
from coin_protocol.exposure import ExposureLedger
from coin_protocol.keys import read_time
from coin_protocol.limits import (
    FLIP_CHAIN_LENGTH,
    HASH_BYTES,
)
from coin_protocol.quantise import SCALE_BYTES, dequantise
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2

Shown = opening_pb2.BlockOpening | opening_pb2.TokenBlockOpening

RETENTION_ENDED: Final = "RETENTION_ENDED"
"""The verifier's word for no answer after the time until which the commitment promises one."""

BLAMELESS: Final = frozenset(
    {"UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED", RETENTION_ENDED}
)
"""gRPC statuses that accuse nobody: the verifier may not have reached the provider, or may
have asked without being known to it. They never make a PASS either."""


def shown_blocks(opening: opening_pb2.Opening) -> list[Shown]:
    """Return the blocks that an opening shows tokens of, those with their embedding first."""
    return [*opening.blocks, *opening.token_blocks]


def has_openings(case: Case) -> bool:
    """Whether a challenge of either kind was answered."""
    return bool(case.openings) or bool(case.whole_openings)


def has_flips(case: Case) -> bool:
    """Whether the provider gave a flip, in an opening or in a refusal."""
    return has_openings(case) or bool(case.refusals)


def has_rounds(case: Case) -> bool:
    """Whether the manifest was asked for in vain, or a challenge of either kind was sent."""
    return bool(case.no_manifest) or bool(case.rounds) or bool(case.whole_rounds)


def flip(case: Case) -> None:
    """Each flip is its link of the chain, no link served two challenges, none was passed over."""
    used: dict[int, bytes] = {}
    given: dict[bytes, int] = {}
    for index, flip_bytes, challenge in _flips(case):
        draw.verify_flip(flip=flip_bytes, index=index, anchor=case.commitment.flip_anchor)
        if used.setdefault(index, challenge) != challenge:
            msg = f"flip {index} served two challenges"
            raise CheckFailure(msg)
        if given.setdefault(challenge, index) != index:
            msg = f"one challenge was given the flips {given[challenge]} and {index}"
            raise CheckFailure(msg)
    unknown = {
        index for answered in _answering(case) for index in _strangers_before(case, answered)
    }
    if unknown:
        # Nothing worse was found: a link passed over is a lie, whoever else asked.
        msg = (
            f"the flips {sorted(unknown)} were given to verifiers that are not known here: the "
            "provider may have made them up to choose the draw"
        )
        raise CheckFailure(
            msg,
            fault=receipt_pb2.FAULT_UNSPECIFIED,
            outcome=receipt_pb2.OUTCOME_INCONCLUSIVE,
            advice="Ask the other verifiers for their keys, list them, and audit again.",
        )


def _strangers_before(case: Case, answered: Answered | AnsweredWhole) -> Iterator[int]:
    """Yield the flips before an opening's own that were given to verifiers not known here.

    All that was given them must be shown: else a provider could try links, and take the one whose
    draw suits it.
    """
    opening = answered.opening
    shown = sorted(earlier.flip_index for earlier in opening.answered)
    if shown != list(range(1, opening.flip_index)):
        msg = (
            f"flip {opening.flip_index} was given, and challenges that were given the flips "
            f"{shown[:FLIP_CHAIN_LENGTH]} are shown; wanted those of all flips before it"
        )
        raise CheckFailure(msg)
    for earlier in opening.answered:
        challenge = _read_shown(case, earlier.challenge)
        _require_ours(case, challenge.fingerprints_sha256)
        if not _require_signed(case, earlier.challenge):
            yield earlier.flip_index


def indices_as_drawn(case: Case) -> None:
    """Nothing is opened that was not drawn, and nothing twice."""
    for answered in case.openings:
        if not answered.answers:
            continue
        opening, drawn, number = answered.opening, answered.drawn, answered.number
        _require_drawn(number, "blocks", opening.blocks, drawn.blocks)
        _require_drawn(number, "token blocks", opening.token_blocks, drawn.token_blocks)
    for whole in case.whole_openings:
        if not whole.answers:
            continue
        opened = [block.block_index for block in whole.opening.blocks]
        if len(set(opened)) < len(opened) or not set(opened) <= set(whole.drawn):
            msg = f"blocks {opened[:20]} are opened whole, drawn are {sorted(whole.drawn)}"
            raise CheckFailure(msg)


def opening_present(case: Case) -> None:
    """Every challenge was answered in time with all that it drew, or rightly refused."""
    if case.no_manifest:
        _unanswered("the manifest of a commitment that the provider signed", case.no_manifest)
    for entry in case.rounds:
        _require_answer(case, entry, case.challenge(entry))
    for entry in case.whole_rounds:
        _require_answer(case, entry, case.whole_challenge(entry))
    for answered in case.openings:
        opening, drawn = answered.opening, answered.drawn
        _require_complete(answered.number, opening.blocks, drawn.blocks)
        _require_complete(answered.number, opening.token_blocks, drawn.token_blocks)
        edge = opening.edge
        if not opening.HasField("edge") or case.edge != (
            edge.block_index,
            edge.last_token.position,
        ):
            msg = f"round {answered.number} does not open the last token {case.edge}"
            raise CheckFailure(msg)
    for whole in case.whole_openings:
        left_out = set(whole.drawn) - {block.block_index for block in whole.opening.blocks}
        if left_out:
            msg = f"drawn blocks {sorted(left_out)} are not opened whole"
            raise CheckFailure(msg)


def inclusion_proofs(case: Case) -> None:
    """Every opened block, embedding and token is where the signed roots put it, fully salted."""
    case.check_once(_included, case.openings)
    case.check_once(_whole_included, case.whole_openings)


def _included(case: Case, answered: Answered) -> None:
    opening, edge = answered.opening, answered.opening.edge
    for block in opening.blocks:
        verify_block(case, block.block_index, block.block_proof)
        verify_fingerprint(case, block)
        verify_tokens(case, block.block_index, block.tokens, block.token_leaf_hashes)
    for shown in opening.token_blocks:
        verify_tokens(case, shown.block_index, shown.tokens)
    verify_block(case, edge.block_index, edge.block_proof)
    verify_tokens(case, edge.block_index, (edge.last_token,), edge.token_leaf_hashes)


def _whole_included(case: Case, whole: AnsweredWhole) -> None:
    for entry in whole.opening.blocks:
        verify_block(case, entry.block_index, entry.block_proof)
        verify_fingerprint(case, entry)


def block_counts(case: Case) -> None:
    """Each opened block has exactly as many leaves as it counts tokens."""
    case.check_once(_counted, case.openings)


def _counted(case: Case, answered: Answered) -> None:
    for index, leaves, tokens in _leaf_lists(answered):
        entry = case.blocks[index]
        if len(leaves) != entry.token_count * HASH_BYTES:
            msg = (
                f"block {index} counts {entry.token_count} tokens, "
                f"{len(leaves)} bytes of leaf hashes are shown"
            )
            raise CheckFailure(msg)
        tree = leaf_tree(case, leaves)
        if tree.root() != entry.token_root:
            msg = (
                f"block {index} counts {entry.token_count} tokens, but as many leaves do not "
                "give its token root"
            )
            raise CheckFailure(msg)
        for token in tokens:
            if tree.leaf_hashes[token.position] != token_hash(case, index, token):
                msg = f"leaf {token.position} of block {index} is not the token opened there"
                raise CheckFailure(msg)


def leaves_distinct(case: Case) -> None:
    """No block and no opened leaf stands twice: salts make equal ones impossible."""
    roots = [entry.token_root for entry in case.blocks]
    if len(set(roots)) < len(roots):
        msg = f"{len(roots) - len(set(roots))} blocks of {len(roots)} repeat another one's root"
        raise CheckFailure(msg)
    case.check_once(_distinct, case.openings)


def _distinct(case: Case, answered: Answered) -> None:
    del case
    for index, leaves, _ in _leaf_lists(answered):
        hashes = split_hashes(leaves)
        if len(set(hashes)) < len(hashes):
            repeated = len(hashes) - len(set(hashes))
            msg = f"{repeated} of the {len(hashes)} leaves of block {index} repeat another one"
            raise CheckFailure(msg)


def token_rows(case: Case) -> None:
    """Each opened embedding is that id's row of the profile's token table."""
    case.check_once(_rows, case.openings)


def _rows(case: Case, answered: Answered) -> None:
    opening = answered.opening
    tokens = [token for block in shown_blocks(opening) for token in block.tokens]
    for token in [*tokens, opening.edge.last_token]:
        fingerprint = row_fingerprint(case, token)
        verify_vocabulary(case, token.token_id, fingerprint, token.table_proof)


def window_embeddings(case: Case) -> None:
    """Each opened block has all its window embeddings, well formed and of unit norm."""
    case.check_once(_windows, _answered(case))


def _windows(case: Case, answered: Answered | AnsweredWhole) -> None:
    dimension = window_dimension(case.profile.message.embedding)
    for block in answered.opening.blocks:
        tokens = case.blocks[block.block_index].token_count
        wanted = -(-tokens // case.profile.message.embedding.window_tokens)
        if len(block.windows) != wanted:
            msg = (
                f"block {block.block_index} of {tokens} tokens has {len(block.windows)} "
                f"window embeddings, wanted {wanted}"
            )
            raise CheckFailure(msg)
        norms = np.linalg.norm(dequantise(block.windows, dimension), axis=1)
        scales = np.frombuffer(b"".join(row[:SCALE_BYTES] for row in block.windows), "<f4")
        # Rounding moves each number by half a step at most.
        off = np.abs(norms - 1.0) > 0.5 * scales.astype(np.float64) * dimension**0.5 + 1e-6
        if off.any():
            at = int(off.argmax())
            msg = f"window {at} of block {block.block_index} has norm {norms[at]:.4f}, wanted 1"
            raise CheckFailure(msg)


def refusal_ledger(case: Case, refusal: opening_pb2.Refusal) -> ExposureLedger:
    """Return what the challenges that a refusal shows have opened.

    Raises:
        VerificationError: One of them is not of this commitment, or its flip is not of the
            chain: the refusal shows nothing.
    """
    ledger = ExposureLedger()
    seen: set[int] = set()
    for shown in refusal.answered:
        if shown.flip_index in seen:
            msg = f"the refusal shows flip {shown.flip_index} twice"
            raise CheckFailure(msg)
        seen.add(shown.flip_index)
        _require_signed(case, shown.challenge)
        challenge = _read_shown(case, shown.challenge)
        _require_ours(case, challenge.fingerprints_sha256)
        if isinstance(challenge, opening_pb2.WholeBlockChallenge):
            ledger.add_whole(draw.drawn_whole_by(challenge, shown.flip, len(case.blocks)))
        else:
            ledger.add(case.drawn_by(challenge, shown.flip), edge=case.edge)
    return ledger


def _read_shown(
    case: Case, shown: envelope_pb2.Envelope
) -> opening_pb2.Challenge | opening_pb2.WholeBlockChallenge:
    if shown.payload_type == envelope.WHOLE_CHALLENGE:
        return case.memo.read(statements.read_whole_challenge, shown.payload)
    return case.memo.read(statements.read_challenge, shown.payload)


def _require_drawn(
    number: int, what: str, shown: Sequence[Shown], drawn: Sequence[draw.DrawnBlock]
) -> None:
    """Check that of one kind of blocks nothing is opened that was not drawn, nothing twice."""
    wanted = {block.index: set(block.positions) for block in drawn}
    opened = [block.block_index for block in shown]
    if len(set(opened)) < len(opened) or not set(opened) <= wanted.keys():
        msg = f"round {number} opens {what} {opened[:20]}, drawn are {sorted(wanted)[:20]}"
        raise CheckFailure(msg)
    for block in shown:
        found = [token.position for token in block.tokens]
        if len(set(found)) < len(found) or not set(found) <= wanted[block.block_index]:
            msg = (
                f"round {number} opens positions {found[:20]} of block {block.block_index}, "
                f"drawn are {sorted(wanted[block.block_index])}"
            )
            raise CheckFailure(msg)


def _require_complete(
    number: int, shown: Sequence[Shown], drawn: Sequence[draw.DrawnBlock]
) -> None:
    """Check that of one kind of blocks all is opened that was drawn."""
    found = {block.block_index: {token.position for token in block.tokens} for block in shown}
    for block in drawn:
        # A block may be drawn without positions, for its embedding alone.
        if block.index not in found or not set(block.positions) <= found[block.index]:
            msg = f"round {number} leaves out drawn parts of block {block.index}"
            raise CheckFailure(msg)


def _require_answer(
    case: Case,
    entry: receipt_pb2.Round,
    challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge,
) -> None:
    """Check that a round brought an answer in time, or a refusal that its caps bear out."""
    number = challenge.round
    if entry.HasField("no_answer"):
        _unanswered(f"the challenge of round {number}", entry.no_answer)
    late = read_time(entry.received_at) - read_time(challenge.deadline)
    if late.total_seconds() > 0:
        msg = f"round {number}: the answer came {late.total_seconds():.3f} s past the deadline"
        raise CheckFailure(msg)
    named = digest(entry.challenge.payload)
    if entry.HasField("refusal"):
        refusal = statements.read_refusal(entry.refusal.payload)
        if refusal.challenge_sha256 != named:
            msg = f"round {number}: the refusal is of another challenge"
            raise CheckFailure(msg)
        _require_justified(case, refusal, challenge)
        return
    opening = (
        case.read_opening(entry)
        if isinstance(challenge, opening_pb2.Challenge)
        else case.read_whole_opening(entry)
    )
    if opening.challenge_sha256 != named:
        msg = f"round {number}: the opening is of another challenge"
        raise CheckFailure(msg)


def _unanswered(what: str, status: str) -> NoReturn:
    msg = f"{what} was not answered ({status[:200]})"
    if status in BLAMELESS:
        raise CheckFailure(
            msg, fault=receipt_pb2.FAULT_UNSPECIFIED, outcome=receipt_pb2.OUTCOME_INCONCLUSIVE
        )
    raise CheckFailure(msg)


def _require_justified(
    case: Case,
    refusal: opening_pb2.Refusal,
    challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge,
) -> None:
    ledger = refusal_ledger(case, refusal)
    if refusal.reason == opening_pb2.REFUSAL_REASON_FLIPS_USED_UP:
        if len(refusal.answered) < FLIP_CHAIN_LENGTH:
            msg = f"refused after {len(refusal.answered)} challenges, the chain has more flips"
            raise CheckFailure(msg)
        return
    try:
        if isinstance(challenge, opening_pb2.Challenge):
            ledger.require(
                case.caps,
                blocks=challenge.blocks,
                token_blocks=challenge.token_blocks,
                tokens_per_block=challenge.tokens_per_block,
            )
        else:
            ledger.require_whole(case.caps, blocks=challenge.blocks)
    except ExposureCapError:
        return
    msg = (
        f"round {challenge.round} was refused, but with {len(ledger.tokens)} tokens, "
        f"{len(ledger.block_embeddings)} block embeddings and {len(ledger.whole_blocks)} whole "
        "blocks shown before, no cap was in its way"
    )
    raise CheckFailure(msg)


def _require_ours(case: Case, fingerprints_sha256: bytes) -> None:
    if fingerprints_sha256 != case.fingerprints_sha256:
        msg = "the answer shows a challenge of another commitment"
        raise CheckFailure(msg)


def _flips(case: Case) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each flip that the provider gave: index, bytes, digest of the challenge."""
    shows: list[opening_pb2.Opening | opening_pb2.WholeBlockOpening | opening_pb2.Refusal] = []
    for answered in _answering(case):
        challenge = digest(answered.entry.challenge.payload)
        yield answered.opening.flip_index, answered.opening.flip, challenge
        shows.append(answered.opening)
    shows += [refusal for _, refusal in case.refusals]
    for message in shows:
        for shown in message.answered:
            yield shown.flip_index, shown.flip, digest(shown.challenge.payload)


def _require_signed(case: Case, shown: envelope_pb2.Envelope) -> bool:
    """Check a challenge that the provider shows, if its verifier is known here; say whether."""
    if any(case.keys.find(entry.keyid) is not None for entry in shown.signatures):
        msg = "the answer shows a challenge that the provider signed itself"
        raise CheckFailure(msg)
    known = case.trust.verifiers
    strangers = [entry for entry in shown.signatures if known.find(entry.keyid) is None]
    if shown.signatures and len(strangers) == len(shown.signatures):
        return False
    case.verified(shown, shown.payload_type, known)
    return True


def _answered(case: Case) -> Iterator[Answered | AnsweredWhole]:
    yield from case.openings
    yield from case.whole_openings


def _answering(case: Case) -> Iterator[Answered | AnsweredWhole]:
    """Yield the openings that answer the challenge that they stand beside.

    Another one says nothing of it: whoever keeps the evidence may have put it there, and that no
    answer came is another check's to say.
    """
    return (answered for answered in _answered(case) if answered.answers)


def _leaf_lists(
    answered: Answered,
) -> Iterator[tuple[int, bytes, Sequence[opening_pb2.TokenOpening]]]:
    """Yield (block, its leaf hashes in one string, tokens opened in it)."""
    for block in answered.opening.blocks:
        yield block.block_index, block.token_leaf_hashes, block.tokens
    edge = answered.opening.edge
    yield edge.block_index, edge.token_leaf_hashes, (edge.last_token,)
