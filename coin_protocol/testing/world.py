"""A whole protocol run as objects in memory, the same for the same seed.

`World` holds the keys, `Reply` what one reply leaves with provider and client, `Audit` what a
verifier gathers. Every signed message is made by a method that takes an `edit`, so that an
attack is a change to one object:

    world = World()
    reply = world.reply(tokens=20)
    case = world.audit(reply).ask().case()
    forged = world.reply(tokens=20, edit_commitment=lambda c: setattr(c, "block_count", 9))

Imports neither SDK: an implementation can be tested against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256, shake_256
from typing import Final, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric import ed25519
from google.protobuf.message import Message

from coin_protocol import draw, envelope
from coin_protocol.checks import Case, Trust
from coin_protocol.commitment import CommitmentBuilder, SessionSecret, TokenTree
from coin_protocol.embedding import quantised_windows, window_texts
from coin_protocol.encoding import digest
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned, sign_key_set, stamp
from coin_protocol.opening import Opener
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import RECEIPT_FORMAT
from coin_protocol.signer import KeySigner
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.small import SmallModels, small_profile
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2

M = TypeVar("M", bound=Message)
Edit = Callable[[M], object]

START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROVIDER: Final = "provider"
VERIFIER: Final = "verifier"
ANSWER_TOKENS: Final = 5
SECONDS_PER_BLOCK: Final = 0.1


def _keep(message: object) -> None:
    """Edit nothing."""


@dataclass(frozen=True)
class World:
    """Keys, models and rules; everything random comes out of `seed`."""

    seed: str = "world"
    profile: Profile = field(default_factory=small_profile)
    policy: Policy = field(
        default_factory=lambda: Policy.from_bytes(rules_policy().SerializeToString())
    )

    def random(self, what: str, count: int) -> bytes:
        """Return `count` bytes that depend on the seed and on `what`."""
        return shake_256(f"{self.seed}/{what}".encode()).digest(count)

    def signer(self, name: str) -> KeySigner:
        """Return the Ed25519 signer of this name."""
        raw = self.random(f"key {name}", 32)
        return KeySigner(name, ed25519.Ed25519PrivateKey.from_private_bytes(raw))

    @property
    def models(self) -> SmallModels:
        """The small models under this world's profile."""
        return SmallModels(self.profile)

    @property
    def trust(self) -> Trust:
        """The provider's root and the verifier's key, pinned."""
        verifiers = pinned("verifiers", [self.signer(VERIFIER).public])
        return Trust([self.signer(ROOT_KEY_NAME).public], verifiers)

    @property
    def root_chain(self) -> tuple[bytes, ...]:
        """The certificates of the provider's root: none, it is pinned."""
        return ()

    def key_set(
        self,
        *,
        not_before: datetime = START - timedelta(days=1),
        not_after: datetime = START + timedelta(days=1),
        revoked_at: datetime | None = None,
    ) -> envelope_pb2.Envelope:
        """Return the provider's key set with one key."""
        listed = ListedKey(self.signer(PROVIDER).public, not_before, not_after, revoked_at)
        root = self.signer(ROOT_KEY_NAME)
        return sign_key_set(PROVIDER, [listed], root=root, issued_at=START, sequence=1)

    def sign(
        self, message: Message, payload_type: str, name: str = PROVIDER
    ) -> envelope_pb2.Envelope:
        """Sign a message as `name`."""
        payload = message.SerializeToString(deterministic=True)
        return envelope.sign(payload, payload_type, self.signer(name))

    def token_ids(self, count: int) -> list[int]:
        """Return ids of the small vocabulary."""
        return [byte + 40 for byte in self.random("ids", count)]

    def reply(
        self,
        *,
        tokens: int = 20,
        edit_checkpoint: Edit[statements_pb2.Checkpoint] = _keep,
        edit_commitment: Edit[statements_pb2.Commitment] = _keep,
        edit_fingerprints: Edit[statements_pb2.Fingerprints] = _keep,
        edit_manifest: Edit[statements_pb2.Manifest] = _keep,
        edit_receipt: Edit[receipt_pb2.Receipt] = _keep,
        opener: Callable[[Opener], Opener] = lambda honest: honest,
    ) -> Reply:
        """Return what a reply of `tokens` reasoning tokens leaves behind.

        Edits are applied before signing; `opener` may replace what the provider keeps.
        """
        models, profile = self.models, self.profile
        secret = SessionSecret(self.random("session", 16), self.random("secret", 32))
        nonce = self.random("client nonce", 32)
        request, answer = b'{"messages": []}', b"the answer"
        builder = CommitmentBuilder(
            secret, block_size=profile.block_size, fingerprints=models.table.fingerprints
        )
        ids = self.token_ids(tokens)
        prefixes = builder.append(ids)
        tree = builder.finish()
        spec = profile.message.embedding
        windows = [
            quantised_windows(
                models.embedder, spec, window_texts(models.tokenizer, spec, _block(tree, i, self))
            )
            for i in range(tree.block_count)
        ]
        keeps = opener(Opener(secret, tree, windows, profile.block_size, models.table))

        receipt = receipt_pb2.Receipt(
            format=RECEIPT_FORMAT,
            key_set=self.key_set(),
            root_chain=self.root_chain,
            client_nonce=nonce,
            request=request,
            answer=answer,
            sent_at=stamp(START),
        )
        for prefix in prefixes:
            time = START + timedelta(seconds=prefix.block_count * SECONDS_PER_BLOCK)
            checkpoint = statements_pb2.Checkpoint(
                session_id=secret.session_id,
                profile_sha256=profile.digest,
                client_nonce=nonce,
                block_count=prefix.block_count,
                token_count=prefix.token_count,
                token_root=prefix.token_root,
                provider_time=stamp(time),
            )
            edit_checkpoint(checkpoint)
            receipt.checkpoints.add(
                checkpoint=self.sign(checkpoint, envelope.CHECKPOINT), seen_at=stamp(time)
            )
        end = START + timedelta(seconds=(tree.block_count + 1) * SECONDS_PER_BLOCK)
        receipt.answer_first_at.CopyFrom(stamp(end))
        receipt.answer_last_at.CopyFrom(stamp(end))
        commitment = statements_pb2.Commitment(
            profile_sha256=profile.digest,
            provider=PROVIDER,
            model="model",
            session_id=secret.session_id,
            client_nonce=nonce,
            request_sha256=sha256(request).digest(),
            answer_sha256=sha256(answer).digest(),
            token_root=keeps.tree.token_root,
            block_count=keeps.tree.block_count,
            reasoning_tokens=keeps.tree.reasoning_tokens,
            answer_tokens=ANSWER_TOKENS,
            id_source=statements_pb2.ID_SOURCE_SAMPLED,
            usage=usage_for(
                prompt_tokens=7,
                reasoning_tokens=keeps.tree.reasoning_tokens,
                answer_tokens=ANSWER_TOKENS,
                counting=INSIDE,
            ),
            flip_anchor=draw.flip_anchor(self.random("flip", 32)),
            started_at=stamp(START),
            ended_at=stamp(end),
        )
        edit_commitment(commitment)
        receipt.commitment.CopyFrom(self.sign(commitment, envelope.COMMITMENT))
        receipt.billed.CopyFrom(commitment.usage)
        named = digest(receipt.commitment.payload)
        fingerprints = statements_pb2.Fingerprints(
            commitment_sha256=named,
            fingerprint_root=keeps.fingerprint_root,
            size=keeps.tree.block_count,
            provider_time=stamp(end),
        )
        edit_fingerprints(fingerprints)
        receipt.fingerprints.CopyFrom(self.sign(fingerprints, envelope.FINGERPRINTS))
        manifest = statements_pb2.Manifest(
            commitment_sha256=named, blocks=keeps.tree.entries, provider_time=stamp(end)
        )
        edit_manifest(manifest)
        edit_receipt(receipt)
        return Reply(self, receipt, self.sign(manifest, envelope.MANIFEST), keeps)

    def audit(self, reply: Reply) -> Audit:
        """Return an audit of a reply, nothing asked yet."""
        return Audit(reply)


