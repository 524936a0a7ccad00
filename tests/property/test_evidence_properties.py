"""Evidence: what is drawn verifies, what is altered is noticed, and no reader crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol import envelope, statements
from coin_protocol.checks import Case, run_checks
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.draw import most_tokens
from coin_protocol.envelope import verify_with_key
from coin_protocol.errors import CoinError, InvalidInputError, SignatureError, StatementError
from coin_protocol.keys import KeyRing, VerificationKey
from coin_protocol.limits import NONCE_MAX_BYTES
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import (
    BUNDLE_FORMAT,
    RECEIPT_FORMAT,
    read_bundle,
    read_receipt,
    to_json,
)
from coin_protocol.testing.forgeries import audit, change, refused, shown
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import VERIFIER, World
from coin_protocol.tiers import earned_tiers
from coin_protocol.v1 import (
    envelope_pb2,
    keys_pb2,
    opening_pb2,
    receipt_pb2,
    statements_pb2,
)
from tests.support.examples import examples
from verifier_sdk.semantic import Judgement
from verifier_sdk.verdict import make_verdict, sign_verdict

SOME = examples(150)
MANY = examples(400)


def flip_bit(raw: bytes, bit: int) -> bytes:
    at, shift = divmod(bit % (8 * len(raw)), 8)
    return raw[:at] + bytes((raw[at] ^ 1 << shift,)) + raw[at + 1 :]


# Signed envelopes.


@cache
def honest_case() -> Case:
    """Return a case with every kind of envelope that a case can hold."""
    first = audit().ask().ask_whole()
    return first.ask(edit_round=refused(first.world, shown(first))).case()


def test_the_honest_case_is_honest() -> None:
    assert run_checks(honest_case()).failed is None


def copied(case: Case) -> Case:
    """Return a case whose messages can be altered."""

    def copy(message: Any) -> Any:
        other = type(message)()
        other.CopyFrom(message)
        return other

    return replace(
        case,
        receipt=copy(case.receipt),
        manifest=copy(case.manifest),
        rounds=[copy(entry) for entry in case.rounds],
        whole_rounds=[copy(entry) for entry in case.whole_rounds],
    )


def envelopes(case: Case) -> list[envelope_pb2.Envelope]:
    """Return every signed envelope of a case."""
    assert case.manifest is not None
    found = [case.receipt.key_set, case.receipt.commitment, case.receipt.fingerprints]
    found += [seen.checkpoint for seen in case.receipt.checkpoints]
    found.append(case.manifest)
    for entry in (*case.rounds, *case.whole_rounds):
        found.append(entry.challenge)
        found.append(entry.refusal if entry.HasField("refusal") else entry.opening)
    return found


@given(which=st.integers(0, 11), bit=st.integers(0), in_signature=st.booleans())
@MANY
def test_any_bit_flipped_in_any_signed_envelope_is_noticed(
    *, which: int, bit: int, in_signature: bool
) -> None:
    case = copied(honest_case())
    found = envelopes(case)
    assert len(found) == 12
    target = found[which]
    if in_signature:
        target.signatures[0].sig = flip_bit(target.signatures[0].sig, bit)
    else:
        target.payload = flip_bit(target.payload, bit)
    try:
        report = run_checks(case)
    except (InvalidInputError, StatementError):
        return
    assert report.failed is not None


@given(
    payload=st.binary(max_size=64),
    payload_type=st.text(st.characters(codec="utf-8"), max_size=20),
    bit=st.integers(0),
    part=st.sampled_from(["payload", "payload_type", "sig", "keyid"]),
)
@SOME
def test_an_envelope_verifies_as_it_was_signed_and_in_no_other_form(
    payload: bytes, payload_type: str, bit: int, part: str
) -> None:
    signer = World().signer("key")
    found = envelope.sign(payload, payload_type, signer)
    assert verify_with_key(found, payload_type, signer.public) == payload
    if part == "payload":
        found.payload = flip_bit(payload, bit) if payload else b"\x00"
    elif part == "payload_type":
        found.payload_type = payload_type + "x"
    elif part == "sig":
        found.signatures[0].sig = flip_bit(found.signatures[0].sig, bit)
    else:
        keyid = found.signatures[0].keyid
        found.signatures[0].keyid = keyid[:-1] + ("0" if keyid[-1] != "0" else "1")
    try:
        verify_with_key(found, found.payload_type, signer.public)
    except SignatureError:
        return
    raise AssertionError


# Openings that lie and are signed.


def places(message: Any, free: AbstractSet[str], prefix: str = "") -> Iterator[str]:
    """Yield the path of every value in a message, but for fields that are free to choose."""
    for field in message.DESCRIPTOR.fields:
        if field.name in free:
            continue
        path, value = prefix + field.name, getattr(message, field.name)
        if field.is_repeated:
            for index, item in enumerate(value):
                if isinstance(item, Message):
                    yield from places(item, free, f"{path}.{index}.")
                else:
                    yield f"{path}.{index}"
        elif isinstance(value, Message):
            yield from places(value, free, f"{path}.")
        else:
            yield path


def one_bit(bit: int) -> Callable[[Any], Any]:
    """Return what changes a value in one bit."""

    def change_value(value: Any) -> Any:
        if isinstance(value, bytes):
            return flip_bit(value, bit) if value else b"\x01"
        if isinstance(value, str):
            at = bit % max(len(value), 1)
            return f"{value[:at]}~{value[at + 1 :]}" if value[at : at + 1] != "~" else value + "~"
        return value ^ 1 << bit % 31  # an enum holds no more

    return change_value


@cache
def opened_paths(*, whole: bool) -> list[str]:
    before = audit(tokens=21)
    asked = before.ask_whole(blocks=2) if whole else before.ask(token_blocks=1, tokens_per_block=3)
    if whole:
        raw = asked.whole_rounds[0].opening.payload
        return list(places(opening_pb2.WholeBlockOpening.FromString(raw), {"provider_time"}))
    raw = asked.rounds[0].opening.payload
    return list(places(opening_pb2.Opening.FromString(raw), {"provider_time"}))


@given(choice=st.integers(0), bit=st.integers(0))
@MANY
def test_any_bit_flipped_in_a_sampled_opening_and_signed_is_noticed(choice: int, bit: int) -> None:
    paths = opened_paths(whole=False)
    edit = change(paths[choice % len(paths)], one_bit(bit))
    asked = audit(tokens=21).ask(token_blocks=1, tokens_per_block=3, edit_opening=edit)
    assert run_checks(asked.case()).failed is not None


@given(choice=st.integers(0), bit=st.integers(0))
@MANY
def test_any_bit_flipped_in_a_whole_opening_and_signed_is_noticed(choice: int, bit: int) -> None:
    paths = opened_paths(whole=True)
    edit = change(paths[choice % len(paths)], one_bit(bit))
    asked = audit(tokens=21).ask_whole(blocks=2, edit_opening=edit)
    assert run_checks(asked.case()).failed is not None


def test_every_kind_of_opened_value_is_among_those_flipped() -> None:
    for path in (
        "flip",
        "flip_index",
        "challenge_sha256",
        "edge.token_leaf_hashes",
        "blocks.0.windows.0",
        "token_blocks.0.block_index",
        "token_blocks.0.tokens.2.table_proof.0",
    ):
        assert path in opened_paths(whole=False)
    for path in ("blocks.0.text", "blocks.1.token_ids.0", "blocks.0.vocabulary.0.proof.0"):
        assert path in opened_paths(whole=True)


# Verdicts that lie and are signed.

# What a verifier decides, or says for people: nothing that the evidence gives.
JUDGED = frozenset(
    {
        *("outcome", "detail", "scores", "reasons", "decided_at"),
        *("inflation_probability", "inflated_share"),
    }
)


@cache
def honest_bundle() -> receipt_pb2.Bundle:
    case = honest_case()
    judgement = Judgement(receipt_pb2.OUTCOME_PASS, "satisfied")
    verdict = make_verdict(case, run_checks(case), verifier=VERIFIER, judgement=judgement, notes=[])
    return receipt_pb2.Bundle(
        format=BUNDLE_FORMAT,
        receipt=case.receipt,
        manifest=case.manifest,
        rounds=case.rounds,
        whole_rounds=case.whole_rounds,
        verdict=sign_verdict(verdict, World().signer(VERIFIER)),
    )


def recheck(bundle: receipt_pb2.Bundle) -> None:
    case = honest_case()
    verify_bundle(
        bundle,
        trust=case.trust,
        profile=case.profile,
        policy=case.policy,
        installed=case.installed,
    )


@given(choice=st.integers(0), bit=st.integers(0))
@SOME
def test_any_bit_flipped_in_what_a_verdict_takes_from_the_evidence_is_contradicted(
    choice: int, bit: int
) -> None:
    bundle = receipt_pb2.Bundle()
    bundle.CopyFrom(honest_bundle())
    verdict = receipt_pb2.Verdict.FromString(bundle.verdict.payload)
    paths = list(places(verdict, JUDGED))
    change(paths[choice % len(paths)], one_bit(bit))(verdict)
    bundle.verdict.CopyFrom(sign_verdict(verdict, World().signer(VERIFIER)))
    recheck(honest_bundle())
    try:
        recheck(bundle)
    except CoinError:
        return
    raise AssertionError(paths[choice % len(paths)])


# Honest audits of every shape.


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    block_size = draw(st.sampled_from([4, 8, 16]))
    return small_profile(
        block_size=block_size,
        window_tokens=draw(st.integers(1, block_size)),
        projection=draw(st.sampled_from([0, 6])),
        run_tokens=draw(st.integers(0, 4)),
    )


@given(
    profile=profiles(),
    tokens=st.integers(1, 60),
    sample=st.tuples(st.integers(1, 20), st.integers(0, 0), st.integers(0, 20))
    | st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)),
    whole_blocks=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
@SOME
def test_whatever_is_drawn_of_an_honest_reply_verifies(
    profile: Profile, tokens: int, sample: tuple[int, int, int], whole_blocks: int, seed: int
) -> None:
    blocks, token_blocks, tokens_per_block = sample
    world = World(seed=str(seed), profile=profile)
    asked = world.audit(world.reply(tokens=tokens)).ask(
        blocks=blocks, token_blocks=token_blocks, tokens_per_block=tokens_per_block
    )
    if whole_blocks:
        asked = asked.ask_whole(blocks=whole_blocks)
    case = asked.case()
    report = run_checks(case)
    assert report.failed is None, report.detail
    assert receipt_pb2.TIER_COMMITTED in earned_tiers(case, report)
    opening, there_are = case.openings[0].opening, -(-tokens // profile.block_size)
    assert len(opening.blocks) == min(blocks, there_are)
    assert len(opening.blocks) + len(opening.token_blocks) == min(blocks + token_blocks, there_are)
    for block in shown_blocks(opening):
        there = case.token_counts[block.block_index]
        run = min(profile.run_tokens, tokens_per_block)
        most = most_tokens(tokens_per_block, profile.run_tokens)
        # Of a block that has no whole number of runs, the last one is short.
        assert min(most, there) - run < len(block.tokens) <= min(most, there) or most == 0


@given(tokens=st.integers(1, 60), extra=st.integers(1, 40), blocks=st.integers(0, 5))
@SOME
def test_no_other_size_than_that_of_the_tree_can_be_signed(
    tokens: int, extra: int, blocks: int
) -> None:
    def inflate(commitment: statements_pb2.Commitment) -> None:
        commitment.reasoning_tokens += extra
        commitment.block_count += blocks
        commitment.usage.reasoning_tokens += extra
        commitment.usage.completion_tokens += extra

    report = run_checks(audit(tokens=tokens, edit_commitment=inflate).case())
    assert report.failed is not None
    assert report.failed.code == "SIZES"


# Readers of bytes from outside.


def serialized(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


@cache
def samples() -> dict[str, bytes]:
    """Return good bytes for every reader."""
    case = honest_case()
    receipt, sampled, whole = case.receipt, case.rounds[0], case.whole_rounds[0]
    bundle = honest_bundle()
    assert case.manifest is not None
    return {
        "receipt": serialized(receipt),
        "receipt as JSON": to_json(receipt).encode(),
        "bundle": serialized(bundle),
        "bundle as JSON": to_json(bundle).encode(),
        "key set": receipt.key_set.payload,
        "checkpoint": receipt.checkpoints[0].checkpoint.payload,
        "commitment": receipt.commitment.payload,
        "fingerprints": receipt.fingerprints.payload,
        "manifest": case.manifest.payload,
        "challenge": sampled.challenge.payload,
        "whole challenge": whole.challenge.payload,
        "opening": sampled.opening.payload,
        "whole opening": whole.opening.payload,
        "refusal": case.rounds[1].refusal.payload,
        "verdict": bundle.verdict.payload,
        "profile": case.profile.raw,
        "policy": case.policy.raw,
        "key": World().signer("key").public.spki,
    }


def read_ring(raw: bytes) -> KeyRing:
    return KeyRing.from_message(statements.parse(keys_pb2.KeySet, raw))


READERS: dict[str, Callable[[bytes], object]] = {
    "receipt": read_receipt,
    "receipt as JSON": read_receipt,
    "bundle": read_bundle,
    "bundle as JSON": read_bundle,
    "key set": statements.read_key_set,
    "checkpoint": statements.read_checkpoint,
    "commitment": statements.read_commitment,
    "fingerprints": statements.read_fingerprints,
    "manifest": statements.read_manifest,
    "challenge": statements.read_challenge,
    "whole challenge": statements.read_whole_challenge,
    "opening": statements.read_opening,
    "whole opening": statements.read_whole_opening,
    "refusal": statements.read_refusal,
    "verdict": statements.read_verdict,
    "profile": Profile.from_bytes,
    "policy": Policy.from_bytes,
    "key": lambda raw: VerificationKey.from_spki("key", raw),
}
EVERY_READER: dict[str, Callable[[bytes], object]] = {
    **READERS,
    "ring": read_ring,
    "pem": lambda raw: VerificationKey.from_pem("key", raw),
}


@st.composite
def mangled(draw: st.DrawFn, kinds: Sequence[str] = sorted(READERS)) -> tuple[str, bytes]:
    """Draw good bytes of some kind with a few pieces cut, put in, or flipped."""
    name = draw(st.sampled_from(kinds))
    raw = samples()[name]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        cut = draw(st.integers(0, 8))
        piece = draw(st.binary(max_size=8))
        raw = raw[:at] + piece + raw[at + cut :]
    return name, raw


def test_every_reader_reads_its_sample() -> None:
    for name, raw in samples().items():
        assert READERS[name](raw)


@given(raw=st.binary(max_size=200))
@MANY
def test_arbitrary_bytes_raise_nothing_but_errors_of_this_project(raw: bytes) -> None:
    for read in EVERY_READER.values():
        try:
            read(raw)
        except CoinError as error:
            assert str(error)  # noqa: PT017 - whichever error it was


@given(sample=mangled())
@examples(1000)
def test_mangled_bytes_raise_nothing_but_errors_of_this_project(sample: tuple[str, bytes]) -> None:
    name, raw = sample
    try:
        READERS[name](raw)
    except CoinError as error:
        assert str(error)  # noqa: PT017 - whichever error it was


@given(sample=mangled(kinds=("receipt", "receipt as JSON")))
@MANY
def test_a_receipt_that_can_be_read_can_be_checked(sample: tuple[str, bytes]) -> None:
    try:
        receipt = read_receipt(sample[1])
    except CoinError:
        return
    try:
        report = run_checks(replace(honest_case(), receipt=receipt))
    except CoinError:
        return
    assert report.results


# Files.

STRINGS = st.text(st.characters(codec="utf-8"), max_size=12)
TIMES = st.builds(
    Timestamp,
    seconds=st.integers(-62_135_596_800, 253_402_300_799),
    nanos=st.integers(0, 999_999_999),
)
ENVELOPES = st.builds(
    envelope_pb2.Envelope,
    payload=st.binary(max_size=40),
    payload_type=STRINGS,
    signatures=st.lists(
        st.builds(envelope_pb2.Signature, sig=st.binary(max_size=8), keyid=STRINGS), max_size=3
    ),
)
COUNTS = st.integers(0, 2**64 - 1)
USAGES = st.builds(
    statements_pb2.Usage,
    prompt_tokens=COUNTS,
    cached_prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    reasoning_counting=st.sampled_from([0, 1, 2]),
)
RECEIPTS = st.builds(
    receipt_pb2.Receipt,
    format=st.just(RECEIPT_FORMAT),
    key_set=ENVELOPES,
    commitment=ENVELOPES,
    fingerprints=st.none() | ENVELOPES,
    checkpoints=st.lists(
        st.builds(receipt_pb2.SeenCheckpoint, checkpoint=ENVELOPES, seen_at=TIMES), max_size=3
    ),
    client_nonce=st.binary(max_size=NONCE_MAX_BYTES),
    request=st.binary(max_size=40),
    answer=st.binary(max_size=40),
    summary=st.none() | st.binary(max_size=40),
    billed=st.none() | USAGES,
    sent_at=TIMES,
    answer_first_at=st.none() | TIMES,
    answer_last_at=st.none() | TIMES,
)
ANSWERS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda found: {"opening": found}, ENVELOPES),
    st.builds(lambda found: {"refusal": found}, ENVELOPES),
    st.builds(lambda found: {"no_answer": found}, STRINGS),
)
ROUNDS = st.lists(
    st.builds(
        lambda challenge, sent_at, received_at, answer: receipt_pb2.Round(
            challenge=challenge, sent_at=sent_at, received_at=received_at, **answer
        ),
        ENVELOPES,
        TIMES,
        TIMES,
        ANSWERS,
    ),
    max_size=3,
)
BUNDLES = st.builds(
    receipt_pb2.Bundle,
    format=st.just(BUNDLE_FORMAT),
    receipt=RECEIPTS,
    manifest=st.none() | ENVELOPES,
    rounds=ROUNDS,
    whole_rounds=ROUNDS,
    verdict=ENVELOPES,
)


@given(receipt=RECEIPTS)
@SOME
def test_a_receipt_comes_back_from_both_forms_as_it_was(receipt: receipt_pb2.Receipt) -> None:
    assert read_receipt(serialized(receipt)) == receipt
    assert read_receipt(to_json(receipt).encode()) == receipt


@given(bundle=BUNDLES)
@SOME
def test_a_bundle_comes_back_from_both_forms_as_it_was(bundle: receipt_pb2.Bundle) -> None:
    assert read_bundle(serialized(bundle)) == bundle
    assert read_bundle(to_json(bundle).encode()) == bundle


@given(receipt=RECEIPTS)
@SOME
def test_the_json_form_of_what_was_read_from_json_is_the_same(
    receipt: receipt_pb2.Receipt,
) -> None:
    text = to_json(receipt)
    assert to_json(read_receipt(text.encode())) == text
