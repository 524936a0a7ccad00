"""Recipes of honest audits, and how one party departs from one.

A `Plan` says in which world an audit happens, how long the reply is and what is asked. Played, it
gives the evidence of an honest audit, in which the provider answers what its caps allow and refuses
the rest. A `Lie` is a change to one play: a provider that lies signs its lie, and what follows from
it is what would follow.

    plan = Plan(tokens=21, steps=(Step(blocks=2), Step(whole=True)))
    forged = plan.play(Lie(commitment=put("block_count", 9)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from google.protobuf.message import Message

from coin_protocol import draw, envelope
from coin_protocol.checks import Case
from coin_protocol.encoding import digest
from coin_protocol.errors import ExposureCapError, InvalidInputError
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, sign_key_set
from coin_protocol.opening import Opener
from coin_protocol.profile import Profile
from coin_protocol.testing.forgeries import POLICY, both, refused
from coin_protocol.testing.mutations.lie import HONEST, Lie, keep
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import (
    ANSWER_TOKENS,
    PROVIDER,
    START,
    Audit,
    Edit,
    Reply,
    World,
)
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2

AnyChallenge = opening_pb2.Challenge | opening_pb2.WholeBlockChallenge

SUMMARY: Final = b"a summary"
"""What a client of a plan with a summary receives."""

_NONCES_TRIED: Final = 2_000


class _UnsuitedError(Exception):
    """What a challenge draws does not suit a lie."""


@dataclass(frozen=True, slots=True)
class Step:
    """One challenge of a plan.

    Attributes:
        blocks: Opened with their embedding, or whole.
        token_blocks: Further blocks of which tokens alone are opened.
        tokens_per_block: Greatest number of tokens in each block.
        whole: Whether blocks are opened whole; then the two numbers before count for nothing.
    """

    blocks: int = 1
    token_blocks: int = 0
    tokens_per_block: int = 2
    whole: bool = False


@dataclass(frozen=True)
class _Asked(Audit):
    """An audit whose provider remembers what it answered, whatever the verifier keeps of it."""

    given: tuple[opening_pb2.AnsweredChallenge, ...] = ()

    def answered(self) -> list[opening_pb2.AnsweredChallenge]:
        """Return what the provider gave each link of its chain, in order."""
        return list(self.given)


@dataclass(frozen=True)
class Sibling(World):
    """The same parties at another session: everything random is another but for the keys."""

    def random(self, what: str, count: int) -> bytes:
        """Return `count` bytes that depend on the seed and on `what`."""
        return super().random(what if what.startswith("key ") else f"another {what}", count)


@dataclass(frozen=True)
class Plan:
    """An honest audit to be.

    Attributes:
        seed: Of the world: keys, ids, secrets and nonces.
        tokens: Reasoning tokens of the reply.
        block_size: As `small_profile` takes it, and so the six after it.
        window_tokens: At most `block_size`.
        run_tokens: At most `block_size`.
        projection: 0 for none.
        tokens_ppm: Of the caps, as the two after it.
        blocks_ppm: Of block embeddings.
        whole_blocks_ppm: 0 where no block may be opened whole.
        counting: How the bill counts reasoning tokens.
        id_source: Where ids come from, as the commitment says.
        abort_reason: Why the reply ended early, where it did.
        summary: Whether a summary is committed to and received.
        told: Whether the client was told a bill.
        misses: The client missed every checkpoint whose number this divides; 0 for none.
        ready: Whether fingerprints were ready.
        manifest: Whether the manifest was asked for.
        installed: Whether the verifier has the profile's models.
        steps: Challenges, in order. They need tokens, fingerprints and the manifest.
    """

    seed: str = "world"
    tokens: int = 20
    block_size: int = 8
    window_tokens: int = 4
    run_tokens: int = 0
    projection: int = 0
    tokens_ppm: int = 500_000
    blocks_ppm: int = 600_000
    whole_blocks_ppm: int = 400_000
    counting: statements_pb2.ReasoningCounting.ValueType = INSIDE
    id_source: statements_pb2.IdSource.ValueType = statements_pb2.ID_SOURCE_SAMPLED
    abort_reason: statements_pb2.AbortReason.ValueType = statements_pb2.ABORT_REASON_UNSPECIFIED
    summary: bool = False
    told: bool = True
    misses: int = 0
    ready: bool = True
    manifest: bool = True
    installed: bool = True
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        """Check that what is asked can be.

        Raises:
            InvalidInputError: It cannot.
        """
        if self.steps and not (self.tokens and self.ready and self.manifest):
            msg = "a plan with challenges needs tokens, fingerprints and the manifest"
            raise InvalidInputError(msg)

    @cached_property
    def profile(self) -> Profile:
        """What commitments are made of."""
        return small_profile(
            block_size=self.block_size,
            window_tokens=self.window_tokens,
            tokens_ppm=self.tokens_ppm,
            blocks_ppm=self.blocks_ppm,
            whole_blocks_ppm=self.whole_blocks_ppm,
            run_tokens=self.run_tokens,
            projection=self.projection,
        )

    @cached_property
    def world(self) -> World:
        """Keys, models and rules."""
        return World(self.seed, self.profile, POLICY)

    @property
    def blocks(self) -> int:
        """Blocks of the reply."""
        return -(-self.tokens // self.block_size)

    @property
    def full_blocks(self) -> int:
        """Blocks of the reply that are full."""
        return self.tokens // self.block_size

    @property
    def last(self) -> int:
        """Tokens of the last block; 0 where there is none."""
        return self.tokens - (self.blocks - 1) * self.block_size if self.tokens else 0

    def count(self, block: int) -> int:
        """Return the tokens of a block."""
        return self.last if block == self.blocks - 1 else self.block_size

    @cached_property
    def reply(self) -> Reply:
        """What the honest reply leaves behind. Do not change it."""
        return self._replied(HONEST)

    @property
    def opener(self) -> Opener:
        """What the honest provider keeps."""
        return self.reply.opener

    @cached_property
    def sibling(self) -> Reply:
        """An honest reply of the same parties in another session, equally long."""
        return self._replied(Lie(world=sibling))

    @cached_property
    def honest(self) -> Case:
        """The evidence of the honest audit. Do not change it."""
        return self.play()

    @cached_property
    def rounds(self) -> list[receipt_pb2.Round]:
        """The honest audit's rounds of both kinds, one for each step."""
        kinds = {False: iter(self.honest.rounds), True: iter(self.honest.whole_rounds)}
        return [next(kinds[step.whole]) for step in self.steps]

    @cached_property
    def openings(self) -> Mapping[int, opening_pb2.Opening]:
        """What honestly answers each challenge of sampled tokens, by its step."""
        return {
            number: opening_pb2.Opening.FromString(entry.opening.payload)
            for number, entry in enumerate(self.rounds)
            if entry.HasField("opening") and not self.steps[number].whole
        }

    @cached_property
    def whole_openings(self) -> Mapping[int, opening_pb2.WholeBlockOpening]:
        """What honestly answers each challenge of whole blocks, by its step."""
        return {
            number: opening_pb2.WholeBlockOpening.FromString(entry.opening.payload)
            for number, entry in enumerate(self.rounds)
            if entry.HasField("opening") and self.steps[number].whole
        }

    @cached_property
    def refusals(self) -> Mapping[int, opening_pb2.Refusal]:
        """What honestly refuses each other challenge, by its step."""
        return {
            number: opening_pb2.Refusal.FromString(entry.refusal.payload)
            for number, entry in enumerate(self.rounds)
            if entry.HasField("refusal")
        }

    def link(self, step: int) -> int:
        """Return the link of the provider's chain that an answered challenge is given."""
        answer = self.whole_openings[step] if self.steps[step].whole else self.openings[step]
        return answer.flip_index

    def first(self, *, whole: bool) -> int | None:
        """Return the first step of a kind, where it is answered: that hangs on no draw."""
        of_kind = [number for number, step in enumerate(self.steps) if step.whole == whole]
        answered = self.whole_openings if whole else self.openings
        return of_kind[0] if of_kind and of_kind[0] in answered else None

    def play(self, lie: Lie = HONEST) -> Case:
        """Return the evidence of this audit, in which one party may depart from the plan."""
        honest = lie.of_the_reply == HONEST.of_the_reply
        reply = self.reply if honest else self._replied(lie)
        case = self._asked(_Asked(reply), lie).case()
        case = replace(
            case,
            manifest=case.manifest if self.manifest else None,
            installed=case.installed if self.installed else None,
        )
        return lie.case(case)

    def drawn(self, reply: Reply, challenge: AnyChallenge, link: int) -> draw.Drawn:
        """Return what a challenge draws; blocks drawn whole have no positions.

        Args:
            reply: What is challenged.
            challenge: Of either kind.
            link: Of the provider's chain.
        """
        flip = draw.flip_for(reply.world.random("flip", 32), link)
        token_counts = reply.opener.token_counts
        if isinstance(challenge, opening_pb2.WholeBlockChallenge):
            indices = draw.drawn_whole_by(challenge, flip, len(token_counts))
            return draw.Drawn(tuple(draw.DrawnBlock(index, ()) for index in indices))
        run = self.profile.run_tokens
        return draw.drawn_by(challenge, flip, token_counts, run_tokens=run)

    def _replied(self, lie: Lie) -> Reply:
        return lie.world(self.world).reply(
            tokens=self.tokens,
            edit_checkpoint=lie.checkpoint,
            edit_commitment=both(self._commit, lie.commitment),
            edit_fingerprints=lie.fingerprints,
            edit_manifest=lie.manifest,
            edit_receipt=both(self._receive, lie.receipt),
            opener=lie.opener,
        )

    def _commit(self, commitment: statements_pb2.Commitment) -> None:
        commitment.id_source = self.id_source
        commitment.abort_reason = self.abort_reason
        sized(self, commitment.reasoning_tokens, commitment.block_count)(commitment)
        if self.summary:
            commitment.summary_sha256 = digest(SUMMARY)

    def _receive(self, receipt: receipt_pb2.Receipt) -> None:
        if self.summary:
            receipt.summary = SUMMARY
        if not self.told:
            receipt.ClearField("billed")
        if not self.ready:
            receipt.ClearField("fingerprints")
        if self.misses:
            seen = [
                one for number, one in enumerate(receipt.checkpoints, 1) if number % self.misses
            ]
            receipt.ClearField("checkpoints")
            receipt.checkpoints.extend(seen)

    def _asked(self, audit: _Asked, lie: Lie) -> Audit:
        opener, world = audit.reply.opener, audit.world
        tree = opener.tree
        caps = Caps.of(
            self.profile.message.caps, tokens=tree.reasoning_tokens, blocks=tree.block_count
        )
        ledger = ExposureLedger()
        for number, step in enumerate(self.steps[: lie.ends]):
            allowed = _allows(ledger, caps, step)
            mine = number == lie.step
            refusing = refused(world, audit.answered(), edit=lie.refusal if mine else keep)
            try:
                audit, sent = self._ask(audit, number, lie, keep if allowed else refusing)
            except _UnsuitedError:
                break
            if not allowed or (mine and lie.silent):
                continue
            link = len(audit.given) + 1
            found = self.drawn(audit.reply, _challenge(sent), link)
            if step.whole:
                ledger.add_whole(block.index for block in found.blocks)
            else:
                last = tree.block_count - 1
                ledger.add(found, edge=(last, opener.token_counts[last] - 1))
            flip = draw.flip_for(world.random("flip", 32), link)
            given = opening_pb2.AnsweredChallenge(challenge=sent, flip_index=link, flip=flip)
            audit = replace(audit, given=(*audit.given, given))
        return audit

    def _ask(
        self, audit: _Asked, number: int, lie: Lie, answer: Edit[receipt_pb2.Round]
    ) -> tuple[_Asked, envelope_pb2.Envelope]:
        """Return the audit with one more round, and the challenge as the provider received it."""
        step, mine = self.steps[number], number == lie.step
        sent = envelope_pb2.Envelope()
        challenge = both(self._aimed(audit, number, lie), lie.challenge if mine else keep)
        opening: Edit[Any] = lie.opening if mine else keep
        answered = both(lambda entry: sent.CopyFrom(entry.challenge), answer)
        entry = both(answered, lie.entry if mine else keep)
        if step.whole:
            asked = audit.ask_whole(
                blocks=step.blocks,
                edit_challenge=challenge,
                edit_opening=opening,
                edit_round=entry,
            )
        else:
            asked = audit.ask(
                blocks=step.blocks,
                token_blocks=step.token_blocks,
                tokens_per_block=step.tokens_per_block,
                edit_challenge=challenge,
                edit_opening=both(lie.openings, opening),
                edit_round=entry,
            )
        return asked, sent

    def _aimed(self, audit: _Asked, number: int, lie: Lie) -> Edit[Any]:
        """Return an edit that gives a challenge a nonce whose draw suits a lie."""
        suits = lie.suits
        if suits is None or self.steps[number].whole != self.steps[lie.step].whole:
            return keep
        tries = _NONCES_TRIED if number == lie.step else 1

        def aim(challenge: AnyChallenge) -> None:
            for attempt in range(tries):
                if attempt:
                    nonce = audit.world.random(f"nonce {number} {attempt}", 32)
                    challenge.nonce = nonce
                if suits(self.drawn(audit.reply, challenge, len(audit.given) + 1)):
                    return
            if number == lie.step:
                msg = f"none of {tries} nonces draws what suits the lie"
                raise InvalidInputError(msg)
            raise _UnsuitedError

        return aim


