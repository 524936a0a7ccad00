"""More whole audits as JSON files, so that every check has three lies that trip it at least.

As in `evidence_vectors`, `MORE_ATTACKS` states by hand what every vector must come to, and the
files lie in the same folder and have the same form.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from coin_protocol import draw, envelope, merkle
from coin_protocol.checks import Case
from coin_protocol.encoding import digest
from coin_protocol.keyset import stamp
from coin_protocol.opening import Opener
from coin_protocol.quantise import SCALE_BYTES
from coin_protocol.testing.evidence_vectors import (
    FOLDER,
    Attack,
    document,
)
from coin_protocol.testing.forgeries import (
    POLICY,
    aimed,
    audit,
    block_leaves,
    both,
    change,
    dated,
    embedded,
    flipped,
    put,
    recommitted,
    refused,
    shown,
    unanswered,
    with_leaves,
    without,
)
from coin_protocol.testing.key_vectors import encoded, key_id, p256_key, spki
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import PROVIDER, START, VERIFIER, Audit, Edit, World
from coin_protocol.v1 import (
    envelope_pb2,
    keys_pb2,
    opening_pb2,
    profile_pb2,
    receipt_pb2,
    statements_pb2,
)

_ASSERTED: Final = (receipt_pb2.TIER_ASSERTED,)
_COMMITTED: Final = (*_ASSERTED, receipt_pb2.TIER_COMMITTED)
_TIMED: Final = (*_COMMITTED, receipt_pb2.TIER_TIMED)
_OPENED: Final = (*_TIMED, receipt_pb2.TIER_OPENED)
_NOBODY: Final = receipt_pb2.FAULT_UNSPECIFIED
_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED
_INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE
_HOUR: Final = timedelta(hours=1)
_USED_UP: Final = opening_pb2.REFUSAL_REASON_FLIPS_USED_UP


def more_evidence_vectors() -> dict[str, bytes]:
    """Return the files of all vectors, by path below `coin_protocol/`."""
    return {f"{FOLDER}/{attack.name}.json": document(attack) for attack in MORE_ATTACKS}


# Honest ones.


def _by_ecdsa(edit: Edit[Any] = lambda _: None) -> Case:
    """Return an audit whose provider signs everything with a P-256 key."""
    key = p256_key("provider")
    case = audit().ask().ask_whole().case()
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)

    def again(signed: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        covered = encoded(signed.payload_type.encode(), signed.payload)
        sig = key.sign(covered, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        found = envelope_pb2.Envelope(payload=signed.payload, payload_type=signed.payload_type)
        found.signatures.add(sig=sig, keyid=key_id(PROVIDER, 2, spki(key)))
        return found

    keys = keys_pb2.KeySet.FromString(receipt.key_set.payload)
    keys.keys[0].algorithm = keys_pb2.KEY_ALGORITHM_ECDSA_P256_SHA256
    keys.keys[0].spki = spki(key)
    receipt.key_set.CopyFrom(World().sign(keys, envelope.KEY_SET, "root"))
    for seen in receipt.checkpoints:
        seen.checkpoint.CopyFrom(again(seen.checkpoint))
    receipt.commitment.CopyFrom(again(receipt.commitment))
    receipt.fingerprints.CopyFrom(again(receipt.fingerprints))
    edit(receipt)
    rounds = []
    for entry in (*case.rounds, *case.whole_rounds):
        copy = receipt_pb2.Round()
        copy.CopyFrom(entry)
        copy.opening.CopyFrom(again(copy.opening))
        rounds.append(copy)
    manifest = None if case.manifest is None else again(case.manifest)
    return replace(
        case, receipt=receipt, manifest=manifest, rounds=rounds[:1], whole_rounds=rounds[1:]
    )


def _ed25519_alone() -> Case:
    """Return an audit under a profile that does not list ECDSA, signed by it all the same."""
    message = profile_pb2.Profile()
    message.CopyFrom(small_profile().message)
    del message.key_algorithms[1:]
    profile = type(small_profile()).from_bytes(message.SerializeToString(deterministic=True))

    def edit(receipt: receipt_pb2.Receipt) -> None:
        key = p256_key("provider")
        commitment = statements_pb2.Commitment.FromString(receipt.commitment.payload)
        commitment.profile_sha256 = profile.digest
        payload = commitment.SerializeToString(deterministic=True)
        covered = encoded(envelope.COMMITMENT.encode(), payload)
        sig = key.sign(covered, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        receipt.commitment.payload = payload
        receipt.commitment.signatures[0].sig = sig

    return replace(_by_ecdsa(edit), profile=profile, rounds=(), whole_rounds=())


def _ended(reason: statements_pb2.AbortReason.ValueType) -> Case:
    """Return an audit of a reply that ended early, the answer's digest of something else."""
    return audit(edit_commitment=both(
        put("abort_reason", reason), put("answer_sha256", bytes(32)))).ask().case()  # fmt: skip


