"""Test vectors of bundles: does the evidence bear out the deterministic part of a verdict?

Evidence is that of a `World`, signed as it signs; verdicts are written by hand, check by check,
and nothing of them is taken from the code under test. An implementation that reads a bundle
runs the checks again and compares (protocol, sections 2, 7 and 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol.checks import Case
from coin_protocol.keyset import stamp
from coin_protocol.testing.forgeries import (
    POLICY,
    audit,
    both,
    change,
    embedded,
    flipped,
    put,
    unanswered,
    without,
)
from coin_protocol.testing.key_vectors import ed25519_key, encoded, key_id, pem, spki
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    in_base64,
    refused,
)
from coin_protocol.testing.world import START, VERIFIER, Edit, World
from coin_protocol.v1 import envelope_pb2, opening_pb2, profile_pb2, statements_pb2
from coin_protocol.v1 import receipt_pb2 as pb

FORMAT: Final = "coin.bundle.v1"
CODES: Final = (
    "SIGNATURE", "STATEMENT", "KEY_WINDOW", "PROFILE", "CLIENT_NONCE", "REQUEST_DIGEST",
    "ANSWER_DIGEST", "BILL", "MANIFEST_ROOT", "SIZES", "CHECKPOINT_PREFIX", "FINGERPRINTS",
    "FLIP", "DRAW", "OPENING_PRESENT", "INCLUSION_PROOF", "BLOCK_COUNT", "LEAF_REPEATED",
    "TOKEN_ROW", "WINDOW_EMBEDDING", "WHOLE_LEAVES", "WHOLE_TEXT", "WHOLE_EMBEDDING",
    "ARRIVAL_TIME",
)  # fmt: skip
"""All checks, in the order of the protocol's table."""

_OPERATION: Final = "verify_bundle"
_TYPE: Final = "application/vnd.coin.verdict.v1+protobuf"
_LIE: Final = "VerificationError"
_INVALID: Final = "InvalidInputError"
_PASSED: Final = pb.CHECK_STATUS_PASSED
_FAILED: Final = pb.CHECK_STATUS_FAILED
_SKIPPED: Final = pb.CHECK_STATUS_SKIPPED
_WHOLE: Final = ("WHOLE_LEAVES", "WHOLE_TEXT", "WHOLE_EMBEDDING")
_UNCHECKED: Final = ("WHOLE_TEXT", "WHOLE_EMBEDDING")
_OPENED: Final = (
    "FLIP", "DRAW", "INCLUSION_PROOF", "BLOCK_COUNT", "TOKEN_ROW", "WINDOW_EMBEDDING",
)  # fmt: skip
_A: Final = (pb.TIER_ASSERTED,)
_C: Final = (*_A, pb.TIER_COMMITTED)
_T: Final = (*_C, pb.TIER_TIMED)
_O: Final = (*_T, pb.TIER_OPENED)


@dataclass(frozen=True)
class Said:
    """A verdict on evidence, as an honest verifier gives it.

    Attributes:
        case: The evidence.
        skipped: Codes of checks that have nothing to look at.
        failed: Code of the one that fails; those behind it are skipped.
        tiers: Earned, weakest first.
        outcome: Of the failure, or the judge's.
        fault: Of the failure.
        no_manifest: Why there is no manifest.
        more: Other fields of the verdict.
    """

    case: Case
    skipped: Sequence[str] = ()
    failed: str | None = None
    tiers: Sequence[pb.Tier.ValueType] = _A
    outcome: pb.Outcome.ValueType = pb.OUTCOME_PASS
    fault: pb.Fault.ValueType = pb.FAULT_UNSPECIFIED
    no_manifest: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def verdict(self) -> pb.Verdict:
        """Return the verdict."""
        digest = sha256(self.case.receipt.commitment.payload).digest()
        exposure = shown(self.case)
        found = pb.Verdict(
            commitment_sha256=digest,
            profile_sha256=sha256(self.case.profile.raw).digest(),
            policy_sha256=sha256(self.case.policy.raw).digest(),
            verifier=VERIFIER,
            outcome=self.outcome,
            tier=self.tiers[-1],
            tiers=self.tiers,
            fault=self.fault,
            reasons=["For people."],
            exposure=exposure,
            id_source=statements_pb2.ID_SOURCE_SAMPLED,
            decided_at=stamp(START + timedelta(hours=2)),
        )
        ended = False
        for code in CODES:
            status = _SKIPPED if ended or code in self.skipped else _PASSED
            if code == self.failed:
                status, ended = _FAILED, True
            found.checks.add(code=code, status=status)
        if exposure.block_embeddings and self.failed is None:
            found.scores.add(name="cosine", value=0.9)
        for path, value in self.more.items():
            put(path, value)(found)
        return found


