"""Providers that are driven over sockets: ours, lying ones, and servers that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio

from coin_protocol import transport
from coin_protocol.checks import Trust
from coin_protocol.conformance import FolderCases, Kind, Result, Status, run_live_cases, selected
from coin_protocol.conformance.case import SHIPPED, Case
from coin_protocol.conformance.challenging import ProviderSetting
from coin_protocol.conformance.judging import NotApplicable
from coin_protocol.conformance.provider import OPERATIONS, ProviderDriver
from coin_protocol.conformance.replies import Installed
from coin_protocol.conformance.wire import Wire
from coin_protocol.encoding import digest
from coin_protocol.errors import ConfigurationError, InvalidInputError, PeerUnavailableError
from coin_protocol.exposure import ExposureLedger
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, sign_key_set
from coin_protocol.signer import KeySigner
from coin_protocol.testing.adversaries import ALL_ADVERSARIES, Adversary, Found
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import envelope_pb2, opening_pb2, profile_pb2
from provider_sdk.answering import Answerer, Challenge
from provider_sdk.provider import Provider
from provider_sdk.record import SessionRecord
from provider_sdk.replay.server import make_replay_server
from tests.support.certificates import Certificates
from tests.support.parties import (
    PROVIDER,
    VERIFIER,
    WAIT_SECONDS,
    Parties,
    easy,
    reasoning_ids,
    run_session,
    small_policy,
)
from tests.support.replays import HONEST, LONG, SHORT, TOKENS_PER_SECOND, brisk
from tests.support.servers import served, serving, serving_raw

PLAINTEXT = "caller-without-credentials"
CASES = selected([FolderCases(SHIPPED)], Kind.PROVIDER)
CASES.sort(key=lambda case: list(OPERATIONS).index(case.operation))


def only(*patterns: str) -> list[Case]:
    return [case for case in CASES if case in selected([FolderCases(SHIPPED)], case.kind, patterns)]


def unhurried(policy: profile_pb2.Policy) -> None:
    """Edit a policy so that no decode rate of a test is too fast for it."""
    easy(policy)
    policy.max_tokens_per_second = 1e9


def setting(parties: Parties, **instead: Any) -> ProviderSetting:
    models = parties.models
    given: dict[str, Any] = {
        "trust": parties.trust,
        "profile": parties.profile,
        "policy": parties.policy,
        "signer": parties.verifier,
        "name": VERIFIER,
        "installed": lambda: (models.tokenizer, models.embedder),
        "question": SHORT.question,
        "model": HONEST.name,
    }
    return ProviderSetting(**(given | instead))


async def driven(
    target: str,
    chosen: ProviderSetting,
    cases: Sequence[Case] = CASES,
    *,
    tls: transport.TlsFiles | None = None,
    seconds: float = WAIT_SECONDS,
) -> dict[str, Result]:
    async with transport.open_channel(target, tls) as channel:
        wire = Wire(channel, target, seconds)
        await wire.reach()
        driver = ProviderDriver(wire, chosen)
        found = await run_live_cases(cases, driver.perform, lambda _: None)
    return {result.case.name: result for result in found}


def named(results: dict[str, Result], status: Status) -> set[str]:
    return {name for name, result in results.items() if result.status is status}


@asynccontextmanager
async def replaying(
    parties: Parties,
    liar: Adversary = HONEST,
    *,
    kind: type[Provider] | None = None,
    tls: transport.TlsFiles | None = None,
) -> AsyncIterator[str]:
    """Serve a liar's replays, and its answers to challenges, under the key set that it shows."""
    now = datetime.now(UTC)
    listed = liar.lists(parties.signer.public, now)
    key_set = sign_key_set(PROVIDER, [listed], root=parties.root, issued_at=now, sequence=1)
    with (kind or liar.provider)(
        name=PROVIDER,
        signer=parties.signer,
        key_set=key_set,
        models=parties.models,
        verifiers=parties.verifiers,
    ) as provider:
        replay = liar.replay(provider, [LONG, SHORT], tokens_per_second=TOKENS_PER_SECOND)
        server = await make_replay_server({liar.name: replay})
        async with served(server, tls) as target:
            yield target