def _crashed() -> Case:
    """Return an audit of what was on disk when a provider's process died."""
    usage = statements_pb2.Usage(
        completion_tokens=16,
        reasoning_tokens=16,
        reasoning_counting=statements_pb2.REASONING_COUNTING_INSIDE_COMPLETION,
    )

    def edit(commitment: statements_pb2.Commitment) -> None:
        commitment.abort_reason = statements_pb2.ABORT_REASON_CRASHED
        commitment.answer_sha256 = sha256(b"").digest()
        commitment.answer_tokens = 0
        commitment.usage.CopyFrom(usage)

    return audit(tokens=16, edit_commitment=edit).ask().case()


def _answered_elsewhere(
    *indices: int, verifier: str = "another"
) -> list[opening_pb2.AnsweredChallenge]:
    """Return challenges of another audit that the provider of the default reply answered.

    Args:
        indices: Of the flips that they were given.
        verifier: Who sent them.
    """
    world, found = World(), []
    named = digest(audit().reply.receipt.fingerprints.payload)
    for index in indices:
        message = opening_pb2.Challenge(
            fingerprints_sha256=named,
            verifier=verifier,
            nonce=world.random(f"elsewhere {index}", 32),
            round=1,
            blocks=1,
            tokens_per_block=1,
            deadline=stamp(START + _HOUR),
        )
        found.append(
            opening_pb2.AnsweredChallenge(
                challenge=world.sign(message, envelope.CHALLENGE, verifier),
                flip_index=index,
                flip=draw.flip_for(world.random("flip", 32), index),
            )
        )
    return found


def _given(index: int, answered: list[opening_pb2.AnsweredChallenge]) -> Case:
    """Return an audit whose challenge is given this link, after the challenges shown."""
    flip = draw.flip_for(World().random("flip", 32), index)

    def link(opening: opening_pb2.Opening) -> None:
        opening.flip_index, opening.flip = index, flip
        put("answered", answered)(opening)

    def drawn(opening: opening_pb2.Opening) -> None:
        challenge = opening_pb2.Challenge.FromString(before.rounds[0].challenge.payload)
        opener = before.reply.opener
        found = draw.drawn_by(challenge, flip, opener.token_counts, run_tokens=1)
        put("blocks", [opener.block(block) for block in found.blocks])(opening)

    before = audit().ask()
    return audit().ask(edit_opening=both(link, drawn)).case()


def _shown_twice() -> list[opening_pb2.AnsweredChallenge]:
    first, second = _answered_elsewhere(1, 2, verifier=VERIFIER)
    second.challenge.CopyFrom(first.challenge)
    return [first, second]


def _of_another_commitment() -> list[opening_pb2.AnsweredChallenge]:
    (shown,) = _answered_elsewhere(1, verifier=VERIFIER)
    message = opening_pb2.Challenge.FromString(shown.challenge.payload)
    message.fingerprints_sha256 = bytes(32)
    shown.challenge.CopyFrom(World().sign(message, envelope.CHALLENGE, VERIFIER))
    return [shown]


def _own_challenge_before() -> list[opening_pb2.AnsweredChallenge]:
    (shown,) = _answered_elsewhere(1)
    shown.challenge.CopyFrom(
        World().sign(
            opening_pb2.Challenge.FromString(shown.challenge.payload), envelope.CHALLENGE, PROVIDER
        )
    )
    return [shown]


def _opening_of_the_round_before() -> Case:
    first = audit(tokens=40).ask()
    old = first.rounds[0].opening
    return first.ask(edit_round=put("opening", old)).case()