def shown(case: Case) -> pb.Exposure:
    """Return how much the openings show, each place and block once."""
    tokens: set[tuple[int, int]] = set()
    embeddings: set[int] = set()
    whole: set[int] = set()
    for entry in case.rounds:
        opening = opening_pb2.Opening.FromString(entry.opening.payload)
        if entry.HasField("opening"):
            tokens.add((opening.edge.block_index, opening.edge.last_token.position))
        for block in opening.blocks:
            embeddings.add(block.block_index)
            tokens.update((block.block_index, token.position) for token in block.tokens)
    for entry in case.whole_rounds:
        opened = opening_pb2.WholeBlockOpening.FromString(entry.opening.payload)
        whole.update(block.block_index for block in opened.blocks)
    return pb.Exposure(
        tokens=len(tokens), block_embeddings=len(embeddings), whole_blocks=len(whole)
    )


def bundle_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_borne_out(), *_lies(), *_without_models(), *_untrusted(), *_malformed()])


def _keep(_: object) -> None:
    """Edit nothing."""


def _sampled(**reply: Any) -> Case:  # noqa: ANN401 - as `World.reply` takes them
    return audit(**reply).ask().case()


def _said_sampled(**more: Any) -> Said:  # noqa: ANN401 - fields of the verdict
    return Said(_sampled(), _WHOLE, tiers=_T, more=more)


def _said_whole() -> Said:
    return Said(audit().ask().ask_whole().case(), tiers=_O)


def _said_overbilled() -> Said:
    case = audit(edit_commitment=put("usage.reasoning_tokens", 30)).case()
    return Said(case, failed="BILL", outcome=pb.OUTCOME_FAIL, fault=pb.FAULT_PROVIDER)


def _said_another_answer() -> Said:
    case = audit(edit_receipt=put("answer", b"forged")).case()
    return Said(case, failed="ANSWER_DIGEST", outcome=pb.OUTCOME_FAIL, fault=pb.FAULT_UNATTRIBUTED)


def _said_nothing_asked() -> Said:
    skipped = (*_OPENED, *_WHOLE, "OPENING_PRESENT")
    return Said(audit().case(), skipped, outcome=pb.OUTCOME_INCONCLUSIVE)


def _said_unanswered(status: str, outcome: pb.Outcome.ValueType, fault: pb.Fault.ValueType) -> Said:
    case = audit().ask(edit_round=unanswered(status)).case()
    return Said(case, _OPENED, failed="OPENING_PRESENT", outcome=outcome, fault=fault)


def _said_no_manifest(
    status: str, outcome: pb.Outcome.ValueType, fault: pb.Fault.ValueType
) -> Said:
    case = audit().case()
    skipped = ("MANIFEST_ROOT", "SIZES", *_OPENED)
    return Said(
        Case(receipt=case.receipt, trust=case.trust, profile=case.profile, policy=case.policy),
        skipped,
        failed="OPENING_PRESENT",
        outcome=outcome,
        fault=fault,
        no_manifest=status,
    )


def _said_copied() -> Said:
    """Return a verdict on embeddings that are not those of the text."""

    def reversed_rows(rows: list[bytes]) -> list[bytes]:
        return rows[::-1]

    case = audit(tokens=24, opener=embedded(reversed_rows)).ask().ask_whole().case()
    return Said(
        case,
        failed="WHOLE_EMBEDDING",
        tiers=_C,
        outcome=pb.OUTCOME_FAIL,
        fault=pb.FAULT_PROVIDER,
    )