# Ours


async def test_our_provider_passes_every_case() -> None:
    parties = Parties(policy=small_policy(unhurried))
    async with replaying(parties) as target:
        results = await driven(target, setting(parties, question=LONG.question))
    assert named(results, Status.FAILED) == set()
    assert named(results, Status.SKIPPED) == {PLAINTEXT}


async def test_kept_receipts_do_where_nothing_can_be_asked() -> None:
    parties = Parties(policy=small_policy(unhurried))
    with parties.provider() as provider:
        receipts = [run_session(provider, reasoning_ids(600)).receipt for _ in range(3)]
        async with serving(provider) as target:
            chosen = setting(parties, receipts=receipts, question="")
            results = await driven(target, chosen)
    assert named(results, Status.FAILED) == set()
    assert named(results, Status.SKIPPED) == {PLAINTEXT, "checkpoints-come-while-it-reasons"}


async def test_what_needs_more_than_was_given_is_skipped_with_what_to_give() -> None:
    parties = Parties(policy=small_policy(unhurried))
    with parties.provider() as provider:
        async with serving(provider) as target:
            bare = setting(parties, question="", signer=None, name="")
            results = await driven(target, bare)
            keyed = await driven(target, setting(parties, question=""))
    assert named(results, Status.FAILED) == set()
    assert "--generate" in results["manifest-gives-the-tree"].came
    assert "--key" in results["opening-as-drawn"].came
    assert "--receipts" in keyed["opening-as-drawn"].came
    assert results["key-set-is-rooted"].status is Status.PASSED


async def test_replies_that_others_have_used_up_are_no_failure() -> None:
    parties = Parties(policy=small_policy(unhurried))
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(64))
        _, fingerprints = reply.ready()
        for _ in range(2):  # up to the caps on embeddings, and of what is opened whole
            whole = parties.whole_challenge(fingerprints)
            provider.answer_whole(reply.commitment_sha256, whole)
        challenge = parties.challenge(fingerprints, blocks=4, tokens_per_block=0)
        provider.answer(reply.commitment_sha256, challenge)
        async with serving(provider) as target:
            chosen = setting(parties, receipts=[reply.receipt], question="")
            results = await driven(target, chosen, only("opening-*", "cap-*", "challenge-past*"))
    assert named(results, Status.FAILED) == set()
    assert named(results, Status.SKIPPED)


async def test_a_reply_of_no_tokens_is_checked_and_not_challenged() -> None:
    parties = Parties(policy=small_policy(unhurried))
    with parties.provider() as provider:
        receipt = run_session(provider, []).receipt
        async with serving(provider) as target:
            results = await driven(target, setting(parties, receipts=[receipt], question=""))
    assert named(results, Status.FAILED) == set()
    assert results["manifest-gives-the-tree"].status is Status.PASSED
    assert "none of the replies" in results["opening-as-drawn"].came


async def test_a_profile_without_whole_blocks_has_them_refused() -> None:
    parties = Parties(profile=small_profile(whole_blocks_ppm=0), policy=small_policy(unhurried))
    async with replaying(parties) as target:
        results = await driven(target, setting(parties), only("*whole-block*"))
    assert named(results, Status.PASSED) == {"cap-on-whole-blocks-is-kept"}
    assert "lets no block" in results["whole-block-opened"].came


async def test_without_models_blocks_opened_whole_are_not_embedded() -> None:
    def missing() -> Installed:
        msg = "takes the profile's models"
        raise NotApplicable(msg)

    parties = Parties(policy=small_policy(unhurried))
    async with replaying(parties) as target:
        results = await driven(target, setting(parties, installed=missing), only("whole-block-*"))
    assert results["whole-block-opened"].status is Status.PASSED
    assert results["whole-block-embeds-as-committed"].status is Status.SKIPPED


