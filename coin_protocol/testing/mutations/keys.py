"""Mutations of the time in which keys sign, and of the profile under which they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from coin_protocol.checks import Case
from coin_protocol.keys import ECDSA_P256, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, sign_key_set, stamp
from coin_protocol.profile import Profile
from coin_protocol.testing.forgeries import both, change, put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Party,
    Spot,
    anywhere,
    checkpoints,
    has_manifest,
    replies,
    where,
)
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import PROVIDER, START, Edit
from coin_protocol.v1 import profile_pb2, receipt_pb2, statements_pb2

_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED
_NOBODY: Final = receipt_pb2.FAULT_UNSPECIFIED
_INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE
_HOUR: Final = timedelta(hours=1)
_HALF_PAST: Final = START + _HOUR / 2


# Keys that do not sign any more, or not yet.


def _windowed(**window: datetime) -> Callable[[Spot], Lie]:
    """Return what lists the provider's key under another window."""
    return lambda at: Lie(receipt=_listed(at.plan, **window))


def _listed(plan: Plan, **window: datetime) -> Edit[receipt_pb2.Receipt]:
    return put("key_set", plan.world.key_set(**window))


def _succeeded(at: Spot) -> Lie:
    """List a key that ended, which signed, beside its successor, which did not."""
    day, plan = timedelta(days=1), at.plan
    old = ListedKey(plan.world.signer(PROVIDER).public, START - day, START)
    new = ListedKey(plan.world.signer("successor").public, START, START + day)
    root = plan.world.signer(ROOT_KEY_NAME)
    found = sign_key_set(PROVIDER, [old, new], root=root, issued_at=START, sequence=2)
    return Lie(receipt=put("key_set", found))


def _dated(at: datetime) -> Edit[Any]:
    return put("provider_time", stamp(at))


def _stolen(at: Spot) -> Lie:
    """Date back all that a key signed which was revoked before the client's request."""
    then = START - 2 * _HOUR
    listed = _listed(at.plan, revoked_at=START - _HOUR)
    return Lie(
        checkpoint=_dated(then),
        commitment=both(put("started_at", stamp(then)), put("ended_at", stamp(then))),
        fingerprints=_dated(then),
        manifest=_dated(then),
        receipt=listed,
    )


def _answer_dated_back(at: Spot) -> Lie:
    """Date an answer back to before its key ended; the verifier's clock saw it come later."""
    listed = _listed(at.plan, not_after=_HALF_PAST)
    dated = _dated(START + _HOUR / 4)
    return Lie(receipt=listed, step=at.site.step, opening=dated, refusal=dated)


def _checkpoint_before_the_key(at: Spot) -> Lie:
    def edit(checkpoint: statements_pb2.Checkpoint) -> None:
        if checkpoint.block_count == at.site.index:
            _dated(START - _HOUR)(checkpoint)

    listed = _listed(at.plan, not_before=START - _HOUR / 2)
    return Lie(checkpoint=edit, receipt=listed)


def _after_the_key(statement: str) -> Callable[[Spot], Lie]:
    """Return what dates one statement after the end of the key that signed it."""

    def lie(at: Spot) -> Lie:
        listed = _listed(at.plan, not_after=_HALF_PAST)
        late = _dated(START + _HOUR)
        if statement == "fingerprints":
            return Lie(fingerprints=late, receipt=listed)
        return Lie(manifest=late, receipt=listed)

    return lie


def _never_asked(plan: Plan) -> bool:
    """Whether nothing is dated later than the reply, but what a mutation dates so."""
    return not plan.steps


# Profiles.


def _another_profile(at: Spot) -> Lie:
    """Have a verifier that knows a profile which differs in one number."""
    spec = at.plan.profile.message
    message = profile_pb2.Profile()
    message.CopyFrom(spec)
    field = at.random.choice(["name", "caps.min_tokens", "block_size", "embedding.max_pieces"])
    change(field, lambda found: f"{found}s" if isinstance(found, str) else found + 1)(message)
    other = Profile.from_bytes(message.SerializeToString(deterministic=True))
    return Lie(case=lambda case: replace(case, profile=other))


