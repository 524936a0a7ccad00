"""A provider makes fingerprints in the background, answers, and keeps its secrets."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from coin_protocol import draw, envelope
from coin_protocol.checks import run_checks
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.errors import (
    CoinError,
    ConfigurationError,
    NotReadyError,
    StatementError,
    UnknownCommitmentError,
)
from coin_protocol.exposure import Caps
from coin_protocol.signer import KeySigner
from coin_protocol.statements import (
    read_fingerprints,
    read_key_set,
    read_manifest,
    read_opening,
    read_whole_opening,
)
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from provider_sdk.provider import Provider, RefusedChallengeError
from provider_sdk.record import SessionRecord
from tests.support.parties import (
    PROVIDER,
    WAIT_SECONDS,
    Parties,
    Reply,
    reasoning_ids,
    run_session,
)


class HeldProvider(Provider):
    """Embeds nothing until told to."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.go_on = threading.Event()

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        assert self.go_on.wait(WAIT_SECONDS)
        return super().embed_block(token_ids)


class BrokenProvider(Provider):
    """Cannot embed, and says the text in its error."""

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        msg = f"cannot embed {token_ids.tolist()}"
        raise RuntimeError(msg)


def record_of(reply: Reply) -> SessionRecord:
    return reply.session.provider.store.get(reply.commitment_sha256)


def caps_of(reply: Reply) -> Caps:
    tree = record_of(reply).tree
    caps = reply.session.provider.profile.message.caps
    return Caps.of(caps, tokens=tree.reasoning_tokens, blocks=tree.block_count)


def refused(
    reply: Reply, challenge: envelope_pb2.Envelope, *, whole: bool = False
) -> envelope_pb2.Envelope:
    provider = reply.session.provider
    with pytest.raises(RefusedChallengeError) as caught:
        (provider.answer_whole if whole else provider.answer)(reply.commitment_sha256, challenge)
    return caught.value.signed


# Making a provider


def test_a_signer_outside_the_key_set_is_a_configuration_error(parties: Parties) -> None:
    with pytest.raises(ConfigurationError, match="does not list the signing key"):
        parties.provider(signer=KeySigner.generate(PROVIDER))


def test_a_key_set_of_another_owner_is_a_configuration_error(parties: Parties) -> None:
    with pytest.raises(ConfigurationError, match="'acme' does not list the signing key of 'other'"):
        parties.provider(name="other")


def test_a_key_set_that_does_not_parse_is_refused(parties: Parties) -> None:
    with pytest.raises(StatementError):
        parties.provider(key_set=envelope_pb2.Envelope(payload=b"\xff"))


# Fingerprints


def test_fingerprints_name_the_commitment_and_cover_its_blocks(provider: Provider) -> None:
    reply = run_session(provider, reasoning_ids(20))
    manifest, fingerprints = reply.ready()
    ring = read_key_set(provider.key_set.payload)
    envelope.verify(manifest, envelope.MANIFEST, ring)
    envelope.verify(fingerprints, envelope.FINGERPRINTS, ring)
    statement = read_fingerprints(fingerprints.payload)
    assert statement.commitment_sha256 == reply.commitment_sha256
    assert statement.size == 3
    assert read_manifest(manifest.payload).commitment_sha256 == reply.commitment_sha256
    assert [entry.token_count for entry in read_manifest(manifest.payload).blocks] == [8, 8, 4]


def test_nothing_is_answered_before_the_fingerprints_are_made(parties: Parties) -> None:
    with parties.provider(HeldProvider) as provider:
        assert isinstance(provider, HeldProvider)
        reply = run_session(provider)
        key, challenge = reply.commitment_sha256, parties.challenge(envelope_pb2.Envelope())
        for call in (
            lambda: provider.manifest(key),
            lambda: provider.answer(key, challenge),
            lambda: provider.answer_whole(key, challenge),
            lambda: provider.wait_ready(key, 0.0),
        ):
            with pytest.raises(NotReadyError, match="still being made"):
                call()
        assert not record_of(reply).answered
        provider.go_on.set()
        assert reply.ready()[1].payload