async def test_over_mutual_tls_whoever_shows_no_certificate_is_not_answered(
    certificates: Certificates,
) -> None:
    parties = Parties(policy=small_policy(unhurried))
    authorities = certificates.client.authorities.read_bytes()

    def anonymous() -> aio.Channel:
        import grpc

        return aio.secure_channel(target, grpc.ssl_channel_credentials(authorities))

    cases = only(PLAINTEXT, "key-set-*", "opening-as-drawn")
    async with replaying(parties, tls=certificates.server) as target:
        chosen = setting(parties, anonymous=anonymous)
        results = await driven(target, chosen, cases, tls=certificates.client, seconds=5.0)
    assert named(results, Status.PASSED) == {case.name for case in cases}


async def test_a_server_that_answers_anybody_fails() -> None:
    parties = Parties(policy=small_policy(unhurried))
    async with replaying(parties) as target:
        chosen = setting(parties, anonymous=lambda: transport.open_channel(target, None))
        results = await driven(target, chosen, only(PLAINTEXT))
    assert results[PLAINTEXT].came == "OK"


# Liars

EMBEDDINGS = {
    *("opening-as-drawn", "opening-of-both-kinds", "opening-of-embeddings-alone"),
    *("opening-twice-with-two-flips", "challenge-replayed", "challenges-at-once"),
}
TOKEN_BLOCKS = {"opening-of-both-kinds", "opening-of-token-blocks", "cap-on-tokens-is-kept"}
OPENINGS = EMBEDDINGS | {"opening-of-token-blocks"}
WHOLE = {"whole-block-opened", "whole-block-embeds-as-committed", "cap-on-whole-blocks-is-kept"}
CAPS = {"challenge-past-all-caps", "cap-on-tokens-is-kept", "cap-on-embeddings-is-kept"}
SPREAD = {"checkpoints-come-while-it-reasons"}
REFUSED = {case.name for case in CASES if case.given.get("method") == "AnswerChallenge"}

MUST_FAIL: dict[str, set[str]] = {
    "over-reported-bill": {"receipt-bill-counts-what-is-committed"},
    "reasoning-billed-twice": {"receipt-bill-counts-what-is-committed"},
    "told-otherwise": {"receipt-bill-counts-what-is-committed"},
    "replayed-commitment": {"receipt-binds-request-and-answer"},
    "another-request": {"receipt-binds-request-and-answer"},
    "another-answer": {"receipt-binds-request-and-answer"},
    "strangers-key": {"receipt-is-signed"},
    "anothers-name": {"receipt-is-signed"},
    "another-profile": {"receipt-is-signed"},
    "key-ended": {"receipt-is-signed", "key-set-is-rooted"},
    # Its clock is hours behind.
    "dated-back": {"receipt-is-signed", "key-set-is-rooted", "challenge-late"},
    "tokens-after-answer": {"receipt-checkpoints-came-in-time"},
    "commits-quietly": SPREAD,
    "bunched-checkpoints": SPREAD,
    "size-beyond-tree": {"manifest-gives-the-tree", *SPREAD},
    "leaves-repeated": {"manifest-gives-the-tree", *SPREAD},
    "foreign-checkpoint": {"manifest-gives-the-tree"},
    "rewritten-reply": {"manifest-gives-the-tree"},
    "foreign-manifest": {"manifest-gives-the-tree"},
    "foreign-fingerprints": {"manifest-gives-the-tree"},
    "fewer-fingerprints": {"manifest-gives-the-tree"},
    "manifest-withheld": {
        *("manifest-gives-the-tree", "commitment-unknown", "commitment-no-digest"),
        "commitment-not-named",
    },
    "copied-embedding": {"whole-block-embeds-as-committed"},
    "whole-text-altered": {"whole-block-embeds-as-committed"},
    "whole-ids-altered": WHOLE,
    "whole-salts-altered": WHOLE,
    "whole-embedding-swapped": WHOLE,
    "token-blocks-left-out": TOKEN_BLOCKS,
    "kinder-tokens": TOKEN_BLOCKS,
    "plausible-tokens": TOKEN_BLOCKS,
    "made-up-rows": OPENINGS | WHOLE,
    "unnormed-embedding": EMBEDDINGS | WHOLE,
    "flip-reused": OPENINGS - {"opening-as-drawn"},
    "kinder-blocks": EMBEDDINGS,
    "swapped-embedding": EMBEDDINGS,
    "strangers-refusal": OPENINGS,
    "made-up-refusal": OPENINGS,
    **dict.fromkeys(
        (
            *("refused-opening", "size-inside-block", "leaf-repeated-in-block", "swapped-token"),
            *("forged-proof", "made-up-flip", "unsigned-answer"),
        ),
        OPENINGS,
    ),
}
"""The cases that each liar must fail. One that is not named here lies in some openings."""

