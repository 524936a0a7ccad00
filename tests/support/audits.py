"""Run audits over real sockets, and read what came of them."""

from __future__ import annotations

from typing import Any

from coin_protocol.models import Models
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.statements import read_verdict
from coin_protocol.transport import TlsFiles
from coin_protocol.v1 import receipt_pb2
from tests.support.parties import WAIT_SECONDS, Parties
from verifier_sdk.client import ProviderClient
from verifier_sdk.replaying import replay_bundle
from verifier_sdk.semantic import Judge


async def audit(
    parties: Parties,
    receipt: receipt_pb2.Receipt,
    target: str,
    *,
    tls: TlsFiles | None = None,
    call_seconds: float = WAIT_SECONDS,
    **auditor: Any,
) -> receipt_pb2.Verdict:
    """Audit over the wire; whatever the verdict, the bundle must bear it out offline."""
    async with ProviderClient(target, tls=tls, timeout=call_seconds) as client:
        bundle = await parties.auditor(**auditor).audit(receipt, client)
    judging = {name: auditor.get(name) for name in ("judge", "reference", "models")}
    bear_out(parties, bundle, auditor.get("policy", parties.policy), **judging)
    return verdict_of(bundle)


def bear_out(
    parties: Parties,
    bundle: receipt_pb2.Bundle,
    policy: Policy,
    *,
    models: Models | None = None,
    judge: Judge | None = None,
    reference: Any = None,
) -> None:
    """Check a bundle again, and decide it again, offline, from its bytes alone."""
    models = models or parties.models
    raw = bundle.SerializeToString()
    verify_bundle(
        read_bundle(raw),
        trust=parties.trust,
        profile=parties.profile,
        policy=policy,
        installed=(models.tokenizer, models.embedder),
    )
    found = replay_bundle(
        read_bundle(raw),
        trust=parties.trust,
        models=models,
        policy=policy,
        judge=judge,
        reference=reference,
    )
    assert found.difference is None, found.difference


def verdict_of(bundle: receipt_pb2.Bundle) -> receipt_pb2.Verdict:
    """Return a bundle's verdict."""
    return read_verdict(bundle.verdict.payload)


def failed(verdict: receipt_pb2.Verdict) -> list[str]:
    """Return the codes of the checks that failed."""
    status = receipt_pb2.CHECK_STATUS_FAILED
    return [result.code for result in verdict.checks if result.status == status]


def says(verdict: receipt_pb2.Verdict, words: str) -> bool:
    """Whether a reason has these words, in small letters."""
    return any(words in reason.lower() for reason in verdict.reasons)
