"""Whatever a strategy draws is valid: the project's own readers and checks take it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from hashlib import sha256
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coin_protocol import draw, envelope, limits, merkle, statements
from coin_protocol.checkpoint import parse_checkpoint, verify_checkpoint
from coin_protocol.checks import Trust, rooted_keys
from coin_protocol.commitment import (
    CommitmentBuilder,
    Prefix,
    SessionSecret,
    TokenTree,
    block_leaf_hashes,
)
from coin_protocol.delivery import read_delivery
from coin_protocol.draw import Drawn
from coin_protocol.errors import InvalidInputError
from coin_protocol.evidence import Kind, read_evidence, verify_evidence
from coin_protocol.exposure import Caps
from coin_protocol.keys import ECDSA_P256, ED25519, KeyRing, ListedKey, VerificationKey, read_time
from coin_protocol.keyset import SignedKeySet, pinned, sign_key_set
from coin_protocol.log_leaf import parse_leaf
from coin_protocol.note import NoteAlgorithm, NoteVerifier, parse_signatures, split_note
from coin_protocol.note_key import is_key_name
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import check_rounds, to_json
from coin_protocol.root_certificate import RootDomain
from coin_protocol.signer import KeySigner
from coin_protocol.testing import strategies as coin
from coin_protocol.testing.small import VOCABULARY, SmallModels
from coin_protocol.testing.strategies.keys import trust
from coin_protocol.testing.strategies.pool import pooled
from coin_protocol.testing.world import PROVIDER, START, World
from coin_protocol.usage import BESIDE, INSIDE, verify_usage
from coin_protocol.v1 import (
    delivery_pb2,
    envelope_pb2,
    evidence_pb2,
    keys_pb2,
    opening_pb2,
    profile_pb2,
    receipt_pb2,
    statements_pb2,
)

SOME = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
TABLE = World().models.table


def raw(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def reads(read: Callable[[bytes], object]) -> Callable[[Message], None]:
    """Return a check that a reader takes a message, and gives it back."""

    def check(message: Message) -> None:
        assert read(raw(message)) == message

    return check


def commitment(message: statements_pb2.Commitment) -> None:
    statements.read_commitment(raw(message))
    verify_usage(
        message.usage,
        reasoning_tokens=message.reasoning_tokens,
        answer_tokens=message.answer_tokens,
    )
    assert message.block_count == -(-message.reasoning_tokens // 256)
    assert read_time(message.started_at) <= read_time(message.ended_at)
    if message.abort_reason == statements_pb2.ABORT_REASON_CRASHED:
        assert message.reasoning_tokens % 256 == 0
        assert message.answer_tokens == message.usage.prompt_tokens == 0
        assert message.answer_sha256 == sha256(b"").digest()


def checkpoint(message: statements_pb2.Checkpoint) -> None:
    statements.read_checkpoint(raw(message))
    assert message.token_count == message.block_count * 256


def manifest(message: statements_pb2.Manifest) -> None:
    found = statements.read_manifest(raw(message)).blocks
    assert len({entry.token_root for entry in found}) == len(found)
    assert all(entry.token_count == 8 for entry in found[:-1])
    assert all(0 < entry.token_count <= 8 for entry in found[-1:])


def usage(message: statements_pb2.Usage) -> None:
    inside = message.reasoning_tokens if message.reasoning_counting == INSIDE else 0
    verify_usage(
        message,
        reasoning_tokens=message.reasoning_tokens,
        answer_tokens=message.completion_tokens - inside,
    )


def refusal(message: opening_pb2.Refusal) -> None:
    statements.read_refusal(raw(message))
    shown = message.answered
    assert [each.flip_index for each in shown] == list(range(1, len(shown) + 1))
    for each in shown:
        kind = each.challenge.payload_type
        envelope.verify(each.challenge, kind, trust().verifiers)
        if kind == envelope.WHOLE_CHALLENGE:
            statements.read_whole_challenge(each.challenge.payload)
        else:
            statements.read_challenge(each.challenge.payload)
        anchor = draw.flip_link(shown[0].flip, 1)
        draw.verify_flip(flip=each.flip, index=each.flip_index, anchor=anchor)
    used_up = message.reason == opening_pb2.REFUSAL_REASON_FLIPS_USED_UP
    assert not used_up or len(shown) == limits.FLIP_CHAIN_LENGTH


def verdict(message: receipt_pb2.Verdict) -> None:
    statements.read_verdict(raw(message))
    assert message.tier == message.tiers[-1]
    accuses = message.outcome == receipt_pb2.OUTCOME_FAIL
    assert accuses == bool(message.fault)
    failed = [one for one in message.checks if one.status == receipt_pb2.CHECK_STATUS_FAILED]
    assert len(failed) <= accuses
    assert failed or message.scores or not accuses


def key_set(message: keys_pb2.KeySet) -> None:
    ring = statements.read_key_set(raw(message))
    assert len(ring) == len(message.keys) >= 1


def signed_key_set(found: SignedKeySet) -> None:
    assert len(rooted_keys(found, trust())) >= 1


def key_ring(ring: KeyRing) -> None:
    for listed in ring.keys:
        assert ring.find(listed.key.keyid) is listed


def listed_key(listed: ListedKey) -> None:
    verification_key(listed.key)
    assert listed.not_before < listed.not_after


def verification_key(key: VerificationKey) -> None:
    assert VerificationKey.from_spki(key.name, key.spki).keyid == key.keyid


def signer(found: KeySigner) -> None:
    signature = found.sign(b"data")
    found.public.verify(signature, b"data")
    assert found.sign(b"data") == signature


def rotation(rings: tuple[KeyRing, KeyRing]) -> None:
    older, newer = rings
    assert newer.continues(older)
    assert len(newer) > len(older)


def trusted(found: Trust) -> None:
    assert found.provider_roots or found.provider_domains
    assert all(listed.is_valid(START) for listed in found.verifiers.keys)


def root_domain(found: RootDomain) -> None:
    assert RootDomain(found.domain, found.authorities) == found


def root(found: coin.DrawnRoot) -> None:
    signed = sign_key_set(PROVIDER, [], root=found.signer, issued_at=START, sequence=1)
    believed = found.trust(pinned("verifiers", ()))
    assert rooted_keys(SignedKeySet(signed, found.chain), believed).owner == PROVIDER


def any_envelope(message: envelope_pb2.Envelope) -> None:
    envelope.verify_with_key(message, message.payload_type, pooled(PROVIDER).public)


def leaf(found: Any) -> None:
    assert parse_leaf(found.to_bytes()) == found


def head(found: Any) -> None:
    assert parse_checkpoint(found.text()) == found


def signed_head(found: coin.SignedHead) -> None:
    quorum = len(found.witnesses)
    verified = verify_checkpoint(found.note, found.log, found.witnesses, quorum)
    assert verified.checkpoint == found.head == parse_checkpoint(split_note(found.note)[0])
    assert len(verified.cosignatures) == quorum


def verified_head(found: Any) -> None:
    assert parse_checkpoint(found.note.text) == found.checkpoint


def note(found: Any) -> None:
    parse_checkpoint(found.text)
    assert found.verified


def note_signer(found: Any) -> None:
    at = 1 if found.key.algorithm is NoteAlgorithm.COSIGNATURE else None
    found.verifier.verify("text\n", found.sign("text\n", at))


def note_verifier(found: NoteVerifier) -> None:
    assert NoteVerifier.from_vkey(found.vkey).key == found.key


def note_signature(found: Any) -> None:
    assert parse_signatures(found.line()) == (found,)


def cosignature(found: Any) -> None:
    assert found.name
    assert 0 < found.at < 1 << 63


def evidence(message: evidence_pb2.Evidence) -> None:
    assert read_evidence(raw(message)) == read_evidence(to_json(message).encode())


def proof(found: coin.Proof) -> None:
    proven = verify_evidence(found.evidence, trust=found.trust, log_key=found.log_key)
    assert proven.first != proven.second


def delivery(message: delivery_pb2.Delivery) -> None:
    assert read_delivery(to_json(message).encode()) == message
    assert [choice.choice for choice in message.choices] == list(range(len(message.choices)))
    assert all(choice.HasField("commitment") != bool(choice.missing) for choice in message.choices)


def profile(found: Profile) -> None:
    assert Profile.from_bytes(found.raw) == found
    assert found.message.tokenizer.token_table_root == SmallModels(found).table.root


def policy(found: Policy) -> None:
    assert Policy.from_bytes(found.raw) == found


def exposure_caps(message: profile_pb2.ExposureCaps) -> None:
    for share in (message.tokens_ppm, message.blocks_ppm, message.whole_blocks_ppm):
        assert share <= 1_000_000


def caps(found: Caps) -> None:
    assert found.tokens <= found.total_tokens
    assert found.block_embeddings <= found.total_blocks


def a_round(entry: receipt_pb2.Round) -> None:
    check_rounds([entry])
    if entry.HasField("refusal"):
        statements.read_refusal(entry.refusal.payload)


def token(found: opening_pb2.TokenOpening) -> None:
    assert found.row == TABLE.row(found.token_id)
    assert list(found.table_proof) == TABLE.proof(found.token_id)


def table_entry(found: opening_pb2.TableEntry) -> None:
    merkle.verify_inclusion(
        leaf_hash=merkle.leaf_hash(found.fingerprint),
        index=found.token_id,
        size=VOCABULARY,
        proof=list(found.proof),
        root=TABLE.root,
    )


def block(found: opening_pb2.BlockOpening) -> None:
    assert found.windows
    tokens = len(found.token_leaf_hashes) // limits.HASH_BYTES
    assert all(shown.position < tokens for shown in found.tokens)


def token_block(found: opening_pb2.TokenBlockOpening) -> None:
    assert found.tokens
    for shown in found.tokens:
        token(shown)


def edge(found: opening_pb2.EdgeOpening) -> None:
    assert len(found.token_leaf_hashes) == limits.HASH_BYTES * (found.last_token.position + 1)


def whole_block(found: opening_pb2.WholeBlock) -> None:
    assert len(found.token_salts) == limits.TOKEN_SALT_BYTES * len(found.token_ids)
    assert [entry.token_id for entry in found.vocabulary] == sorted(set(found.token_ids))


def tree(found: TokenTree) -> None:
    leaves = block_leaf_hashes(bytes(16), found.entries)
    assert len(leaves) == found.block_count
    assert sum(entry.token_count for entry in found.entries) == found.reasoning_tokens


def builder(found: CommitmentBuilder) -> None:
    assert found.finish().reasoning_tokens == found.token_count


def prefix(found: Prefix) -> None:
    assert found.token_count >= found.block_count >= 1


def secret(found: SessionSecret) -> None:
    SessionSecret(found.session_id, found.secret)


def drawn(found: Drawn) -> None:
    indices = [one.index for one in (*found.blocks, *found.token_blocks)]
    assert len(set(indices)) == len(indices)


def name(found: str) -> None:
    assert 0 < len(found.encode()) <= limits.MAX_NAME_BYTES


def log_name(found: str) -> None:
    assert is_key_name(found)


VALID: dict[Callable[[], st.SearchStrategy[Any]], Callable[[Any], None]] = {
    coin.block_openings: block,
    coin.builders: builder,
    coin.caps: caps,
    coin.challenges: reads(statements.read_challenge),
    coin.checkpoints: checkpoint,
    coin.commitment_leaves: leaf,
    coin.commitments: commitment,
    coin.cosignatures: cosignature,
    coin.deliveries: delivery,
    coin.domains: root_domain,
    coin.draws: drawn,
    coin.edge_openings: edge,
    coin.envelopes: any_envelope,
    coin.evidences: evidence,
    coin.exposure_caps: exposure_caps,
    coin.fingerprints: reads(statements.read_fingerprints),
    coin.heads: head,
    coin.key_rings: key_ring,
    coin.key_sets: key_set,
    coin.listed_keys: listed_key,
    coin.log_leaves: leaf,
    coin.log_names: log_name,
    coin.manifests: manifest,
    coin.names: name,
    coin.note_signatures: note_signature,
    coin.note_signers: note_signer,
    coin.note_verifiers: note_verifier,
    coin.notes: note,
    coin.openings: reads(statements.read_opening),
    coin.policies: policy,
    coin.policy_messages: lambda found: policy(Policy.from_bytes(raw(found))),
    coin.prefixes: prefix,
    coin.profile_messages: reads(lambda data: Profile.from_bytes(data).message),
    coin.profiles: profile,
    coin.proofs: proof,
    coin.refusals: refusal,
    coin.roots: root,
    coin.rotations: rotation,
    coin.rounds: a_round,
    coin.session_secrets: secret,
    coin.signed_heads: signed_head,
    coin.signed_key_sets: signed_key_set,
    coin.signers: signer,
    coin.table_entries: table_entry,
    coin.token_block_openings: token_block,
    coin.token_openings: token,
    coin.token_trees: tree,
    coin.trusts: trusted,
    coin.usages: usage,
    coin.verdict_leaves: leaf,
    coin.verdicts: verdict,
    coin.verification_keys: verification_key,
    coin.verified_heads: verified_head,
    coin.whole_blocks: whole_block,
    coin.whole_challenges: reads(statements.read_whole_challenge),
    coin.whole_openings: reads(statements.read_whole_opening),
    coin.whole_rounds: a_round,
}


@pytest.mark.parametrize("strategy", VALID, ids=lambda strategy: strategy.__name__)
def test_what_is_drawn_is_valid(strategy: Callable[[], st.SearchStrategy[Any]]) -> None:
    @SOME
    @given(strategy())
    def holds(found: Any) -> None:
        VALID[strategy](found)

    holds()


# What is left is held against checks in test_strategies_worlds.py and test_strategies_usage.py,
# or has a test of its own below.
ELSEWHERE = {
    *("audits", "bundles", "cases", "decided", "openers", "receipts", "replies"),
    *("seen_checkpoints", "worlds", "usage_blocks", "usage_reports", "vendors"),
    *("awkward_sizes", "chunks", "client_nonces", "digests", "session_ids", "sizes", "times"),
    *("timestamps", "token_ids", "register", "Decided", "DrawnRoot", "DrawnWorld", "Proof"),
    "SignedHead",
}


def test_every_public_strategy_is_held_against_something() -> None:
    assert {strategy.__name__ for strategy in VALID} | ELSEWHERE == set(coin.__all__)


@given(coin.digests(), coin.session_ids(), coin.client_nonces())
@SOME
def test_bytes_have_the_lengths_that_readers_want(
    digest: bytes, session_id: bytes, nonce: bytes
) -> None:
    assert len(digest) == limits.HASH_BYTES
    assert len(session_id) == limits.SESSION_ID_BYTES
    assert limits.NONCE_MIN_BYTES <= len(nonce) <= limits.NONCE_MAX_BYTES


@given(coin.timestamps(), coin.times())
@SOME
def test_times_are_those_that_readers_take(timestamp: Any, time: Any) -> None:
    assert read_time(timestamp).tzinfo is UTC
    assert time.tzinfo is UTC


@given(st.data())
@SOME
def test_a_trace_streams_in_whatever_pieces_and_stays_the_same(data: st.DataObject) -> None:
    ids = data.draw(coin.token_ids())
    assert all(0 <= token_id < VOCABULARY for token_id in ids)
    assert [one for piece in data.draw(coin.chunks(ids)) for one in piece] == ids


@given(coin.token_ids(tokens=st.just(9), vocabulary=131_072))
@SOME
def test_a_trace_has_as_many_ids_as_were_asked_for(ids: list[int]) -> None:
    assert len(ids) == 9
    assert max(ids) < 131_072


# Options.


@given(
    coin.commitments(
        reasoning_tokens=st.just(300),
        provider=st.just("me"),
        id_source=st.just(statements_pb2.ID_SOURCE_RETOKENIZED),
        counting=st.just(BESIDE),
        abort_reason=st.just(statements_pb2.ABORT_REASON_CANCELLED),
    )
)
@SOME
def test_options_narrow_a_commitment(message: statements_pb2.Commitment) -> None:
    commitment(message)
    assert (message.reasoning_tokens, message.block_count, message.provider) == (300, 2, "me")
    assert message.id_source == statements_pb2.ID_SOURCE_RETOKENIZED
    assert message.usage.reasoning_counting == BESIDE
    assert message.abort_reason == statements_pb2.ABORT_REASON_CANCELLED


@given(coin.key_sets(owner=st.just("me"), least=3, most=3, revoked=st.just(value=True)))
@SOME
def test_options_narrow_a_key_set(message: keys_pb2.KeySet) -> None:
    assert message.owner == "me"
    assert len(message.keys) == 3
    assert all(key.HasField("revoked_at") for key in message.keys)


@pytest.mark.parametrize("algorithm", [ED25519, ECDSA_P256])
def test_options_narrow_a_signer(algorithm: keys_pb2.KeyAlgorithm.ValueType) -> None:
    @SOME
    @given(coin.signers(algorithm=algorithm))
    def holds(found: KeySigner) -> None:
        assert found.public.algorithm == algorithm

    holds()


@pytest.mark.parametrize("kind", Kind)
def test_options_narrow_evidence(kind: Kind) -> None:
    @SOME
    @given(coin.proofs(kind=kind))
    def holds(found: coin.Proof) -> None:
        assert found.evidence.WhichOneof("of") == kind

    holds()


@given(
    coin.challenges(
        verifier=st.just("me"),
        blocks=st.just(0),
        token_blocks=st.just(2),
        tokens_per_block=st.just(3),
    ),
    coin.whole_challenges(blocks=st.just(4)),
)
@SOME
def test_options_narrow_challenges(
    sampled: opening_pb2.Challenge, whole: opening_pb2.WholeBlockChallenge
) -> None:
    asked = sampled.verifier, sampled.blocks, sampled.token_blocks, sampled.tokens_per_block
    assert asked == ("me", 0, 2, 3)
    assert whole.blocks == 4


@given(coin.signed_heads(witnesses=st.just(2), strangers=st.just(1)))
@SOME
def test_options_narrow_a_signed_head(found: coin.SignedHead) -> None:
    _, signatures = split_note(found.note)
    assert len(found.witnesses) == 2
    assert len(signatures) == 4


@given(coin.verdicts(outcome=st.just(receipt_pb2.OUTCOME_PASS), verifier=st.just("me")))
@SOME
def test_options_narrow_a_verdict(message: receipt_pb2.Verdict) -> None:
    assert (message.outcome, message.verifier) == (receipt_pb2.OUTCOME_PASS, "me")


@pytest.mark.parametrize(("size", "most", "least"), [(8, 3, 4), (0, 3, 0), (8, 3, -1)])
def test_sizes_that_there_are_none_of_are_refused(size: int, most: int, least: int) -> None:
    with pytest.raises(InvalidInputError, match="wanted 0 <= least <= most"):
        coin.sizes(size, most, least=least)