MAY_FAIL: dict[str, set[str]] = {
    "made-up-refusal": REFUSED | CAPS | WHOLE,
    "strangers-refusal": REFUSED | CAPS | WHOLE,
    "flip-reused": CAPS | WHOLE,
    "size-inside-block": CAPS | WHOLE,
    "leaf-repeated-in-block": CAPS | WHOLE,
}
"""What they may fail besides, since one reply is asked for many cases."""

OTHERWISE = ("SIGNATURE", "key", "challenges of others", "manifests are not available")
"""What a report may say in place of the check that must fail in an audit."""

HURRIED = {"tokens-after-answer", "bunched-checkpoints"}
LATE = {"answers-late", "late-dated-back"}


@pytest.mark.parametrize(
    "liar", [liar for liar in ALL_ADVERSARIES if liar.name not in LATE], ids=lambda liar: liar.name
)
async def test_a_liar_fails_the_cases_about_its_lie_and_no_others(liar: Adversary) -> None:
    parties = Parties(policy=small_policy(brisk if liar.name in HURRIED else unhurried))
    async with replaying(parties, liar) as target:
        results = await driven(target, setting(parties, model=liar.name))
    failed = named(results, Status.FAILED)
    harmless = liar.found in (Found.GRADED, Found.EVIDENCE)
    must, may = MUST_FAIL.get(liar.name, set()), set()
    if must & (OPENINGS | WHOLE):
        may = CAPS
    elif not must and not harmless:
        may = OPENINGS | WHOLE | CAPS
    assert must <= failed
    assert failed - must <= MAY_FAIL.get(liar.name, may)
    assert harmless is not bool(failed)
    assert all(results[name].came for name in named(results, Status.SKIPPED))
    said = " ".join(results[name].came for name in failed)
    assert liar.found is not Found.CHECK or any(word in said for word in (*liar.codes, *OTHERWISE))


@pytest.mark.parametrize("name", sorted(LATE))
async def test_a_provider_that_answers_late_fails(name: str) -> None:
    def hurried(policy: profile_pb2.Policy) -> None:
        unhurried(policy)
        policy.challenge_deadline.CopyFrom(Duration(seconds=1))

    (liar,) = (one for one in ALL_ADVERSARIES if one.name == name)
    parties = Parties(policy=small_policy(hurried))
    async with replaying(parties, liar) as target:
        chosen = setting(parties, model=liar.name)
        results = await driven(target, chosen, only("opening-as-drawn", "receipt-*"))
    assert named(results, Status.FAILED) == {"opening-as-drawn"}
    assert "past the deadline" in results["opening-as-drawn"].came


# Providers that do one thing wrong, which is no lie


class Forgets(Answerer):
    """Keeps no count of what was opened."""

    def step(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
    ) -> opening_pb2.AnsweredChallenge:
        record.ledger = ExposureLedger()
        return super().step(record, challenge, message)


class DrawsAnew(Answerer):
    """Gives a challenge that comes again another flip."""

    def step(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
    ) -> opening_pb2.AnsweredChallenge:
        known = record.answered.pop(digest(challenge.payload), None)
        if known is not None:
            record.answered[bytes(len(record.answered) + 1)] = known
        return super().step(record, challenge, message)


class AnswersAnybody(Answerer):
    """Looks at no signature."""

    def _authenticate(self, challenge: envelope_pb2.Envelope, payload_type: str) -> None:
        del challenge, payload_type


