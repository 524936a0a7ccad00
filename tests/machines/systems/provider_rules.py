"""A provider of the protocol's rules and nothing else: its disk is a few objects in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from google.protobuf.message import Message

from coin_protocol import draw, envelope
from coin_protocol.clock import SteadyClock
from coin_protocol.commitment import CommitmentBuilder, Prefix, SessionSecret, TokenTree
from coin_protocol.embedding import quantised_windows, window_texts
from coin_protocol.errors import ExposureCapError, SignatureError, StatementError
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.keys import VerificationKey, read_time
from coin_protocol.keyset import SignedKeySet
from coin_protocol.limits import CLOCK_SKEW_SECONDS, FLIP_CHAIN_LENGTH
from coin_protocol.opening import Opener
from coin_protocol.statements import read_challenge, read_whole_challenge
from coin_protocol.testing.machines.exposure import Terms
from coin_protocol.testing.machines.provider_system import DiedError, Ended
from coin_protocol.testing.machines.rules import Challenge
from coin_protocol.testing.small import SmallModels
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, opening_pb2, statements_pb2
from tests.machines.systems.provider_keys import OWNER, FollowingSigner, RulesKeys

MODEL: Final = "model"
PROMPT_TOKENS: Final = 7
LONG: Final = timedelta(days=3650)

_WHOLE: Final = statements_pb2.ABORT_REASON_UNSPECIFIED
_CRASHED: Final = statements_pb2.ABORT_REASON_CRASHED


class MovedClock:
    """The clock of a process: real time, moved by hand."""

    def __init__(self) -> None:
        self._passed = self._ahead = 0.0
        self.steady = SteadyClock()

    def __call__(self) -> datetime:
        return self.steady.utc()

    def pass_time(self, seconds: float) -> None:
        """Let time pass on all clocks."""
        self._passed += seconds
        self.steady._offset += round(seconds * 1e9)

    def set_clock(self, ahead: float) -> None:
        """Set the machine's clock; a process that runs does not notice."""
        self._ahead = ahead

    def start(self) -> None:
        """Begin anew, as a process does."""
        self.steady = SteadyClock()
        self.steady._offset += round((self._passed + self._ahead) * 1e9)


@dataclass(eq=False)
class Kept:
    """What is on disk of a reply.

    Attributes:
        secret: Of the session.
        flip_secret: Start of its hash chain.
        begun: The commitment as it begins.
        blocks: Full ones.
        commitment: At the end.
        manifest: At the end.
        fingerprints: Once they are made.
        opener: Opens what is drawn.
        answered: Challenges, in the order of their flips.
    """

    secret: SessionSecret
    flip_secret: bytes
    begun: statements_pb2.Commitment
    blocks: list[list[int]] = field(default_factory=list)
    commitment: envelope_pb2.Envelope | None = None
    manifest: envelope_pb2.Envelope | None = None
    fingerprints: envelope_pb2.Envelope | None = None
    opener: Opener | None = None
    answered: list[opening_pb2.AnsweredChallenge] = field(default_factory=list)


@dataclass(eq=False)
class Stream:
    """What a process has in memory of a reply under way."""

    builder: CommitmentBuilder
    due: list[envelope_pb2.Envelope] = field(default_factory=list)