def test_the_serving_path_never_waits_for_embeddings(parties: Parties) -> None:
    with parties.provider(HeldProvider) as provider:
        assert isinstance(provider, HeldProvider)
        # Held all along: were it waited for, this would never come back.
        replies = [run_session(provider) for _ in range(3)]
        assert all(record_of(reply).fingerprints is None for reply in replies)
        provider.go_on.set()
        for reply in replies:
            reply.ready()


def test_a_failure_to_embed_is_recorded_and_told_without_its_text(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    with parties.provider(BrokenProvider) as provider:
        reply = run_session(provider)
        with pytest.raises(NotReadyError, match=r"failed \(RuntimeError\)") as caught:
            reply.ready()
        assert record_of(reply).failure == "RuntimeError"
        assert "cannot embed" not in str(caught.value)
        assert reply.commitment_sha256.hex() in caplog.text
        with pytest.raises(NotReadyError, match="failed"):
            provider.answer(reply.commitment_sha256, parties.challenge(envelope_pb2.Envelope()))


def test_a_failed_session_does_not_stop_the_next(parties: Parties) -> None:
    class Sometimes(Provider):
        def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
            if token_ids[0] == 0:
                raise MemoryError
            return super().embed_block(token_ids)

    with parties.provider(Sometimes) as provider:
        bad, good = run_session(provider, [0] * 9), run_session(provider)
        assert good.ready()
        with pytest.raises(NotReadyError, match="MemoryError"):
            bad.ready()


def test_an_unknown_commitment_is_its_own_error(provider: Provider, parties: Parties) -> None:
    challenge = parties.challenge(envelope_pb2.Envelope())
    for key in (b"", bytes(32), bytes(100)):
        for call in (
            lambda key=key: provider.manifest(key),
            lambda key=key: provider.wait_ready(key, 1.0),
            lambda key=key: provider.answer(key, challenge),
            lambda key=key: provider.answer_whole(key, challenge),
        ):
            with pytest.raises(UnknownCommitmentError, match="no session with commitment"):
                call()


def test_closing_finishes_the_fingerprints_under_way(parties: Parties) -> None:
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(80))
    assert record_of(reply).fingerprints is not None


# Answers


def test_an_answered_challenge_passes_every_check(provider: Provider, parties: Parties) -> None:
    reply = run_session(provider)
    case = reply.case(parties)
    for number in (1, 2):
        challenge = parties.challenge(case.receipt.fingerprints, round=number, blocks=2)
        case, opening = reply.ask(case, challenge)
        envelope.verify(opening, envelope.OPENING, case.keys)
    case, opening = reply.ask(case, parties.whole_challenge(case.receipt.fingerprints), whole=True)
    envelope.verify(opening, envelope.WHOLE_OPENING, case.keys)
    report = run_checks(case)
    assert report.failed is None, report.detail
    assert {result.status for result in report.results} == {receipt_pb2.CHECK_STATUS_PASSED}