def _signed(verdict: pb.Verdict, signer: str = VERIFIER) -> envelope_pb2.Envelope:
    """Return a verdict, signed under the name of the verifier's key."""
    payload = verdict.SerializeToString(deterministic=True)
    key = _key(signer)
    found = envelope_pb2.Envelope(payload=payload, payload_type=_TYPE)
    found.signatures.add(
        sig=key.sign(encoded(_TYPE.encode(), payload)), keyid=key_id(signer, 1, spki(key))
    )
    return found


def _key(name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(World().random(f"key {name}", 32))


def bundle(said: Said, edit: Edit[Any] = _keep, signer: str = VERIFIER) -> pb.Bundle:
    """Return a bundle of what was said, the verdict edited before it is signed."""
    verdict = said.verdict()
    edit(verdict)
    case = said.case
    return pb.Bundle(
        format=FORMAT,
        receipt=case.receipt,
        manifest=case.manifest,
        no_manifest=said.no_manifest or None,
        rounds=case.rounds,
        whole_rounds=case.whole_rounds,
        verdict=_signed(verdict, signer),
    )


def _given(said: Said, made: pb.Bundle, *, models: bool = True) -> dict[str, object]:
    return {
        "bundle": in_base64(made.SerializeToString(deterministic=True)),
        "provider_roots": [pem(spki(_key("root")))],
        "verifiers": {VERIFIER: pem(spki(_key(VERIFIER)))},
        "profile": in_base64(said.case.profile.raw),
        "policy": in_base64(said.case.policy.raw),
        "models": "small" if models else None,
    }


def _value(said: Said, unchecked: Sequence[str] = ()) -> dict[str, object]:
    return {
        "failed": said.failed,
        "outcome": pb.Outcome.Name(said.outcome),
        "fault": pb.Fault.Name(said.fault),
        "tiers": [pb.Tier.Name(tier) for tier in said.tiers],
        "unchecked": list(unchecked),
    }


def _borne_out() -> list[dict[str, object]]:
    blameless = pb.OUTCOME_INCONCLUSIVE, pb.FAULT_UNSPECIFIED
    guilty = pb.OUTCOME_FAIL, pb.FAULT_PROVIDER
    again = put("id_source", statements_pb2.ID_SOURCE_RETOKENIZED)
    hung_up = both(
        put("abort_reason", statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED),
        put("answer_sha256", bytes(32)),
    )
    cases = (
        ("sampled", "A judge passed what was sampled.", _said_sampled()),
        ("whole", "Every check passed.", _said_whole()),
        ("judged-inconclusive", "The judge did not decide.",
         _said_sampled(outcome=pb.OUTCOME_INCONCLUSIVE)),
        ("judged-fail", "The judge accuses the provider, by scores of opened blocks.",
         _said_sampled(outcome=pb.OUTCOME_FAIL, fault=pb.FAULT_PROVIDER)),
        ("nothing-asked", "Nothing was opened.", _said_nothing_asked()),
        ("no-tokens", "A reply without reasoning has nothing to open.",
         Said(audit(tokens=0).case(),
              (*_OPENED, *_WHOLE, "CHECKPOINT_PREFIX", "OPENING_PRESENT", "ARRIVAL_TIME"),
              tiers=_C)),
        ("overbilled", "The bill counts more than was committed.", _said_overbilled()),
        ("another-answer", "The client shows another answer.", _said_another_answer()),
        ("unanswered", "The provider let the deadline pass.",
         _said_unanswered("DEADLINE_EXCEEDED", *guilty)),
        ("not-reached", "Nobody is blamed for a network.",
         _said_unanswered("UNAVAILABLE", *blameless)),
        ("not-permitted", "Nor for not knowing this verifier.",
         _said_unanswered("PERMISSION_DENIED", *blameless)),
        ("not-authenticated", "Nor for not knowing this verifier.",
         _said_unanswered("UNAUTHENTICATED", *blameless)),
        ("past-its-retention", "Nor for silence after its time.",
         _said_unanswered("RETENTION_ENDED", *blameless)),
        ("no-manifest", "The provider gave no manifest.",
         _said_no_manifest("DEADLINE_EXCEEDED", *guilty)),
        ("no-manifest-not-reached", "It may not have been asked.",
         _said_no_manifest("UNAVAILABLE", *blameless)),
        ("embeddings-of-other-text", "The models show that embeddings were made up.",
         _said_copied()),
        ("retokenized", "The verdict repeats where ids come from.",
         Said(_sampled(edit_commitment=again), _WHOLE, tiers=_T,
              more={"id_source": statements_pb2.ID_SOURCE_RETOKENIZED})),
        ("hung-up", "The verdict repeats why the reply ended; its answer nobody knows.",
         Said(_sampled(edit_commitment=hung_up), (*_WHOLE, "ANSWER_DIGEST"), tiers=_T,
              more={"abort_reason": statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED})),
        ("no-fingerprints-yet", "The fingerprints are still being made.",
         Said(audit(edit_receipt=without("fingerprints")).case(),
              (*_OPENED, *_WHOLE, "FINGERPRINTS", "OPENING_PRESENT"),
              outcome=pb.OUTCOME_INCONCLUSIVE)),
    )  # fmt: skip
    return [
        accepted(
            f"borne-out-{name}",
            about,
            _OPERATION,
            _given(said, bundle(said)),
            _value(_as_said(said)),
        )
        for name, about, said in cases
    ]


def _as_said(said: Said) -> Said:
    """Return what was said, with outcome and fault as the verdict has them."""
    verdict = said.verdict()
    return Said(said.case, said.skipped, said.failed, said.tiers, verdict.outcome, verdict.fault)


def _status(code: str, status: pb.CheckStatus.ValueType) -> Edit[pb.Verdict]:
    def edit(verdict: pb.Verdict) -> None:
        verdict.checks[CODES.index(code)].status = status

    return edit


def _tiers(*tiers: pb.Tier.ValueType) -> Edit[Any]:
    return both(put("tiers", list(tiers)), put("tier", tiers[-1]))


def _lies() -> list[dict[str, object]]:
    sampled, whole, billed = _said_sampled(), _said_whole(), _said_overbilled()
    answer, copied, nothing = _said_another_answer(), _said_copied(), _said_nothing_asked()
    away = _said_unanswered("UNAVAILABLE", pb.OUTCOME_INCONCLUSIVE, pb.FAULT_UNSPECIFIED)
    passed, failed = put("outcome", pb.OUTCOME_PASS), put("outcome", pb.OUTCOME_FAIL)
    nobody, provider = put("fault", pb.FAULT_UNSPECIFIED), put("fault", pb.FAULT_PROVIDER)
    unsaid = put("outcome", pb.OUTCOME_INCONCLUSIVE)
    cases: tuple[tuple[str, str, Said, Edit[Any], str], ...] = (
        ("passed-a-failed-check", "A failed check is called passed, and the audit a PASS.",
         answer, both(_status("ANSWER_DIGEST", _PASSED), both(passed, nobody)), "checks"),
        ("passed-despite-a-failed-check", "A check is said to fail, and the audit to pass.",
         answer, passed, "outcome"),
        ("undecided-despite-a-failed-check", "A check fails, and nothing is said to be decided.",
         billed, unsaid, "outcome"),
        ("failed-for-a-network", "Nobody can be blamed, and somebody is.", away,
         both(failed, provider), "outcome"),
        ("failed-without-scores", "A judge that accuses has its scores.", sampled,
         both(both(failed, provider), put("scores", [])), "outcome"),
        ("failed-where-nothing-was-opened", "A judge has nothing to go by.", nothing,
         both(both(failed, provider), put("scores", [pb.Score(name="cosine", value=0.1)])),
         "outcome"),
        ("passed-where-nothing-was-opened", "Nothing was opened that could bear it out.", nothing,
         passed, "outcome"),
        ("fault-without-a-failure", "Nothing failed, and the provider is blamed.", sampled,
         provider, "fault"),
        ("fault-of-the-provider", "Nobody can tell who altered the answer.", answer, provider,
         "fault"),
        ("fault-of-nobody", "The provider signed the false bill.", billed, nobody, "fault"),
        ("checks-left-out", "No check is reported.", sampled, put("checks", []), "checks"),
        ("check-left-out", "The last check is not reported.", sampled,
         change("checks", lambda found: list(found)[:-1]), "checks"),
        ("check-said-twice", "A check too many.", sampled,
         change("checks", lambda found: [*found, found[0]]), "checks"),
        ("checks-in-another-order", "Checks have an order.", sampled,
         change("checks", lambda found: list(found)[::-1]), "checks"),
        ("check-unheard-of", "A check that there is none of.", sampled,
         put("checks.3.code", "HONESTY"), "checks"),
        ("check-said-to-fail", "A check passes that is said to fail.", sampled,
         both(_status("BILL", _FAILED), both(failed, provider)), "checks"),
        ("check-said-to-pass-without-evidence", "No block was opened whole.", sampled,
         _status("WHOLE_LEAVES", _PASSED), "checks"),
        ("check-said-to-pass-behind-a-failed-one", "Checks stop at the first that fails.", billed,
         _status("TOKEN_ROW", _PASSED), "checks"),
        ("two-checks-said-to-fail", "Checks stop at the first that fails.", billed,
         _status("SIZES", _FAILED), "checks"),
        ("another-check-said-to-fail", "It is the bill that is false.", billed,
         both(_status("BILL", _PASSED), _status("SIZES", _FAILED)), "checks"),
        ("failed-check-skipped", "A failed check is called skipped.", billed,
         _status("BILL", _SKIPPED), "checks"),
        ("whole-check-said-to-pass", "The models show that it fails.", copied,
         both(_status("WHOLE_EMBEDDING", _PASSED), both(passed, nobody)), "checks"),
        ("whole-check-said-to-fail", "The models show that it passes.", whole,
         both(_status("WHOLE_EMBEDDING", _FAILED), both(failed, provider)), "checks"),
        ("tier-unearned", "A tier that nothing earned.", sampled, _tiers(*_O), "tier"),
        ("tier-not-built", "A tier that no audit earns.", sampled,
         _tiers(*_T, pb.TIER_ATTESTED), "tier"),
        ("tier-not-the-last-earned", "The strongest tier is the last of those earned.", sampled,
         put("tier", pb.TIER_COMMITTED), "tier"),
        ("tiers-more-than-earned", "The strongest is right, the list is not.", sampled,
         put("tiers", [pb.TIER_ASSERTED, pb.TIER_TIMED]), "tiers"),
        ("tier-despite-a-failed-check", "Before anything was opened a check failed.", billed,
         _tiers(*_C), "tier"),
        ("tier-of-nothing-opened", "Nothing was opened.", nothing, _tiers(*_C), "tier"),
        ("exposure-less", "More tokens are open than is said.", sampled,
         change("exposure.tokens", lambda found: found - 1), "exposure"),
        ("exposure-left-out", "Something is open.", sampled, without("exposure"), "exposure"),
        ("exposure-of-whole-blocks", "No block was opened whole.", sampled,
         put("exposure.whole_blocks", 1), "exposure"),
        ("source-of-ids-changed", "Ids are said to be tokenized again.", sampled,
         put("id_source", statements_pb2.ID_SOURCE_RETOKENIZED), "id_source"),
        ("reply-said-to-be-cut", "The commitment is to a whole reply.", sampled,
         put("abort_reason", statements_pb2.ABORT_REASON_CANCELLED), "abort_reason"),
        ("of-another-commitment", "The verdict is on another commitment.", sampled,
         flipped("commitment_sha256"), "commitment_sha256"),
    )  # fmt: skip
    found = []
    for name, about, said, lie, where in cases:
        given = _given(said, bundle(said, lie))
        found.append(refused(f"lie-{name}", about, _OPERATION, given, _LIE, difference=where))
    return found + _evidence_left_out()


def _evidence_left_out() -> list[dict[str, object]]:
    """Return bundles that lack what a verdict rests on."""
    said = _said_whole()
    found = []
    for name, about, edit in (
        ("rounds-left-out", "The opening was left out after the verdict.", without("rounds")),
        ("whole-rounds-left-out", "The block opened whole was left out.", without("whole_rounds")),
    ):
        made = bundle(said)
        edit(made)
        given = _given(said, made)
        found.append(refused(f"lie-{name}", about, _OPERATION, given, _LIE, difference="tier"))
    made = bundle(said)
    made.ClearField("manifest")
    about = "The manifest was left out, and no challenge can be checked without it."
    return [
        *found,
        refused("lie-manifest-left-out", about, _OPERATION, _given(said, made), _INVALID),
    ]


def _without_models() -> list[dict[str, object]]:
    whole, copied, sampled = _said_whole(), _said_copied(), _said_sampled()
    early = put("checkpoints.0.seen_at", stamp(START))
    late = Said(
        audit(edit_receipt=early).ask().ask_whole().case(),
        failed="ARRIVAL_TIME",
        tiers=(*_C, pb.TIER_OPENED),
        outcome=pb.OUTCOME_FAIL,
        fault=pb.FAULT_UNATTRIBUTED,
    )
    right = (
        ("whole", "What takes models is believed, and named.", whole, _UNCHECKED),
        ("embeddings-of-other-text", "A failure that takes models is believed, and named.",
         copied, _UNCHECKED),
        ("sampled", "Nothing takes models.", sampled, ()),
        ("too-fast", "A check behind those fails by itself.", late, _UNCHECKED),
    )  # fmt: skip
    wrong: tuple[tuple[str, str, Said, Edit[Any], str], ...] = (
        ("leaves-skipped", "The leaves of a block opened whole take no models.", whole,
         _status("WHOLE_LEAVES", _SKIPPED), "checks"),
        ("whole-checks-said-to-pass", "No block was opened whole.", sampled,
         both(_status("WHOLE_TEXT", _PASSED), _status("WHOLE_EMBEDDING", _PASSED)), "checks"),
        ("whole-check-said-to-fail", "No block was opened whole.", sampled,
         both(_status("WHOLE_EMBEDDING", _FAILED),
              both(put("outcome", pb.OUTCOME_FAIL), put("fault", pb.FAULT_PROVIDER))), "checks"),
        ("passed-a-failed-whole-check", "It is said to fail, and the audit to pass.", copied,
         both(put("outcome", pb.OUTCOME_PASS), put("fault", 0)), "outcome"),
        ("tier-of-a-failed-whole-check", "A failed check earns no tier.", copied,
         _tiers(*_C, pb.TIER_OPENED), "tier"),
    )  # fmt: skip
    return [
        accepted(
            f"modelless-{name}",
            about,
            _OPERATION,
            _given(said, bundle(said), models=False),
            _value(said, unchecked),
        )
        for name, about, said, unchecked in right
    ] + [
        refused(
            f"modelless-{name}",
            about,
            _OPERATION,
            _given(said, bundle(said, lie), models=False),
            _LIE,
            difference=where,
        )
        for name, about, said, lie, where in wrong
    ]


def _untrusted() -> list[dict[str, object]]:
    """Return verdicts that nobody known gave, or that are on something else."""
    said = _said_sampled()
    altered = bundle(said)
    flipped("verdict.payload")(altered)
    other_type = bundle(said)
    other_type.verdict.payload_type = _TYPE.replace("verdict", "opening")
    by_provider = bundle(said, signer="provider")
    stranger = {VERIFIER: pem(spki(ed25519_key("stranger")))}
    policy = profile_pb2.Policy.FromString(POLICY.raw)
    policy.name = "another"
    other_profile = in_base64(small_profile(whole_blocks_ppm=0).raw)
    other_policy = in_base64(policy.SerializeToString(deterministic=True))
    good = bundle(said)
    cases: tuple[tuple[str, str, dict[str, object], str], ...] = (
        ("by-a-stranger", "The reader knows another key of that name.",
         _given(said, good) | {"verifiers": stranger}, "SignatureError"),
        ("by-nobody-known", "The reader knows no verifier.",
         _given(said, good) | {"verifiers": {}}, "SignatureError"),
        ("by-the-provider", "A provider gives no verdicts.", _given(said, by_provider),
         "SignatureError"),
        ("altered", "The verdict was altered after it was signed.", _given(said, altered),
         "SignatureError"),
        ("of-another-type", "The verdict is shown as an opening.", _given(said, other_type),
         "SignatureError"),
        ("in-another-s-name", "A verifier signs in its own name.",
         _given(said, bundle(said, put("verifier", "another"))), _LIE),
        ("of-no-outcome", "A verdict says what came of the audit.",
         _given(said, bundle(said, put("outcome", 0))), "StatementError"),
        ("under-another-profile", "The verdict names another profile than the reader's.",
         _given(said, good) | {"profile": other_profile}, _INVALID),
        ("under-another-policy", "The verdict names another policy than the reader's.",
         _given(said, good) | {"policy": other_policy}, _INVALID),
    )  # fmt: skip
    return [
        refused(f"verdict-{name}", about, _OPERATION, given, error)
        for name, about, given, error in cases
    ]


def _malformed() -> list[dict[str, object]]:
    """Return bundles whose verifier wrote something that no verifier writes."""
    said = _said_sampled()

    def given(edit: Edit[Any]) -> dict[str, object]:
        made = bundle(said)
        edit(made)
        return _given(said, made)

    def asked(edit: Edit[opening_pb2.Challenge]) -> dict[str, object]:
        case = audit().ask(edit_challenge=edit).case()
        return _given(said, bundle(Said(case, _WHOLE, tiers=_T)))

    soon = stamp(START + timedelta(hours=1, seconds=29))
    cases: tuple[tuple[str, str, dict[str, object], str], ...] = (
        ("of-version-2", "A file of a later version.", given(put("format", "coin.bundle.v2")),
         _INVALID),
        ("without-a-receipt", "A bundle has a receipt.", given(without("receipt")), _INVALID),
        ("without-a-verdict", "A bundle has a verdict.", given(without("verdict")), _INVALID),
        ("round-without-an-answer", "A round has an answer, or says why not.",
         given(without_in("rounds.0", "opening")), _INVALID),
        ("round-with-two-answers", "A round has one answer.",
         given(put("rounds.0.no_answer", "UNAVAILABLE")), _INVALID),
        ("round-without-its-challenge", "A round has a challenge.",
         given(without_in("rounds.0", "challenge")), _INVALID),
        ("round-without-its-time", "A round says when it was answered.",
         given(without_in("rounds.0", "received_at")), _INVALID),
        ("rounds-past-the-chain", "A commitment answers 64 challenges at most.",
         given(change("rounds", lambda found: [unanswered_round(found[0])] * 65)), "LimitError"),
        ("challenge-altered", "No known verifier signed the challenge.",
         given(flipped("rounds.0.challenge.payload")), _INVALID),
        ("challenge-of-other-fingerprints", "The challenge is of another commitment.",
         asked(put("fingerprints_sha256", bytes(32))), _INVALID),
        ("challenge-of-a-short-deadline", "The challenge gave less than half the policy's time.",
         asked(put("deadline", soon)), _INVALID),
    )  # fmt: skip
    return [
        refused(f"bundle-{name}", about, _OPERATION, values, error)
        for name, about, values, error in cases
    ]


def without_in(path: str, name: str) -> Edit[Any]:
    """Return an edit that clears a field of the message at `path`."""

    def edit(message: Any) -> None:  # noqa: ANN401 - a message of any kind
        for part in path.split("."):
            message = message[int(part)] if part.isdigit() else getattr(message, part)
        message.ClearField(name)

    return edit


def unanswered_round(entry: pb.Round) -> pb.Round:
    """Return a round without its opening, which is most of its bytes."""
    found = pb.Round()
    found.CopyFrom(entry)
    unanswered("UNAVAILABLE")(found)
    return found
