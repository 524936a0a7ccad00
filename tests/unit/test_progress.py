"""How far an audit got: what is sent again, what is left out, what ends an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coin_protocol.checks import Case
from coin_protocol.checks.opened import BLAMELESS, RETENTION_ENDED
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keyset import pinned, stamp
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import opening_pb2, receipt_pb2
from tests.support.parties import VERIFIER, Parties, reasoning_ids, run_session
from verifier_sdk.progress import Progress

SECONDS = 60.0


@dataclass
class Audited:
    """A reply whose provider has answered one challenge, and was sent another."""

    parties: Parties
    case: Case
    answered: receipt_pb2.Round
    pending: receipt_pb2.Round

    def bundle(self) -> receipt_pb2.Bundle:
        """Return what an attempt has written down."""
        return receipt_pb2.Bundle(
            receipt=self.case.receipt,
            manifest=self.case.manifest,
            rounds=[self.answered, self.pending],
        )


@pytest.fixture
def audited(parties: Parties) -> Iterator[Audited]:
    """An audit under way."""
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(400))
        case = reply.case(parties)
        first = parties.challenge(case.receipt.fingerprints)
        grown, _ = reply.ask(case, first)
        yield Audited(parties, case, grown.rounds[0], pending(parties, case))


def pending(parties: Parties, case: Case, *, left: float = SECONDS) -> receipt_pb2.Round:
    """Return a round that was sent, whose challenge leaves so many seconds."""
    deadline = stamp(datetime.now(UTC) + timedelta(seconds=left))
    challenge = parties.challenge(case.receipt.fingerprints, round=2, deadline=deadline)
    return receipt_pb2.Round(challenge=challenge, sent_at=stamp(datetime.now(UTC)))


def wanted(audited: Audited, **instead: Any) -> opening_pb2.Challenge:
    """Return the challenge that would be sent in place of the pending one."""
    fields: dict[str, Any] = {"verifier": VERIFIER, "round": 2, "blocks": 1, "tokens_per_block": 2}
    return opening_pb2.Challenge(
        fingerprints_sha256=audited.case.fingerprints_sha256,
        nonce=bytes(32),
        deadline=stamp(datetime.now(UTC)),
        **(fields | instead),
    )


def progress(audited: Audited, *, patient: bool = False) -> Progress:
    found = Progress(audited.bundle(), keep=None, patient=patient)
    found.restored(audited.case)
    return found


def test_what_was_answered_is_restored_and_what_was_not_is_sent_again(audited: Audited) -> None:
    found = Progress(audited.bundle(), keep=None, patient=False)
    restored = found.restored(replace(audited.case, manifest=None))
    assert restored.manifest == audited.case.manifest
    assert list(restored.rounds) == [audited.answered]
    again = found.unanswered(wanted(audited), seconds=SECONDS)
    assert again == audited.pending.challenge
    other = (wanted(audited, round=1), wanted(audited, blocks=2), wanted(audited, verifier="x"))
    assert [found.unanswered(one, seconds=SECONDS) for one in other] == [None] * 3
    assert found.unanswered(opening_pb2.WholeBlockChallenge(round=2), seconds=SECONDS) is None


@pytest.mark.parametrize(("left", "sent"), [(45.0, True), (31.0, True), (29.0, False), (-5, False)])
def test_a_challenge_is_sent_again_while_half_of_its_time_is_left(
    audited: Audited, left: float, *, sent: bool
) -> None:
    audited.pending = pending(audited.parties, audited.case, left=left)
    # One that gave too little time for the policy is none that counts.
    again = progress(audited).unanswered(wanted(audited), seconds=SECONDS)
    assert (again is not None) == sent


def test_what_a_key_signed_that_is_trusted_no_more_is_left_out(audited: Audited) -> None:
    former = KeySigner.generate(VERIFIER)
    for entry in (audited.answered, audited.pending):
        challenge = audited.parties.challenge(
            audited.case.receipt.fingerprints, signer=former, round=2
        )
        entry.challenge.CopyFrom(challenge)
    found = Progress(audited.bundle(), keep=None, patient=False)
    assert not found.restored(audited.case).rounds
    assert found.unanswered(wanted(audited), seconds=SECONDS) is None
    trust = replace(audited.case.trust, verifiers=pinned("verifiers", [former.public]))
    found = Progress(audited.bundle(), keep=None, patient=False)
    assert list(found.restored(replace(audited.case, trust=trust)).rounds) == [audited.answered]


def test_nothing_is_restored_where_nothing_was_kept(audited: Audited) -> None:
    found = Progress(keep=None, patient=False)
    restored = found.restored(audited.case)
    assert (restored.manifest, restored.rounds, restored.whole_rounds) == (None, (), ())
    assert found.unanswered(wanted(audited, round=1), seconds=SECONDS) is None


async def test_a_challenge_is_written_down_before_it_leaves(audited: Audited) -> None:
    kept: list[receipt_pb2.Bundle] = []

    async def keep(bundle: receipt_pb2.Bundle) -> None:
        kept.append(bundle)

    found = Progress(keep=keep, patient=False)
    case = replace(audited.case, rounds=(audited.answered,))
    await found.sending(case, audited.pending.challenge, whole=False)
    await found.answered(case)
    sending, answered = kept
    assert [entry.challenge for entry in sending.rounds] == [
        audited.answered.challenge,
        audited.pending.challenge,
    ]
    assert not sending.rounds[1].HasField("received_at")
    assert list(answered.rounds) == [audited.answered]
    assert not sending.HasField("verdict")
    # What was kept is what another attempt goes on from.
    assert Progress(sending, keep=None, patient=False).restored(case).rounds == (audited.answered,)


@pytest.mark.parametrize("status", sorted(BLAMELESS))
def test_who_is_not_to_blame_is_asked_again_where_there_is_time(status: str) -> None:
    Progress(keep=None, patient=False).require_reached(status)
    patient = Progress(keep=None, patient=True)
    if status == RETENTION_ENDED:
        # Nor will it answer later.
        patient.require_reached(status)
        return
    with pytest.raises(PeerUnavailableError) as raised:
        patient.require_reached(status)
    assert raised.value.status == status


@pytest.mark.parametrize("status", ["DEADLINE_EXCEEDED", "INTERNAL", "NOT_FOUND"])
def test_who_is_to_blame_is_not_waited_for(status: str) -> None:
    Progress(keep=None, patient=True).require_reached(status)


def test_what_came_after_a_round_that_is_left_out_is_left_out_too(audited: Audited) -> None:
    parties, case = audited.parties, audited.case
    former = KeySigner.generate(VERIFIER)

    def bundle(*, first: bool, whole: bool) -> receipt_pb2.Bundle:
        """Return a round, blocks opened whole and a round; former keys signed some of them."""
        found = audited.bundle()
        found.rounds[1].CopyFrom(audited.answered)
        found.whole_rounds.add().CopyFrom(audited.answered)
        signed = parties.whole_challenge(case.receipt.fingerprints)
        found.whole_rounds[0].challenge.CopyFrom(signed)
        if not first:
            by_former = parties.challenge(case.receipt.fingerprints, signer=former)
            found.rounds[0].challenge.CopyFrom(by_former)
        if not whole:
            found.whole_rounds[0].challenge.signatures[0].sig = bytes(64)
        return found

    for first, whole, left in ((True, True, (2, 1)), (True, False, (1, 0)), (False, True, (0, 0))):
        kept = Progress(bundle(first=first, whole=whole), keep=None, patient=False)
        restored = kept.restored(case)
        assert (len(restored.rounds), len(restored.whole_rounds)) == left