def _refused_later(*indices: int, **refusal: Any) -> Case:  # noqa: ANN401 - as `refused` takes them
    """Return a second round that is refused, for challenges of another verifier in between."""
    first = audit().ask()
    answered = [*shown(first), *_answered_elsewhere(*indices)]
    return first.ask(edit_round=refused(first.world, answered, **refusal)).case()


def _refused_round(answered: list[opening_pb2.AnsweredChallenge], **refusal: Any) -> Case:  # noqa: ANN401
    return audit().ask(edit_round=refused(World(), answered, **refusal)).case()


def _key_set_of_two() -> Case:
    """Return an audit under a key set that lists an older key, too."""

    def edit(receipt: receipt_pb2.Receipt) -> None:
        keys = keys_pb2.KeySet.FromString(receipt.key_set.payload)
        older = keys.keys.add()
        older.CopyFrom(keys.keys[0])
        older.spki = World().signer("older").public.spki
        keys.sequence = 2
        receipt.key_set.CopyFrom(World().sign(keys, envelope.KEY_SET, "root"))

    return audit(edit_receipt=edit).ask().case()


# Lies.


def _summary_altered() -> Case:
    return audit(
        edit_commitment=put("summary_sha256", sha256(b"a summary").digest()),
        edit_receipt=put("summary", b"another"),
    ).case()


def _leaves_out_of_order(opening: opening_pb2.Opening) -> None:
    """Show the second half of a block's leaves before the first."""
    block = opening.blocks[0]
    half = len(block.token_leaf_hashes) // 2
    block.token_leaf_hashes = block.token_leaf_hashes[half:] + block.token_leaf_hashes[:half]


def _inflated_and_padded() -> Case:
    """Return a last block of four leaves that counts six, and shows two of nothing."""
    before = audit()
    leaves = [*block_leaves(before.reply.opener, 2), bytes(32), bytes(32)]
    return before.ask(edit_opening=put("edge.token_leaf_hashes", b"".join(leaves))).case()


def _leaves_repeated_in_the_middle() -> Case:
    """Return a first block whose seventh leaf is its sixth again, neither of them drawn."""

    def forged(honest: Opener) -> list[bytes]:
        leaves = block_leaves(honest, 0)
        return [*leaves[:6], leaves[5], leaves[7]]

    def forge(honest: Opener) -> Opener:
        entry = statements_pb2.BlockEntry(token_count=8, token_root=merkle.root(forged(honest)))
        return recommitted(honest, [entry, *honest.tree.entries[1:]])

    before = audit(opener=forge, edit_receipt=without("checkpoints"))
    return before.ask(
        edit_challenge=aimed(
            before.reply,
            lambda drawn: (
                drawn.blocks[0].index == 0 and not {5, 6} & set(drawn.blocks[0].positions)
            ),
        ),
        edit_opening=with_leaves(0, forged(audit().reply.opener)),
    ).case()


def _windows(forge: Any) -> Audit:  # noqa: ANN401 - a forgery of window rows
    return audit(tokens=24, opener=embedded(forge))


def _negated(rows: list[bytes]) -> list[bytes]:
    found = []
    for row in rows:
        steps = -np.frombuffer(row[SCALE_BYTES:], np.int8)
        found.append(row[:SCALE_BYTES] + steps.tobytes())
    return found


def _slow_policy(case: Case) -> Case:
    message = profile_pb2.Policy.FromString(POLICY.raw)
    message.max_tokens_per_second = 79.0
    return replace(case, policy=type(POLICY).from_bytes(message.SerializeToString()))


def _flips_left() -> Case:
    return _refused_round(_answered_elsewhere(1, 2, 3), reason=_USED_UP)


def _refused_at_cap_elsewhere(edit: Edit[opening_pb2.Refusal]) -> Case:
    return _refused_round(_answered_elsewhere(1, 2, 3), edit=edit)


def _whole_at_cap(*, shown_before: bool) -> Case:
    first = audit().ask_whole()
    opened = opening_pb2.WholeBlockOpening.FromString(first.whole_rounds[0].opening.payload)
    answered = [
        opening_pb2.AnsweredChallenge(
            challenge=first.whole_rounds[0].challenge,
            flip_index=opened.flip_index,
            flip=opened.flip,
        )
    ]
    edit = refused(first.world, answered if shown_before else ())
    return first.ask_whole(edit_round=edit).case()