def test_the_same_challenge_again_opens_the_same_and_costs_nothing(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    challenge, whole = parties.challenge(fingerprints), parties.whole_challenge(fingerprints)
    key = reply.commitment_sha256
    first = read_opening(provider.answer(key, challenge).payload)
    first_whole = read_whole_opening(provider.answer_whole(key, whole).payload)
    ledger = record_of(reply).ledger.exposure()
    for _ in range(5):
        again = read_opening(provider.answer(key, challenge).payload)
        again_whole = read_whole_opening(provider.answer_whole(key, whole).payload)
        for old, new in ((first, again), (first_whole, again_whole)):
            old.ClearField("provider_time")
            new.ClearField("provider_time")
            assert new == old
    assert record_of(reply).ledger.exposure() == ledger
    assert len(record_of(reply).answered) == 2


def test_a_challenge_asked_again_is_answered_even_when_the_caps_are_used_up(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    challenge = parties.challenge(fingerprints)
    opening = read_opening(provider.answer(reply.commitment_sha256, challenge).payload)
    caps = caps_of(reply)
    record_of(reply).ledger.block_embeddings.update(range(caps.total_blocks))
    refused(reply, parties.challenge(fingerprints))
    again = read_opening(provider.answer(reply.commitment_sha256, challenge).payload)
    assert (again.flip_index, again.blocks) == (opening.flip_index, opening.blocks)


def test_each_new_challenge_reveals_the_next_link_of_the_chain(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    key = reply.commitment_sha256
    challenge, whole = parties.challenge, parties.whole_challenge
    openings: list[opening_pb2.Opening | opening_pb2.WholeBlockOpening] = [
        read_opening(provider.answer(key, challenge(fingerprints)).payload),
        read_whole_opening(provider.answer_whole(key, whole(fingerprints)).payload),
        read_opening(provider.answer(key, challenge(fingerprints)).payload),
    ]
    assert [opening.flip_index for opening in openings] == [1, 2, 3]
    for opening in openings:
        draw.verify_flip(
            flip=opening.flip, index=opening.flip_index, anchor=reply.commitment.flip_anchor
        )


def test_the_ledger_holds_just_what_openings_showed(provider: Provider, parties: Parties) -> None:
    reply = run_session(provider)
    _, fingerprints = reply.ready()
    shown: set[tuple[int, int]] = set()
    embeddings: set[int] = set()
    for blocks in (1, 2, 3):
        challenge = parties.challenge(
            fingerprints, blocks=blocks, token_blocks=1, tokens_per_block=2
        )
        opening = read_opening(provider.answer(reply.commitment_sha256, challenge).payload)
        embeddings |= {block.block_index for block in opening.blocks}
        for block in shown_blocks(opening):
            shown |= {(block.block_index, token.position) for token in block.tokens}
        shown.add((opening.edge.block_index, opening.edge.last_token.position))
    ledger = record_of(reply).ledger
    assert (ledger.tokens, ledger.block_embeddings) == (shown, embeddings)
    assert not ledger.whole_blocks


# Secrets


def _forms(secret: bytes) -> list[str]:
    return [secret.hex(), repr(secret)[2:-1], str(list(secret))[1:-1]]


def test_secrets_are_in_no_repr_and_no_log_record(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    kinds: tuple[type[Provider], ...] = (Provider, BrokenProvider)
    secrets: list[bytes] = [parties.signer._key.private_bytes_raw()]  # type: ignore[union-attr]
    for kind in kinds:
        with parties.provider(kind) as provider:
            reply = run_session(provider)
            record = record_of(reply)
            secrets += [record.secret.secret, record.flip_secret]
            challenge = parties.challenge(envelope_pb2.Envelope())
            for call in (reply.ready, lambda: provider.answer(reply.commitment_sha256, challenge)):  # noqa: B023
                try:
                    call()
                except CoinError as error:
                    texts.append(repr(error))
            objects = (
                provider,
                provider.signer,
                provider.store,
                provider.answerer,
                reply.session,
                record,
                record.secret,
            )
            texts += [text for found in objects for text in (repr(found), str(found))]
            if kind is Provider:
                texts.append(repr(provider.answerer.opener(record).session))
    texts.append(caplog.text)
    texts += [repr(vars(entry)) for entry in caplog.records]
    for secret in secrets:
        for form in _forms(secret):
            assert not [text for text in texts if form in text]


def test_refusals_and_openings_do_not_hold_the_secrets(
    provider: Provider, parties: Parties
) -> None:
    reply = run_session(provider)
    manifest, fingerprints = reply.ready()
    opening = provider.answer(reply.commitment_sha256, parties.challenge(fingerprints))
    whole = provider.answer_whole(reply.commitment_sha256, parties.whole_challenge(fingerprints))
    signed = refused(reply, parties.challenge(fingerprints, blocks=2**20))
    record = record_of(reply)
    for message in (manifest, fingerprints, opening, whole, signed, reply.receipt):
        raw = message.SerializeToString()
        assert record.secret.secret not in raw
        assert record.flip_secret not in raw
