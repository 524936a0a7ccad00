"""A whole provider: replies stream, are audited by two verifiers, and its process dies at any time.

Whatever happens, an honest provider's evidence passes every deterministic check; what it handed
over is there after a crash, word for word; a reply that a crash cut off is committed to as such; no
cap is passed, no two answers share a flip, and an answer that was given is given again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import ClassVar, Final

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from coin_protocol import envelope
from coin_protocol.checks import Case, Trust, run_checks
from coin_protocol.keyset import SignedKeySet
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import RECEIPT_FORMAT
from coin_protocol.signer import KeySigner
from coin_protocol.statements import read_key_set
from coin_protocol.testing.machines.exposure import (
    AGREEMENTS,
    ASKED,
    KEYS,
    Asked,
    Terms,
    changed,
    read,
    sign_challenge,
    verifier_key,
    verifier_ring,
)
from coin_protocol.testing.machines.provider_system import (
    CANCELLED,
    CRASHED,
    WHOLE,
    DiedError,
    ProviderSystem,
    Reply,
    Sent,
)
from coin_protocol.testing.machines.rules import (
    Answer,
    Challenge,
    Ledger,
    Makes,
    caps_of,
    draws_something,
    require,
)
from coin_protocol.testing.machines.stream import CHUNKS, PICKS, chunks
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.small import SmallModels, small_profile
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2

MOST_OPEN: Final = 4

MOST_HELD: Final = 8
"""Replies that are looked at after each death; of older ones, those that are picked."""

MOST_ROUNDS: Final = 6
"""Of each kind that are checked together: the latest."""

SECONDS_A_TOKEN: Final = 0.001

DEADLINE: Final = timedelta(seconds=60)

SKEW_SECONDS: Final = 290
"""By how much the provider's clock may be wrong: a little less than honest clocks may."""

_ENDS: Final = st.sampled_from(
    [
        WHOLE,
        statements_pb2.ABORT_REASON_UPSTREAM_ERROR,
        CANCELLED,
        statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED,
        None,
    ]
)