def _serialized_otherwise(at: Spot) -> Lie:
    """Have a verifier whose profile says the same in other bytes."""
    whole = at.plan.profile.message
    caps = profile_pb2.Profile(caps=whole.caps)
    rest = profile_pb2.Profile()
    rest.CopyFrom(whole)
    rest.ClearField("caps")
    parts = (part.SerializeToString(deterministic=True) for part in (caps, rest))
    other = Profile.from_bytes(b"".join(parts))
    return Lie(case=lambda case: replace(case, profile=other))


def _of_unlisted_algorithm(at: Spot) -> Lie:
    """Have a profile that all agree on, under which the provider's kind of key may not sign."""
    message = profile_pb2.Profile()
    message.CopyFrom(at.plan.profile.message)
    put("key_algorithms", [ECDSA_P256])(message)
    strict = Profile.from_bytes(message.SerializeToString(deterministic=True))
    return Lie(world=lambda world: replace(world, profile=strict))


def _of_larger_blocks(at: Spot) -> Lie:
    """Have a provider that commits as another profile says, and names that one."""
    plan = at.plan
    other = small_profile(block_size=plan.block_size + 1, window_tokens=plan.window_tokens)

    def known(case: Case) -> Case:
        return replace(case, profile=plan.profile)

    return Lie(world=lambda world: replace(world, profile=other), case=known, ends=0)


# fmt: off
KEYS: Final = (
    Mutation("key-not-begun", "The key that signed is not valid yet.",
             anywhere, _windowed(not_before=START + 12 * _HOUR), "KEY_WINDOW",
             fault=_UNATTRIBUTED),
    Mutation("key-ended", "The key that signed ended when the request came.",
             anywhere, _windowed(not_after=START), "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("key-revoked", "The key that signed was revoked when the request came.",
             anywhere, _windowed(revoked_at=START), "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("key-succeeded", "The key that signed ended; its successor is listed beside it.",
             anywhere, _succeeded, "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("key-stolen-and-dated-back",
             "All that a revoked key signed is dated back, but the client's clock says when.",
             anywhere, _stolen, "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("key-ended-before-the-answer", "A challenge is answered under a key that ended.",
             replies, _windowed(not_after=_HALF_PAST), "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("key-revoked-before-the-answer", "A challenge is answered under a revoked key.",
             replies, _windowed(revoked_at=_HALF_PAST), "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("answer-dated-back",
             "An answer is dated back to before its key ended, but the verifier saw it come.",
             replies, _answer_dated_back, "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("checkpoint-before-the-key", "A checkpoint is dated before its key began.",
             checkpoints, _checkpoint_before_the_key, "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("fingerprints-after-the-key", "The fingerprints are dated after their key ended.",
             where(lambda plan: plan.ready and _never_asked(plan)),
             _after_the_key("fingerprints"), "KEY_WINDOW", fault=_UNATTRIBUTED),
    Mutation("manifest-after-the-key", "The manifest is dated after its key ended.",
             where(lambda plan: has_manifest(plan) and _never_asked(plan)),
             _after_the_key("manifest"), "KEY_WINDOW", fault=_UNATTRIBUTED),
)

PROFILES: Final = (
    Mutation("profile-made-up", "The commitment names a profile that does not exist.",
             anywhere, lambda at: Lie(commitment=put("profile_sha256", at.made_up(32))),
             "PROFILE", fault=_NOBODY, outcome=_INCONCLUSIVE),
    Mutation("profile-of-other-blocks", "The provider keeps to a profile of larger blocks.",
             anywhere, _of_larger_blocks,
             "PROFILE", fault=_NOBODY, outcome=_INCONCLUSIVE),
    Mutation("profile-unknown-to-the-verifier",
             "The verifier has a profile that differs in one number or name.",
             anywhere, _another_profile, "PROFILE", Party.VERIFIER, _NOBODY, _INCONCLUSIVE),
    Mutation("profile-serialized-otherwise",
             "The verifier's profile says the same in other bytes, which are what names it.",
             anywhere, _serialized_otherwise, "PROFILE", Party.VERIFIER, _NOBODY, _INCONCLUSIVE),
    Mutation("key-algorithm-unlisted",
             "The provider signs with a key of a kind that the profile does not allow.",
             anywhere, _of_unlisted_algorithm,
             "PROFILE", fault=_NOBODY, outcome=_INCONCLUSIVE),
)
# fmt: on
