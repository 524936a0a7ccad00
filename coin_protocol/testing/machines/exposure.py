"""Two verifiers ask for more and more of a commitment, and the provider is started again.

Whatever they ask and in whatever order, no cap may be passed; a challenge that was answered is
answered so again; no two share a flip; and a refusal is borne out by what was answered before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import ed25519
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from coin_protocol import envelope
from coin_protocol.keys import KeyRing
from coin_protocol.keyset import pinned, stamp
from coin_protocol.profile import Profile
from coin_protocol.signer import KeySigner
from coin_protocol.testing.machines.rules import (
    FLIPS,
    Answer,
    Challenge,
    Ledger,
    Makes,
    Opened,
    caps_of,
    drawn_by,
    draws_something,
    flip_after,
    require,
    undated,
)
from coin_protocol.testing.machines.stream import PICKS
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import envelope_pb2, opening_pb2

M = TypeVar("M", bound=Message)

VERIFIERS: Final = ("verifier", "another verifier")
DEADLINE: Final = timedelta(hours=1)
"""Of challenges, by this process's clock."""

MOST_COMMITMENTS: Final = 4

_MILLION: Final = 1_000_000


class Asked(NamedTuple):
    """What a challenge asks for: blocks with embedding, token blocks, tokens in each."""

    blocks: int
    token_blocks: int
    tokens_per_block: int


ASKED: Final = st.builds(
    Asked,
    blocks=st.integers(0, 2) | st.integers(0, 6),
    token_blocks=st.integers(0, 2) | st.integers(0, 6),
    tokens_per_block=st.integers(0, 2) | st.integers(0, 9),
)

_TOKENS: Final = st.integers(1, 200)


def _agreed(least_ppm: int) -> st.SearchStrategy[Profile]:
    shares = st.integers(least_ppm, _MILLION)
    return st.builds(
        small_profile,
        block_size=st.integers(4, 9),
        window_tokens=st.integers(1, 4),
        tokens_ppm=shares,
        blocks_ppm=shares,
        whole_blocks_ppm=shares,
        run_tokens=st.integers(0, 4),
    )


AGREEMENTS: Final = _agreed(0) | _agreed(800_000) | _agreed(_MILLION)
"""Profiles of the small models with any caps, wide ones and none."""


@dataclass(frozen=True)
class Terms:
    """What is agreed before anything runs.

    Attributes:
        profile: Of the small models.
        verifiers: Whose challenges are answered.
    """

    profile: Profile
    verifiers: KeyRing


@dataclass(frozen=True)
class Committed:
    """A commitment that can be challenged.

    Attributes:
        name: What its system knows it by.
        fingerprints_sha256: What challenges name.
        flip_anchor: Where its hash chain ends.
    """

    name: bytes
    fingerprints_sha256: bytes
    flip_anchor: bytes


