"""Whole worlds, and what belongs together in them: replies, receipts, deliveries.

They are those of `coin_protocol.testing.world`, with everything drawn that may differ. Whatever
is drawn passes every check. Clocks start at its `START`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol import envelope
from coin_protocol.checks import Trust
from coin_protocol.delivery import DELIVERY_FORMAT
from coin_protocol.keys import ECDSA_P256, ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, sign_key_set, stamp
from coin_protocol.opening import Opener
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import KeySigner
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.strategies.certifying import PINNED, DrawnRoot, roots
from coin_protocol.testing.strategies.keys import listed_key_lists
from coin_protocol.testing.strategies.pool import pooled
from coin_protocol.testing.strategies.rules import profiles
from coin_protocol.testing.strategies.statements import (
    ID_SOURCES,
    AbortReasons,
    Countings,
    IdSources,
    abort_reasons,
    usages,
)
from coin_protocol.testing.strategies.traces import MOST_TOKENS, token_ids
from coin_protocol.testing.strategies.values import (
    CHARACTERS,
    Ints,
    client_nonces,
    names,
    sizes,
    times,
    timestamps,
)
from coin_protocol.testing.world import PROVIDER, START, VERIFIER, Reply, World
from coin_protocol.usage import generated_tokens
from coin_protocol.v1 import (
    delivery_pb2,
    envelope_pb2,
    receipt_pb2,
    statements_pb2,
)

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_LATER: Final = "provider, later"
"""Name of the key that a provider changes to after the reply."""

_ANSWERS: Final = (envelope.OPENING, envelope.WHOLE_OPENING, envelope.REFUSAL)
_MOST_SECONDS: Final = 1_500.0
_TEXTS: Final = st.text(CHARACTERS, max_size=24).map(str.encode)
_SUMMARIES: Final = st.none() | _TEXTS
_LOST: Final = st.frozensets(st.integers(0, MOST_TOKENS), max_size=2)
_OTHERS: Final = listed_key_lists(least=0, most=2, first=1)
_REVOKED: Final = st.none() | times(START + 2 * _HOUR, START + _DAY)
_ENDS: Final = st.none() | timestamps(least=START + _DAY)

Worlds = SearchStrategy[World] | None
Bools = SearchStrategy[bool] | None


@dataclass(frozen=True, repr=False)
class DrawnWorld(World):
    """A world whose keys come out of the pool, and whose trace was drawn.

    Attributes:
        ids: Of the trace; World's own where there are too few.
        others: Keys that are listed and sign nothing.
        ecdsa: Names of the provider's keys that sign with ECDSA.
        rotated: Whether answers to challenges are signed with another key than the reply.
        revoked_at: When the key of the reply was revoked, if it ever was: after the audit.
        root: Signs the key set.
    """

    ids: tuple[int, ...] = ()
    others: tuple[ListedKey, ...] = ()
    ecdsa: frozenset[str] = frozenset()
    rotated: bool = False
    revoked_at: datetime | None = None
    root: DrawnRoot = PINNED

    def __repr__(self) -> str:
        """Name what was drawn: all of it would fill pages."""
        caps = " ".join(str(self.profile.message.caps).split())
        keys = f"{len(self.others)} other keys, rotated={self.rotated}, ecdsa={sorted(self.ecdsa)}"
        return (
            f"DrawnWorld(seed={self.seed!r}, ids={list(self.ids)}, {keys}, "
            f"{self.root}, block_size={self.profile.block_size}, {caps})"
        )

    def signer(self, name: str) -> KeySigner:
        """Return the signer of this name, but for the root the same in every world."""
        if name == ROOT_KEY_NAME:
            return self.root.signer
        return pooled(name, 0, ECDSA_P256) if name in self.ecdsa else pooled(name)

    @property
    def trust(self) -> Trust:
        """The provider's root, pinned or by its domain, and the verifier's key."""
        return self.root.trust(pinned("verifiers", [self.signer(VERIFIER).public]))

    @property
    def root_chain(self) -> tuple[bytes, ...]:
        """The certificates of the provider's root, where it has any."""
        return self.root.chain

    def key_set(
        self,
        *,
        not_before: datetime = START - _DAY,
        not_after: datetime = START + _DAY,
        revoked_at: datetime | None = None,
    ) -> envelope_pb2.Envelope:
        """Return the provider's key set: old keys, the one that signs, the one after it."""
        keys = [
            *self.others,
            ListedKey(
                self.signer(PROVIDER).public, not_before, not_after, revoked_at or self.revoked_at
            ),
        ]
        if self.rotated:
            keys.append(ListedKey(self.signer(_LATER).public, START, START + 2 * _DAY))
        root = self.signer(ROOT_KEY_NAME)
        return sign_key_set(PROVIDER, keys, root=root, issued_at=START, sequence=len(keys))

    def sign(
        self, message: Message, payload_type: str, name: str = PROVIDER
    ) -> envelope_pb2.Envelope:
        """Sign a message as `name`, of the provider with the key in use by then."""
        if self.rotated and name == PROVIDER and payload_type in _ANSWERS:
            name = _LATER
        return super().sign(message, payload_type, name)

    def token_ids(self, count: int) -> list[int]:
        """Return the first ids of the trace."""
        return list(self.ids[:count]) if count <= len(self.ids) else super().token_ids(count)