class SignsManifestsAnew(Provider):
    """Signs fingerprints whenever it is asked."""

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        manifest, _ = super().manifest(commitment_sha256)
        return manifest, self.sign_fingerprints(self.store.get(commitment_sha256))


def with_answerer(kind: type[Answerer]) -> type[Provider]:
    return type("Wrong", (Provider,), {"answerer_class": kind})


KEPT = {case.name for case in CASES if case.operation == "caps"}
BY_STRANGERS = {
    *("challenge-by-a-stranger", "whole-challenge-by-a-stranger", "challenge-unsigned"),
    *("challenge-signature-altered", "challenge-of-another-type"),
}


@pytest.mark.parametrize(
    ("kind", "tried", "failed"),
    [
        (with_answerer(Forgets), {"again", "caps"}, KEPT),
        (with_answerer(DrawsAnew), {"again"}, {"challenge-replayed"}),
        (with_answerer(AnswersAnybody), {"call"}, BY_STRANGERS),
        (SignsManifestsAnew, {"manifest", "manifest_again"}, {"manifest-again-is-the-same"}),
    ],
    ids=["forgets", "draws-anew", "answers-anybody", "signs-manifests-anew"],
)
async def test_one_thing_done_wrong_fails_the_cases_about_it(
    kind: type[Provider], tried: set[str], failed: set[str]
) -> None:
    parties = Parties(policy=small_policy(unhurried))
    cases = [case for case in CASES if case.operation in tried]
    async with replaying(parties, kind=kind) as target:
        results = await driven(target, setting(parties), cases)
    assert named(results, Status.FAILED) == failed
    assert all(results[name].advice for name in failed)


async def test_a_key_set_of_another_root_fails_and_what_rests_on_it_is_skipped() -> None:
    parties = Parties(policy=small_policy(unhurried))
    other = Trust([KeySigner.generate(ROOT_KEY_NAME).public], parties.verifiers)
    async with replaying(parties) as target:
        results = await driven(target, setting(parties, trust=other), only("key-*", "rec*", "o*"))
    assert named(results, Status.FAILED) == {"key-set-is-rooted", "receipt-is-signed"}
    assert "not rooted" in results["key-set-keeps-old-keys"].came
    assert results["opening-as-drawn"].status is Status.SKIPPED


async def test_a_key_set_that_loses_a_key_fails() -> None:
    parties = Parties(policy=small_policy(unhurried))
    now = datetime.now(UTC)
    signer = KeySigner.generate(PROVIDER)
    listed = ListedKey(signer.public, now - timedelta(days=1), now + timedelta(days=1))
    later = sign_key_set(PROVIDER, [listed], root=parties.root, issued_at=now, sequence=2)
    with parties.provider() as provider:
        receipt = run_session(provider).receipt
    with parties.provider(signer=signer, key_set=SignedKeySet(later)) as rotated:
        async with serving(rotated) as target:
            chosen = setting(parties, receipts=[receipt], question="")
            results = await driven(target, chosen, only("key-set-*"))
    assert named(results, Status.FAILED) == {"key-set-keeps-old-keys"}
    assert "1 keys left out" in results["key-set-keeps-old-keys"].came


# Servers that do not behave


async def _hang(raw: bytes, context: transport.Context) -> bytes:
    del raw, context
    await asyncio.sleep(100)
    return b""


async def _garbage(raw: bytes, context: transport.Context) -> bytes:
    del raw, context
    return b"\xff\xff\xff"


async def _huge(raw: bytes, context: transport.Context) -> bytes:
    del raw, context
    return bytes((64 << 20) + 1)


async def _empty(raw: bytes, context: transport.Context) -> bytes:
    del raw, context
    return b""


async def _crash(raw: bytes, context: transport.Context) -> bytes:
    del raw, context
    raise RuntimeError


METHODS = ("GetKeySet", "GetManifest", "AnswerChallenge", "AnswerWholeBlockChallenge")