class ExposureSystem(Protocol):
    """What answers challenges, over the small models."""

    def commit(self, tokens: int) -> Committed:
        """Commit to so many reasoning tokens, of any ids, fingerprints and all."""

    def answer(
        self, committed: Committed, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[Answer | None]:
        """Return what each challenge is answered with: an opening, a refusal, or nothing signed.

        Several come at the same time, in no order. Nothing is signed for what is no challenge, or
        none of this commitment.
        """

    def restart(self) -> None:
        """Die, and start again over what was on disk."""

    def close(self) -> None:
        """Let go of everything."""


def verifier_key(name: str) -> KeySigner:
    """Return the key that a verifier of these machines signs with."""
    raw = sha256(f"machine key of {name}".encode()).digest()
    return KeySigner(name, ed25519.Ed25519PrivateKey.from_private_bytes(raw))


KEYS: Final = tuple(map(verifier_key, VERIFIERS))


def verifier_ring() -> KeyRing:
    """Return the keys of both verifiers, pinned."""
    return pinned("verifiers", [key.public for key in KEYS])


def sign_challenge(challenge: Challenge, key: KeySigner) -> envelope_pb2.Envelope:
    """Return a challenge, signed by a verifier."""
    whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
    kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
    return envelope.sign(challenge.SerializeToString(deterministic=True), kind, key)


def read(signed: envelope_pb2.Envelope) -> Challenge:
    """Return what a challenge says."""
    if signed.payload_type == envelope.WHOLE_CHALLENGE:
        return opening_pb2.WholeBlockChallenge.FromString(signed.payload)
    return opening_pb2.Challenge.FromString(signed.payload)


def changed(message: M, **fields: Any) -> M:  # noqa: ANN401 - of any message
    """Return a copy of a message with other fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


@dataclass(eq=False)
class _Commitment:
    """A commitment, and all that was answered of it.

    Attributes:
        committed: As the system told it.
        counts: Tokens of each block.
        ledger: What is open by what was shown.
        answered: The answered challenges, by their flips.
        answers: All but the date of each, by digest of the challenge.
        refused: Digests of challenges that were refused.
    """

    committed: Committed
    counts: list[int]
    ledger: Ledger
    answered: list[tuple[bytes, Opened]] = field(default_factory=list)
    answers: dict[bytes, bytes] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)

    def take(self, sent: Sequence[envelope_pb2.Envelope], came: Sequence[Answer | None]) -> None:
        """Check what challenges that were sent at the same time were answered with."""
        require(len(came) == len(sent), f"{len(came)} answers to {len(sent)} challenges")
        known = len(self.answered)
        pairs = list(zip(sent, came, strict=True))
        for signed, answer in sorted(pairs, key=lambda pair: _place(pair[1])):
            require(answer is not None, "a verifier's challenge was neither answered nor refused")
            if isinstance(answer, (opening_pb2.Opening, opening_pb2.WholeBlockOpening)):
                self._opened(signed, answer)
        for signed, answer in pairs:
            if isinstance(answer, opening_pb2.Refusal):
                self._refused(signed, answer, known)

    def _opened(
        self,
        signed: envelope_pb2.Envelope,
        answer: opening_pb2.Opening | opening_pb2.WholeBlockOpening,
    ) -> None:
        name, challenge = sha256(signed.payload).digest(), read(signed)
        whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
        kind = opening_pb2.WholeBlockOpening if whole else opening_pb2.Opening
        require(isinstance(answer, kind), f"{type(answer).__name__} is the other kind's answer")
        require(answer.challenge_sha256 == name, "the answer is to another challenge")
        require(draws_something(challenge), "a challenge that draws nothing was answered")
        require(name not in self.refused, "a challenge was refused, and answered later")
        if name in self.answers:
            require(undated(answer) == self.answers[name], "a challenge has two answers")
            return
        index = answer.flip_index
        require(
            index == len(self.answered) + 1,
            f"the challenge was given flip {index}; {len(self.answered)} were answered before",
        )
        self._require_listed(answer.answered, index - 1)
        require(index <= FLIPS, f"the chain has {FLIPS} flips; {index} were given")
        end = flip_after(answer.flip, index)
        require(end == self.committed.flip_anchor, "a flip does not lead to its anchor")
        require(
            not self.ledger.could_pass(challenge), "answered, though it could have passed a cap"
        )
        opened = Opened.shown(answer)
        drawn = drawn_by(challenge, answer.flip, self.counts, self.ledger.run_tokens)
        require(opened == drawn, f"{opened} was opened, drawn was {drawn}")
        self.ledger.add(opened)
        self.answered.append((name, opened))
        self.answers[name] = undated(answer)

    def _refused(
        self, signed: envelope_pb2.Envelope, refusal: opening_pb2.Refusal, known: int
    ) -> None:
        name, challenge = sha256(signed.payload).digest(), read(signed)
        require(refusal.challenge_sha256 == name, "the refusal is of another challenge")
        require(name not in self.answers, "a challenge was answered, and refused later")
        count = len(refusal.answered)
        require(
            known <= count <= len(self.answered), f"a refusal lists {count} answered challenges"
        )
        self._require_listed(refusal.answered, count)
        before = Ledger(self.ledger.caps, self.ledger.run_tokens)
        for _, opened in self.answered[:count]:
            before.add(opened)
        if refusal.reason == opening_pb2.REFUSAL_REASON_FLIPS_USED_UP:
            require(count == FLIPS, f"refused for want of flips, after {count}")
        else:
            require(before.could_pass(challenge), "refused, and no cap was in the way")
        self.refused.add(name)

    def _require_listed(self, listed: Iterable[opening_pb2.AnsweredChallenge], count: int) -> None:
        """Check that an answer lists what was given the first `count` flips, and nothing else."""
        found = sorted(listed, key=lambda shown: shown.flip_index)
        indices = [shown.flip_index for shown in found]
        require(
            indices == [*range(1, count + 1)],
            f"an answer lists what was given the flips {indices}; there are {count} before it",
        )
        for shown, (name, _) in zip(found, self.answered, strict=False):
            require(
                sha256(shown.challenge.payload).digest() == name,
                f"an answer lists another challenge than was given flip {shown.flip_index}",
            )
            end = flip_after(shown.flip, shown.flip_index)
            require(end == self.committed.flip_anchor, "an answer lists a flip of no chain")


def _place(answer: Answer | None) -> int:
    if isinstance(answer, (opening_pb2.Opening, opening_pb2.WholeBlockOpening)):
        return answer.flip_index
    return 0


@dataclass(frozen=True)
class _Sent:
    """A challenge that was sent once."""

    commitment: _Commitment = field(repr=False)
    signed: envelope_pb2.Envelope = field(repr=False)
    key: KeySigner


class ExposureMachine(RuleBasedStateMachine):
    """Challenges of both kinds by two verifiers, again and again, and restarts.

    Attributes:
        make: Makes the system; a subclass sets it.
    """

    make: ClassVar[Makes[Terms, ExposureSystem]]
    system: ExposureSystem

    commitments: Bundle[_Commitment] = Bundle("commitments")
    sent: Bundle[_Sent] = Bundle("sent")

    def __init__(self) -> None:
        """Begin with nothing committed."""
        super().__init__()
        self.stack = ExitStack()
        self.profile = small_profile()
        self.all: list[_Commitment] = []
        self.nonces = 0

    @initialize(target=commitments, profile=AGREEMENTS, tokens=_TOKENS)
    def agree(self, profile: Profile, tokens: int) -> _Commitment:
        """Agree on caps, and commit to some tokens."""
        self.profile = profile
        self.system = type(self).make(Terms(profile, verifier_ring()))
        self.stack.callback(self.system.close)
        return self._committed(tokens)

    @precondition(lambda self: len(self.all) < MOST_COMMITMENTS)
    @rule(target=commitments, tokens=_TOKENS)
    def commit(self, tokens: int) -> _Commitment:
        """Commit to some more."""
        return self._committed(tokens)

    @rule(target=sent, commitment=commitments, key=st.sampled_from(KEYS), asked=ASKED)
    def ask(self, commitment: _Commitment, key: KeySigner, asked: Asked) -> _Sent:
        """Ask for tokens and embeddings."""
        return self._send(commitment, self._challenge(commitment, asked, key), key)

    @rule(target=sent, commitment=commitments, key=st.sampled_from(KEYS), blocks=st.integers(0, 3))
    def ask_whole(self, commitment: _Commitment, key: KeySigner, blocks: int) -> _Sent:
        """Ask for blocks whole."""
        challenge = opening_pb2.WholeBlockChallenge(blocks=blocks)
        return self._send(commitment, self._begun(commitment, challenge, key), key)

    @rule(again=sent)
    def ask_again(self, again: _Sent) -> None:
        """Send a challenge once more: it keeps its answer."""
        self._send(again.commitment, again.signed, again.key)

    @rule(target=sent, before=sent, rounds=st.integers(0, 2), asked=ASKED)
    def ask_under_the_same_nonce(self, before: _Sent, rounds: int, asked: Asked) -> _Sent:
        """Sign a challenge again with other numbers and the same nonce: it is another one."""
        challenge = read(before.signed)
        if isinstance(challenge, opening_pb2.WholeBlockChallenge):
            other: Challenge = changed(
                challenge, round=challenge.round + rounds, blocks=max(1, asked.blocks)
            )
        else:
            fields = asked._asdict()
            other = changed(challenge, round=challenge.round + rounds, **fields)
        signed = sign_challenge(other, before.key)
        return self._send(before.commitment, signed, before.key)

    @rule(before=sent, fake=st.sampled_from(["payload", "kind", "key", "nobody"]))
    def ask_what_is_no_challenge(self, before: _Sent, fake: str) -> None:
        """Send what no verifier signed so: it is given no answer and no flip."""
        signed = envelope_pb2.Envelope()
        signed.CopyFrom(before.signed)
        challenge = read(before.signed)
        if fake == "payload":
            signed.payload = changed(challenge, nonce=self._nonce()).SerializeToString()
        elif fake == "kind":
            whole = signed.payload_type == envelope.WHOLE_CHALLENGE
            signed.payload_type = envelope.CHALLENGE if whole else envelope.WHOLE_CHALLENGE
        elif fake == "key":
            other = changed(challenge, nonce=self._nonce())
            signed = sign_challenge(other, verifier_key("a stranger"))
        else:
            signed.ClearField("signatures")
        self._ignored(before.commitment, signed)

    @rule(before=sent, commitment=commitments)
    def ask_of_another(self, before: _Sent, commitment: _Commitment) -> None:
        """Send a challenge to another commitment than it names."""
        if commitment is not before.commitment:
            self._ignored(commitment, before.signed)

    @rule(commitment=commitments, key=st.sampled_from(KEYS), asked=ASKED)
    def ask_too_late(self, commitment: _Commitment, key: KeySigner, asked: Asked) -> None:
        """Send a challenge whose deadline has long passed."""
        late = -2 * DEADLINE
        self._ignored(commitment, self._challenge(commitment, asked, key, late))

    @rule(
        commitment=commitments,
        several=st.lists(st.tuples(ASKED, st.booleans(), PICKS), min_size=2, max_size=8),
        twice=st.booleans(),
    )
    def ask_at_once(
        self, commitment: _Commitment, several: list[tuple[Asked, bool, int]], *, twice: bool
    ) -> None:
        """Send challenges of both kinds and both verifiers at the same time, one of them twice."""
        made = []
        for asked, whole, pick in several:
            key = KEYS[pick % len(KEYS)]
            if whole:
                challenge = opening_pb2.WholeBlockChallenge(blocks=max(1, asked.blocks))
                made.append(self._begun(commitment, challenge, key))
            else:
                least = asked._replace(tokens_per_block=max(1, asked.tokens_per_block))
                if not least.blocks and not least.token_blocks:
                    least = least._replace(token_blocks=1)
                made.append(self._challenge(commitment, least, key))
        if twice:
            made.append(made[0])
        commitment.take(made, self.system.answer(commitment.committed, made))

    @rule()
    def restart(self) -> None:
        """Die, and start again: nothing of what was opened may be forgotten."""
        self.system.restart()

    @invariant()
    def no_cap_is_passed(self) -> None:
        """Count what was shown."""
        for commitment in self.all:
            commitment.ledger.require_kept()

    def teardown(self) -> None:
        """Close the system."""
        self.stack.close()

    def _committed(self, tokens: int) -> _Commitment:
        size = self.profile.block_size
        counts = [min(size, tokens - first) for first in range(0, tokens, size)]
        caps = caps_of(self.profile.message.caps, counts)
        ledger = Ledger(caps, self.profile.message.caps.run_tokens)
        made = _Commitment(self.system.commit(tokens), counts, ledger)
        self.all.append(made)
        return made

    def _send(
        self, commitment: _Commitment, signed: envelope_pb2.Envelope, key: KeySigner
    ) -> _Sent:
        if draws_something(read(signed)):
            commitment.take([signed], self.system.answer(commitment.committed, [signed]))
        else:
            self._ignored(commitment, signed)
        return _Sent(commitment, signed, key)

    def _ignored(self, commitment: _Commitment, signed: envelope_pb2.Envelope) -> None:
        (answer,) = self.system.answer(commitment.committed, [signed])
        require(answer is None, f"what is no challenge of it was answered: {answer}")

    def _challenge(
        self,
        commitment: _Commitment,
        asked: Asked,
        key: KeySigner,
        deadline: timedelta = DEADLINE,
    ) -> envelope_pb2.Envelope:
        challenge = opening_pb2.Challenge(**asked._asdict())
        return self._begun(commitment, challenge, key, deadline)

    def _begun(
        self,
        commitment: _Commitment,
        challenge: Challenge,
        key: KeySigner,
        deadline: timedelta = DEADLINE,
    ) -> envelope_pb2.Envelope:
        """Fill in what all challenges have, and sign."""
        challenge.fingerprints_sha256 = commitment.committed.fingerprints_sha256
        challenge.verifier = key.public.name
        challenge.nonce = self._nonce()
        challenge.round = 1
        challenge.deadline.CopyFrom(stamp(datetime.now(UTC) + deadline))
        return sign_challenge(challenge, key)

    def _nonce(self) -> bytes:
        self.nonces += 1
        return sha256(f"nonce {self.nonces}".encode()).digest()