class ProviderMachine(RuleBasedStateMachine):
    """Replies, audits, rotations, clocks that are wrong, and deaths in between.

    Messages come late, twice and in any order. Each piece of evidence is checked as an audit checks
    it, with the key set that the provider serves then.

    Attributes:
        make: Makes the system; a subclass sets it.
    """

    make: ClassVar[Makes[Terms, ProviderSystem]]
    system: ProviderSystem

    ended: Bundle[Reply] = Bundle("ended")
    sent: Bundle[Sent] = Bundle("sent")

    def __init__(self) -> None:
        """Begin without a reply."""
        super().__init__()
        self.stack = ExitStack()
        self.profile = small_profile()
        self.policy = Policy.from_bytes(rules_policy().SerializeToString(deterministic=True))
        self.open: list[Reply] = []
        self.held: list[Reply] = []
        self.passed = 0
        self.counted = 0
        self.deaths = 0

    @initialize(target=ended, profile=AGREEMENTS, token_ids=chunks(200))
    def agree(self, profile: Profile, token_ids: list[int]) -> Reply:
        """Agree on a profile, start the provider, and have it make a reply."""
        self.profile = profile
        models = SmallModels(profile)
        self.installed = models.tokenizer, models.embedder
        self.system = type(self).make(Terms(profile, verifier_ring()))
        self.stack.callback(self.system.close)
        self.trust = Trust([self.system.root], verifier_ring())
        reply = self._begun()
        self._append(reply, token_ids, wait=True)
        self._end(reply, b"the answer", WHOLE)
        return reply

    # What clients do

    @rule(pick=PICKS, new=st.booleans(), token_ids=CHUNKS, wait=st.booleans())
    def decode(self, pick: int, token_ids: list[int], *, new: bool, wait: bool) -> None:
        """Decode some tokens, of a reply that begins or of one under way."""
        more = new and len(self.open) < MOST_OPEN
        self._append(self._begun() if more else self._picked(pick), token_ids, wait=wait)

    @rule(target=ended, pick=PICKS, reason=_ENDS, answer=st.text(max_size=8))
    def end(
        self, pick: int, reason: statements_pb2.AbortReason.ValueType | None, answer: str
    ) -> Reply:
        """End a reply: whole, early, or by a task that is cancelled and waits for nothing."""
        reply = self._picked(pick)
        if reason is None:
            self._ending(reply, b"", CANCELLED)
            self.system.leave(reply.name)
        else:
            self._end(reply, answer.encode(), reason)
        return reply

    @rule(reply=ended)
    def look_again(self, reply: Reply) -> None:
        """Ask for a reply's commitment by its name, and check all evidence."""
        self._look(reply)

    # What verifiers do

    @rule(target=sent, reply=ended, key=st.sampled_from(KEYS), asked=ASKED, arrives=st.booleans())
    def ask(self, reply: Reply, key: KeySigner, asked: Asked, *, arrives: bool) -> Sent:
        """Ask for tokens and embeddings; the challenge may arrive later."""
        return self._ask(reply, opening_pb2.Challenge(**asked._asdict()), key, arrives=arrives)

    @rule(
        target=sent,
        reply=ended,
        key=st.sampled_from(KEYS),
        blocks=st.integers(0, 3),
        arrives=st.booleans(),
    )
    def ask_whole(self, reply: Reply, key: KeySigner, blocks: int, *, arrives: bool) -> Sent:
        """Ask for blocks whole; the challenge may arrive later."""
        challenge = opening_pb2.WholeBlockChallenge(blocks=blocks)
        return self._ask(reply, challenge, key, arrives=arrives)

    @rule(sent=sent)
    def arrive(self, sent: Sent) -> None:
        """Have a challenge arrive, for the first time or once more."""
        self._arrive(sent.reply, [sent])

    @rule(several=st.lists(sent, min_size=2, max_size=6))
    def arrive_at_once(self, several: list[Sent]) -> None:
        """Have challenges arrive at the same time: those to the commitment of the first."""
        reply = several[0].reply
        self._arrive(reply, [sent for sent in several if sent.reply is reply])

    @rule(target=sent, before=sent, rounds=st.integers(0, 2), blocks=st.integers(1, 4))
    def ask_under_the_same_nonce(self, before: Sent, rounds: int, blocks: int) -> Sent:
        """Sign a challenge again with other numbers and the same nonce: it is another one."""
        challenge = read(before.signed)
        number = challenge.round + rounds
        other = changed(challenge, round=number, blocks=blocks)
        made = replace(before, signed=sign_challenge(other, before.key))
        self._arrive(made.reply, [made])
        return made

    @rule(before=sent, stranger=st.booleans())
    def ask_what_is_no_challenge(self, before: Sent, *, stranger: bool) -> None:
        """Send what no verifier signed: nothing is opened for it."""
        other = changed(read(before.signed), nonce=self._nonce())
        signed = sign_challenge(other, verifier_key("a stranger"))
        if not stranger:
            signed.signatures[0].keyid = before.signed.signatures[0].keyid
        (answer,) = self.system.answer(before.reply.key, [signed])
        require(answer is None, "what no verifier signed was answered")

    # What happens to the provider

    @rule(
        target=ended,
        ahead=st.none() | st.integers(-SKEW_SECONDS, SKEW_SECONDS),
        busy=st.booleans(),
        pick=PICKS,
        token_ids=CHUNKS,
        answer=st.none() | st.text(max_size=8),
        after=st.integers(0, 12),
    )
    def die(
        self,
        ahead: int | None,
        pick: int,
        token_ids: list[int],
        answer: str | None,
        after: int,
        *,
        busy: bool,
    ) -> MultipleResults[Reply]:
        """Kill the process, also while it takes tokens or ends a reply; start it again.

        The end of a reply may then be on disk, or not. The clock may be another one afterwards.
        """
        done = []
        if busy:
            reply = self._picked(pick)
            self.system.die(after)
            with suppress(DiedError):
                self._append(reply, token_ids, wait=True)
                if answer is not None:
                    reply.receipt.answer, reply.ends = answer.encode(), {CRASHED, WHOLE}
                    self._end(reply, answer.encode(), WHOLE)
            done = [reply] if reply.ended else []
        return multiple(*self._restarted(ahead), *done)

    @rule(target=ended, several=st.lists(sent, min_size=1, max_size=4), after=st.integers(0, 12))
    def die_while_answering(self, several: list[Sent], after: int) -> MultipleResults[Reply]:
        """Kill the process while it answers challenges; each may have been given its flip."""
        reply = several[0].reply
        mine = [sent for sent in several if sent.reply is reply]
        self._prepare(reply)
        self.system.die(after)
        with suppress(DiedError):
            self._arrive(reply, mine, dying=True)
        died = self._restarted(None)
        self._arrive(reply, mine)
        return multiple(*died)

    @rule(hours=st.integers(1, 3))
    def rotate(self, hours: int) -> None:
        """Change the signing key."""
        before = self.system.key_set()
        self.system.rotate(timedelta(hours=hours))
        require(self._continues(before), "a rotated key set does not continue the older one")

    @rule(seconds=st.integers(0, 20) | st.integers(0, 400) | st.integers(0, 100_000))
    def time_passes(self, seconds: int) -> None:
        """Let time pass: keys end, and challenges under way come late."""
        self._pass(seconds)

    @invariant()
    def no_cap_is_passed(self) -> None:
        """Count what was shown."""
        for reply in self.held:
            if reply.ledger is not None:
                reply.ledger.require_kept()

    def teardown(self) -> None:
        """Close the system."""
        self.stack.close()

    # The client's side

    def _begun(self) -> Reply:
        """Begin a reply."""
        self.counted += 1
        name = f"reply {self.counted}"
        receipt = receipt_pb2.Receipt(
            format=RECEIPT_FORMAT,
            request=f"request {self.counted}".encode(),
            client_nonce=sha256(name.encode()).digest(),
            sent_at=self._now(),
        )
        reply = Reply(name, receipt)
        self.system.open(name, receipt.request, receipt.client_nonce)
        self.open.append(reply)
        self.held = [*self.held, reply][-MOST_HELD:]
        return reply

    def _picked(self, pick: int) -> Reply:
        """Return a reply under way; one that begins now, where there is none."""
        return self.open[pick % len(self.open)] if self.open else self._begun()

    def _append(self, reply: Reply, token_ids: Sequence[int], *, wait: bool) -> None:
        self._pass(len(token_ids) * SECONDS_A_TOKEN)
        reply.tokens += len(token_ids)
        self._saw(reply, self.system.append(reply.name, token_ids, wait=wait))
        if wait:
            self._saw_all(reply)

    def _saw(self, reply: Reply, checkpoints: Sequence[envelope_pb2.Envelope]) -> None:
        for checkpoint in checkpoints:
            reply.receipt.checkpoints.add(checkpoint=checkpoint, seen_at=self._now())

    def _saw_all(self, reply: Reply) -> None:
        """Check that there was a checkpoint at each full block."""
        full = reply.tokens // self.profile.block_size
        seen = len(reply.receipt.checkpoints)
        require(seen == full, f"{full} blocks are full, {seen} checkpoints came")

    def _ending(self, reply: Reply, answer: bytes, reason: int) -> None:
        """Note how a reply ends."""
        self.open.remove(reply)
        reply.receipt.answer = answer
        reply.ends = {reason}
        reply.ended, reply.deaths = True, self.deaths

    def _end(
        self,
        reply: Reply,
        answer: bytes,
        reason: statements_pb2.AbortReason.ValueType,
    ) -> None:
        """End a reply, and check what is handed over at its end."""
        if reason == WHOLE:
            ended = self.system.finish(reply.name, answer)
        else:
            ended = self.system.abort(reply.name, reason, answer)
        self._ending(reply, answer, reason)
        self._saw(reply, ended.checkpoints)
        self._saw_all(reply)
        reply.commitment = ended.commitment
        reply.receipt.answer_first_at.CopyFrom(self._now())
        reply.receipt.answer_last_at.CopyFrom(self._now())
        require(
            reply.statement.reasoning_tokens == reply.tokens,
            f"{reply.tokens} tokens were decoded, committed to are "
            f"{reply.statement.reasoning_tokens}",
        )
        self._look(reply)

    def _restarted(self, ahead: int | None) -> list[Reply]:
        """Start the provider again, and look what became of every reply; return the open ones."""
        if ahead is not None:
            self.system.set_clock(ahead)
        self.system.restart()
        self.deaths += 1
        died, self.open = self.open, []
        for reply in died:
            reply.gone = not reply.ended and not self.system.keeps_open_replies
            reply.ended = True
        for reply in self.held:
            self._look(reply)
        for reply in died:
            self._prepare(reply)
        return died

    def _look(self, reply: Reply) -> None:
        """Ask for a reply's commitment, and check it with all that is held of it."""
        found = self.system.find(reply.name)
        if not reply.ended or reply.gone:
            require(found is None, "there is a commitment to what has not ended")
            return
        ends = set(reply.ends)
        if reply.commitment is None and self.deaths > reply.deaths:
            ends.add(CRASHED)  # nobody waited for its end
        if found is None:
            held = reply.commitment is not None or bool(reply.receipt.checkpoints)
            require(not held, "what was handed over is gone")
            require(CRASHED in ends, "a reply that ended well has no commitment")
            reply.gone = True
            return
        if reply.commitment is None:
            reply.commitment, reply.ends = found, ends
        require(found == reply.commitment, "a reply has two commitments")
        statement = reply.statement
        require(
            statement.abort_reason in reply.ends,
            f"the commitment says {statement.abort_reason}, the reply ended as {reply.ends}",
        )
        require(statement.reasoning_tokens <= reply.tokens, "more tokens than were decoded")
        self._checked(reply)

    # The verifiers' side

    def _ask(self, reply: Reply, challenge: Challenge, key: KeySigner, *, arrives: bool) -> Sent:
        self._prepare(reply)
        challenge.fingerprints_sha256 = sha256(reply.receipt.fingerprints.payload).digest()
        challenge.verifier = key.public.name
        challenge.nonce = self._nonce()
        challenge.round = 1
        deadline = self._nanoseconds() + int(DEADLINE.total_seconds() * 1e9)
        challenge.deadline.CopyFrom(_stamp(deadline))
        sent = Sent(reply, sign_challenge(challenge, key), key, self._nanoseconds())
        if arrives:
            self._arrive(reply, [sent])
        return sent

    def _prepare(self, reply: Reply) -> None:
        """Have the manifest and fingerprints, where there is a commitment."""
        if reply.commitment is None:
            self._look(reply)
        if reply.commitment is None or reply.manifest is not None:
            return
        reply.manifest, fingerprints = self.system.manifest(reply.key)
        reply.receipt.fingerprints.CopyFrom(fingerprints)
        statement, size = reply.statement, self.profile.block_size
        tokens = statement.reasoning_tokens
        if tokens:
            counts = [min(size, tokens - first) for first in range(0, tokens, size)]
            caps = self.profile.message.caps
            reply.ledger = Ledger(caps_of(caps, counts), caps.run_tokens)
        self._checked(reply)

    def _arrive(self, reply: Reply, several: Sequence[Sent], *, dying: bool = False) -> None:
        """Have challenges to one commitment arrive at the same time, and check the answers."""
        self._prepare(reply)
        challenges = [sent.signed for sent in several]
        answers = self.system.answer(reply.key, challenges)
        require(len(answers) == len(several), f"{len(answers)} answers to {len(several)}")
        for sent, answer in zip(several, answers, strict=True):
            if answer is None:
                require(dying or not self._is_good(sent), "a challenge was not answered")
                continue
            challenge = read(sent.signed)
            parsed = _parsed(answer, challenge)
            require(
                reply.can_be_asked and draws_something(challenge),
                "what is no challenge was answered",
            )
            reply.entered(parsed, sha256(sent.signed.payload).digest())
            self._note(sent, answer)
        self._checked(reply)

    def _is_good(self, sent: Sent) -> bool:
        """Whether a challenge must be answered, or refused, now."""
        challenge = read(sent.signed)
        in_time = self._nanoseconds() <= challenge.deadline.ToNanoseconds()
        return sent.reply.can_be_asked and draws_something(challenge) and in_time

    def _note(self, sent: Sent, answer: envelope_pb2.Envelope) -> None:
        """Add a round to the evidence; what came late by the network's fault is left out."""
        now = self._nanoseconds()
        if now > read(sent.signed).deadline.ToNanoseconds():
            return
        entry = receipt_pb2.Round(
            challenge=sent.signed, sent_at=_stamp(sent.at), received_at=_stamp(now)
        )
        if answer.payload_type == envelope.REFUSAL:
            entry.refusal.CopyFrom(answer)
        else:
            entry.opening.CopyFrom(answer)
        whole = sent.signed.payload_type == envelope.WHOLE_CHALLENGE
        rounds = sent.reply.whole_rounds if whole else sent.reply.rounds
        rounds.append(entry)

    def _checked(self, reply: Reply) -> None:
        """Check all evidence of a reply, under the key set of now."""
        if reply.commitment is None:
            return
        receipt = reply.receipt
        receipt.commitment.CopyFrom(reply.commitment)
        served = self.system.key_set()
        if receipt.HasField("key_set"):
            require(
                self._continues(SignedKeySet(receipt.key_set)),
                "the key set of now does not continue the receipt's",
            )
        receipt.key_set.CopyFrom(served.signed)
        case = Case(
            receipt=receipt,
            trust=self.trust,
            profile=self.profile,
            policy=self.policy,
            manifest=reply.manifest,
            rounds=tuple(reply.rounds[-MOST_ROUNDS:]),
            whole_rounds=tuple(reply.whole_rounds[-MOST_ROUNDS:]),
            installed=self.installed,
            memo=reply.memo,
        )
        report = run_checks(case)
        failed = report.failed
        require(
            failed is None,
            f"{'' if failed is None else failed.code} fails for an honest provider: "
            f"{report.detail}",
        )
        answered = bool(reply.rounds) or bool(reply.whole_rounds)
        for code, applies in (
            ("SIGNATURE", True),
            ("BILL", True),
            ("CHECKPOINT_PREFIX", bool(receipt.checkpoints)),
            ("MANIFEST_ROOT", reply.manifest is not None),
            ("OPENING_PRESENT", answered),
        ):
            require(report.passed(code) or not applies, f"{code} did not run")

    def _continues(self, before: SignedKeySet) -> bool:
        """Whether the key set of now may be taken in place of an older one."""
        older, now = (read_key_set(keys.signed.payload) for keys in (before, self.system.key_set()))
        same = before.signed.payload == self.system.key_set().signed.payload
        listed = {key.key.keyid for key in now.keys}
        return same or (
            now.sequence > older.sequence and {key.key.keyid for key in older.keys} <= listed
        )

    # Clocks and nonces

    def _pass(self, seconds: float) -> None:
        self.passed += round(seconds * 1e9)
        self.system.pass_time(seconds)

    def _nanoseconds(self) -> int:
        return time.time_ns() + self.passed

    def _now(self) -> Timestamp:
        return _stamp(self._nanoseconds())

    def _nonce(self) -> bytes:
        self.counted += 1
        return sha256(f"nonce {self.counted}".encode()).digest()


def _parsed(answer: envelope_pb2.Envelope, challenge: Challenge) -> Answer:
    """Parse an answer to a challenge of this kind."""
    if answer.payload_type == envelope.REFUSAL:
        return opening_pb2.Refusal.FromString(answer.payload)
    whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
    kind = envelope.WHOLE_OPENING if whole else envelope.OPENING
    require(answer.payload_type == kind, f"{answer.payload_type} is the other kind's answer")
    if whole:
        return opening_pb2.WholeBlockOpening.FromString(answer.payload)
    return opening_pb2.Opening.FromString(answer.payload)


def _stamp(nanoseconds: int) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(nanoseconds)
    return found