# fmt: off
MORE_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("honest-signed-by-ecdsa",
           "No attack: the provider signs with a P-256 key.",
           None, _by_ecdsa, _OPENED),
    Attack("honest-key-set-of-two",
           "No attack: the key set lists an older key, too.",
           None, _key_set_of_two, _TIMED),
    Attack("honest-client-hung-up",
           "No attack: how much of the answer the client received nobody knows.",
           None, lambda: _ended(statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED), _TIMED),
    Attack("honest-crashed",
           "No attack: what was on disk when the provider's process died, and nothing else billed.",
           None, _crashed, _TIMED),
    Attack("honest-told-of-no-reasoning",
           "No attack: the client was told the same sum, and of no reasoning.",
           None, lambda: audit(edit_receipt=both(
               put("billed.reasoning_tokens", 0),
               put("billed.reasoning_counting", 0))).ask().case(), _TIMED),
    Attack("honest-told-no-bill",
           "No attack: the client was told no bill.",
           None, lambda: audit(edit_receipt=without("billed")).ask().case(), _TIMED),
    Attack("honest-checkpoint-missed",
           "No attack: the client missed a checkpoint, so no time is proven.",
           None, lambda: audit(edit_receipt=change(
               "checkpoints", lambda seen: list(seen)[:-1])).ask().case(), _COMMITTED),
    Attack("honest-after-another-audit",
           "No attack: two challenges of another audit by this verifier came first.",
           None, lambda: _given(3, _answered_elsewhere(1, 2, verifier=VERIFIER)), _TIMED),
    Attack("after-challenges-of-strangers",
           "No attack that is known: verifiers that are not known here came first, it is said.",
           "FLIP", lambda: _given(3, _answered_elsewhere(1, 2)),
           fault=_NOBODY, outcome=_INCONCLUSIVE),
    Attack("link-passed-over",
           "The provider passes over a link of its chain whose draw does not suit it.",
           "FLIP", lambda: _given(2, [])),
    Attack("link-passed-over-between",
           "The provider shows a challenge before, and passes over the link after it.",
           "FLIP", lambda: _given(3, _answered_elsewhere(1, verifier=VERIFIER))),
    Attack("one-challenge-for-two-links",
           "The provider shows one challenge in two places, to hide that it passed over a link.",
           "FLIP", lambda: _given(3, _shown_twice())),
    Attack("earlier-challenge-of-another-commitment",
           "The provider shows a challenge of another commitment in the place of a passed link.",
           "FLIP", lambda: _given(2, _of_another_commitment())),
    Attack("earlier-challenge-signed-by-the-provider",
           "The provider made up and signed the challenge that it says came first.",
           "FLIP", lambda: _given(2, _own_challenge_before())),
    Attack("opening-of-the-round-before",
           "Beside the second challenge stands the answer to the first: none came, and no more "
           "is said of the provider, for whoever keeps the evidence may have put it there.",
           "OPENING_PRESENT", _opening_of_the_round_before),
    Attack("honest-answered-at-the-deadline",
           "No attack: the answer came at the deadline to the microsecond.",
           None, lambda: audit().ask(edit_round=put(
               "received_at", stamp(START + 2 * _HOUR))).case(), _TIMED),
    Attack("honest-refusal-for-another-verifier",
           "No attack: challenges of another verifier have reached the cap.",
           None, lambda: _refused_later(2, 3), _TIMED),
    Attack("honest-refusal-of-flips-used-up",
           "No attack: the commitment has answered 64 challenges.",
           None, lambda: _refused_later(*range(2, 65), reason=_USED_UP), _TIMED),
    Attack("honest-refusal-of-whole-blocks",
           "No attack: a second block opened whole could pass the cap.",
           None, lambda: _whole_at_cap(shown_before=True)),
    Attack("honest-clock-within-the-skew",
           "No attack: the client's clock is ahead, by less than the policy allows.",
           None, lambda: audit(edit_receipt=both(
               put("answer_last_at", stamp(START + timedelta(seconds=290))),
               dated(not_after=START + timedelta(seconds=1)))).case()),

    Attack("manifest-signed-by-nobody-listed",
           "The manifest is signed by a key that the key set does not list.",
           "SIGNATURE", lambda: replace(audit().case(), manifest=World().sign(
               statements_pb2.Manifest.FromString(audit().reply.manifest.payload),
               envelope.MANIFEST, "stranger")), fault=_UNATTRIBUTED),
    Attack("ecdsa-signature-of-ed25519-key",
           "A signature names the provider's Ed25519 key and is a P-256 key's.",
           "SIGNATURE", lambda: audit(edit_receipt=put(
               "commitment.signatures.0.sig",
               _by_ecdsa().receipt.commitment.signatures[0].sig)).case(), fault=_UNATTRIBUTED),

    Attack("refusal-of-unknown-reason",
           "The refusal gives a reason that version 1 does not know.",
           "STATEMENT", lambda: _refused_round([], edit=put("reason", 99))),

    Attack("key-not-valid-yet",
           "The commitment is dated before its key's window begins.",
           "KEY_WINDOW", lambda: audit(edit_receipt=dated(not_before=START + _HOUR)).case(),
           fault=_UNATTRIBUTED),
    Attack("key-ended-but-for-the-skew",
           "The client's clock saw the answer later than the key's end and the skew allow.",
           "KEY_WINDOW", lambda: audit(edit_receipt=both(
               put("answer_last_at", stamp(START + timedelta(seconds=310))),
               dated(not_after=START + timedelta(seconds=1)))).case(), fault=_UNATTRIBUTED),

    Attack("profile-of-other-caps",
           "The verifier's profile has other caps than the commitment's.",
           "PROFILE", lambda: replace(audit().case(), profile=small_profile(whole_blocks_ppm=0)),
           fault=_NOBODY, outcome=_INCONCLUSIVE),
    Attack("algorithm-not-of-the-profile",
           "The provider signs with an algorithm that the profile does not list.",
           "PROFILE", _ed25519_alone, fault=_NOBODY, outcome=_INCONCLUSIVE),

    Attack("nonce-of-the-receipt-altered",
           "The client's receipt holds another nonce than the one committed to.",
           "CLIENT_NONCE", lambda: audit(edit_receipt=flipped("client_nonce")).case(),
           fault=_UNATTRIBUTED),
    Attack("nonce-left-out",
           "The client's receipt holds no nonce.",
           "CLIENT_NONCE", lambda: audit(edit_receipt=without("client_nonce")).case(),
           fault=_UNATTRIBUTED),

    Attack("request-with-a-byte-more",
           "The client's receipt holds the request and a newline.",
           "REQUEST_DIGEST", lambda: audit(edit_receipt=change(
               "request", lambda raw: raw + b"\n")).case(), fault=_UNATTRIBUTED),
    Attack("request-digest-of-another",
           "The commitment is to another request.",
           "REQUEST_DIGEST", lambda: audit(edit_commitment=put("request_sha256", bytes(32))).case(),
           fault=_UNATTRIBUTED),

    Attack("summary-altered",
           "The client shows another summary than the one committed to.",
           "ANSWER_DIGEST", _summary_altered, fault=_UNATTRIBUTED),
    Attack("answer-of-a-reply-that-failed",
           "A reply whose upstream failed binds its answer as far as it was sent.",
           "ANSWER_DIGEST", lambda: _ended(statements_pb2.ABORT_REASON_UPSTREAM_ERROR),
           fault=_UNATTRIBUTED),

    Attack("bill-of-another-sum",
           "The signed bill counts a completion token more than reasoning and answer make.",
           "BILL", lambda: audit(edit_commitment=put("usage.completion_tokens", 26)).case()),
    Attack("bill-of-unsaid-convention",
           "The signed bill does not say whether reasoning is inside the completion.",
           "BILL", lambda: audit(edit_commitment=put("usage.reasoning_counting", 0)).case()),

    Attack("manifest-of-other-counts",
           "The manifest counts more tokens in the last block than its leaf does.",
           "MANIFEST_ROOT",
           lambda: audit(edit_manifest=put("blocks.2.token_count", 8)).case()),
    Attack("manifest-out-of-order",
           "The manifest shows the blocks in another order.",
           "MANIFEST_ROOT", lambda: audit(edit_manifest=change(
               "blocks", lambda found: [found[1], found[0], found[2]])).case()),

    Attack("fingerprints-of-more-blocks",
           "The fingerprints statement covers a block that the commitment has not.",
           "FINGERPRINTS", lambda: audit(edit_fingerprints=put("size", 4)).case()),

    Attack("refused-for-flips-not-used-up",
           "The provider refuses as if its chain were used up, and shows three challenges.",
           "OPENING_PRESENT", _flips_left),
    Attack("refused-for-whole-blocks-without-a-cap",
           "The provider refuses to open a block whole and shows nothing that reaches a cap.",
           "OPENING_PRESENT", lambda: _whole_at_cap(shown_before=False)),
    Attack("refused-for-challenges-of-another-commitment",
           "The refusal shows challenges of another commitment.",
           "OPENING_PRESENT", lambda: _refused_round(_named_otherwise())),
    Attack("refused-for-challenges-of-the-provider-s-own",
           "The refusal shows a challenge that the provider signed itself.",
           "OPENING_PRESENT", lambda: _refused_round(_signed_by_itself())),
    Attack("refused-for-challenges-that-nobody-signed",
           "The refusal shows a challenge without a signature.",
           "OPENING_PRESENT", lambda: _refused_at_cap_elsewhere(
               put("answered.2.challenge.signatures", []))),
    Attack("refused-for-a-challenge-twice",
           "The refusal shows one challenge twice.",
           "OPENING_PRESENT", lambda: _refused_round(shown(audit().ask()) * 2)),
    Attack("no-answer-not-permitted",
           "No attack that is known: the provider does not know this verifier.",
           "OPENING_PRESENT",
           lambda: audit().ask(edit_round=unanswered("PERMISSION_DENIED")).case(),
           fault=_NOBODY, outcome=_INCONCLUSIVE),

    Attack("leaf-hashes-out-of-order",
           "The provider shows all leaves of a block, in another order.",
           "BLOCK_COUNT", lambda: audit(tokens=24).ask(edit_opening=_leaves_out_of_order).case()),
    Attack("leaf-hashes-of-more-than-is-counted",
           "The provider shows two leaves more than the last block counts.",
           "BLOCK_COUNT", _inflated_and_padded),

    Attack("leaf-repeated-in-an-opened-block",
           "A leaf stands twice in a block that is opened, where no token was drawn.",
           "LEAF_REPEATED", _leaves_repeated_in_the_middle),

    Attack("whole-text-left-out",
           "A block opened whole shows no text.",
           "WHOLE_TEXT", lambda: audit().ask().ask_whole(
               edit_opening=put("blocks.0.text", "")).case(), _COMMITTED),
    Attack("whole-text-with-a-space-more",
           "A block opened whole shows a space that its ids do not spell.",
           "WHOLE_TEXT", lambda: audit().ask().ask_whole(edit_opening=change(
               "blocks.0.text", lambda text: text + " ")).case(), _COMMITTED),

    Attack("embedding-negated",
           "Committed window embeddings point the other way.",
           "WHOLE_EMBEDDING", lambda: _windows(_negated).ask().ask_whole().case(), _COMMITTED),
    Attack("windows-in-another-order",
           "Windows are committed in another order than that of the text.",
           "WHOLE_EMBEDDING",
           lambda: _windows(lambda rows: rows[::-1]).ask().ask_whole().case(), _COMMITTED),

    Attack("checkpoint-seen-before-the-request",
           "By the client's clock a checkpoint came before the request.",
           "ARRIVAL_TIME", lambda: audit(edit_receipt=put(
               "checkpoints.1.seen_at", stamp(START - _HOUR))).ask().case(), _COMMITTED,
           fault=_UNATTRIBUTED),
    Attack("tokens-past-a-slower-rate",
           "A policy of 79 tokens a second: the provider's own dates are of 80.",
           "ARRIVAL_TIME", lambda: _slow_policy(audit().ask().case()), _COMMITTED),
)
# fmt: on


def _named_otherwise() -> list[opening_pb2.AnsweredChallenge]:
    found = []
    for entry in _answered_elsewhere(1, 2, 3):
        message = opening_pb2.Challenge.FromString(entry.challenge.payload)
        message.fingerprints_sha256 = bytes(32)
        entry.challenge.CopyFrom(World().sign(message, envelope.CHALLENGE, "another"))
        found.append(entry)
    return found


def _signed_by_itself() -> list[opening_pb2.AnsweredChallenge]:
    found = []
    for entry in _answered_elsewhere(1, 2, 3):
        message = opening_pb2.Challenge.FromString(entry.challenge.payload)
        entry.challenge.CopyFrom(World().sign(message, envelope.CHALLENGE, PROVIDER))
        found.append(entry)
    return found