def sibling(world: World) -> World:
    """Return the world of the same parties' other session."""
    return Sibling(world.seed, world.profile, world.policy)


def sized(plan: Plan, tokens: int, blocks: int) -> Edit[statements_pb2.Commitment]:
    """Return an edit that signs and bills a size, all sums right."""

    def edit(commitment: statements_pb2.Commitment) -> None:
        commitment.reasoning_tokens = tokens
        commitment.block_count = blocks
        commitment.usage.CopyFrom(
            usage_for(
                prompt_tokens=commitment.usage.prompt_tokens,
                reasoning_tokens=tokens,
                answer_tokens=ANSWER_TOKENS,
                counting=plan.counting,
            )
        )

    return edit


def evidence(case: Case) -> tuple[bytes, ...]:
    """Return everything that parties gave a verifier, as bytes: equal if the evidence is."""
    messages: list[Message] = [case.receipt, *case.rounds, *case.whole_rounds]
    if case.manifest is not None:
        messages.append(case.manifest)
    raw = [message.SerializeToString(deterministic=True) for message in messages]
    counts = b"%d %d" % (len(case.rounds), len(case.whole_rounds))
    return (*raw, counts, case.profile.raw, case.no_manifest.encode())


def signed(plan: Plan, payload: bytes, payload_type: str, name: str) -> envelope_pb2.Envelope:
    """Return any bytes as a statement signed by a party of a plan."""
    return envelope.sign(payload, payload_type, plan.world.signer(name))