class RulesProvider:
    """A `ProviderSystem`. Its secrets are counted, so that each run is the same."""

    keeps_open_replies = True

    def __init__(self, terms: Terms) -> None:
        self.profile = terms.profile
        self.verifiers = terms.verifiers
        self.models = SmallModels(terms.profile)
        self.clock = MovedClock()
        self.keys = RulesKeys(self.clock, valid_for=LONG)
        self.signer = FollowingSigner(self.keys)
        self.disk: dict[str, Kept] = {}
        self.streams: dict[str, Stream] = {}
        self.ledgers: dict[bytes, ExposureLedger] = {}
        self._steps: int | None = None
        self._dead = False

    @property
    def root(self) -> VerificationKey:
        return self.keys.root

    def key_set(self) -> SignedKeySet:
        self._alive()
        return self.signer.served

    def rotate(self, overlap: timedelta) -> None:
        self.keys.rotate(LONG, overlap)

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(seconds)

    def set_clock(self, ahead: float) -> None:
        self.clock.set_clock(ahead)

    def secret(self, name: str) -> SessionSecret:
        """Tell a session's secret."""
        return self.disk[name].secret

    # Replies

    def open(self, name: str, request: bytes, client_nonce: bytes) -> None:
        self._alive()
        number = len(self.disk)
        secret = SessionSecret(_made_up("id", number)[:16], _made_up("secret", number))
        flips = _made_up("flips", number)
        begun = statements_pb2.Commitment(
            profile_sha256=self.profile.digest,
            provider=OWNER,
            model=MODEL,
            session_id=secret.session_id,
            client_nonce=client_nonce,
            request_sha256=sha256(request).digest(),
            flip_anchor=draw.flip_anchor(flips),
            started_at=self.clock.steady.now(),
            id_source=statements_pb2.ID_SOURCE_SAMPLED,
        )
        self.disk[name] = Kept(secret, flips, begun)
        self.streams[name] = Stream(self.builder(secret))

    def builder(self, secret: SessionSecret) -> CommitmentBuilder:
        """Return a tree that grows."""
        return CommitmentBuilder(
            secret,
            block_size=self.profile.block_size,
            fingerprints=self.models.table.fingerprints,
        )

    def append(
        self, name: str, token_ids: Sequence[int], *, wait: bool
    ) -> Sequence[envelope_pb2.Envelope]:
        self._alive()
        stream = self.streams[name]
        before = len(stream.due)
        self._take(name, stream, token_ids)
        out = len(stream.due) if wait else before
        stream.due, given = stream.due[out:], stream.due[:out]
        return given

    def _take(self, name: str, stream: Stream, token_ids: Sequence[int]) -> None:
        for prefix in stream.builder.append(token_ids):
            self.write(name, stream, prefix)
            stream.due.append(self.checkpoint(name, prefix))

    def write(self, name: str, stream: Stream, prefix: Prefix) -> None:
        """Write the last block of a prefix down."""
        ids = stream.builder.block(prefix.block_count - 1).tolist()
        self._step()
        self.disk[name].blocks.append(ids)
        self._step()

    def checkpoint(self, name: str, prefix: Prefix) -> envelope_pb2.Envelope:
        """Sign what is committed to so far."""
        begun = self.disk[name].begun
        statement = statements_pb2.Checkpoint(
            session_id=begun.session_id,
            profile_sha256=begun.profile_sha256,
            client_nonce=begun.client_nonce,
            block_count=prefix.block_count,
            token_count=prefix.token_count,
            token_root=prefix.token_root,
            provider_time=self.clock.steady.now(),
        )
        return self._sign(statement, envelope.CHECKPOINT)

    def finish(self, name: str, answer: bytes) -> Ended:
        return self.abort(name, _WHOLE, answer)

    def abort(
        self, name: str, reason: statements_pb2.AbortReason.ValueType, answer: bytes
    ) -> Ended:
        self._alive()
        stream = self.streams.pop(name)
        self._step()
        commitment = self._end(self.disk[name], stream.builder.finish(), reason, answer)
        self._step()
        return Ended(commitment, stream.due)

    def leave(self, name: str) -> None:
        self.abort(name, statements_pb2.ABORT_REASON_CANCELLED, b"")

    def _end(
        self,
        kept: Kept,
        tree: TokenTree,
        reason: statements_pb2.AbortReason.ValueType,
        answer: bytes,
    ) -> envelope_pb2.Envelope:
        statement = statements_pb2.Commitment(
            answer_sha256=sha256(answer).digest(),
            token_root=tree.token_root,
            block_count=tree.block_count,
            reasoning_tokens=tree.reasoning_tokens,
            answer_tokens=len(answer),
            usage=usage_for(
                prompt_tokens=PROMPT_TOKENS,
                reasoning_tokens=tree.reasoning_tokens,
                answer_tokens=len(answer),
                counting=INSIDE,
            ),
            ended_at=self.clock.steady.now(),
            abort_reason=reason,
        )
        statement.MergeFrom(kept.begun)
        kept.commitment = self._sign(statement, envelope.COMMITMENT)
        manifest = statements_pb2.Manifest(
            commitment_sha256=sha256(kept.commitment.payload).digest(),
            blocks=tree.entries,
            provider_time=self.clock.steady.now(),
        )
        kept.manifest = self._sign(manifest, envelope.MANIFEST)
        spec, size = self.profile.message.embedding, self.profile.block_size
        windows = [
            quantised_windows(
                self.models.embedder,
                spec,
                window_texts(
                    self.models.tokenizer,
                    spec,
                    tree.token_ids.slice(index * size, (index + 1) * size).tolist(),
                ),
            )
            for index in range(tree.block_count)
        ]
        kept.opener = Opener(kept.secret, tree, windows, size, self.models.table)
        return kept.commitment

    def find(self, name: str) -> envelope_pb2.Envelope | None:
        self._alive()
        return self.disk[name].commitment

    # Audits

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        self._alive()
        kept = self._kept(commitment_sha256)
        assert kept is not None
        assert kept.opener is not None
        assert kept.manifest is not None
        if kept.fingerprints is None:
            statement = statements_pb2.Fingerprints(
                commitment_sha256=commitment_sha256,
                fingerprint_root=kept.opener.fingerprint_root,
                size=kept.opener.tree.block_count,
                provider_time=self.clock.steady.now(),
            )
            kept.fingerprints = self._sign(statement, envelope.FINGERPRINTS)
        return kept.manifest, kept.fingerprints

    def answer(
        self, commitment_sha256: bytes, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[envelope_pb2.Envelope | None]:
        return [self._answer(commitment_sha256, challenge) for challenge in challenges]

    def _answer(
        self, commitment_sha256: bytes, signed: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope | None:
        kept = self._kept(commitment_sha256)
        if kept is None:
            return None
        try:
            self._alive()
            challenge = self._read(kept, signed)
            if challenge is None:
                return None
            step = self._given(kept, signed, challenge)
        except DiedError:
            return None
        except ExposureCapError:
            return self._refused(kept, signed, opening_pb2.REFUSAL_REASON_EXPOSURE_CAP)
        if step is None:
            return self._refused(kept, signed, opening_pb2.REFUSAL_REASON_FLIPS_USED_UP)
        return self._opened(kept, challenge, step)

    def _kept(self, commitment_sha256: bytes) -> Kept | None:
        for kept in self.disk.values():
            signed = kept.commitment
            if signed is not None and sha256(signed.payload).digest() == commitment_sha256:
                return kept
        return None

    def _read(self, kept: Kept, signed: envelope_pb2.Envelope) -> Challenge | None:
        """Return a challenge; None for what is none of this commitment."""
        whole = signed.payload_type == envelope.WHOLE_CHALLENGE
        kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        try:
            envelope.verify(signed, kind, self.verifiers)
            read = read_whole_challenge if whole else read_challenge
            challenge: Challenge = read(signed.payload)
        except (SignatureError, StatementError):
            return None
        fingerprints = kept.fingerprints
        if fingerprints is None or not self._opener(kept).token_counts:
            return None
        if challenge.fingerprints_sha256 != sha256(fingerprints.payload).digest():
            return None
        late = self.clock() - read_time(challenge.deadline)
        return None if late.total_seconds() > CLOCK_SKEW_SECONDS else challenge

    def _given(
        self, kept: Kept, signed: envelope_pb2.Envelope, challenge: Challenge
    ) -> opening_pb2.AnsweredChallenge | None:
        """Give a challenge its flip; None where there is none left."""
        for step in kept.answered:
            if step.challenge.payload == signed.payload:
                return step
        ledger = self.ledger(kept, challenge)
        tree = self._opener(kept).tree
        caps = Caps.of(
            self.profile.message.caps, tokens=tree.reasoning_tokens, blocks=tree.block_count
        )
        if isinstance(challenge, opening_pb2.WholeBlockChallenge):
            ledger.require_whole(caps, blocks=challenge.blocks)
        else:
            ledger.require(
                caps,
                blocks=challenge.blocks,
                token_blocks=challenge.token_blocks,
                tokens_per_block=challenge.tokens_per_block,
            )
        index = self.flip_index(kept)
        if index > FLIP_CHAIN_LENGTH:
            return None
        step = opening_pb2.AnsweredChallenge(
            challenge=signed, flip_index=index, flip=draw.flip_for(kept.flip_secret, index)
        )
        self._step()
        kept.answered.append(step)
        self._step()
        self.entered(kept, ledger, step)
        return step

    def flip_index(self, kept: Kept) -> int:
        """Return the link that the next challenge is given."""
        return len(kept.answered) + 1

    def ledger(self, kept: Kept, challenge: Challenge) -> ExposureLedger:
        """Return the ledger that a challenge is held against, made of what is on disk."""
        del challenge
        key = kept.secret.session_id
        if key not in self.ledgers:
            self.ledgers[key] = ExposureLedger()
            for step in kept.answered:
                self.entered(kept, self.ledgers[key], step)
        return self.ledgers[key]

    def entered(
        self, kept: Kept, ledger: ExposureLedger, step: opening_pb2.AnsweredChallenge
    ) -> None:
        """Enter what an answer opens."""
        counts = self._opener(kept).token_counts
        if step.challenge.payload_type == envelope.WHOLE_CHALLENGE:
            whole = read_whole_challenge(step.challenge.payload)
            ledger.add_whole(draw.drawn_whole_by(whole, step.flip, len(counts)))
            return
        drawn = draw.drawn_by(
            read_challenge(step.challenge.payload),
            step.flip,
            counts,
            run_tokens=self.profile.run_tokens,
        )
        ledger.add(drawn, edge=(len(counts) - 1, counts[-1] - 1))

    def _opened(
        self, kept: Kept, challenge: Challenge, step: opening_pb2.AnsweredChallenge
    ) -> envelope_pb2.Envelope:
        opener = self._opener(kept)
        named = sha256(step.challenge.payload).digest()
        before = [earlier for earlier in kept.answered if earlier.flip_index < step.flip_index]
        if isinstance(challenge, opening_pb2.WholeBlockChallenge):
            indices = draw.drawn_whole_by(challenge, step.flip, len(opener.token_counts))
            whole = opening_pb2.WholeBlockOpening(
                challenge_sha256=named,
                flip_index=step.flip_index,
                flip=step.flip,
                blocks=[opener.whole(index, self.models.tokenizer) for index in indices],
                answered=before,
                provider_time=self.clock.steady.now(),
            )
            return self._sign(whole, envelope.WHOLE_OPENING)
        drawn = draw.drawn_by(
            challenge, step.flip, opener.token_counts, run_tokens=self.profile.run_tokens
        )
        opening = opening_pb2.Opening(
            challenge_sha256=named,
            flip_index=step.flip_index,
            flip=step.flip,
            blocks=[opener.block(block) for block in drawn.blocks],
            token_blocks=[opener.token_block(block) for block in drawn.token_blocks],
            edge=opener.edge(),
            answered=before,
            provider_time=self.clock.steady.now(),
        )
        return self._sign(opening, envelope.OPENING)

    def _refused(
        self,
        kept: Kept,
        signed: envelope_pb2.Envelope,
        reason: opening_pb2.RefusalReason.ValueType,
    ) -> envelope_pb2.Envelope:
        refusal = opening_pb2.Refusal(
            challenge_sha256=sha256(signed.payload).digest(),
            reason=reason,
            answered=kept.answered,
            provider_time=self.clock.steady.now(),
        )
        return self._sign(refusal, envelope.REFUSAL)

    @staticmethod
    def _opener(kept: Kept) -> Opener:
        assert kept.opener is not None
        return kept.opener

    # Life and death

    def die(self, after: int) -> None:
        self._steps = after

    def restart(self) -> None:
        self._steps, self._dead = None, False
        self.streams.clear()
        self.ledgers.clear()
        self.clock.start()
        for kept in self.disk.values():
            if kept.commitment is None:
                self.recover(kept)

    def recover(self, kept: Kept) -> None:
        """Close a reply that a death cut off."""
        builder = self.builder(kept.secret)
        for block in kept.blocks:
            builder.append(block)
        self._end(kept, builder.finish(), _CRASHED, b"")

    def close(self) -> None:
        """Do nothing: there is nothing but memory."""

    def _alive(self) -> None:
        if self._dead:
            raise DiedError

    def _step(self) -> None:
        """Take a step: the process may die here."""
        if self._steps is not None:
            self._steps -= 1
            self._dead = self._steps < 0
        self._alive()

    def _sign(self, message: Message, payload_type: str) -> envelope_pb2.Envelope:
        raw = message.SerializeToString(deterministic=True)
        return envelope.sign(raw, payload_type, self.signer)


def _made_up(what: str, number: int) -> bytes:
    return sha256(f"{what} {number}".encode()).digest()
