"""How far an audit got: what is sent again, what is left out, what ends an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from coin_protocol.checks import Case
from coin_protocol.checks.opened import BLAMELESS, RETENTION_ENDED
from coin_protocol.errors import PeerUnavailableError
from coin_protocol.keyset import pinned, stamp
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import receipt_pb2
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


def progress(audited: Audited, *, patient: bool = False) -> Progress:
    found = Progress(audited.bundle(), keep=None, patient=patient)
    found.restored(audited.case)
    return found


def test_what_was_answered_is_restored_and_what_was_not_is_sent_again(audited: Audited) -> None:
    found = Progress(audited.bundle(), keep=None, patient=False)
    restored = found.restored(replace(audited.case, manifest=None))
    assert restored.manifest == audited.case.manifest
    assert list(restored.rounds) == [audited.answered]
    again = found.unanswered(2, whole=False, seconds=SECONDS)
    assert again == audited.pending.challenge
    assert found.unanswered(1, whole=False, seconds=SECONDS) is None
    assert found.unanswered(2, whole=True, seconds=SECONDS) is None


@pytest.mark.parametrize(("left", "sent"), [(45.0, True), (31.0, True), (29.0, False), (-5, False)])
def test_a_challenge_is_sent_again_while_half_of_its_time_is_left(
    audited: Audited, left: float, *, sent: bool
) -> None:
    audited.pending = pending(audited.parties, audited.case, left=left)
    # One that gave too little time for the policy is none that counts.
    again = progress(audited).unanswered(2, whole=False, seconds=SECONDS)
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
    assert found.unanswered(2, whole=False, seconds=SECONDS) is None
    trust = replace(audited.case.trust, verifiers=pinned("verifiers", [former.public]))
    found = Progress(audited.bundle(), keep=None, patient=False)
    assert list(found.restored(replace(audited.case, trust=trust)).rounds) == [audited.answered]


def test_nothing_is_restored_where_nothing_was_kept(audited: Audited) -> None:
    found = Progress(keep=None, patient=False)
    restored = found.restored(audited.case)
    assert (restored.manifest, restored.rounds, restored.whole_rounds) == (None, (), ())
    assert found.unanswered(1, whole=False, seconds=SECONDS) is None


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