@st.composite
def _policies(draw: st.DrawFn) -> Policy:
    """Draw the policy that never accuses, with other limits: all that checks take from it."""
    message = rules_policy()
    message.max_tokens_per_second = draw(st.integers(1_000, 1_000_000))
    message.clock_skew.seconds = draw(st.integers(0, 86_400))
    message.challenge_deadline.seconds = draw(st.integers(1, 86_400))
    message.min_recomputed_cosine = draw(st.sampled_from((0.9999, 0.5)))
    return Policy.from_bytes(message.SerializeToString(deterministic=True))


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    profile: SearchStrategy[Profile] | None = None,
    policy: SearchStrategy[Policy] | None = None,
    root: SearchStrategy[DrawnRoot] | None = None,
) -> DrawnWorld:
    """Draw a provider's and a verifier's keys, profile and policy.

    Args:
        draw: Of Hypothesis.
        profile: Of the small models.
        policy: Allows 1,000 tokens a second at least, and wants no cosine above 0.9999.
        root: Signs the key set at `START`.
    """
    found = draw(profiles() if profile is None else profile)
    algorithms = found.message.key_algorithms
    rotated = draw(st.booleans())
    provider = draw(st.sampled_from(algorithms))
    later = draw(st.sampled_from(algorithms)) if rotated else None
    signing = {PROVIDER: provider, _LATER: later}
    return DrawnWorld(
        seed=str(draw(st.integers(0, 1 << 32))),
        profile=found,
        policy=draw(_policies() if policy is None else policy),
        others=tuple(draw(_OTHERS)),
        ecdsa=frozenset(name for name, used in signing.items() if used == ECDSA_P256),
        rotated=rotated,
        revoked_at=draw(_REVOKED),
        root=draw(roots() if root is None else root),
    )