def key_set(
    plan: Plan, *, owner: str = PROVIDER, root_of: World | None = None
) -> envelope_pb2.Envelope:
    """Return a key set with the provider's key, of another owner or signed by another root."""
    day = timedelta(days=1)
    listed = ListedKey(plan.world.signer(PROVIDER).public, START - day, START + day)
    root = (plan.world if root_of is None else root_of).signer(ROOT_KEY_NAME)
    return sign_key_set(owner, [listed], root=root, issued_at=START, sequence=1)


def _challenge(sent: envelope_pb2.Envelope) -> AnyChallenge:
    """Return a challenge as it reached the provider."""
    if sent.payload_type == envelope.WHOLE_CHALLENGE:
        return opening_pb2.WholeBlockChallenge.FromString(sent.payload)
    return opening_pb2.Challenge.FromString(sent.payload)


def _allows(ledger: ExposureLedger, caps: Caps, step: Step) -> bool:
    """Whether an honest provider answers a challenge."""
    try:
        if step.whole:
            ledger.require_whole(caps, blocks=step.blocks)
        else:
            ledger.require(
                caps,
                blocks=step.blocks,
                token_blocks=step.token_blocks,
                tokens_per_block=step.tokens_per_block,
            )
    except ExposureCapError:
        return False
    return True