@pytest.mark.parametrize(
    ("answer", "came"),
    [
        (_hang, "DEADLINE_EXCEEDED"),
        (_garbage, "3 bytes that do not parse"),
        (_huge, "RESOURCE_EXHAUSTED"),
        (_empty, "no pinned root"),
        (_crash, "UNKNOWN"),
    ],
    ids=["hang", "garbage", "huge", "empty", "crash"],
)
async def test_a_server_that_does_not_behave_fails_and_nothing_breaks(
    answer: Callable[..., Any], came: str
) -> None:
    parties = Parties(policy=small_policy(unhurried))
    with parties.provider() as provider:
        receipt = run_session(provider, reasoning_ids(64)).receipt
    async with serving_raw(dict.fromkeys(METHODS, answer)) as target:
        chosen = setting(parties, receipts=[receipt], question="")
        # Of the calls that expect an error a hanging server leaves each as long as it may take.
        cases = [case for case in CASES if case.operation != "call"]
        seconds = 0.3 if answer is _hang else WAIT_SECONDS
        results = await driven(target, chosen, cases, seconds=seconds)
    assert {"key-set-is-rooted", "manifest-gives-the-tree"} <= named(results, Status.FAILED)
    assert came in results["key-set-is-rooted"].came
    assert results["opening-as-drawn"].status is Status.SKIPPED


async def test_a_server_that_answers_challenges_with_garbage_fails_them() -> None:
    parties = Parties(policy=small_policy(unhurried))
    with parties.provider() as provider:
        receipt = run_session(provider, reasoning_ids(64)).receipt

        async def manifest(raw: bytes, context: transport.Context) -> bytes:
            from coin_protocol.v1 import provider_service_pb2 as pb

            del context
            key = pb.GetManifestRequest.FromString(raw).commitment_sha256
            provider.wait_ready(key, WAIT_SECONDS)
            shown, fingerprints = provider.manifest(key)
            reply = pb.GetManifestResponse(manifest=shown, fingerprints=fingerprints)
            return reply.SerializeToString()

        handlers = dict.fromkeys(METHODS, _garbage) | {"GetManifest": manifest}
        async with serving_raw(handlers) as target:
            chosen = setting(parties, receipts=[receipt], question="")
            results = await driven(target, chosen, only("opening-*", "whole-block-*"))
    assert named(results, Status.PASSED) == set()
    assert "DOES_NOT_PARSE" in results["opening-as-drawn"].came


async def test_a_model_or_question_that_the_target_has_not_fails_with_what_it_says() -> None:
    parties = Parties(policy=small_policy(unhurried))
    async with replaying(parties) as target:
        for given in ({"model": "other"}, {"question": "what is it?"}):
            results = await driven(target, setting(parties, **given), only("receipt-is-signed"))
            assert "INVALID_ARGUMENT" in results["receipt-is-signed"].came
            assert "--generate" in results["receipt-is-signed"].advice


async def test_a_target_that_is_not_there_is_told_of(certificates: Certificates) -> None:
    parties = Parties()
    with pytest.raises(PeerUnavailableError, match="could not be reached"):
        await driven("127.0.0.1:1", setting(parties), seconds=0.3)
    with pytest.raises(ConfigurationError, match="not this machine"):
        await driven("acme.example:443", setting(parties))
    async with AsyncExitStack() as stack:
        tls = await stack.enter_async_context(replaying(parties, tls=certificates.server))
        plain = await stack.enter_async_context(replaying(parties))
        for target, files in (
            (tls, None),
            (tls, certificates.stranger),
            (plain, certificates.client),
        ):
            with pytest.raises(PeerUnavailableError, match="are the TLS options its own"):
                await driven(target, setting(parties), tls=files, seconds=0.5)


async def test_a_case_of_ones_own_with_a_field_that_is_none_is_named() -> None:
    parties = Parties(policy=small_policy(unhurried))
    (call,) = only("challenge-late")
    (challenge,) = only("opening-as-drawn")
    async with replaying(parties) as target:
        for case, given in ((call, {"methods": 1}), (challenge, {"tokens": 1})):
            with pytest.raises(InvalidInputError, match=case.name):
                await driven(target, setting(parties), [replace(case, given=given)])