@dataclass(frozen=True)
class _Story:
    """What client and provider tell of one reply, beside its tokens.

    Attributes:
        nonce: The client's.
        request: Its bytes.
        answer: As the client received it.
        summary: The same, where there is one.
        aborted: Why it ended.
        seconds_per_block: That the provider took, by its own clock.
        skew: By how much the client's clock is ahead.
        lost: Numbers from 0 of checkpoints that the client did not see, if there are so many.
        bunched: Whether checkpoints came with the answer.
        marked: Whether the client noted when the answer came.
        told: Usage as the client was told it.
        commitment: Fields of the commitment that nothing else depends on.
    """

    nonce: bytes
    request: bytes
    answer: bytes
    summary: bytes | None
    aborted: statements_pb2.AbortReason.ValueType
    seconds_per_block: float
    skew: timedelta
    lost: frozenset[int]
    bunched: bool
    marked: bool
    told: statements_pb2.Usage | None
    commitment: statements_pb2.Commitment

    def at(self, blocks: int) -> datetime:
        """Return when so many blocks were generated, by the provider's clock."""
        return START + timedelta(seconds=blocks * self.seconds_per_block)

    def checkpoint(self, message: statements_pb2.Checkpoint) -> None:
        """Edit a checkpoint."""
        message.client_nonce = self.nonce
        message.provider_time.CopyFrom(stamp(self.at(message.block_count)))

    def commit(self, message: statements_pb2.Commitment) -> None:
        """Edit the commitment."""
        crashed = self.aborted == statements_pb2.ABORT_REASON_CRASHED
        message.MergeFrom(self.commitment)
        message.usage.CopyFrom(self.commitment.usage)
        message.answer_tokens = self.commitment.answer_tokens
        message.client_nonce = self.nonce
        message.request_sha256 = sha256(self.request).digest()
        message.answer_sha256 = sha256(b"" if crashed else self.answer).digest()
        if self.summary is not None:
            message.summary_sha256 = sha256(self.summary).digest()
        message.abort_reason = self.aborted
        message.ended_at.CopyFrom(stamp(self.at(message.block_count + 1)))

    def date(self, message: statements_pb2.Fingerprints | statements_pb2.Manifest) -> None:
        """Edit what is made after the commitment."""
        message.provider_time.CopyFrom(stamp(START + _HOUR / 2))

    def keep(self, receipt: receipt_pb2.Receipt) -> None:
        """Edit the receipt: what the client sent, saw and was told."""
        receipt.client_nonce, receipt.request, receipt.answer = (
            self.nonce,
            self.request,
            self.answer,
        )
        if self.summary is not None:
            receipt.summary = self.summary
        seen = list(receipt.checkpoints)
        end = self.at(len(seen) + 2) + self.skew
        for number, found in enumerate(seen, 1):
            came = end if self.bunched else self.at(number) + self.skew
            found.seen_at.CopyFrom(stamp(came))
        del receipt.checkpoints[:]
        receipt.checkpoints.extend(
            found for number, found in enumerate(seen) if number not in self.lost
        )
        receipt.sent_at.CopyFrom(stamp(START + self.skew))
        for name in ("answer_first_at", "answer_last_at"):
            receipt.ClearField(name)
            if self.marked:
                getattr(receipt, name).CopyFrom(stamp(end))
        receipt.ClearField("billed")
        if self.told is not None:
            receipt.billed.CopyFrom(self.told)


@st.composite
def _told(draw: st.DrawFn, signed: statements_pb2.Usage) -> statements_pb2.Usage | None:
    """Draw how a client was told of what is signed: so, not at all, or split otherwise."""
    unsplit = statements_pb2.Usage(
        prompt_tokens=signed.prompt_tokens,
        cached_prompt_tokens=signed.cached_prompt_tokens,
        completion_tokens=generated_tokens(signed),
    )
    return draw(st.sampled_from((signed, None, unsplit)))


