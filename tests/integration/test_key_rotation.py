"""Keys change while replies run and are audited: nothing signed is lost, nobody is accused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coin_protocol import rotation
from coin_protocol.checks import Trust
from coin_protocol.key_keeper import KeyKeeper, NewKey, Root
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, pinned
from coin_protocol.offline import verify_bundle
from coin_protocol.receipt import read_bundle
from coin_protocol.root_certificate import RootDomain
from coin_protocol.rotation import RotatingSigner
from coin_protocol.statements import read_verdict
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from tests.support.audits import failed
from tests.support.chains import DAY, DOMAIN, Certified
from tests.support.parties import PROVIDER, WAIT_SECONDS, Parties, Reply, run_session
from tests.support.servers import misbehaving, serving
from verifier_sdk.client import ProviderClient

HOUR = timedelta(hours=1)
KEY = NewKey(30 * DAY)
PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "LOOK_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> KeyKeeper:
    made = KeyKeeper(tmp_path / "keys")
    made.init(PROVIDER, KEY, None)
    return made


@pytest.fixture
def rotating(folder: KeyKeeper, parties: Parties) -> Iterator[Provider]:
    """A provider over the folder."""
    signer = RotatingSigner(folder.path, PROVIDER)
    with parties.provider(signer=signer, key_set=signer) as provider:
        yield provider


def rotate(folder: KeyKeeper) -> str:
    return folder.rotate(KEY, HOUR, folder.root(None)).key.keyid


def trust_of(folder: KeyKeeper, parties: Parties) -> Trust:
    root = VerificationKey.from_pem(ROOT_KEY_NAME, folder.root_public_path.read_bytes())
    return Trust([root], parties.verifiers)


async def audited(
    parties: Parties, reply: Reply, target: str, trust: Trust
) -> tuple[receipt_pb2.Verdict, receipt_pb2.Bundle]:
    """Audit over the wire, and check the bundle again offline."""
    async with ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client:
        bundle = await parties.auditor(trust=trust).audit(reply.receipt, client)
    models = parties.models
    verify_bundle(
        read_bundle(bundle.SerializeToString()),
        trust=trust,
        profile=parties.profile,
        policy=parties.policy,
        installed=(models.tokenizer, models.embedder),
    )
    return read_verdict(bundle.verdict.payload), bundle


async def test_a_receipt_from_before_a_rotation_is_audited_after_it(
    folder: KeyKeeper, rotating: Provider, parties: Parties
) -> None:
    reply = run_session(rotating)
    reply.ready()
    newest = [rotate(folder) for _ in range(3)][-1]
    async with serving(rotating) as target:
        verdict, bundle = await audited(parties, reply, target, trust_of(folder, parties))
    assert verdict.outcome == PASS, verdict.reasons
    assert bundle.rounds[0].opening.signatures[0].keyid == newest
    assert bundle.receipt.key_set == folder.read()[0].signed
    assert bundle.receipt.commitment.signatures[0].keyid != newest


async def test_a_rotation_in_the_middle_of_an_audit_costs_no_answer(
    folder: KeyKeeper, rotating: Provider, parties: Parties
) -> None:
    reply = run_session(rotating)

    async def rotates_first(honest: Any, *_: object) -> Any:
        await asyncio.to_thread(rotate, folder)
        return await honest()

    async with misbehaving(rotating, answer=rotates_first, show=rotates_first) as target:
        verdict, bundle = await audited(parties, reply, target, trust_of(folder, parties))
    assert verdict.outcome == PASS, verdict.reasons
    keys = {entry.opening.signatures[0].keyid for entry in bundle.rounds}
    assert keys.isdisjoint({reply.receipt.commitment.signatures[0].keyid})


async def test_audits_share_a_key_set_until_it_shows_too_old(
    folder: KeyKeeper, rotating: Provider, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = [run_session(rotating) for _ in range(3)]
    for reply in replies:
        reply.ready()
    auditor = parties.auditor(trust=trust_of(folder, parties))
    asked: list[int] = []
    async with (
        serving(rotating) as target,
        ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
    ):
        get = client._stub.GetKeySet

        def counting(*arguments: Any, **options: Any) -> Any:
            asked[-1] += 1
            return get(*arguments, **options)

        monkeypatch.setattr(client._stub, "GetKeySet", counting)
        bundles = []
        for reply in replies:
            asked.append(0)
            if reply is replies[-1]:
                newest = await asyncio.to_thread(rotate, folder)
            bundles.append(await auditor.audit(reply.receipt, client))
        verdicts = [read_verdict(bundle.verdict.payload) for bundle in bundles]
        assert {verdict.outcome for verdict in verdicts} == {PASS}, verdicts
        assert asked == [1, 0, 1]
        assert bundles[-1].rounds[0].opening.signatures[0].keyid == newest
        asked.append(0)
        await client.served_key_set(within=0.0)
        assert asked[-1] == 1


async def test_a_reply_that_a_rotation_falls_into_is_sound(
    folder: KeyKeeper, rotating: Provider, parties: Parties
) -> None:
    session = rotating.session_class
    append = session.append

    def rotating_append(self: Any, *arguments: Any) -> Any:
        made = append(self, *arguments)
        if made:
            rotate(folder)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "append", rotating_append)
        reply = run_session(rotating)
    signers = {seen.checkpoint.signatures[0].keyid for seen in reply.receipt.checkpoints}
    assert len(signers) > 1
    async with serving(rotating) as target:
        verdict, _ = await audited(parties, reply, target, trust_of(folder, parties))
    assert verdict.outcome == PASS, verdict.reasons


async def test_what_a_revoked_key_signed_later_counts_against_nobody(
    folder: KeyKeeper, rotating: Provider, parties: Parties
) -> None:
    reply = run_session(rotating)
    reply.ready()
    rotate(folder)
    oldest = folder.read()[1].keys[0]
    folder.revoke(oldest.key.keyid, oldest.not_before, folder.root(None))
    async with serving(rotating) as target:
        verdict, _ = await audited(parties, reply, target, trust_of(folder, parties))
    assert failed(verdict) == ["KEY_WINDOW"]
    assert verdict.fault == receipt_pb2.FAULT_UNATTRIBUTED


async def test_a_key_set_that_drops_a_key_is_not_taken(
    folder: KeyKeeper, rotating: Provider, parties: Parties, tmp_path: Path
) -> None:
    """A provider cannot shed a commitment by leaving out the key that signed it."""
    reply = run_session(rotating)
    reply.ready()
    other = KeyKeeper(tmp_path / "other")
    root = folder.root(None)
    other.init(PROVIDER, KEY, root)
    for _ in range(2):
        other.rotate(KEY, HOUR, other.root(f"file:{folder.root_path}"))
    signer = RotatingSigner(other.path, PROVIDER)
    async with serving(rotating) as target:
        rotating._keys = signer
        verdict, bundle = await audited(parties, reply, target, trust_of(folder, parties))
    assert bundle.receipt.key_set == reply.receipt.key_set
    assert verdict.outcome == PASS, verdict.reasons


# Certificates of the domain


async def test_a_key_set_under_the_domains_certificate_is_audited_and_stays_checkable(
    parties: Parties, tmp_path: Path
) -> None:
    root = Certified()
    folder = KeyKeeper(tmp_path / "keys")
    ends = datetime.now(UTC) + HOUR
    leaf = root.authority.leaf(root.key, begins=ends - 90 * DAY, ends=ends)
    folder.init(PROVIDER, KEY, Root(root.signer, root.authority.chain(leaf)))
    trust = Trust([], parties.verifiers, [RootDomain(DOMAIN, (root.authority.root,))])
    signer = RotatingSigner(folder.path, PROVIDER)
    with parties.provider(signer=signer, key_set=signer) as provider:
        reply, later = run_session(provider), run_session(provider)
        for one in (reply, later):
            one.receipt.root_chain[:] = signer.served.root_chain
        async with serving(provider) as target:
            verdict, bundle = await audited(parties, reply, target, trust)
            assert verdict.outcome == PASS, verdict.reasons
            assert tuple(bundle.receipt.root_chain) == signer.served.root_chain
            # The certificate is renewed under a new key while the provider runs.
            renewed = root.authority.leaf(key := Certified().key)
            private, chain, _ = root.write(tmp_path, renewed, key)
            assert chain.exists()
            folder.rotate(KEY, HOUR, folder.root(f"file:{private}", root.authority.chain(renewed)))
            verdict, bundle = await audited(parties, later, target, trust)
            assert verdict.outcome == PASS, verdict.reasons
            assert tuple(bundle.receipt.root_chain) == root.authority.chain(renewed)
            for wrong in (
                replace(trust, provider_domains=[RootDomain("b.example", (root.authority.root,))]),
                replace(trust, provider_domains=[]),
                Trust([parties.root.public], parties.verifiers),
                Trust(
                    [],
                    pinned("v", [parties.verifier.public]),
                    [RootDomain(DOMAIN, (Certified().authority.root,))],
                ),
            ):
                verdict, _ = await audited(parties, reply, target, wrong)
                assert failed(verdict) == ["SIGNATURE"]
                assert verdict.fault == receipt_pb2.FAULT_UNATTRIBUTED