def _block(tree: TokenTree, index: int, world: World) -> list[int]:
    start = index * world.profile.block_size
    ids: list[int] = tree.token_ids.slice(start, start + world.profile.block_size).tolist()
    return ids


@dataclass(frozen=True)
class Reply:
    """One reply: the client's receipt, and the manifest and opener that the provider has."""

    world: World
    receipt: receipt_pb2.Receipt = field(repr=False)
    manifest: envelope_pb2.Envelope = field(repr=False)
    opener: Opener = field(repr=False)


@dataclass(frozen=True)
class Audit:
    """A reply and the rounds so far. `ask` and `ask_whole` return a new audit with one more."""

    reply: Reply
    rounds: tuple[receipt_pb2.Round, ...] = field(default=(), repr=False)
    whole_rounds: tuple[receipt_pb2.Round, ...] = field(default=(), repr=False)

    @property
    def world(self) -> World:
        """Where all this happens."""
        return self.reply.world

    def ask(
        self,
        *,
        blocks: int = 1,
        token_blocks: int = 0,
        tokens_per_block: int = 2,
        edit_challenge: Edit[opening_pb2.Challenge] = _keep,
        edit_opening: Edit[opening_pb2.Opening] = _keep,
        edit_round: Edit[receipt_pb2.Round] = _keep,
    ) -> Self:
        """Challenge the provider once more; it answers whatever the caps say."""
        number = len(self.rounds) + 1
        challenge = opening_pb2.Challenge(
            fingerprints_sha256=digest(self.reply.receipt.fingerprints.payload),
            verifier=VERIFIER,
            nonce=self.world.random(f"challenge {number}", 32),
            round=number,
            blocks=blocks,
            token_blocks=token_blocks,
            tokens_per_block=tokens_per_block,
            deadline=stamp(START + timedelta(hours=2)),
        )
        edit_challenge(challenge)
        signed = self.world.sign(challenge, envelope.CHALLENGE, VERIFIER)
        flip_index, flip = self._flip()
        opener = self.reply.opener
        drawn = draw.drawn_by(
            challenge, flip, opener.token_counts, run_tokens=self.world.profile.run_tokens
        )
        opening = opening_pb2.Opening(
            challenge_sha256=digest(signed.payload),
            flip_index=flip_index,
            flip=flip,
            blocks=[opener.block(block) for block in drawn.blocks],
            token_blocks=[opener.token_block(block) for block in drawn.token_blocks],
            edge=opener.edge(),
            provider_time=stamp(START + timedelta(hours=1)),
            answered=self.answered(),
        )
        edit_opening(opening)
        entry = self._round(signed)
        entry.opening.CopyFrom(self.world.sign(opening, envelope.OPENING))
        edit_round(entry)
        return replace(self, rounds=(*self.rounds, entry))

    def ask_whole(
        self,
        *,
        blocks: int = 1,
        edit_challenge: Edit[opening_pb2.WholeBlockChallenge] = _keep,
        edit_opening: Edit[opening_pb2.WholeBlockOpening] = _keep,
        edit_round: Edit[receipt_pb2.Round] = _keep,
    ) -> Self:
        """Challenge the provider to open blocks whole."""
        number = len(self.whole_rounds) + 1
        challenge = opening_pb2.WholeBlockChallenge(
            fingerprints_sha256=digest(self.reply.receipt.fingerprints.payload),
            verifier=VERIFIER,
            nonce=self.world.random(f"whole challenge {number}", 32),
            round=number,
            blocks=blocks,
            deadline=stamp(START + timedelta(hours=2)),
        )
        edit_challenge(challenge)
        signed = self.world.sign(challenge, envelope.WHOLE_CHALLENGE, VERIFIER)
        flip_index, flip = self._flip()
        opener = self.reply.opener
        tokenizer = self.world.models.tokenizer
        opening = opening_pb2.WholeBlockOpening(
            challenge_sha256=digest(signed.payload),
            flip_index=flip_index,
            flip=flip,
            blocks=[
                opener.whole(index, tokenizer)
                for index in draw.drawn_whole_by(challenge, flip, len(opener.token_counts))
            ],
            provider_time=stamp(START + timedelta(hours=1)),
            answered=self.answered(),
        )
        edit_opening(opening)
        entry = self._round(signed)
        entry.opening.CopyFrom(self.world.sign(opening, envelope.WHOLE_OPENING))
        edit_round(entry)
        return replace(self, whole_rounds=(*self.whole_rounds, entry))

    def answered(self) -> list[opening_pb2.AnsweredChallenge]:
        """Return the challenges that were answered so far, in the order of their links."""
        kinds = (
            (opening_pb2.Opening, self.rounds),
            (opening_pb2.WholeBlockOpening, self.whole_rounds),
        )
        found = []
        for kind, rounds in kinds:
            for entry in rounds:
                if entry.HasField("opening"):
                    opening = kind.FromString(entry.opening.payload)
                    found.append(
                        opening_pb2.AnsweredChallenge(
                            challenge=entry.challenge,
                            flip_index=opening.flip_index,
                            flip=opening.flip,
                        )
                    )
        return sorted(found, key=lambda one: one.flip_index)

    def case(self) -> Case:
        """Return the evidence so far."""
        models = self.world.models
        return Case(
            receipt=self.reply.receipt,
            trust=self.world.trust,
            profile=self.world.profile,
            policy=self.world.policy,
            manifest=self.reply.manifest,
            rounds=self.rounds,
            whole_rounds=self.whole_rounds,
            installed=(models.tokenizer, models.embedder),
        )

    def _flip(self) -> tuple[int, bytes]:
        index = len(self.answered()) + 1
        return index, draw.flip_for(self.world.random("flip", 32), index)

    def _round(self, challenge: envelope_pb2.Envelope) -> receipt_pb2.Round:
        return receipt_pb2.Round(
            challenge=challenge,
            sent_at=stamp(START + timedelta(hours=1)),
            received_at=stamp(START + timedelta(hours=1, seconds=1)),
        )