@st.composite
def _stories(
    draw: st.DrawFn,
    world: World,
    tokens: int,
    id_source: IdSources,
    counting: Countings,
    abort_reason: AbortReasons,
) -> _Story:
    # Of everything as many choices, whatever was drawn before: so that each shrinks by itself.
    size = world.profile.block_size
    reasons = abort_reasons(reasoning_tokens=tokens, block_size=size)
    aborted = draw(reasons if abort_reason is None else abort_reason)
    crashed = aborted == statements_pb2.ABORT_REASON_CRASHED
    billed = st.integers(0, 0 if crashed else 1 << 16)
    answer_tokens = draw(billed)
    usage = draw(
        usages(
            reasoning_tokens=st.just(tokens),
            answer_tokens=st.just(answer_tokens),
            prompt_tokens=billed,
            counting=counting,
        )
    )
    # A little more than decoding takes: times are rounded to microseconds.
    least = size / world.policy.message.max_tokens_per_second + 1e-5
    slack = max(0.0, min(1.0, _MOST_SECONDS / (tokens // size + 2) - least))
    commitment = statements_pb2.Commitment(
        model=draw(names()),
        id_source=draw(ID_SOURCES if id_source is None else id_source),
        answer_tokens=answer_tokens,
        usage=usage,
        answers_until=draw(_ENDS),
    )
    return _Story(
        nonce=draw(client_nonces()),
        request=draw(_TEXTS),
        answer=draw(_TEXTS),
        summary=draw(_SUMMARIES),
        aborted=aborted,
        seconds_per_block=least + slack * draw(st.sampled_from((0.0, 0.125, 1.0))),
        skew=timedelta(milliseconds=draw(st.integers(-300_000, 300_000))),
        lost=draw(_LOST),
        bunched=draw(st.booleans()),
        marked=draw(st.booleans()),
        told=draw(_told(usage)),
        commitment=commitment,
    )


@st.composite
def replies(
    draw: st.DrawFn,
    *,
    world: Worlds = None,
    tokens: Ints = None,
    id_source: IdSources = None,
    counting: Countings = None,
    abort_reason: AbortReasons = None,
) -> Reply:
    """Draw what a reply leaves with provider and client, fingerprints included.

    Args:
        draw: Of Hypothesis.
        world: Where; one that is no `DrawnWorld` has a trace of its own.
        tokens: Of the reasoning; awkward sizes up to 40 by default.
        id_source: Whether ids are as sampled.
        counting: Whether completion tokens contain reasoning.
        abort_reason: Why it ended. Give only full blocks where that is a crash.
    """
    where = draw(worlds() if world is None else world)
    usual = sizes(where.profile.block_size, MOST_TOKENS)
    ids = draw(token_ids(tokens=usual if tokens is None else tokens))
    if isinstance(where, DrawnWorld):
        where = replace(where, ids=tuple(ids))
    story = draw(_stories(where, len(ids), id_source, counting, abort_reason))
    return where.reply(
        tokens=len(ids),
        edit_checkpoint=story.checkpoint,
        edit_commitment=story.commit,
        edit_fingerprints=story.date,
        edit_manifest=story.date,
        edit_receipt=story.keep,
    )


def openers(*, world: Worlds = None, tokens: Ints = None) -> SearchStrategy[Opener]:
    """Return a strategy of what a provider keeps of a session; options as of `replies`."""
    return replies(world=world, tokens=tokens).map(lambda reply: reply.opener)


@st.composite
def receipts(
    draw: st.DrawFn,
    *,
    world: Worlds = None,
    tokens: Ints = None,
    id_source: IdSources = None,
    counting: Countings = None,
    abort_reason: AbortReasons = None,
    fingerprints: Bools = None,
) -> receipt_pb2.Receipt:
    """Draw receipts.

    `replies` also says whom to believe: `reply.world.trust` and `reply.receipt`.

    Args:
        draw: Of Hypothesis.
        world: As of `replies`.
        tokens: As of `replies`.
        id_source: As of `replies`.
        counting: As of `replies`.
        abort_reason: As of `replies`.
        fingerprints: Whether they were ready.
    """
    reply = draw(
        replies(
            world=world,
            tokens=tokens,
            id_source=id_source,
            counting=counting,
            abort_reason=abort_reason,
        )
    )
    if not draw(st.booleans() if fingerprints is None else fingerprints):
        reply.receipt.ClearField("fingerprints")
    return reply.receipt


@st.composite
def seen_checkpoints(draw: st.DrawFn, *, world: Worlds = None) -> receipt_pb2.SeenCheckpoint:
    """Draw a checkpoint of a reply and when its client saw it.

    Args:
        draw: Of Hypothesis.
        world: As of `replies`.
    """
    where = draw(worlds() if world is None else world)
    size = where.profile.block_size
    blocks = draw(st.integers(1, 3))
    seen: list[receipt_pb2.SeenCheckpoint] = []
    reply = draw(replies(world=st.just(where), tokens=st.just(blocks * size)))
    seen.extend(reply.receipt.checkpoints)
    if seen:
        return draw(st.sampled_from(seen))
    # The client lost them all: the provider's first one, seen as it was signed.
    whole = reply.world.reply(tokens=size).receipt.checkpoints
    return whole[0]


@st.composite
def deliveries(
    draw: st.DrawFn, *, reply: SearchStrategy[Reply] | None = None
) -> delivery_pb2.Delivery:
    """Draw what a gateway hands over with replies; a choice without commitment says why.

    Args:
        draw: Of Hypothesis.
        reply: Each of the choices that have a commitment.
    """
    found = draw(replies() if reply is None else reply)
    missing = st.sampled_from(delivery_pb2.MissingReason.values()[1:])
    notes = st.lists(st.text(max_size=16), max_size=2)
    choices = [
        delivery_pb2.DeliveredChoice(commitment=found.receipt.commitment, notes=draw(notes)),
        *(
            delivery_pb2.DeliveredChoice(choice=number, missing=reason, notes=draw(notes))
            for number, reason in enumerate(draw(st.lists(missing, max_size=2)), 1)
        ),
    ]
    return delivery_pb2.Delivery(
        format=DELIVERY_FORMAT,
        response_id=draw(st.text(max_size=24)),
        client_nonce=found.receipt.client_nonce,
        nonce_from_client=draw(st.booleans()),
        key_set=found.receipt.key_set,
        root_chain=found.receipt.root_chain,
        choices=choices,
        reported=draw(st.none() | usages()),
    )
