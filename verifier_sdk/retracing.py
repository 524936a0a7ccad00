"""Walk through the steps that a bundle shows, and see whether the auditor took those it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from coin_protocol.checks import Case
from coin_protocol.replaying import ABSENT, Difference
from coin_protocol.v1 import opening_pb2, receipt_pb2
from verifier_sdk.deciding import AskManifest, AskRound, AskWhole, Course, Decided

_BY_KEYS: Final = frozenset({"SIGNATURE", "KEY_WINDOW", "PROFILE"})
"""Checks that a key set may fail which came in the middle of the audit: a bundle holds the last
one, and does not say what had come before it."""


def retrace(case: Case, course: Course, *, verifier: str) -> Decided | Difference:
    """Return what an audit's course ends in, or where the auditor left it.

    Args:
        case: All evidence of a bundle.
        course: Under the policy.
        verifier: Who audited.

    Raises:
        InvalidInputError: The verifier's own part of the evidence is malformed.
        ConfigurationError: The judge or a model is needed and not there.
    """
    at = _beginning(case)
    while True:
        step = course.next(at)
        if isinstance(step, Decided):
            failed = step.report.failed
            if failed is not None and failed.code in _BY_KEYS:
                everything = course.next(case)
                if isinstance(everything, Decided):
                    return everything
            return _left_over(case, at, step) or step
        if isinstance(step, AskManifest):
            if case.manifest is None and not case.no_manifest:
                return Difference("manifest", ABSENT, "asked for: no check had failed")
            if case.manifest is not None and case.no_manifest:
                return Difference("no_manifest", case.no_manifest, f"{ABSENT}: the manifest came")
            at = replace(case, rounds=(), whole_rounds=())
            continue
        difference = _other_challenge(case, at, step, verifier)
        if difference is not None:
            return difference
        if isinstance(step, AskRound):
            at = replace(at, rounds=case.rounds[: len(at.rounds) + 1])
        else:
            at = replace(at, whole_rounds=case.whole_rounds[:1])


def _beginning(case: Case) -> Case:
    """Return the case as the auditor had it before it asked for anything."""
    receipt = case.receipt
    if case.manifest is not None and receipt.HasField("fingerprints"):
        # They may have come with the manifest; such as came before it were good, or it had not
        # been asked for.
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(case.receipt)
        receipt.ClearField("fingerprints")
    return replace(case, receipt=receipt, manifest=None, no_manifest="", rounds=(), whole_rounds=())


def _other_challenge(
    case: Case, at: Case, step: AskRound | AskWhole, verifier: str
) -> Difference | None:
    """Return where the next challenge is missing, or other than the policy asks for."""
    challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge
    if isinstance(step, AskRound):
        number = len(at.rounds)
        path, shown = f"rounds[{number}]", case.rounds[number : number + 1]
        asked = f"round {step.number} asked for: {step.why}"
    else:
        path, shown = "whole_rounds[0]", case.whole_rounds[:1]
        asked = f"{step.blocks} blocks asked for, to be opened whole"
    if not shown:
        return Difference(path, ABSENT, asked)
    entry = shown[0]
    challenge = case.challenge(entry) if isinstance(step, AskRound) else case.whole_challenge(entry)
    for name, value in {"verifier": verifier, **step.asks}.items():
        found = getattr(challenge, name)
        if found != value:
            return Difference(f"{path}.challenge.{name}", str(found), str(value))
    return None


def _left_over(case: Case, at: Case, decided: Decided) -> Difference | None:
    """Return what the bundle shows beyond where the audit was decided."""
    if decided.report.failed is not None:
        why = f"{decided.report.failed.code} had failed"
    elif decided.judgement is not None:
        why = decided.judgement.reason
    else:
        why = "there was nothing to open"
    for path, shown, seen in (
        ("manifest", case.manifest, at.manifest),
        ("no_manifest", case.no_manifest, at.no_manifest),
    ):
        if shown and not seen:
            return Difference(path, "asked for", f"not asked for: {why}")
    for name, every, used in (
        ("rounds", case.rounds, at.rounds),
        ("whole_rounds", case.whole_rounds, at.whole_rounds),
    ):
        if len(every) > len(used):
            return Difference(f"{name}[{len(used)}]", "asked for", f"decided before: {why}")
    return None
